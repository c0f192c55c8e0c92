using System.CommandLine;
using Mesh.AgentApi;
using Mesh.Cli.Text;
using Mesh.Model;

namespace Mesh.Cli.Commands;

/// <summary>`mesh ip list`.</summary>
internal static class IPListCommand
{
    public static Command Build(TextWriter output) => ListCommand.Build(output, "Addresses and who they are.", "ip",
        async (agent, cancel) => Table(await agent.GetIPsAsync(cancel), await agent.GetIdentitiesAsync(cancel)));

    public static string Table(IEnumerable<IPListEntry> entries, IEnumerable<Identity> identities)
    {
        var labels = identities.GroupBy(i => i.Id).ToDictionary(g => g.Key, g => g.First().Labels ?? []);
        var table = new TabWriter(3);
        table.Line("IP\tIDENTITY\tSOURCE");
        foreach (var entry in entries.OrderBy(e => e.Cidr, StringComparer.Ordinal))
        {
            var who = Who(entry.Identity, labels);
            table.Line($"{entry.Cidr}\t{who[0]}\t{entry.Metadata?.Source}");
            foreach (var label in who.Skip(1))
                table.Line($"\t{label}\t");
        }
        return table.ToString();
    }

    /// <summary>A reserved identity by its word, another by its labels, one without known labels by its number.</summary>
    private static IReadOnlyList<string> Who(long identity, Dictionary<long, IReadOnlyList<string>> labels)
    {
        if (identity < NumericIdentity.FirstAllocatable && NumericIdentity.Reserved.TryGetValue((uint)identity, out var word))
            return [word];
        return labels.TryGetValue(identity, out var known) && known.Count > 0
            ? [.. known.Order(StringComparer.Ordinal)]
            : [$"{identity}"];
    }
}
