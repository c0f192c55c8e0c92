using Mesh.Agent.Metrics;
using Mesh.AgentApi;
using Mesh.Datapath.Maps;
using Xunit;

namespace Mesh.Agent.Tests;

/// <summary>What tools ask for in an agent's pod, beside its status.</summary>
public sealed class MetricsSampleTests
{
    [Theory]
    [InlineData("mesh_source_problems 0", "mesh_source_problems", "", 0)]
    [InlineData("cilium_drop_count_total{direction=\"INGRESS\",reason=\"Policy denied\"} 12", "cilium_drop_count_total",
        "direction=INGRESS;reason=Policy denied", 12)]
    [InlineData("x{a=\"1} {\\\"b\\\"=\\\\,\\n\",c=\"\"} 1.5e3", "x", "a=1} {\"b\"=\\,\n;c=", 1500)]
    public void A_line_of_the_page_is_a_sample(string line, string name, string labels, double value)
    {
        var sample = MetricsPage.Sample(line);
        Assert.Equal((name, value), (sample.Name, sample.Value));
        Assert.Equal(labels, string.Join(';', (sample.Labels ?? new Dictionary<string, string>()).Select(label => $"{label.Key}={label.Value}")));
    }

    /// <summary>Cilium's connectivity test looks at the reasons of the metric, letter by letter, and fails over each that it does not expect.</summary>
    [Theory]
    [InlineData(DropReason.PolicyDenied, "Policy denied")]
    [InlineData(DropReason.PolicyDeniedByDenylist, "Policy denied by denylist")]
    [InlineData(DropReason.PolicyUndecided, "Host datapath not ready")]
    [InlineData(DropReason.InvalidSource, "Invalid source ip")]
    [InlineData(DropReason.NoServiceBackend, "Service backend not found")]
    [InlineData(DropReason.NoEndpoint, "Stale or unroutable IP")]
    [InlineData(DropReason.NodeDown, "node down")]
    public void What_is_dropped_in_every_cluster_has_the_names_that_Cilium_gives_it(DropReason reason, string expected)
    {
        var page = new System.Text.StringBuilder();
        MetricsPage.Packets(page, [new(reason, TrafficDirection.Ingress, 3, 180), new(DropReason.Forwarded, TrafficDirection.Egress, 5, 300)]);
        Assert.Contains($"\ncilium_drop_count_total{{direction=\"INGRESS\",reason=\"{expected}\"}} 3\n", page.ToString(), StringComparison.Ordinal);
        Assert.Contains("\ncilium_forward_count_total{direction=\"EGRESS\"} 5\n", page.ToString(), StringComparison.Ordinal);
        var names = Enum.GetValues<DropReason>().Select(DropNames.OfCilium).ToList();
        Assert.Equal(names.Count, names.Distinct().Count());
    }

    [Fact]
    public async Task The_socket_gives_every_line_of_the_page_and_the_command_lists_them()
    {
        var directory = Directory.CreateTempSubdirectory("mesh-metrics-").FullName;
        await using var agent = await RunningAgent.StartAsync(directory);
        var page = MetricsPage.Of(agent.Agent.View).Split('\n').Count(line => line.Length > 0 && line[0] != '#');
        var output = new StringWriter();
        Assert.Equal(0, await Cli.MeshCommand.RunAsync(["metrics", "list", "-H", agent.SocketPath, "-o", "json"], output, output));
        var samples = System.Text.Json.JsonSerializer.Deserialize(output.ToString(), AgentApiJson.Wire.IReadOnlyListMetric)!;
        Assert.Equal(page, samples.Count);
        Assert.Contains(samples, sample => sample.Name == "mesh_source_problems");
        output = new StringWriter();
        Assert.Equal(0, await Cli.MeshCommand.RunAsync(["metrics", "list", "-H", agent.SocketPath, "-p", "^mesh_source_"], output, output));
        Assert.Equal("Metric                 Labels   Value\nmesh_source_problems            0.000000\n", output.ToString());
        output = new StringWriter();
        Assert.Equal(1, await Cli.MeshCommand.RunAsync(["metrics", "list", "-H", agent.SocketPath, "-p", "("], output, output));
        Assert.StartsWith("mesh: --match-pattern (: is no regular expression", output.ToString(), StringComparison.Ordinal);
        RunningAgent.Remove(directory);
    }
}
