using System.CommandLine;
using Mesh.AgentApi;
using Mesh.Cli.Text;

namespace Mesh.Cli.Commands;

/// <summary>`mesh node list`.</summary>
internal static class NodeListCommand
{
    public static Command Build(TextWriter output) => ListCommand.Build(output, "Nodes of all clusters.", "cluster/nodes",
        async (agent, cancel) => Table(await agent.GetNodesAsync(cancel)), "nodes-added");

    /// <summary>With a column for the source when the agent tells it; those before 1.17 do not.</summary>
    public static string Table(ClusterNodeStatus status)
    {
        var nodes = (status.NodesAdded ?? []).OrderBy(n => n.Name, StringComparer.Ordinal).ToList();
        var withSource = nodes.Any(n => n.Source is not null);
        var table = new TabWriter(3);
        table.Line($"Name\tIPv4 Address\tEndpoint CIDR\tIPv6 Address\tEndpoint CIDR{(withSource ? "\tSource" : "")}");
        foreach (var node in nodes)
        {
            var v4 = node.PrimaryAddress?.Ipv4;
            var v6 = node.PrimaryAddress?.Ipv6;
            table.Line($"{node.Name}\t{v4?.Ip}\t{v4?.AllocRange}\t{v6?.Ip}\t{v6?.AllocRange}{(withSource ? $"\t{node.Source}" : "")}");
        }
        return table.ToString();
    }
}
