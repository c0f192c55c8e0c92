using System.CommandLine;
using Mesh.AgentApi;
using Mesh.Cli.Text;

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
            var labels = (identity.Labels ?? []).Order(StringComparer.Ordinal).ToList();
            table.Line($"{identity.Id}\t{(labels.Count > 0 ? labels[0] : "")}");
            foreach (var label in labels.Skip(1))
                table.Line($"\t{label}");
        }
        return table.ToString();
    }
}
