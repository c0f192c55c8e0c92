using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using Mesh.Install.Charts;
using Mesh.Install.Text;
using Xunit;

namespace Mesh.Install.Tests;

/// <summary>The programs know the flags that the chart gives them: by argument all of them, by cilium-config those that are not the CLI's or another
/// program's.</summary>
public partial class FlagTests
{
    private static readonly Dictionary<string, string> Sources = new(StringComparer.Ordinal)
    {
        ["/usr/bin/mesh-agent"] = "src/Mesh.Agent",
        ["/usr/bin/mesh-operator"] = "src/Mesh.Operator",
        ["/usr/bin/clustermesh-apiserver"] = "clustermesh/Mesh.ClusterMesh.ApiServer",
        ["/usr/bin/mesh-cni"] = "src/Mesh.Cni",
    };

    /// <summary>Read by the cilium CLI, or said for people who look.</summary>
    private static readonly string[] ForOthers =
        [
        "identity-allocation-mode", "routing-mode", "tunnel-protocol", "kube-proxy-replacement",
    ];

    [Fact]
    public void Every_argument_is_a_flag_of_its_program()
    {
        foreach (var (program, flag) in Containers().SelectMany(container => Words(container).Skip(1)
            .Where(word => word.StartsWith("--", StringComparison.Ordinal)).Select(word => (Words(container).First(), word.Split('=')[0]))))
        {
            if (Sources.TryGetValue(program, out var source))
                Assert.True(Flags(source).Contains(flag), $"{program} has no flag {flag}");
        }
    }

    [Fact]
    public void Every_line_of_the_configuration_is_read_by_somebody()
    {
        var known = Flags("src/Mesh.Agent").Concat(Flags("src/Mesh.Operator")).Concat(Flags("clustermesh/Mesh.ClusterMesh.ApiServer")).ToHashSet();
        var lines = ((JsonObject)Rendering().Find("ConfigMap", "cilium-config")!.Body["data"]!).Select(line => line.Key);
        Assert.DoesNotContain(lines, line => !known.Contains($"--{line}") && !ForOthers.Contains(line));
    }

    /// <summary>Two that keep what a peer says: who reads it directly or from the relay, and the relay.</summary>
    [Theory]
    [InlineData("", "0s")]
    [InlineData(", cacheTTL: 1h30m", "1h30m")]
    public void How_long_a_lost_clusters_services_stay_is_told_to_agents_and_relay(string value, string expected)
    {
        var rendering = ChartRenderer.Render(Chart.OfThisProgram, YamlText.ParseMap($"{{clustermesh: {{useAPIServer: true{value}}}}}", "values"),
            new("cilium", "kube-system"), ChartEnvironment.Nowhere);
        Assert.Equal(expected, (string?)rendering.Find("ConfigMap", "cilium-config")!.Body["data"]!["clustermesh-cache-ttl"]);
        var relay = rendering.Find("Deployment", "clustermesh-apiserver")!.Body["spec"]!["template"]!["spec"]!["containers"]!.AsArray()
            .Single(container => (string?)container!["name"] == "kvstoremesh")!;
        Assert.Contains($"--clustermesh-cache-ttl={expected}", Words(relay));
    }

    private static IEnumerable<JsonNode> Containers() => Rendering().Objects.Select(rendered => rendered.Object.Body["spec"]?["template"]?["spec"])
        .Where(pod => pod is not null).SelectMany(pod => (pod!["initContainers"]?.AsArray() ?? []).Concat(pod["containers"]!.AsArray()))!;

    private static List<string> Words(JsonNode container) =>
        [.. container["command"]!.AsArray().Concat(container["args"]?.AsArray() ?? []).Select(word => (string)word!)];

    private static HashSet<string> Flags(string directory) => [.. Directory
        .EnumerateFiles(Path.Combine(Repository.Root, directory), "*.cs", SearchOption.AllDirectories)
        .Append(Path.Combine(Repository.Root, "src/Mesh.Kubernetes/FlagFiles.cs")).Where(File.Exists)
        .SelectMany(file => FlagWord().Matches(File.ReadAllText(file)).Select(match => match.Groups[1].Value))];

    private static Rendering Rendering() => ChartRenderer.Render(Chart.OfThisProgram,
        YamlText.ParseMap("{clustermesh: {useAPIServer: true, mcsapi: {enabled: true}}, prometheus: {enabled: true}, "
            + "operator: {prometheus: {enabled: true}}}", "values"),
        new("cilium", "kube-system"), ChartEnvironment.Nowhere);

    [GeneratedRegex("\"(--[a-z0-9-]+)\"")]
    private static partial Regex FlagWord();
}
