using Mesh.Agent.Api;
using Mesh.Agent.Probes;
using Mesh.AgentApi;
using Mesh.Liveness;
using Mesh.Model;
using Mesh.TestKit;
using Xunit;

namespace Mesh.Agent.Tests.Truth;

/// <summary>
/// What the agent's own answer says besides the class (see <see cref="FaultClassTests"/>): the evidence when all is well, the figures of
/// a fault, that what is known of the peer stays, and that it is healthy again when the fault has gone.
/// </summary>
public sealed class PeerFaultTests : IAsyncLifetime
{
    private FaultyPeer _peer = null!;

    public async ValueTask InitializeAsync() => _peer = await FaultyPeer.StartAsync();

    public ValueTask DisposeAsync() => _peer.DisposeAsync();

    [Fact]
    public async Task Without_a_fault_it_is_healthy_and_proves_it()
    {
        await _peer.PublishAsync();
        await _peer.ConnectAsync();
        var status = await _peer.HealthyAsync();
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
    public async Task A_cluster_that_has_not_published_everything()
    {
        await _peer.PublishAsync(canaries: false);
        await _peer.ConnectAsync();
        await _peer.SoonAsync("not-synced");
        await using var store = _peer.Etcd.NewStore();
        await PublishedCluster.WriteCanariesAsync(store, FaultyPeer.Name);
        await _peer.HealthyAsync();
    }

    [Fact]
    public async Task Another_cluster_behind_the_address()
    {
        await _peer.PublishAsync(name: "nara");
        await _peer.ConnectAsync();
        await _peer.SoonAsync("config-missing");
    }

    [Fact]
    public async Task A_clock_that_is_ahead()
    {
        await _peer.PublishAsync(clock: TimeSpan.FromMinutes(10));
        await _peer.ConnectAsync();
        var peer = await _peer.SoonAsync("clock-skew");
        Assert.InRange(peer.ClockSkew!.Value, 580, 601);
    }

    [Fact]
    public void Nodes_that_have_not_answered_for_seconds_are_silent()
    {
        static NodeReport Node(string name, double? sinceAnswer, long sent) => new(new NodeName("nara", name), 2, 1, TargetRole.Representative,
            true, false, true, default, sinceAnswer is { } age ? TimeSpan.FromSeconds(age) : null, sent, sinceAnswer is null ? 0 : 1);
        var report = LivenessReport.Empty with
        {
            Nodes = [Node("well", 0.1, 100), Node("gone", 4, 100), Node("never", null, 100), Node("new", null, 2)],
        };
        var (probed, silent) = LivenessStage.Of(report, "nara");
        Assert.Equal(3, probed);
        Assert.Equal(["gone", "never"], silent);
        Assert.Equal(0, LivenessStage.Of(report, "osaka").Probed);
    }

    [Fact]
    public void A_row_that_the_kernel_refused_for_another_reason_than_a_full_map()
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
        ], PeerBody.Faults([], [], tables).Select(fault => $"{fault.Class}: {fault.Cause}"));

        static RowFailure Row(string key, string error) => new() { Key = key, Error = error };
    }
}
