using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Text;
using Mesh.Agent.Api;
using Mesh.Agent.Probes;
using Mesh.AgentApi;
using Mesh.KVStore;
using Mesh.Pki;
using Mesh.TestKit;
using Xunit;

namespace Mesh.Agent.Tests.Truth;

/// <summary>
/// An agent with one peer, whose etcd is real, and a fault between them. The agent's own answer must name the kind of fault soon, and
/// call nothing healthy as long as it lasts; what is known of the peer stays.
/// </summary>
public sealed class PeerFaultTests : IAsyncLifetime
{
    private const string Peer = "kyoto";
    private static readonly TimeSpan Soon = TimeSpan.FromSeconds(10);

    /// <summary>What a machine under load may take on top.</summary>
    private static readonly TimeSpan Slack = TimeSpan.FromSeconds(10);

    private readonly string _directory = RunningAgent.NewDirectory();
    private readonly List<IAsyncDisposable> _running = [];
    private EtcdServer _etcd = null!;
    private RunningAgent? _agent;

    public async ValueTask InitializeAsync()
    {
        _etcd = await EtcdServer.StartAsync(true, "--quota-backend-bytes", "33554432");
        _running.Add(_etcd);
    }

    public async ValueTask DisposeAsync()
    {
        if (_agent is not null)
            await _agent.DisposeAsync();
        for (var i = _running.Count - 1; i >= 0; i--)
            await _running[i].DisposeAsync();
        RunningAgent.Remove(_directory);
    }

    [Fact]
    public async Task Without_a_fault_it_is_healthy_and_proves_it()
    {
        await PublishAsync();
        await ConnectAsync(_etcd.Endpoint);
        var status = await HealthyAsync();
        var peer = status.Mesh!.Peers![0];
        Assert.Equal("none", peer.Fault);
        Assert.InRange(peer.ProofAge, 0, 10);
        Assert.All(peer.Resources!, resource => Assert.True(resource.Synced && resource.ProofAge is >= 0 and < 10, resource.ToString()));
        Assert.Equal(1, peer.Resources!.Single(resource => resource.Name == "nodes").Entries);
        Assert.Equal("etcd", peer.Server);
        Assert.Equal("root", peer.Certificates!.ClientName);
        Assert.Null(status.Mesh.Faults);
        Assert.True(status.ClusterMesh!.Clusters![0].Ready);
    }

    [Fact]
    public async Task A_name_that_does_not_resolve()
    {
        await ConnectAsync("https://no-such-host.invalid:2379");
        await SoonAsync("dns");
    }

    [Fact]
    public async Task Nobody_listens()
    {
        await ConnectAsync($"https://127.0.0.1:{EtcdServer.FreePort()}");
        await SoonAsync("connection-refused");
    }

    [Fact]
    public async Task A_black_hole()
    {
        // A full queue of connections that nobody accepts: the kernel drops further ones without a word.
        using var hole = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        hole.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        hole.Listen(0);
        var stuffing = Enumerable.Range(0, 4).Select(_ => new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp)).ToList();
        foreach (var socket in stuffing)
        {
            socket.Blocking = false;
            try
            {
                await socket.ConnectAsync(hole.LocalEndPoint!).WaitAsync(TimeSpan.FromMilliseconds(200));
            }
            catch (TimeoutException)
            {
                break;
            }
        }
        await ConnectAsync($"https://127.0.0.1:{((IPEndPoint)hole.LocalEndPoint!).Port}");
        await SoonAsync("unreachable");
        stuffing.ForEach(socket => socket.Dispose());
    }

    [Fact]
    public async Task An_authority_that_we_do_not_know()
    {
        using var stranger = CertificateAuthority.Create("stranger", TimeSpan.FromDays(1));
        await File.WriteAllTextAsync(Path.Combine(_etcd.WorkDirectory, "stranger.crt"), stranger.CertificatePem);
        await PublishAsync();
        await ConnectAsync(_etcd.Endpoint, authority: Path.Combine(_etcd.WorkDirectory, "stranger.crt"));
        await SoonAsync("tls-unknown-authority");
    }

    [Fact]
    public async Task An_expired_certificate()
    {
        await PublishAsync();
        _etcd.ReissueServer(TimeSpan.FromSeconds(1));
        await Task.Delay(1100);
        await ConnectAsync(_etcd.Endpoint);
        await SoonAsync("certificate-expired");
    }

    [Fact]
    public async Task A_user_without_rights()
    {
        await PublishAsync();
        await _etcd.EtcdctlAsync("user", "add", "root", "--no-password");
        await _etcd.EtcdctlAsync("user", "grant-role", "root", "root");
        await _etcd.EtcdctlAsync("user", "add", "nobody", "--no-password");
        await _etcd.EtcdctlAsync("auth", "enable");
        await ConnectAsync(_etcd.Endpoint, user: "nobody");
        await SoonAsync("access-denied");
    }

    [Fact]
    public async Task A_cluster_that_has_not_published_everything()
    {
        await PublishAsync(canaries: false);
        await ConnectAsync(_etcd.Endpoint);
        await SoonAsync("not-synced");
        await using var store = _etcd.NewStore();
        await PublishedCluster.WriteCanariesAsync(store, Peer);
        await HealthyAsync();
    }

    [Fact]
    public async Task Our_own_cluster_ID()
    {
        await PublishAsync(id: 2);
        await ConnectAsync(_etcd.Endpoint);
        await SoonAsync("wrong-cluster-id");
    }

    [Fact]
    public async Task Another_cluster_behind_the_address()
    {
        await using (var store = _etcd.NewStore())
            await PublishedCluster.WriteAsync(store, "nara");
        await ConnectAsync(_etcd.Endpoint);
        await SoonAsync("config-missing");
    }

    [Fact]
    public async Task A_compaction_that_we_missed()
    {
        await PublishAsync();
        var proxy = Proxy();
        await ConnectAsync($"https://127.0.0.1:{proxy.Port}");
        await HealthyAsync();
        proxy.Cut();
        await using (var store = _etcd.NewStore())
        {
            var revision = await store.WriteAsync([new WriteOperation($"cilium/state/nodes/v1/{Peer}/other", Encoding.UTF8.GetBytes("{}"))], default);
            await store.WriteAsync([new WriteOperation($"cilium/state/nodes/v1/{Peer}/other", null)], default);
            await PublishedCluster.BeatAsync(store);
            await _etcd.EtcdctlAsync("compact", $"{revision + 2}");
        }
        proxy.Heal();
        await SoonAsync("compacted");
    }

    [Fact]
    public async Task A_store_that_is_full()
    {
        await PublishAsync();
        await ConnectAsync(_etcd.Endpoint);
        await HealthyAsync();
        await using var store = new EtcdKVStore(_etcd.Options with { RetryAttempts = 1 });
        var filling = await Assert.ThrowsAsync<KVStoreException>(async () =>
        {
            for (var i = 0; i < 100; i++)
                await store.WriteAsync([new WriteOperation($"junk/{i}", new byte[1 << 20])], default);
        });
        Assert.Equal(StoreFault.NoSpace, filling.Fault);
        await SoonAsync("store-full");
    }

    [Fact]
    public async Task A_clock_that_is_ahead()
    {
        await PublishAsync(clock: TimeSpan.FromMinutes(10));
        await ConnectAsync(_etcd.Endpoint);
        var peer = await SoonAsync("clock-skew");
        Assert.InRange(peer.ClockSkew!.Value, 580, 601);
    }

    [Fact]
    public async Task A_clock_that_is_behind()
    {
        await PublishAsync();
        await ConnectAsync(_etcd.Endpoint);
        await HealthyAsync();
        await using var store = _etcd.NewStore();
        await PublishedCluster.BeatAsync(store, TimeSpan.FromMinutes(-10));
        await SoonAsync("clock-skew");
    }

    [Fact]
    public async Task A_server_that_stands_still()
    {
        await PublishAsync();
        await ConnectAsync(_etcd.Endpoint);
        var before = await HealthyAsync();
        _etcd.Pause();
        try
        {
            var peer = await SoonAsync("frozen");
            Assert.True(peer.ProofAge is > 3 or -1, $"{peer.ProofAge}");
            var cluster = (await _agent!.Client.GetStatusAsync()).ClusterMesh!.Clusters![0];
            Assert.False(cluster.Connected);
            // Nothing is withdrawn because nobody speaks.
            Assert.Equal(before.ClusterMesh!.Clusters![0].NumNodes, cluster.NumNodes);
            Assert.Equal(1, cluster.NumNodes);
        }
        finally
        {
            _etcd.Continue();
        }
        await HealthyAsync();
    }

    [Theory]
    [InlineData("tunnel-down", 0)]
    [InlineData("node-unreachable", 1)]
    public async Task A_tunnel_that_carries_nothing_though_the_control_plane_is_well(string fault, int answering)
    {
        await PublishAsync(nodes: 2);
        await ConnectAsync(_etcd.Endpoint);
        await HealthyAsync();
        var alive = Enumerable.Range(1, 2).Select(i => $"10.7.{i}.1").ToHashSet();
        var view = _agent!.Agent.View;
        view.Probe = new NodeProbe(view.State.Nodes, (address, _, _) => Task.FromResult(alive.Contains(address.ToString())), TimeProvider.System);
        await RunningAgent.Eventually(() => Task.FromResult(view.State.Nodes.Count), count => count >= 2);
        await view.Probe.RoundAsync(default);
        Assert.Null((await _agent.Client.GetStatusAsync()).Mesh!.Faults);
        while (alive.Count > answering)
            alive.Remove(alive.Max()!);
        for (var round = 0; round < 3; round++)
            await view.Probe.RoundAsync(default);
        var peer = await SoonAsync(fault);
        Assert.Equal(2, peer.NodesProbed);
        Assert.Equal(2 - answering, peer.NodesSilent!.Count);
        Assert.Equal(2, (await _agent.Client.GetStatusAsync()).ClusterMesh!.Clusters![0].NumNodes);
    }

    [Fact]
    public async Task An_echo_is_asked_for_and_heard()
    {
        Assert.True(await NodeProbe.PingAsync(IPAddress.Loopback, Soon, default));
        // Documentation addresses, which nobody has.
        Assert.False(await NodeProbe.PingAsync(IPAddress.Parse("2001:db8::1"), TimeSpan.FromSeconds(0.2), default));
    }

    [Fact]
    public void A_map_that_is_full()
    {
        const string full = "map ipcache4 is full: it holds 8 entries";
        TableStatus[] tables =
        [
            new()
            {
                Name = "ipcache",
                Rows = 9,
                Failing = 3,
                Failures = [Row("10.7.0.1/32", full), Row("10.7.0.9/32", "no such node")],
                Full = [new FullMap { Map = "ipcache4", Waiting = 2, Error = full }],
            },
            new() { Name = "nodes", Rows = 2, Failing = 1, Failures = [Row("kyoto/1", "no route")] },
            new() { Name = "endpoints", Rows = 2 },
        ];
        Assert.Equal(
        [
            "map-full: map ipcache4 is full: it holds 8 entries; 2 of 9 rows of ipcache wait for room",
            "kernel-behind: 1 of 9 rows of ipcache are not in the kernel; 10.7.0.9/32: no such node",
            "kernel-behind: 1 of 2 rows of nodes are not in the kernel; kyoto/1: no route",
        ], PeerBody.Faults([], tables).Select(fault => $"{fault.Class}: {fault.Cause}"));

        static RowFailure Row(string key, string error) => new() { Key = key, Error = error };
    }

    private async Task PublishAsync(uint id = 7, int nodes = 1, bool canaries = true, TimeSpan clock = default)
    {
        await using var store = _etcd.NewStore();
        await PublishedCluster.WriteAsync(store, Peer, id, nodes, canaries, clock);
    }

    private TcpProxy Proxy()
    {
        var proxy = new TcpProxy(new Uri(_etcd.Endpoint).Port);
        _running.Add(proxy);
        return proxy;
    }

    private async Task ConnectAsync(string endpoint, string user = "root", string? authority = null)
    {
        var options = _etcd.OptionsFor(user);
        Directory.CreateDirectory(Path.Combine(_directory, "peers"));
        await File.WriteAllTextAsync(Path.Combine(_directory, "peers", Peer),
            $"endpoints:\n- {endpoint}\ntrusted-ca-file: {authority ?? options.TrustedCaFile}\n"
            + $"cert-file: {options.CertFile}\nkey-file: {options.KeyFile}\n");
        _agent = await RunningAgent.StartAsync(_directory, open: peer => new EtcdKVStore(EtcdConfigFile.Parse(peer.Text)));
    }

    private async Task<StatusResponse> HealthyAsync() => await UntilAsync(
        status => status.Mesh?.Peers is [{ Healthy: true }] && status.ClusterMesh!.Clusters![0].Ready, "healthy", Soon + Slack);

    /// <summary>The class comes soon, and then nothing says healthy.</summary>
    private async Task<PeerStatus> SoonAsync(string fault)
    {
        await UntilAsync(status => status.Mesh?.Peers is [{ } peer] && peer.Fault == fault, fault, Soon + Slack);
        var clock = Stopwatch.StartNew();
        PeerStatus? last = null;
        while (clock.Elapsed < TimeSpan.FromSeconds(1.5))
        {
            var status = await _agent!.Client.GetStatusAsync();
            Assert.False(status.Mesh!.Healthy);
            Assert.False(status.ClusterMesh!.Clusters![0].Ready);
            last = Assert.Single(status.Mesh.Peers!);
            Assert.False(last.Healthy);
            Assert.NotEmpty(last.Cause!);
            Assert.NotEmpty(last.Mend!);
            Assert.Contains(status.Mesh.Faults!, one => one.Peer == Peer && one.Class == last.Fault);
            await Task.Delay(100);
        }
        Assert.Equal(fault, last!.Fault);
        return last;
    }

    private async Task<StatusResponse> UntilAsync(Func<StatusResponse, bool> wanted, string what, TimeSpan patience)
    {
        var clock = Stopwatch.StartNew();
        while (true)
        {
            var status = await _agent!.Client.GetStatusAsync();
            if (wanted(status))
                return status;
            Assert.True(clock.Elapsed < patience, $"not {what} within {patience}: {(status.Mesh?.Peers is [{ } last, ..] ? last : null)}");
            await Task.Delay(50);
        }
    }
}
