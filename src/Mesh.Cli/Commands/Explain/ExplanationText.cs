using System.Globalization;
using System.Text;
using Mesh.Cli.Text;

namespace Mesh.Cli.Commands.Explain;

/// <summary>An explanation for people: who asks, what is asked for, a line for each candidate, and the verdict.</summary>
internal static class ExplanationText
{
    private const string Headers = "BACKEND\tCLUSTER\tREVISION\tAGE\tSTATE\tTIER\tSEGMENT\tSLOT\tTABLE\tCHANCE\tWHY";

    public static string Of(Explanation explanation)
    {
        var text = new StringBuilder();
        var identity = explanation.Identity is { } number ? $", identity {number}" : "";
        text.Append(CultureInfo.InvariantCulture,
            $"client   {explanation.Client}{identity}, {(explanation.External ? "outside the cluster" : "of the cluster")}, at {explanation.Node}\n");
        if (explanation.Service.Length > 0)
            text.Append(CultureInfo.InvariantCulture,
                $"service  {explanation.Service}, {(explanation.Global ? "global" : "not global")}, {explanation.Choice}\n");
        text.Append(CultureInfo.InvariantCulture, $"agent    {Agent(explanation.AgentSilence)}\n");
        foreach (var remark in explanation.Remarks)
            text.Append(CultureInfo.InvariantCulture, $"note     {remark}\n");
        foreach (var frontend in explanation.Frontends)
            Append(text, frontend);
        text.Append(explanation.Agrees ? "map and intention agree\n" : "MAP AND INTENTION DIFFER\n");
        return text.ToString();
    }

    private static void Append(StringBuilder text, ExplainedFrontend frontend)
    {
        var port = frontend.PortName.Length > 0 ? $" ({frontend.PortName})" : "";
        var map = frontend.ServiceId is { } id ? $"service {id}, generation {frontend.Generation}, {frontend.Segments} segments" : "not in the map";
        text.Append(CultureInfo.InvariantCulture, $"\n{frontend.Address}{port} {frontend.Type}: {map}\n");
        if (frontend.Withheld is { } why)
            text.Append(CultureInfo.InvariantCulture, $"not served: {why}\n");
        var candidates = frontend.Backends.Where(backend => !backend.IsOfAnotherKind).ToList();
        if (candidates.Count == 0)
            text.Append("no cluster offers a backend\n");
        else
            text.Append(Table(candidates));
        if (candidates.Count < frontend.Backends.Count)
            text.Append(CultureInfo.InvariantCulture, $"and {OfAnotherKind(frontend.Backends)}; -o json names them\n");
        if (frontend.LeftOut > 0)
            text.Append(CultureInfo.InvariantCulture, $"{frontend.LeftOut} more candidates are not written down: the map is not compared\n");
        foreach (var difference in frontend.Differences)
            text.Append(CultureInfo.InvariantCulture, $"DIFFERS  {difference}\n");
    }

    /// <summary>Counted by the rule that cut them: there is one for each port of the Service and each address of its pods.</summary>
    private static string OfAnotherKind(IEnumerable<ExplainedBackend> backends) => string.Join(", ", backends
        .Where(backend => backend.IsOfAnotherKind).GroupBy(backend => backend.Rule).OrderBy(group => group.Key, StringComparer.Ordinal)
        .Select(group => string.Create(CultureInfo.InvariantCulture, $"{group.Count()} {group.Key}")));

    private static string Table(IEnumerable<ExplainedBackend> backends)
    {
        var table = new TabWriter(2);
        table.Line(Headers);
        foreach (var backend in backends)
            table.Row(
                backend.Address,
                backend.Cluster.Length > 0 ? backend.Cluster : backend.ClusterId.ToString(CultureInfo.InvariantCulture),
                backend.Revision > 0 ? backend.Revision.ToString(CultureInfo.InvariantCulture) : "-",
                backend.AgeSeconds is { } age ? Duration(age) : "-",
                backend.State,
                backend.Map is null ? "-" : backend.Tier.ToString(CultureInfo.InvariantCulture),
                backend.Map is { } map ? map.Segment.ToString(CultureInfo.InvariantCulture) : "-",
                backend.Map is { } slot ? slot.Slot.ToString(CultureInfo.InvariantCulture) : "-",
                backend.Map is { } entry ? $"{entry.TableEntries}/{entry.TableSize}" : "-",
                string.Create(CultureInfo.InvariantCulture, $"{backend.Chance * 100:0.0}%"),
                string.Join("; ", backend.Troubles.Prepend(backend.Rule)));
        return table.ToString();
    }

    private static string Agent(double? silence) => silence switch
    {
        null => "none has run on these maps",
        < 5 => "alive",
        { } seconds => $"no sign of life for {Duration(seconds)}: this is what it left",
    };

    private static string Duration(double seconds) => seconds switch
    {
        < 120 => string.Create(CultureInfo.InvariantCulture, $"{seconds:0}s"),
        < 7200 => string.Create(CultureInfo.InvariantCulture, $"{seconds / 60:0}m"),
        < 172800 => string.Create(CultureInfo.InvariantCulture, $"{seconds / 3600:0}h"),
        _ => string.Create(CultureInfo.InvariantCulture, $"{seconds / 86400:0}d"),
    };
}
