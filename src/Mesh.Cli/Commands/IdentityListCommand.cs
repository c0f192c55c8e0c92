using System.CommandLine;
using Mesh.AgentApi;
using Mesh.Cli.Text;
using Mesh.Model;

namespace Mesh.Cli.Commands;

/// <summary>`mesh identity list`.</summary>
internal static class IdentityListCommand
{
    public static Command Build(TextWriter output) => ListCommand.Build(output, "Identities of all clusters and their labels.", "identity",
        async (agent, cancel) => Table(await agent.GetIdentitiesAsync(cancel)));

    public static string Table(IEnumerable<Identity> identities)
    {
        var table = new TabWriter(3);
        table.Line("ID\tLABELS");
        foreach (var identity in identities.OrderBy(i => i.Id))
        {
            var labels = WithoutWiderRanges(identity.Labels ?? []).Order(StringComparer.Ordinal).ToList();
            table.Line($"{identity.Id}\t{(labels.Count > 0 ? labels[0] : "")}");
            foreach (var label in labels.Skip(1))
                table.Line($"\t{label}");
        }
        return table.ToString();
    }

    /// <summary>An identity of an address range carries a label for each wider range too; the narrowest says it all.</summary>
    private static IEnumerable<string> WithoutWiderRanges(IReadOnlyList<string> labels)
    {
        const string Range = "cidr:";
        var narrowest = labels.Where(l => l.StartsWith(Range, StringComparison.Ordinal))
            .MaxBy(l => IpPrefix.TryParse(l.AsSpan(Range.Length), out var prefix) ? prefix.Length : -1);
        return labels.Where(l => l == narrowest || !l.StartsWith(Range, StringComparison.Ordinal));
    }
}
