using System.Text;
using System.Text.Json.Nodes;
using Mesh.KVStore;
using Xunit;

namespace Mesh.Agent.Tests;

/// <summary>
/// What a real agent of osaka/2 answered after it had read a real tokyo's etcd, against what ours answers after reading the same
/// bytes. Each difference is written down here, beside the reason.
/// </summary>
public sealed class GoldenApiTests : IAsyncLifetime
{
    private const string Manifests = """
        {apiVersion: v1, kind: Service, metadata: {name: kubernetes, namespace: default},
         spec: {clusterIP: 10.96.0.1, ports: [{name: https, port: 443}]}}
        ---
        {apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, ports: [{name: https, port: 16443}],
         metadata: {name: kubernetes, namespace: default, labels: {kubernetes.io/service-name: kubernetes}}, endpoints: [{addresses: [172.30.0.1]}]}
        ---
        {apiVersion: v1, kind: Service, metadata: {name: rebel-base, namespace: default, annotations: {service.cilium.io/global: "true"}},
         spec: {clusterIP: 10.96.121.196, ports: [{name: http, port: 80}, {name: dns, port: 53, protocol: UDP}]}}
        ---
        {apiVersion: cilium.io/v2, kind: CiliumNode, metadata: {name: osaka-1}, spec: {ipam: {podCIDRs: [10.2.0.0/24]},
         addresses: [{type: InternalIP, ip: 172.30.0.21}, {type: CiliumInternalIP, ip: 10.2.0.139}]}}
        """;

    private readonly string _directory = RunningAgent.NewDirectory();
    private readonly InMemoryKVStore _tokyo = new();
    private RunningAgent _agent = null!;

    public async ValueTask InitializeAsync()
    {
        var lines = await File.ReadAllLinesAsync(GoldenPath("etcd-dump.txt"));
        await _tokyo.WriteAsync([.. lines.Chunk(2).Select(pair => new WriteOperation(pair[0], Encoding.UTF8.GetBytes(pair[1])))],
            TestContext.Current.CancellationToken);
        _agent = await RunningAgent.StartAsync(_directory, Manifests, _tokyo);
        await RunningAgent.Eventually(() => _agent.Client.GetStatusAsync(), status => status.ClusterMesh!.Clusters is [{ Ready: true }]);
    }

    public async ValueTask DisposeAsync()
    {
        await _agent.DisposeAsync();
        await _tokyo.DisposeAsync();
        RunningAgent.Remove(_directory);
    }

    [Fact]
    public async Task Services_have_the_backends_of_the_remote_cluster()
    {
        var golden = Golden("api-service.json").AsArray();
        var ours = (await AskAsync("service")).AsArray();
        foreach (var spec in Specs(golden))
        {
            foreach (var backend in spec["backend-addresses"]!.AsArray())
                // The recording's backends were local objects too, which name their node; a remote record does not.
                backend!.AsObject().Remove("nodeName");
            Sort(spec["backend-addresses"]!.AsArray(), "ip");
        }
        foreach (var spec in Specs(ours))
        {
            // Clients from 1.17 on print the protocol, and 1.13 did not send it.
            Assert.True(spec["frontend-address"]!.AsObject().Remove("protocol"));
            foreach (var backend in spec["backend-addresses"]!.AsArray())
            {
                Assert.True(backend!.AsObject().Remove("protocol"));
                // Ours alone.
                Assert.True(backend.AsObject().Remove("mesh-cluster"));
            }
        }
        Same(golden, ours);
    }

    [Fact]
    public async Task Addresses_have_their_identity_and_their_node()
    {
        var golden = Golden("api-ip.json").AsArray();
        // Identities of address ranges outside the mesh are no part of ours.
        Remove(golden, "172.30.0.1/32", "0.0.0.0/0");
        foreach (var entry in golden)
        {
            // A node of another cluster: 1.13 called it host, later versions remote-node.
            if (entry!["cidr"]!.ToString() == "10.1.0.1/32")
                entry["identity"] = 6;
            // Named kvstore by 1.13.
            if (entry["metadata"] is { } metadata)
                metadata["source"] = "clustermesh";
        }
        // The remote node's own address, and its pod range as a fallback, as later versions do.
        golden.Add(JsonNode.Parse("""{"cidr":"192.0.2.11/32","identity":6}"""));
        golden.Add(JsonNode.Parse("""{"cidr":"10.1.0.0/24","identity":2,"hostIP":"192.0.2.11"}"""));
        var ours = (await AskAsync("ip")).AsArray();
        Sort(golden, "cidr");
        Sort(ours, "cidr");
        Same(golden, ours);
    }

    [Fact]
    public async Task Nodes_have_their_addresses_and_ranges()
    {
        var golden = Golden("api-cluster-nodes.json");
        var nodes = golden["nodes-added"]!.AsArray();
        nodes.Remove(nodes.Single(node => node!["name"]!.ToString() == "osaka/tokyo-1"));
        Sort(nodes, "name");
        foreach (var node in nodes)
            // Printed by clients from 1.17 on.
            node!["source"] = node["name"]!.ToString() == "osaka/osaka-1" ? "local" : "clustermesh";
        Same(golden, await AskAsync("cluster/nodes"));
    }

    [Fact]
    public async Task The_peer_is_ready_and_counted()
    {
        var golden = Golden("api-healthz.json");
        var ours = await AskAsync("healthz");
        Same(golden["identity-range"]!, ours["identity-range"]!);
        Same(golden["encryption"]!, ours["encryption"]!);
        Same(golden["cluster"]!, ours["cluster"]!);
        Same(golden["hubble"]!, ours["hubble"]!);
        var peer = ours["cluster-mesh"]!["clusters"]![0]!.AsObject();
        Assert.Equal(
            """{"required":true,"retrieved":true,"cluster-id":1}""", Take(peer, "config"));
        Assert.Equal("""{"nodes":true,"endpoints":true,"identities":true,"services":true}""", Take(peer, "synced"));
        Assert.Equal("true", Take(peer, "connected"));
        Assert.Equal("2", Take(peer, "num-endpoints"));
        Assert.StartsWith("\"etcd: 1/1 connected", Take(peer, "status"));
        var expected = golden["cluster-mesh"]!["clusters"]![0]!.AsObject();
        expected.Remove("status");
        // 1.13 counted records that are not shared.
        expected["num-shared-services"] = 1;
        Same(expected, peer);
        Assert.Equal("1", ours["cluster-mesh"]!["num-global-services"]!.ToJsonString());
    }

    [Fact]
    public async Task Identities_have_their_labels()
    {
        string Labels(JsonNode identity) => string.Join(' ', identity["labels"]!.AsArray().Select(label => label!.ToString()).Order(StringComparer.Ordinal));
        var golden = Golden("api-identity.json").AsArray().DistinctBy(identity => (int)identity!["id"]!)
            .ToDictionary(identity => (int)identity!["id"]!, identity => Labels(identity!));
        var ours = (await AskAsync("identity")).AsArray().ToDictionary(identity => (int)identity!["id"]!, identity => Labels(identity!));
        Assert.All([1, 2, 3, 4, 5, 6, 8, 65537], id => Assert.Equal(golden[id], ours[id]));
        Assert.Equal(golden[65537], Labels(await AskAsync("identity/65537")));
    }

    [Fact]
    public async Task A_client_may_ask_for_one_service_by_its_id()
    {
        var all = (await AskAsync("service")).AsArray();
        Same(all[1]!, await AskAsync("service/2"));
        var refused = await Assert.ThrowsAsync<AgentApi.AgentException>(() => _agent.Client.GetBytesAsync("service/77"));
        Assert.Equal(System.Net.HttpStatusCode.NotFound, refused.StatusCode);
    }

    [Fact]
    public async Task Config_names_the_cluster_and_debuginfo_the_version()
    {
        Assert.Equal("osaka", (await AskAsync("config"))["status"]!["daemonConfigurationMap"]!["ClusterName"]!.ToString());
        Assert.Matches(@"^1\.17\.0-mesh\.\d+\.\d+\.\d+ mesh-agent$", (await _agent.Client.GetDebugInfoAsync()).CiliumVersion);
    }

    [Fact]
    public async Task Metrics_have_the_names_of_the_field()
    {
        await Task.CompletedTask;
        var page = Metrics.MetricsPage.Of(_agent.Agent.View);
        const string labels = """source_cluster="osaka",source_node_name="osaka-1",target_cluster="tokyo"}""";
        Assert.Contains($"cilium_clustermesh_remote_cluster_readiness_status{{{labels} 1\n", page);
        Assert.Contains($"cilium_clustermesh_remote_cluster_nodes{{{labels} 1\n", page);
        Assert.Contains($"cilium_clustermesh_remote_cluster_last_failure_ts{{{labels} 0\n", page);
        Assert.Contains("""cilium_clustermesh_remote_clusters{source_cluster="osaka",source_node_name="osaka-1"} 1""" + "\n", page);
        Assert.Contains("""mesh_table_rows{table="frontends"} 3""" + "\n", page);
    }

    private static string Take(JsonObject from, string name)
    {
        var text = from[name]!.ToJsonString(new() { Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping });
        from.Remove(name);
        return text;
    }

    private async Task<JsonNode> AskAsync(string path) => JsonNode.Parse(await _agent.Client.GetBytesAsync(path))!;

    private static string GoldenPath(string name) => Path.Combine(AppContext.BaseDirectory, "golden", "cilium-1.13.2", name);

    private static JsonNode Golden(string name) => JsonNode.Parse(File.ReadAllText(GoldenPath(name)))!;

    private static IEnumerable<JsonObject> Specs(JsonArray services) =>
        services.SelectMany(service => new[] { service!["spec"]!.AsObject(), service["status"]!["realized"]!.AsObject() });

    private static void Sort(JsonArray array, string by)
    {
        var sorted = array.OrderBy(item => item![by]!.ToString(), StringComparer.Ordinal).ToList();
        array.Clear();
        foreach (var item in sorted)
            array.Add(item);
    }

    private static void Remove(JsonArray array, params string[] cidrs)
    {
        foreach (var item in array.Where(item => cidrs.Contains(item!["cidr"]!.ToString())).ToList())
            array.Remove(item);
    }

    private static void Same(JsonNode expected, JsonNode actual)
    {
        if (!JsonNode.DeepEquals(expected, actual))
            Assert.Equal(Ordered(expected), Ordered(actual));
    }

    /// <summary>Indented, members sorted: a difference shows as one line.</summary>
    private static string Ordered(JsonNode? node) => Copy(node)?.ToJsonString(new() { WriteIndented = true }) ?? "null";

    private static JsonNode? Copy(JsonNode? node) => node switch
    {
        JsonObject members => new JsonObject(members.OrderBy(pair => pair.Key, StringComparer.Ordinal)
            .Select(pair => KeyValuePair.Create(pair.Key, Copy(pair.Value)))),
        JsonArray items => new JsonArray([.. items.Select(Copy)]),
        _ => node?.DeepClone(),
    };
}
