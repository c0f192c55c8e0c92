using System.CommandLine;
using System.Globalization;
using System.Text;
using System.Text.Json;
using Mesh.AgentApi;
using Mesh.Cli.Contexts;
using Mesh.Cli.Text;

namespace Mesh.Cli.Commands;

/// <summary>
/// `mesh health status`, also as `cilium-health status`: how this node reaches the others, from the probes that its agent sends through
/// the tunnel all the time. They stand where Cilium prints its ICMP ones; a node that is not probed has none.
/// </summary>
internal static class HealthCommand
{
    public static Command Build(TextWriter output)
    {
        var options = new ContextOptions();
        var probe = new Option<bool>("--probe") { Description = "Taken for Cilium's sake: the probes never stop" };
        var status = new Command("status", "How a node reaches the others.") { probe };
        options.AddTo(status);
        status.SetAction(async (parsed, cancel) =>
        {
            using var agent = options.Node(parsed).Connect();
            var health = Of(await agent.GetStatusAsync(cancel), await agent.GetNodesAsync(cancel), DateTimeOffset.UtcNow);
            output.Write(options.IsStructured(parsed)
                ? options.Form(parsed, JsonSerializer.SerializeToUtf8Bytes(health, AgentApiJson.Wire.HealthStatus))
                : Text(health));
            return 0;
        });
        return new Command("health", "How a node reaches the others, by probes through the tunnel.") { status };
    }

    internal static HealthStatus Of(StatusResponse status, ClusterNodeStatus nodes, DateTimeOffset now)
    {
        var probed = (status.Mesh?.Liveness?.Nodes ?? []).ToDictionary(node => node.Name, StringComparer.Ordinal);
        return new HealthStatus
        {
            Local = new HealthSelf { Name = status.Cluster?.Self ?? "" },
            Timestamp = now,
            Nodes =
            [
                .. (nodes.NodesAdded ?? []).OrderBy(node => node.Name, StringComparer.Ordinal).Select(node => new NodeHealth
                {
                    Name = node.Name ?? "",
                    Host = new HostHealth
                    {
                        PrimaryAddress = new AddressHealth
                        {
                            Ip = node.PrimaryAddress?.Ipv4?.Ip is { Length: > 0 } v4 ? v4 : node.PrimaryAddress?.Ipv6?.Ip ?? "",
                            Icmp = probed.GetValueOrDefault(node.Name ?? "") is { } seen ? Probe(seen) : null,
                        },
                    },
                }),
            ],
        };
    }

    private static ProbeHealth Probe(NodeLiveness node) => new()
    {
        Latency = (long)(node.RoundTrip * 1e6),
        Status = node.State == "in" ? "" : node.State == "unknown" ? "it has never answered"
            : node.SinceAnswer is { } since ? $"{node.State}: no answer for {GoText.Duration(TimeSpan.FromSeconds(since))}" : node.State,
    };

    internal static string Text(HealthStatus health)
    {
        var text = new StringBuilder($"Probe time:   {health.Timestamp.UtcDateTime:yyyy-MM-dd'T'HH:mm:ss'Z'}\nNodes:\n");
        foreach (var node in health.Nodes)
        {
            var address = node.Host.PrimaryAddress;
            text.Append($"  {node.Name}{(node.Name == health.Local.Name ? " (localhost)" : "")}:\n");
            text.Append($"    Host connectivity to {address.Ip}:\n");
            text.Append($"      Probe through the tunnel:   {(address.Icmp is not { } probe ? "not probed" : probe.Status.Length > 0 ? probe.Status
                : string.Create(CultureInfo.InvariantCulture, $"OK, RTT={probe.Latency / 1e6:0.000}ms"))}\n");
        }
        return text.ToString();
    }
}
