using System.Diagnostics;
using Mesh.Agent.Tests.Truth;
using Mesh.Datapath;
using Mesh.KVStore;
using Xunit;

namespace Mesh.Agent.Tests.Live;

/// <summary>The faults that only a kernel has: packets that are dropped, and a map that is full.</summary>
public sealed class LiveFaultTests(LiveMesh live, FaultTimes times) : IClassFixture<LiveMesh>
{
    /// <summary>nftables drops UDP 8472 on the node of a running agent; its control plane takes another wire and stays well.</summary>
    [Theory]
    [InlineData("only the tunnel is down", "tunnel-down", null)]
    [InlineData("one node of two is silent", "node-unreachable", "172.30.7.2")]
    public async Task A_tunnel_that_carries_nothing_though_the_control_plane_is_well(string what, string fault, string? to)
    {
        await live.HealthyAsync();
        var clock = Stopwatch.StartNew();
        live.Drop(8472, to);
        try
        {
            await ToldAsync(what, fault, to, clock);
        }
        finally
        {
            live.PassAll();
        }
        Assert.InRange((await live.HealthyAsync()).After, TimeSpan.Zero, FaultTimes.Promise);
    }

    private async Task ToldAsync(string what, string fault, string? to, Stopwatch clock)
    {
        await times.MeasureAsync(what, fault, live.SocketPath, clock);
        var status = await live.Client.GetStatusAsync();
        var peer = status.Mesh!.Peers![0];
        Assert.Equal(to is null ? ["kyoto-1", "kyoto-2"] : ["kyoto-2"], peer.NodesSilent!);
        // The control plane is as well as before, and nothing is withdrawn.
        var cluster = status.ClusterMesh!.Clusters![0];
        Assert.True(cluster.Connected);
        Assert.Equal(2, cluster.NumNodes);
        Assert.All(peer.Resources!, resource => Assert.True(resource.Synced && resource.ProofAge is >= 0 and < 10, resource.ToString()));
    }

    [Fact]
    public async Task The_control_a_control_plane_that_is_cut_is_no_fault_of_the_tunnel()
    {
        await live.HealthyAsync();
        live.Control.Cut();
        var (status, _) = await live.UntilAsync(status => status.Mesh!.Peers![0].Healthy == false, "unhealthy", FaultTimes.Promise);
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

    /// <summary>The peer publishes more addresses than the map holds, and takes some back again.</summary>
    [Fact]
    public async Task A_map_that_is_full_serves_what_it_has_and_takes_the_rest_when_there_is_room()
    {
        const int more = 76;
        await live.HealthyAsync();
        await using var store = live.Etcd.NewStore();
        var most = LiveMesh.IPCacheMax;
        var clock = Stopwatch.StartNew();
        await store.WriteAsync([.. Enumerable.Range(0, most + more).Select(i => Entry(i, 1))], default);
        await times.MeasureAsync("a map that is full", "map-full", live.SocketPath, clock, ofThePeer: false);
        var (status, _) = await live.UntilAsync(status => status.Mesh!.Tables!.Single(table => table.Name == "ipcache").Pending == 0
            && status.Mesh.Tables!.Single(table => table.Name == "ipcache").Full is [{ Map: "ipcache4" }], "settled", FaultTimes.Promise);
        var waiting = (int)status.Mesh!.Tables!.Single(table => table.Name == "ipcache").Full![0].Waiting;
        Assert.InRange(waiting, more, more + 10);
        Assert.Equal(most, Held().Count);
        // What is in is served: the tunnel's own entries, and changes of those that it holds.
        Assert.Null(status.Mesh.Peers![0].NodesSilent);
        Assert.Equal(2, status.Mesh.Peers[0].NodesProbed);
        var held = Enumerable.Range(0, most + more).First(i => Held().ContainsKey(Address(i)));
        await store.WriteAsync([Entry(held, 2)], default);
        await live.UntilAsync(_ => Held()[Address(held)] == Identity(2), "the change of an entry that is in", FaultTimes.Promise);

        // Some of those that wait find room; then all.
        await store.WriteAsync([.. Leaving(0, waiting / 2)], default);
        await live.UntilAsync(status => status.Mesh!.Tables!.Single(table => table.Name == "ipcache").Full is [{ } full]
            && full.Waiting <= waiting - (waiting / 2) && Held().Count == most, "full with fewer", FaultTimes.Promise);
        await store.WriteAsync([.. Leaving(waiting / 2, waiting)], default);
        await live.HealthyAsync();
        var all = Held();
        Assert.Equal(Enumerable.Range(waiting, most + more - waiting).Select(Address), Enumerable.Range(0, most + more).Select(Address).Where(all.ContainsKey));
        // The next test finds the mesh as it was.
        await store.WriteAsync([.. Leaving(waiting, most + more)], default);
        // A mass withdrawal counts once its owner has shown itself alive behind it, as exporters do.
        await store.WriteAsync([new WriteOperation("cilium/.heartbeat", System.Text.Encoding.UTF8.GetBytes($"{DateTimeOffset.UtcNow:O}"))], default);
        await live.UntilAsync(_ => Held().Count < 20, "empty", FaultTimes.Promise);

        static string Address(int i) => $"10.7.{64 + (i / 256)}.{i % 256}";
        static uint Identity(uint number) => (7u << 16) + number;
        static WriteOperation Entry(int i, uint identity) => new($"cilium/state/ip/v1/default/{Address(i)}", System.Text.Encoding.UTF8.GetBytes(
            $$"""{"IP":"{{Address(i)}}","HostIP":"172.30.7.1","ID":{{Identity(identity)}},"Metadata":"cilium-global:kyoto:kyoto-1:1"}"""));
        static IEnumerable<WriteOperation> Leaving(int from, int to) =>
            Enumerable.Range(from, to - from).Select(i => new WriteOperation($"cilium/state/ip/v1/default/{Address(i)}", null));
    }

    /// <summary>IPv4 addresses in the kernel, and the identity of each.</summary>
    private Dictionary<string, uint> Held()
    {
        using var maps = PinnedMaps.Open(live.BpfRoot);
        return maps.IPCache().Where(entry => entry.Prefix.IsHost && !entry.Prefix.Address.IsV6)
            .ToDictionary(entry => entry.Prefix.Address.ToString(), entry => entry.Identity);
    }
}
