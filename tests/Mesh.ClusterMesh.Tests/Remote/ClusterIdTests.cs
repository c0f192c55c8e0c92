using Mesh.ClusterMesh.Remote;
using Mesh.ClusterMesh.Tests.Wire;
using Mesh.ClusterMesh.Wire;
using Mesh.KVStore;
using Mesh.Model;
using Xunit;

namespace Mesh.ClusterMesh.Tests.Remote;

/// <summary>What a cluster says of itself, and whether it is believed.</summary>
public sealed class ClusterIdTests : RemoteClusterStory
{
    [Fact]
    public async Task A_missing_cluster_config_is_named_and_waited_for()
    {
        await _falcon.RecordsAsync();
        await using var following = Follow();
        await _sink.UntilStatusAsync("falcon", "cilium/cluster-config/falcon is missing at memory");
        Assert.Equal("", _sink.Text);
        await _falcon.EverythingAsync();
        await _sink.UntilReadyAsync("falcon");
    }

    [Fact]
    public async Task A_malformed_cluster_config_is_named_and_waited_for()
    {
        await _falcon.PutAsync(Keys.ClusterConfig("falcon"), Falcon.Bytes("""{"id":"7"}"""));
        await using var following = Follow();
        await _sink.UntilStatusAsync("falcon", "cilium/cluster-config/falcon is malformed: 'id' must be an integer, not a string");
        await _falcon.EverythingAsync();
        await _sink.UntilReadyAsync("falcon");
    }

    [Fact]
    public async Task An_impossible_cluster_ID_is_refused()
    {
        foreach (var (id, reason) in new[] { (0u, "not valid here"), (256u, "allowed are 1 to 255"), (1u, "is our own") })
        {
            await _falcon.ConfigAsync(new ClusterConfig { Id = id, Capabilities = new() });
            await using var following = Follow();
            await _sink.UntilStatusAsync("falcon", reason);
            Assert.Equal("", _sink.Text);
        }
        await using var accepted = await FollowReadyAsync();
    }

    [Fact]
    public async Task A_mesh_of_511_refuses_a_peer_of_255_and_not_the_other_way_round()
    {
        await _falcon.EverythingAsync();
        await using (Follow(options: Following.Options with { Numbering = IdentityNumbering.Max511 }))
            await _sink.UntilStatusAsync("falcon", "made for 255 clusters, this mesh for 511");
        await _falcon.ConfigAsync(ClusterConfig.SafeProfile(7, 511));
        await using var following = Follow();
        await _sink.UntilReadyAsync("falcon");
    }

    [Fact]
    public async Task An_ID_clash_of_two_peers_resolves_when_one_leaves()
    {
        await using var other = new InMemoryKVStore();
        var osprey = new Producer(other, "osprey", 7);
        await osprey.EverythingAsync();
        var first = await FollowReadyAsync();
        await using var second = Follow("osprey", other);
        await _sink.UntilStatusAsync("osprey", "cluster ID 7 of osprey is already used by falcon");
        Assert.Equal(_falcon.Records, _sink.Text);
        await first.StopAsync();
        first.Cluster.Drain();
        await _sink.UntilReadyAsync("osprey");
        Assert.Equal(osprey.Records, _sink.Text);
    }

    [Fact]
    public async Task A_peer_that_takes_the_ID_of_another_keeps_its_last_good_records()
    {
        await using var other = new InMemoryKVStore();
        var osprey = new Producer(other, "osprey", 8);
        await osprey.EverythingAsync();
        await using var first = await FollowReadyAsync();
        await using var second = Follow("osprey", other);
        await _sink.UntilReadyAsync("osprey");
        var before = _sink.Text;
        await osprey.ConfigAsync(ClusterConfig.SafeProfile(7, 255));
        await _sink.UntilStatusAsync("osprey", "already used by falcon");
        Assert.Equal(before, _sink.Text);
        Assert.Empty(_sink.Drains);
    }

    [Fact]
    public async Task Two_peers_that_swap_their_IDs_both_come_back()
    {
        await using var other = new InMemoryKVStore();
        var osprey = new Producer(other, "osprey", 8);
        await osprey.EverythingAsync();
        await using var first = await FollowReadyAsync();
        await using var second = Follow("osprey", other);
        await _sink.UntilReadyAsync("osprey");
        (osprey.Id, _falcon.Id) = (7, 8);
        await osprey.EverythingAsync();
        await _falcon.EverythingAsync();
        await _sink.UntilAsync(
            sink => sink.Statuses.GetValueOrDefault("falcon") is { Ready: true, ClusterId: 8 }
                && sink.Statuses.GetValueOrDefault("osprey") is { Ready: true, ClusterId: 7 },
            "both ready under the other's ID");
        await _sink.UntilAsync(
            sink => sink.Identities.ContainsKey(("falcon", 8 << 16 | 1)) && !sink.Identities.ContainsKey(("falcon", 7 << 16 | 1)),
            "identities of the new range only");
    }

    [Fact]
    public async Task An_ID_change_drains_the_old_cluster_and_goes_on_with_the_new_one()
    {
        await using var following = await FollowReadyAsync();
        // The cluster starts anew as 9: first its records, which are foreign until the config says so too.
        await _store.DeletePrefixAsync("cilium/state/ip/", Cancellation);
        await _store.DeletePrefixAsync("cilium/state/identities/", Cancellation);
        _falcon.Id = 9;
        await _falcon.RecordsAsync();
        await _sink.UntilAsync(sink => sink.Statuses["falcon"].Rejected >= 4, "records of ID 9 rejected");
        Assert.Empty(_sink.Drains);
        await _falcon.ConfigAsync();
        await _sink.UntilAsync(sink => sink.Statuses.GetValueOrDefault("falcon") is { ClusterId: 9, Ready: true }, "ready as 9");
        Assert.Equal([("falcon", 7u)], _sink.Drains);
        Assert.Equal(_falcon.Records, _sink.Text);
        Assert.Equal(IdReservation.Granted, _reservations.TryReserve(7, "other", out _));
    }
}
