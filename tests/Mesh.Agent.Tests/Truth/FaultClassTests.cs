using System.Collections.Concurrent;
using System.Diagnostics;
using System.Globalization;
using System.Text;
using Mesh.Agent.Tests.Live;
using Mesh.Cli;
using Mesh.TestKit;
using Xunit;

namespace Mesh.Agent.Tests.Truth;

/// <summary>
/// Fifteen faults between an agent and its peer, each really made: real etcd, real certificates, real packets, real maps. `mesh status`
/// names the class of each within ten seconds and, from then on, never says healthy; of one that was there before the agent, it never
/// says so at all. The times are printed in a table when the class is done.
/// </summary>
public sealed class FaultClassTests(LiveMesh live, FaultTimes times) : IClassFixture<LiveMesh>, IClassFixture<FaultTimes>
{
    private static readonly TimeSpan Promise = TimeSpan.FromSeconds(10);

    /// <summary>How long the class is looked at once it is there.</summary>
    private static readonly TimeSpan Look = TimeSpan.FromSeconds(0.5);

    [Theory]
    [InlineData("a name that does not resolve", "dns")]
    [InlineData("nobody listens", "connection-refused")]
    [InlineData("a black hole", "unreachable")]
    [InlineData("an authority that we do not know", "tls-unknown-authority")]
    [InlineData("an expired certificate", "certificate-expired")]
    [InlineData("a user without rights", "access-denied")]
    [InlineData("a cluster that has not published everything", "not-synced")]
    [InlineData("our own cluster ID", "wrong-cluster-id")]
    public async Task A_fault_that_the_agent_finds_at_its_start(string what, string fault)
    {
        await using var peer = await FaultyPeer.StartAsync();
        await peer.PublishAsync(id: fault == "wrong-cluster-id" ? 2u : 7u, canaries: fault != "not-synced");
        var (endpoint, user, authority) = ((string?)null, "root", (string?)null);
        switch (fault)
        {
            case "dns":
                endpoint = "https://no-such-host.invalid:2379";
                break;
            case "connection-refused":
                endpoint = $"https://127.0.0.1:{EtcdServer.FreePort()}";
                break;
            case "unreachable":
                endpoint = $"https://127.0.0.1:{await peer.BlackHoleAsync()}";
                break;
            case "tls-unknown-authority":
                authority = await peer.StrangerAsync();
                break;
            case "certificate-expired":
                peer.Etcd.ReissueServer(TimeSpan.FromSeconds(1));
                await Task.Delay(1100);
                break;
            case "access-denied":
                await peer.AuthenticateAsync();
                user = "nobody";
                break;
        }
        var clock = Stopwatch.StartNew();
        await peer.ConnectAsync(endpoint, user, authority);
        await TimeAsync(what, fault, peer.Agent.SocketPath, clock, neverHealthy: true);
    }

    [Theory]
    [InlineData("a compaction that we missed", "compacted")]
    [InlineData("a store that is full", "store-full")]
    [InlineData("a server that stands still", "frozen")]
    [InlineData("a clock that is behind", "clock-skew")]
    public async Task A_fault_that_comes_over_a_healthy_peer(string what, string fault)
    {
        await using var peer = await FaultyPeer.StartAsync();
        await peer.PublishAsync();
        var proxy = peer.Proxy();
        await peer.ConnectAsync($"https://127.0.0.1:{proxy.Port}");
        await peer.HealthyAsync();
        Assert.True(SaysHealthy(await StatusAsync(peer.Agent.SocketPath)));
        var clock = Stopwatch.StartNew();
        switch (fault)
        {
            case "compacted":
                proxy.Cut();
                await peer.CompactAsync();
                proxy.Heal();
                break;
            case "store-full":
                await peer.FillAsync();
                break;
            case "frozen":
                peer.Etcd.Pause();
                break;
            case "clock-skew":
                await using (var store = peer.Etcd.NewStore())
                    await PublishedCluster.BeatAsync(store, TimeSpan.FromMinutes(-10));
                break;
        }
        await TimeAsync(what, fault, peer.Agent.SocketPath, clock, neverHealthy: false);
        // Nothing is withdrawn because of it.
        var status = await peer.Agent.Client.GetStatusAsync();
        Assert.Equal(1, status.ClusterMesh!.Clusters![0].NumNodes);
        if (fault != "frozen")
            return;
        Assert.False(status.ClusterMesh.Clusters[0].Connected);
        Assert.True(status.Mesh!.Peers![0].ProofAge is > 3 or -1, $"{status.Mesh.Peers[0].ProofAge}");
        peer.Etcd.Continue();
        await peer.HealthyAsync();
    }

    /// <summary>nftables drops UDP 8472 on the node of a running agent; its control plane takes another wire and stays well.</summary>
    [Theory]
    [InlineData("only the tunnel is down", "tunnel-down", null)]
    [InlineData("one node of two is silent", "node-unreachable", "172.30.7.2")]
    public async Task A_tunnel_that_carries_nothing_though_the_control_plane_is_well(string what, string fault, string? to)
    {
        await live.HealthyAsync();
        var clock = Stopwatch.StartNew();
        live.Drop(8472, to);
        await TimeAsync(what, fault, live.SocketPath, clock, neverHealthy: false);
        var status = await live.Client.GetStatusAsync();
        var peer = status.Mesh!.Peers![0];
        Assert.Equal(to is null ? ["kyoto-1", "kyoto-2"] : ["kyoto-2"], peer.NodesSilent!);
        // The control plane is as well as before, and nothing is withdrawn.
        var cluster = status.ClusterMesh!.Clusters![0];
        Assert.True(cluster.Connected);
        Assert.Equal(2, cluster.NumNodes);
        Assert.All(peer.Resources!, resource => Assert.True(resource.Synced && resource.ProofAge is >= 0 and < 10, resource.ToString()));
        live.PassAll();
        Assert.InRange((await live.HealthyAsync()).After, TimeSpan.Zero, Promise);
    }

    [Fact]
    public async Task The_control_a_control_plane_that_is_cut_is_no_fault_of_the_tunnel()
    {
        await live.HealthyAsync();
        live.Control.Cut();
        var (status, _) = await live.UntilAsync(status => status.Mesh!.Peers![0].Healthy == false, "unhealthy", Promise);
        Assert.Null(status.Mesh!.Peers![0].NodesSilent);
        Assert.Equal(2, status.Mesh.Peers[0].NodesProbed);
        Assert.NotEqual("tunnel-down", status.Mesh.Peers[0].Fault);
        live.Control.Heal();
        await live.HealthyAsync();
    }

    [Fact]
    public async Task The_control_another_port_may_be_dropped_and_echoes_go_through_the_tunnel()
    {
        await live.HealthyAsync();
        live.Drop(8473);
        // Two nodes are asked every two seconds; three silent rounds would make a fault.
        live.Count(8472);
        await live.UntilAsync(status =>
        {
            Assert.Equal((0, null), (status.Mesh!.Peers![0].NodesSilent?.Count ?? 0, status.Mesh.Faults));
            return live.Counted() >= 8;
        }, "eight echoes in the tunnel", TimeSpan.FromSeconds(20));
        live.PassAll();
    }

    private async Task TimeAsync(string what, string fault, string socket, Stopwatch clock, bool neverHealthy)
    {
        TimeSpan? named = null;
        while (named is not { } since || clock.Elapsed - since < Look)
        {
            var text = await StatusAsync(socket);
            var isNamed = text.Contains($"NOT HEALTHY, {fault},", StringComparison.Ordinal) || text.Contains($"Fault {fault}:", StringComparison.Ordinal);
            if (isNamed)
                named ??= clock.Elapsed;
            if (named is not null || neverHealthy)
                Assert.False(SaysHealthy(text), $"{fault} was there, and still:\n{text}");
            Assert.True(named is null || isNamed, $"{fault} was named and then not:\n{text}");
            Assert.True(named is not null || clock.Elapsed < Promise, $"not {fault} within {Promise.TotalSeconds} s:\n{text}");
            await Task.Delay(50);
        }
        times.Add(what, fault, named.Value);
    }

    private static bool SaysHealthy(string text) => text.Contains($"{FaultyPeer.Name}: healthy", StringComparison.Ordinal)
        || text.Contains("1/1 remote clusters ready", StringComparison.Ordinal) || text.Contains($"{FaultyPeer.Name}: ready", StringComparison.Ordinal)
        || text.EndsWith("exit code 0", StringComparison.Ordinal);

    private static async Task<string> StatusAsync(string socket)
    {
        var (output, error) = (new StringWriter(), new StringWriter());
        var code = await MeshCommand.RunAsync(["status", "--verbose", "--socket", socket], output, error);
        return $"{output}{error}exit code {code}";
    }
}

/// <summary>Prints, when a class is done, how long each fault took to be named.</summary>
public sealed class FaultTimes : IDisposable
{
    private readonly ConcurrentQueue<(string What, string Fault, TimeSpan After)> _times = new();

    public void Add(string what, string fault, TimeSpan after) => _times.Enqueue((what, fault, after));

    public void Dispose()
    {
        var table = new StringBuilder(string.Create(CultureInfo.InvariantCulture, $"{_times.Count} of 15 faults, and the seconds until `mesh status` named each:\n"));
        foreach (var (what, fault, after) in _times.OrderBy(time => time.After))
            table.Append(CultureInfo.InvariantCulture, $"  {after.TotalSeconds,5:0.00} s  {fault,-22}{what}\n");
        Console.Write(table);
    }
}
