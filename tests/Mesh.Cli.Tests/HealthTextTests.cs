using Mesh.AgentApi;
using Mesh.Cli.Commands;
using Xunit;

namespace Mesh.Cli.Tests;

/// <summary>`mesh health status`, in the words of `cilium-health status`.</summary>
public sealed class HealthTextTests
{
    [Fact]
    public void Health_tells_of_each_node_what_probes_found()
    {
        var status = new StatusResponse
        {
            Cluster = new ClusterStatus { Self = "tokyo/tokyo-1" },
            Mesh = new MeshStatus
            {
                Liveness = new LivenessStatus
                {
                    Nodes =
                    [
                        new NodeLiveness { Name = "osaka/osaka-1", State = "in", RoundTrip = 0.25 },
                        new NodeLiveness { Name = "osaka/osaka-2", State = "out", SinceAnswer = 3 },
                    ],
                },
            },
        };
        var nodes = new ClusterNodeStatus
        {
            NodesAdded = [Node("osaka/osaka-2", "172.30.2.2"), Node("osaka/osaka-1", "172.30.2.1"),
                Node("tokyo/tokyo-1", "172.30.1.1")]
        };
        var health = HealthCommand.Of(status, nodes, DateTimeOffset.UnixEpoch);
        Assert.Equal([("osaka/osaka-1", 250_000L, ""), ("osaka/osaka-2", 0L, "out: no answer for 3s")],
            health.Nodes.Where(node => node.Host.PrimaryAddress.Icmp is not null)
                .Select(node => (node.Name, node.Host.PrimaryAddress.Icmp!.Latency, node.Host.PrimaryAddress.Icmp.Status)));
        Assert.Equal("""
            Probe time:   1970-01-01T00:00:00Z
            Nodes:
              osaka/osaka-1:
                Host connectivity to 172.30.2.1:
                  Probe through the tunnel:   OK, RTT=0.250ms
              osaka/osaka-2:
                Host connectivity to 172.30.2.2:
                  Probe through the tunnel:   out: no answer for 3s
              tokyo/tokyo-1 (localhost):
                Host connectivity to 172.30.1.1:
                  Probe through the tunnel:   not probed

            """, HealthCommand.Text(health));

        static NodeElement Node(string name, string address) => new()
        {
            Name = name,
            PrimaryAddress = new NodeAddressing { Ipv4 = new NodeAddressingElement { Ip = address } },
        };
    }
}
