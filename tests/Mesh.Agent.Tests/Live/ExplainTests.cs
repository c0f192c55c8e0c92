using System.Diagnostics;
using System.Text;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using Mesh.Bpf;
using Mesh.Cli;
using Mesh.ControlPlane.LoadBalancing;
using Mesh.Datapath.Liveness;
using Mesh.Datapath.Maps;
using Mesh.KVStore;
using Mesh.TestKit;
using Xunit;

namespace Mesh.Agent.Tests.Live;

/// <summary>
/// `mesh explain` over an agent with real devices, programs and maps in a namespace of its own, one pod, and a peer's etcd: first with
/// the agent alive, then with its process gone and nothing but the pins and its state directory left.
/// </summary>
public sealed class ExplainTests : IAsyncLifetime
{
    private const string Objects = """
        apiVersion: cilium.io/v2
        kind: CiliumNode
        metadata: {name: osaka-1}
        spec:
          addresses: [{type: InternalIP, ip: 172.30.0.1}, {type: CiliumInternalIP, ip: 10.2.1.1}]
          ipam: {podCIDRs: ["10.2.1.0/24"]}
        ---
        apiVersion: v1
        kind: Service
        metadata:
          name: shop
          namespace: default
          annotations: {service.cilium.io/global: "true", service.cilium.io/affinity: local, mesh.cilium.io/slow-start: "0"}
        spec: {clusterIP: 10.96.0.10, externalIPs: [198.51.100.7], ports: [{name: http, port: 80}]}
        ---
        apiVersion: discovery.k8s.io/v1
        kind: EndpointSlice
        metadata: {name: shop-1, namespace: default, labels: {kubernetes.io/service-name: shop}}
        addressType: IPv4
        ports: [{name: http, port: 8080, protocol: TCP}]
        endpoints:
        - {addresses: [10.2.1.21], conditions: {ready: true}}
        - {addresses: [10.2.1.22], conditions: {ready: true}}
        - {addresses: [10.2.1.23], conditions: {ready: false}}
        ---
        apiVersion: cilium.io/v2
        kind: CiliumIdentity
        metadata: {name: "131073"}
        security-labels: {"k8s:app": front, "k8s:io.kubernetes.pod.namespace": default, "k8s:io.cilium.k8s.policy.cluster": osaka}
        ---
        apiVersion: cilium.io/v2
        kind: CiliumEndpoint
        metadata: {name: front, namespace: default}
        status: {identity: {id: 131073}, networking: {node: 172.30.0.1, addressing: [{ipv4: 10.2.1.10}]}, state: ready}
        ---
        apiVersion: cilium.io/v2
        kind: CiliumNetworkPolicy
        metadata: {name: speaks-of-a-range, namespace: default}
        spec:
          endpointSelector: {matchLabels: {app: front}}
          egress: [{toCIDR: ["203.0.113.0/24"]}]
        """;

    private const string Pod = """
        {"id":1,"k8s-namespace":"default","k8s-pod-name":"front","interface-name":"lxc1","mac":"02:00:00:00:00:02","host-mac":"02:00:00:00:00:01",
         "addressing":{"ipv4":"10.2.1.10"}}
        """;

    private const string Record = """
        {"cluster":"kyoto","namespace":"default","name":"shop","frontends":{},"backends":{"10.7.1.9":{"http":{"Protocol":"TCP","Port":8080}},
         "10.7.1.8":{"web":{"Protocol":"TCP","Port":8080}}},"labels":{},"selector":{},"shared":true,"includeExternal":false,"clusterID":7}
        """;

    private readonly string _directory = Directory.CreateTempSubdirectory("mesh-explain-").FullName;
    private readonly BpfFileSystem _pins = new();
    private readonly NetworkNamespace _space = new();
    private EtcdServer _etcd = null!;
    private TcpProxy _wire = null!;
    private Process _agent = null!;

    private string BpfRoot => Path.Combine(_pins.Path, "osaka-1");

    private string State => Path.Combine(_directory, "state");

    public async ValueTask InitializeAsync()
    {
        _etcd = await EtcdServer.StartAsync();
        await using (var store = _etcd.NewStore())
        {
            await PublishedCluster.WriteAsync(store, "kyoto");
            await store.WriteAsync([new WriteOperation("cilium/state/services/v1/kyoto/default/shop", Encoding.UTF8.GetBytes(Record))], default);
        }
        _space.Shell("sh", "-ec", "ip link set lo up; ip link add eth0 type veth peer name up0; ip addr add 172.30.0.1/16 dev eth0; "
            + "ip link set eth0 up; ip link set up0 up; ip link add lxc1 type veth peer name pod1; ip link set lxc1 up; ip link set pod1 up");
        _wire = _space.Run(() => new TcpProxy(new Uri(_etcd.Endpoint).Port));
        Write("objects", "all.yaml", Objects);
        Write("peers", "kyoto", $"endpoints:\n- {_wire.Endpoint}\n");
        Write("state/endpoints", "1.json", Pod);
        _agent = ChildThread.Start("/bin/sh",
        [
            "-c", "log=$1; shift; exec \"$@\" >>\"$log\" 2>&1", "sh", Path.Combine(_directory, "log"),
            "nsenter", $"--net=/run/netns/{_space.Name}", Path.Combine(AppContext.BaseDirectory, "mesh-agent"),
            "--cluster-name", "osaka", "--cluster-id", "2", "--node-name", "osaka-1", "--source", $"manifests:{_directory}/objects",
            "--bpf-root", Directory.CreateDirectory(BpfRoot).FullName, "--socket-path", Path.Combine(_directory, "agent.sock"),
            "--state-dir", State, "--clustermesh-config", Path.Combine(_directory, "peers"),
        ]);
    }

    public async ValueTask DisposeAsync()
    {
        await KillAsync();
        _agent.Dispose();
        await _wire.DisposeAsync();
        await _etcd.DisposeAsync();
        _pins.Dispose();
        _space.Dispose();
        Directory.Delete(_directory, recursive: true);
    }

    [Fact]
    public async Task Map_and_intention_agree_with_the_agent_alive_and_dead_and_a_corrupted_entry_is_found()
    {
        var alive = await UntilAsync("default/front", "shop:80", text => text.Contains("10.7.1.9", StringComparison.Ordinal));
        Assert.Contains("10.2.1.21:8080/TCP", alive, StringComparison.Ordinal);
        Assert.Matches(@"10\.2\.1\.2[12]:8080/TCP +osaka .* 50\.[0-9]% +kept\n", alive);
        Assert.Matches(@"10\.2\.1\.23:8080/TCP +osaka .* 0\.0% +cut: not ready\n", alive);
        Assert.Matches(@"10\.7\.1\.9:8080/TCP +kyoto +[1-9][0-9]* .* 0\.0% +kept: standby", alive);
        Assert.Matches(@"10\.7\.1\.8:8080/TCP +kyoto .* cut: port name differs \(web, not http\)\n", alive);
        Assert.Contains("agent    alive\n", alive, StringComparison.Ordinal);

        // In an agent's pod nothing has to be said: the agent itself tells where its pins and its state are.
        var socket = Path.Combine(_directory, "agent.sock");
        var (exit, list) = await RunAsync("bpf", "lb", "list", "-H", socket);
        Assert.True(exit == 0, list);
        Assert.Contains("10.96.0.10:80", list, StringComparison.Ordinal);
        Assert.Equal((exit, list), await RunAsync("bpf", "lb", "list", "--bpf-root", BpfRoot));
        Assert.Equal(0, (await RunAsync("explain", "default/front", "shop:80", "-H", socket)).Exit);
        Assert.Matches(@"^1\.17\.0-mesh\.[0-9.]+\n$", (await RunAsync("version", "-o", "jsonpath={$.Daemon.Version}", "-H", socket)).Text);

        // A client outside is not served at a ClusterIP, and is at the other address of the same Service. That a policy speaks of a
        // range, which has an identity thereby, does not take the range in.
        var outside = await UntilAsync("203.0.113.9", "default/shop:80", text => text.Contains("203.0.113.9, identity 16", StringComparison.Ordinal));
        Assert.Contains(", outside the cluster", outside, StringComparison.Ordinal);
        Assert.Matches(@"10\.96\.0\.10:80/TCP \(http\) ClusterIP: .*\nnot served: a ClusterIP is not served to clients outside the cluster", outside);
        Assert.Matches(@"10\.2\.1\.21:8080/TCP .* 0\.0% +cut: ClusterIP, the client is outside\n", outside);
        Assert.Single(Regex.Matches(outside, "not served: "));
        Assert.Matches(@"198\.51\.100\.7:80/TCP \(http\) ExternalIPs: .*\n.*\n10\.2\.1\.21:8080/TCP .* 50\.[0-9]% +kept\n", outside);
        (_, var inside) = await ExplainAsync("default/front", "10.96.0.10:80");
        Assert.DoesNotContain("not served: ", inside, StringComparison.Ordinal);

        await KillAsync();
        (exit, var dead) = await ExplainAsync("default/front", "10.96.0.10:http");
        Assert.True(exit == 0, dead);
        Assert.Contains("map and intention agree", dead, StringComparison.Ordinal);

        // What traffic or a person says of a cluster is told, and is no difference.
        Drill.Begin(BpfRoot, 7, TimeSpan.FromMinutes(1));
        (exit, var drilled) = await ExplainAsync("10.2.1.10", "default/shop:80");
        Assert.True(exit == 0, drilled);
        Assert.Contains("cluster out: drill", drilled, StringComparison.Ordinal);

        // Somebody overwrites one backend's entry.
        (_, var json) = await ExplainAsync("default/front", "shop:80", "-o", "json");
        var slot = JsonNode.Parse(json)!["frontends"]![0]!["backends"]!.AsArray().Single(
            backend => (string)backend!["address"]! == "10.2.1.22:8080/TCP")!["map"]!["slot"]!.GetValue<uint>();
        using var backends = BpfMaps.OpenPinnedArray<LbBackend>(Path.Combine(BpfRoot, "current", "maps", "lb_backends"));
        var good = backends[slot];
        backends[slot].Port = BigEndianUInt16.FromHost(9999);
        (exit, var corrupted) = await ExplainAsync("default/front", "shop:80");
        Assert.True(exit == 3, corrupted);
        Assert.Contains("10.2.1.22:8080/TCP of cluster 2 should stand in tier 0, and the map has no such entry", corrupted, StringComparison.Ordinal);
        Assert.Contains($"slot {slot} holds 10.2.1.22:9999/TCP", corrupted, StringComparison.Ordinal);
        backends[slot] = good;
        backends[slot].State = (byte)BackendState.Draining;
        (exit, corrupted) = await ExplainAsync("default/front", "shop:80");
        Assert.True(exit == 3, corrupted);
        Assert.Contains("10.2.1.22:8080/TCP should be Active, the map says Draining", corrupted, StringComparison.Ordinal);
        backends[slot] = good;
        Assert.Equal(0, (await ExplainAsync("default/front", "shop:80")).Exit);

        // A service that nobody knows, a port that it has not, and a pod that is not here.
        Assert.Equal(4, (await ExplainAsync("default/front", "store:80")).Exit);
        Assert.Equal(4, (await ExplainAsync("default/front", "shop:81")).Exit);
        (exit, var problem) = await ExplainAsync("default/nobody", "shop:80");
        Assert.Equal(1, exit);
        Assert.Contains("no pod default/nobody is registered", problem, StringComparison.Ordinal);

        // An intention that is lost is a difference too: the map serves what nobody answers for.
        File.Delete(Path.Combine(State, "decisions", "default_shop.json"));
        Assert.Equal(3, (await ExplainAsync("default/front", "10.96.0.10:80")).Exit);
    }

    private async Task<string> UntilAsync(string client, string service, Predicate<string> wanted)
    {
        for (var clock = Stopwatch.StartNew(); ; await Task.Delay(100))
        {
            var (exit, text) = await ExplainAsync(client, service);
            if (exit == 0 && wanted(text))
                return text;
            Assert.True(clock.Elapsed < TimeSpan.FromSeconds(60) && !_agent.HasExited,
                $"exit {exit}: {text}\n{await File.ReadAllTextAsync(Path.Combine(_directory, "log"))}");
        }
    }

    private Task<(int Exit, string Text)> ExplainAsync(string client, string service, params string[] more) =>
        RunAsync(["explain", client, service, "--bpf-root", BpfRoot, "--state-dir", State, .. more]);

    private static async Task<(int Exit, string Text)> RunAsync(params string[] command)
    {
        using var output = new StringWriter();
        var exit = await MeshCommand.RunAsync(command, output, output);
        return (exit, output.ToString());
    }

    private async Task KillAsync()
    {
        _agent.Kill();
        await _agent.WaitForExitAsync();
    }

    private void Write(string folder, string name, string text) =>
        File.WriteAllText(Path.Combine(Directory.CreateDirectory(Path.Combine(_directory, folder)).FullName, name), text);
}
