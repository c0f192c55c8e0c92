using System.Diagnostics;
using Mesh.Agent.Tests.Live;
using Mesh.TestKit;
using Xunit;

namespace Mesh.Agent.Tests.Truth;

/// <summary>
/// Twelve of fifteen faults between an agent and its peer, each really made: real etcd, real certificates. `mesh status` names the class
/// of each within ten seconds and, from then on, never says healthy; of one that was there before the agent, it never says so at all. The
/// other three need a kernel: see <see cref="LiveFaultTests"/>. The times are printed in a table at the end.
/// </summary>
public sealed class FaultClassTests(FaultTimes times)
{
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
        await times.MeasureAsync(what, fault, peer.Agent.SocketPath, clock, neverHealthy: true);
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
        Assert.True(FaultTimes.SaysHealthy(await FaultTimes.StatusAsync(peer.Agent.SocketPath)));
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
        await times.MeasureAsync(what, fault, peer.Agent.SocketPath, clock);
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
}
