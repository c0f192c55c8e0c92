using System.Diagnostics;
using System.Globalization;
using Mesh.Agent.Tests.Truth;
using Mesh.AgentApi;
using Mesh.TestKit;
using Xunit;

namespace Mesh.Agent.Tests.Live;

/// <summary>
/// The agent as a process on a node of its own, osaka-1, and two nodes of cluster kyoto on the same wire, with agents too: real devices,
/// programs, maps and packets, each node in a network namespace. Kyoto's etcd is real and reached over the wire of <see cref="Control"/>,
/// apart from the wire of the tunnel: each can be cut without the other.
/// </summary>
public sealed class LiveMesh : IAsyncLifetime
{
    public const string Peer = FaultyPeer.Name;

    /// <summary>Addresses of each family that the kernel's map of the agent under test holds.</summary>
    public const int IPCacheMax = 1024;

    private const string Own = "osaka-1";

    private readonly string _directory = Directory.CreateTempSubdirectory("mesh-live-").FullName;
    private readonly BpfFileSystem _pins = new();
    private readonly NetworkNamespace _osaka = new();
    private readonly NetworkNamespace[] _kyoto = [new(), new()];
    private readonly List<Process> _agents = [];

    public EtcdServer Etcd { get; private set; } = null!;

    /// <summary>Between the agent and kyoto's etcd.</summary>
    public TcpProxy Control { get; private set; } = null!;

    public AgentClient Client { get; private set; } = null!;

    public string SocketPath => Path.Combine(_directory, $"{Own}.sock");

    /// <summary>The agent's --bpf-root.</summary>
    public string BpfRoot => Path.Combine(_pins.Path, Own);

    public async ValueTask InitializeAsync()
    {
        Etcd = await EtcdServer.StartAsync();
        await using (var store = Etcd.NewStore())
            await PublishedCluster.WriteAsync(store, Peer, nodes: 2);
        _osaka.Shell("sh", "-ec", "ip link set lo up; ip link add wire type bridge; ip addr add 172.30.0.1/16 dev wire; ip link set wire up");
        for (var i = 1; i <= 2; i++)
        {
            _osaka.Shell("sh", "-ec", $"ip link add port{i} type veth peer name eth0 netns {_kyoto[i - 1].Name}; ip link set port{i} master wire up");
            _kyoto[i - 1].Shell("sh", "-ec", $"ip link set lo up; ip addr add 172.30.7.{i}/16 dev eth0; ip link set eth0 up");
        }
        // It listens where the agent lives, and speaks to the etcd where the tests live.
        Control = _osaka.Run(() => new TcpProxy(new Uri(Etcd.Endpoint).Port));
        var peers = Directory.CreateDirectory(Path.Combine(_directory, "peers")).FullName;
        await File.WriteAllTextAsync(Path.Combine(peers, Peer), $"endpoints:\n- {Control.Endpoint}\n");

        var osaka = Node(Own, "172.30.0.1", "10.2.1");
        Start(_osaka, "osaka", 2, Own, osaka, ["--clustermesh-config", peers, "--bpf-ipcache-map-max", Text(IPCacheMax)]);
        // Kyoto's agents know osaka's node as one more of theirs: what they do about it is not under test.
        for (var i = 1; i <= 2; i++)
            Start(_kyoto[i - 1], Peer, 7, $"{Peer}-{i}", Node($"{Peer}-1", "172.30.7.1", "10.7.1") + Node($"{Peer}-2", "172.30.7.2", "10.7.2") + osaka, []);
        Client = new AgentClient(SocketPath, Own, TimeSpan.FromSeconds(10));
    }

    public async ValueTask DisposeAsync()
    {
        Client?.Dispose();
        foreach (var agent in _agents)
        {
            agent.Kill();
            await agent.WaitForExitAsync();
            agent.Dispose();
        }
        if (Control is not null)
            await Control.DisposeAsync();
        if (Etcd is not null)
            await Etcd.DisposeAsync();
        _pins.Dispose();
        foreach (var space in (NetworkNamespace[])[_osaka, .. _kyoto])
            space.Dispose();
        Directory.Delete(_directory, recursive: true);
    }

    /// <summary>Drops what osaka-1 sends to this UDP port, silently, until <see cref="PassAll"/>.</summary>
    /// <param name="to">Underlay address; null for everybody.</param>
    public void Drop(int udpPort, string? to = null) => Filter($"{(to is null ? "" : $"ip daddr {to} ")}udp dport {Text(udpPort)} drop");

    /// <summary>Counts what osaka-1 sends to this UDP port, and lets it pass.</summary>
    public void Count(int udpPort) => Filter($"udp dport {Text(udpPort)} counter");

    /// <summary>Packets of <see cref="Count"/>.</summary>
    public long Counted()
    {
        var words = _osaka.Shell("nft", "list", "table", "bridge", "faults").Split([' ', '\n'], StringSplitOptions.RemoveEmptyEntries);
        return long.Parse(words[Array.IndexOf(words, "packets") + 1], CultureInfo.InvariantCulture);
    }

    public void PassAll() => _osaka.Shell("sh", "-c", "nft delete table bridge faults 2>/dev/null || true");

    /// <summary>Asks until the status is as wanted, and says how long that took.</summary>
    public async Task<(StatusResponse Status, TimeSpan After)> UntilAsync(Func<StatusResponse, bool> wanted, string what, TimeSpan patience)
    {
        var clock = Stopwatch.StartNew();
        for (var last = "no answer"; ; await Task.Delay(50))
        {
            try
            {
                var status = await Client.GetStatusAsync();
                if (wanted(status))
                    return (status, clock.Elapsed);
                last = $"{(status.Mesh?.Peers is [var peer, ..] ? peer : null)} {string.Join("; ", (status.Mesh?.Faults ?? []).Select(fault => $"{fault}"))}";
            }
            catch (AgentException e)
            {
                last = e.Message;
            }
            Assert.True(clock.Elapsed < patience, $"not {what} within {patience}: {last}\n{Log()}");
        }
    }

    /// <summary>The whole mesh is well, tunnel included.</summary>
    public Task<(StatusResponse Status, TimeSpan After)> HealthyAsync() => UntilAsync(
        status => status.Mesh is { Faults: null, Peers: [{ Healthy: true, NodesProbed: 2, NodesSilent: null }] } && status.ClusterMesh!.Clusters![0].Ready,
        "healthy", TimeSpan.FromSeconds(30));

    // At the bridge: headers that the datapath builds itself pass the node's own filters by.
    private void Filter(string rule) => _osaka.Shell("sh", "-ec", "nft add table bridge faults; "
        + "nft 'add chain bridge faults output { type filter hook output priority 0; }'; nft add rule bridge faults output " + rule);

    private static string Text(int number) => number.ToString(CultureInfo.InvariantCulture);

    private static string Node(string name, string underlay, string pods) => $$"""
        ---
        apiVersion: cilium.io/v2
        kind: CiliumNode
        metadata: {name: {{name}}}
        spec:
          addresses: [{type: InternalIP, ip: {{underlay}}}, {type: CiliumInternalIP, ip: {{pods}}.1}]
          ipam: {podCIDRs: ["{{pods}}.0/24"]}

        """;

    private void Start(NetworkNamespace space, string cluster, int id, string node, string manifests, IEnumerable<string> more)
    {
        var objects = Directory.CreateDirectory(Path.Combine(_directory, node)).FullName;
        File.WriteAllText(Path.Combine(objects, "nodes.yaml"), manifests);
        _agents.Add(ChildThread.Start("/bin/sh",
        [
            "-c", "log=$1; shift; exec \"$@\" >>\"$log\" 2>&1", "sh", Path.Combine(_directory, $"{node}.log"),
            "nsenter", $"--net=/run/netns/{space.Name}", Path.Combine(AppContext.BaseDirectory, "mesh-agent"),
            "--cluster-name", cluster, "--cluster-id", Text(id), "--node-name", node, "--source", $"manifests:{objects}",
            "--bpf-root", Directory.CreateDirectory(Path.Combine(_pins.Path, node)).FullName, "--socket-path", Path.Combine(_directory, $"{node}.sock"),
            "--state-dir", Directory.CreateDirectory(Path.Combine(_directory, $"{node}.state")).FullName, .. more,
        ]));
    }

    private string Log() => string.Join('\n', Directory.EnumerateFiles(_directory, "*.log")
        .SelectMany(file => File.ReadLines(file).TakeLast(15).Prepend($"--- {Path.GetFileName(file)}")));
}
