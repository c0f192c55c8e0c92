using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using System.Text.RegularExpressions;
using Mesh.AgentApi;
using Mesh.Cli.Contexts;
using Mesh.Cli.Text;

namespace Mesh.Cli.Commands;

/// <summary>`mesh metrics list`, as `cilium metrics list`.</summary>
internal static class MetricsListCommand
{
    private static readonly TimeSpan MatchPatience = TimeSpan.FromSeconds(1);

    public static Command Build(TextWriter output)
    {
        var options = new ContextOptions();
        var pattern = new Option<string?>("--match-pattern", "-p") { Description = "Only metrics whose name has this regular expression" };
        var command = new Command("list", "Every counter and gauge of an agent.") { pattern };
        options.AddTo(command);
        command.SetAction(async (parsed, cancel) =>
        {
            using var agent = options.Node(parsed).Connect();
            var all = JsonSerializer.Deserialize(await agent.GetBytesAsync("metrics", cancel), AgentApiJson.Wire.IReadOnlyListMetric) ?? [];
            if (parsed.GetValue(pattern) is { } wanted)
                all = Matching(all, wanted);
            output.Write(options.IsStructured(parsed)
                ? options.Form(parsed, JsonSerializer.SerializeToUtf8Bytes(all, AgentApiJson.Wire.IReadOnlyListMetric))
                : Table(all));
            return 0;
        });
        return command;
    }

    private static List<Metric> Matching(IReadOnlyList<Metric> all, string wanted)
    {
        try
        {
            var name = new Regex(wanted, RegexOptions.CultureInvariant, MatchPatience);
            return [.. all.Where(metric => name.IsMatch(metric.Name))];
        }
        catch (RegexParseException e)
        {
            throw new CliException($"--match-pattern {wanted}: is no regular expression: {e.Message}");
        }
    }

    public static string Table(IReadOnlyList<Metric> metrics)
    {
        var table = new TabWriter(3);
        table.Row("Metric", "Labels", "Value");
        foreach (var metric in metrics)
            table.Row(metric.Name, string.Join(' ', (metric.Labels ?? new Dictionary<string, string>()).OrderBy(label => label.Key, StringComparer.Ordinal)
                .Select(label => $"{label.Key}=\"{label.Value}\"")), metric.Value.ToString("F6", CultureInfo.InvariantCulture));
        return table.ToString();
    }
}
