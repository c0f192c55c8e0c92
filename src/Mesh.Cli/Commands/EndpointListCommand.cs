using System.CommandLine;
using Mesh.AgentApi;
using Mesh.Cli.Text;

namespace Mesh.Cli.Commands;

/// <summary>`mesh endpoint list`: cilium-dbg's columns, but for the two of policy enforcement, which is not ours yet.</summary>
internal static class EndpointListCommand
{
    public static Command Build(TextWriter output) => ListCommand.Build(output, "Pods of the node.", "endpoint",
        async (agent, cancel) => Table(await agent.GetEndpointsAsync(cancel)));

    public static string Table(IEnumerable<Endpoint> endpoints)
    {
        var table = new TabWriter(3);
        table.Line("ENDPOINT\tPOD\tIDENTITY\tLABELS (source:key[=value])\tIPv6\tIPv4\tSTATUS");
        foreach (var endpoint in endpoints.OrderBy(e => e.Id))
        {
            var status = endpoint.Status;
            var labels = (status?.Identity?.Labels ?? []).Order(StringComparer.Ordinal).ToList();
            var address = status?.Networking?.Addressing is [var first, ..] ? first : null;
            var identity = status?.Identity is { } who ? $"{who.Id}" : "<no label id>";
            table.Line($"{endpoint.Id}\t{status?.ExternalIdentifiers?.PodName}\t{identity}\t"
                + $"{(labels.Count > 0 ? labels[0] : "")}\t{address?.Ipv6}\t{address?.Ipv4}\t{status?.State}");
            foreach (var label in labels.Skip(1))
                table.Line($"\t\t\t{label}\t\t\t");
        }
        return table.ToString();
    }
}
