using System.Text.Json.Nodes;
using Mesh.TestKit;
using Xunit;

namespace Mesh.ClusterMesh.ApiServer.Tests;

/// <summary>A real Cilium's objects in, and the keys that it wrote out: the same keys, the same JSON, but for the list below.</summary>
public class GoldenTests
{
    private static string Golden(string file) => Path.Combine(AppContext.BaseDirectory, "golden", file);

    private static SortedDictionary<string, string> Dump(string file) => new(
        File.ReadAllLines(Golden(file)).Chunk(2).Where(pair => pair.Length == 2).ToDictionary(pair => pair[0], pair => pair[1]),
        StringComparer.Ordinal);

    /// <summary>The objects as they stood in the recording's API server, which gave the service an address and to whose endpoint a
    /// second call had written the status.</summary>
    private static string Objects() => File.ReadAllText(Golden("cilium-1.13.2/kubernetes-objects.yaml"))
        .Replace("spec:\n  selector: {name: rebel-base}", "spec:\n  clusterIP: 10.96.121.196\n  selector: {name: rebel-base}", StringComparison.Ordinal)
        .TrimEnd() + """

        status:
          identity: {id: 65537}
          networking: {addressing: [{ipv4: 10.1.0.11, ipv6: "fd01::b"}], node: 192.0.2.11}

        """;

    [Theory]
    [InlineData("cilium-1.13.2/etcd-dump.txt")]
    [InlineData("cilium-1.15-dev/etcd-dump.txt")]
    public async Task The_keys_are_those_of_a_real_Cilium(string dump)
    {
        await using var etcd = await EtcdServer.StartAsync();
        await using var store = etcd.NewStore();
        await using var tokyo = new TestCluster();
        tokyo.Write("objects.yaml", Objects());
        await tokyo.StartOverAsync(etcd);

        var expected = Intended(Dump(dump));
        var actual = Timeless(await store.DumpAsync());
        Assert.Equal(string.Join('\n', expected.Keys), string.Join('\n', actual.Keys));
        foreach (var (key, value) in expected)
            Assert.True(Same(value, actual[key]), $"{key}\nexpected {value}\nactual   {actual[key]}");
    }

    /// <summary>The written list of intended differences, applied to what a real Cilium wrote.</summary>
    private static SortedDictionary<string, string> Intended(SortedDictionary<string, string> golden)
    {
        // The recording's own API server, global and not shared: versions up to 1.17 write shared:false, later ones and we do not.
        golden.Remove("cilium/state/services/v1/tokyo/default/kubernetes");
        // osaka's node shows up in tokyo because both clusters shared one API server.
        golden.Remove("cilium/state/nodes/v1/tokyo/osaka-1");
        // For consumers of 1.14 to 1.16.
        golden["cilium/.has-cluster-config"] = "true";
        // 1.13 has no capabilities, 1.14 no maxConnectedClusters.
        golden["cilium/cluster-config/tokyo"] = """{"id":1,"capabilities":{"syncedCanaries":true,"maxConnectedClusters":255}}""";
        // Canaries came with 1.14.
        foreach (var resource in new[] { "nodes", "services", "ip", "identities" })
            golden[$"cilium/synced/tokyo/cilium/state/{resource}/v1"] = "";

        Edit(golden, "cilium/state/nodes/v1/tokyo/tokyo-1", node =>
        {
            // kubectl apply's own annotation; the file has none.
            node["Annotations"] = null;
            // Since 1.16.
            node["BootID"] = "";
        });
        Edit(golden, "cilium/state/services/v1/tokyo/default/rebel-base", service =>
        {
            // Since 1.14.
            service["clusterID"] = 1;
            // Since 1.19.
            service["zones"] = JsonNode.Parse("""{"10.1.0.11":{"zone":"ap-1a"}}""");
        });
        return Timeless(golden);
    }

    private static void Edit(SortedDictionary<string, string> dump, string key, Action<JsonObject> edit)
    {
        var value = JsonNode.Parse(dump[key])!.AsObject();
        edit(value);
        dump[key] = value.ToJsonString();
    }

    /// <summary>Heartbeat and canaries hold the time of writing, which nobody reads.</summary>
    private static SortedDictionary<string, string> Timeless(SortedDictionary<string, string> dump)
    {
        foreach (var key in dump.Keys.Where(key => key.Contains("/synced/", StringComparison.Ordinal)
            || key.EndsWith("heartbeat", StringComparison.Ordinal)).ToArray())
            dump[key] = "";
        return dump;
    }

    private static bool Same(string expected, string actual) => expected == actual
        || (expected.StartsWith('{') && JsonNode.DeepEquals(JsonNode.Parse(expected), JsonNode.Parse(actual)));

    [Fact]
    public async Task The_metrics_have_the_names_of_a_real_Cilium()
    {
        await using var etcd = await EtcdServer.StartAsync();
        await using var tokyo = new TestCluster();
        tokyo.Write("objects.yaml", Objects());
        await tokyo.StartOverAsync(etcd);

        var ours = Series((await tokyo.PageAsync("/metrics")).Text);
        var golden = Series(await File.ReadAllTextAsync(Golden("cilium-1.15-dev/apiserver-metrics.txt"), TestContext.Current.CancellationToken));
        // We have no rate limiter, and our watch batches are handed over without a queue.
        golden.RemoveWhere(series => series.Contains("api_limiter", StringComparison.Ordinal) || series.Contains("events_queue", StringComparison.Ordinal));
        Assert.Subset(ours, golden);
    }

    /// <summary>Name and label names of each series.</summary>
    private static HashSet<string> Series(string page) =>
    [
        .. page.Split('\n').Where(line => line.Length > 0 && line[0] != '#').Select(line =>
            line.Split('{')[0] + "{" + string.Join(',', line.Split('{', '}')[1].Split(',').Select(label => label.Split('=')[0])) + "}"),
    ];
}
