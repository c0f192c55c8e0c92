using Mesh.ClusterMesh.Remote;
using Mesh.ClusterMesh.Tests.Wire;
using Mesh.ClusterMesh.Wire;
using Mesh.KVStore;
using Mesh.Model;
using Microsoft.Extensions.Time.Testing;
using Xunit;

namespace Mesh.ClusterMesh.Tests.Remote;

/// <summary>The life of one peer, on a store in memory that can lose what etcd loses.</summary>
public sealed class RemoteClusterTests : RemoteClusterStory
{
    [Fact]
    public async Task Every_resource_arrives_as_typed_records()
    {
        await using var following = await FollowReadyAsync();
        Assert.Equal(_falcon.Records, _sink.Text);
        var status = following.Cluster.Status;
        Assert.Equal(
            "etcd: 1/1 connected, leases=0, lock leases=0, has-quorum=true: endpoint status checks are disabled, ID: 1", status.Status);
        Assert.Equal((1, 1, 1, 1), (status.Nodes, status.Services, status.IpEntries, status.Identities));
        Assert.Equal((7u, 0, true, true), (status.ClusterId, status.Failures, status.SyncedCanaries, status.ConfigRetrieved));
        Assert.Equal(4, _sink.SyncedMessages);
    }

    [Fact]
    public async Task Changes_and_deletions_follow()
    {
        await using var following = await FollowReadyAsync();
        await _falcon.NodeAsync("n2");
        await _falcon.DeleteAsync(Keys.Node("falcon", "n1"));
        await _falcon.DeleteAsync(Keys.Ip(IpPrefix.Parse("10.7.0.9")));
        await _falcon.DeleteAsync(Keys.Identity(_falcon.Identity(1)));
        await _falcon.DeleteAsync(Keys.Service("falcon", new ServiceName("shop", "cart")));
        await _sink.UntilAsync(sink => sink.Text == "falcon/n2", "only n2 is left");
    }

    [Fact]
    public async Task One_service_its_owner_scales_to_zero_goes_at_once_and_a_second_soon_after_is_looked_at_first()
    {
        await using var following = await FollowReadyAsync();
        await _falcon.ServiceAsync("cart", true, "10.7.0.9", "10.7.0.10");
        await _falcon.ServiceAsync("till", true, "10.7.0.11");
        await _sink.UntilAsync(sink => sink.Backends == 3, "three backends");
        await _falcon.ServiceAsync("cart");
        await _sink.UntilAsync(sink => sink.Backends == 1, "cart is at zero, two of three backends");
        Assert.Equal(0, following.Cluster.Status.Holds);
        await _falcon.ServiceAsync("till");
        await _sink.UntilAsync(sink => sink.Backends == 0, "till is at zero");
        await _sink.UntilAsync(sink => sink.Statuses["falcon"].Holds == 1, "a hold was told");
    }

    [Fact]
    public async Task The_cache_layout_of_a_mirrored_peer_is_read()
    {
        var cache = Layout.Cache("falcon");
        await _falcon.RecordsAsync();
        foreach (var item in (await _store.ListAsync("cilium/state/", Cancellation)).Items)
            await _falcon.PutAsync(Layout.State("falcon").Rewrite(item.Key, cache)!, item.Value.ToArray());
        await _store.DeletePrefixAsync("cilium/state/", Cancellation);
        foreach (var resource in RemoteResources.OfEveryCluster)
            await _falcon.PutAsync(cache.Canary(resource), []);
        await _falcon.ConfigAsync(new ClusterConfig { Id = 7, Capabilities = new() { SyncedCanaries = true, Cached = true } });
        await using var following = Follow();
        await _sink.UntilReadyAsync("falcon");
        Assert.Equal(_falcon.Records, _sink.Text);
        Assert.True(following.Cluster.Status.Cached);
    }

    [Fact]
    public async Task A_peer_of_1_13_without_canaries_is_read_at_once()
    {
        await _falcon.RecordsAsync();
        await _falcon.PutAsync(Keys.ClusterConfig("falcon"), Falcon.Bytes("""{"id":7}"""));
        await using var following = Follow();
        await _sink.UntilReadyAsync("falcon");
        Assert.Equal(_falcon.Records, _sink.Text);
    }

    [Fact]
    public async Task A_disconnection_withdraws_nothing_and_shows()
    {
        await using var following = await FollowReadyAsync();
        _store.Disconnect();
        await _sink.UntilStatusAsync("falcon", "not able to connect to any etcd endpoints: disconnected");
        Assert.Equal(_falcon.Records, _sink.Text);
        Assert.False(following.Cluster.Status.Ready);
        _store.Connect();
        await _sink.UntilReadyAsync("falcon");
        // The negative control: what is really deleted does go.
        await _falcon.DeleteAsync(Keys.Node("falcon", "n1"));
        await _sink.UntilAsync(sink => sink.Nodes.Count == 0, "n1 is gone");
    }

    [Fact]
    public async Task A_relist_deletes_what_it_no_longer_lists()
    {
        await using var following = await FollowReadyAsync();
        await _falcon.NodeAsync("n2");
        await _sink.UntilAsync(sink => sink.Nodes.Count == 2, "both nodes");
        _store.Disconnect();
        // Written around the disconnected reader, and the history is compacted before it comes back.
        _store.Connect();
        await _falcon.DeleteAsync(Keys.Node("falcon", "n1"));
        _store.Compact();
        await _sink.UntilAsync(sink => sink.Nodes.Count == 1, "n1 is gone");
        Assert.Contains("falcon/n2", _sink.Text);
    }

    [Fact]
    public async Task What_vanished_between_two_connections_is_deleted_and_the_rest_stays()
    {
        var following = await FollowReadyAsync();
        await following.StopAsync();
        await _falcon.DeleteAsync(Keys.Node("falcon", "n1"));
        await _falcon.NodeAsync("n3");
        using var stop = new CancellationTokenSource();
        var run = following.Cluster.RunAsync(() => new Borrowed(_store), stop.Token);
        await _sink.UntilAsync(sink => sink.Nodes.Keys.Select(key => key.Node).SequenceEqual(["n3"]), "n3 instead of n1");
        Assert.Empty(_sink.Drains);
        Assert.Equal(1, _sink.Deletions);
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => run);
        await following.DisposeAsync();
    }

    [Fact]
    public async Task A_wiped_store_withdraws_nothing_until_the_cluster_has_written_again()
    {
        await using var following = await FollowReadyAsync();
        _store.Wipe();
        await _sink.UntilStatusAsync("falcon", "cluster-config/falcon is missing");
        Assert.Equal(_falcon.Records, _sink.Text);
        await _falcon.ConfigAsync();
        await _falcon.NodeAsync("n2");
        await _sink.UntilAsync(sink => sink.Statuses["falcon"].ConfigRetrieved, "the cluster-config");
        Assert.Equal(_falcon.Records, _sink.Text);
        await _falcon.CanariesAsync();
        // Most of the cluster is missing: that is believed only of one which is seen to live.
        await _sink.UntilAsync(sink => sink.Statuses["falcon"].Holds == 4, "what is missing to have been held");
        await _falcon.HeartbeatAsync();
        await _sink.UntilAsync(sink => sink.Text == "falcon/n2", "only what was written again");
        Assert.Empty(_sink.Drains);
    }

    [Fact]
    public async Task A_new_connection_believes_a_list_only_after_its_canary()
    {
        await _falcon.ConfigAsync();
        await _falcon.RecordsAsync();
        await using var following = Follow();
        await _sink.UntilAsync(sink => sink.Statuses.GetValueOrDefault("falcon")?.ConfigRetrieved == true, "the cluster-config");
        await _falcon.CanaryAsync(RemoteResource.Nodes);
        await _sink.UntilAsync(sink => sink.Statuses["falcon"].NodesSynced, "nodes");
        Assert.Equal("falcon/n1", _sink.Text);
        await _falcon.CanariesAsync();
        await _sink.UntilReadyAsync("falcon");
        Assert.Equal(_falcon.Records, _sink.Text);
    }

    [Fact]
    public async Task A_missing_canary_blocks_only_its_own_resource()
    {
        await _falcon.ConfigAsync();
        await _falcon.RecordsAsync();
        foreach (var resource in RemoteResources.OfEveryCluster.Where(resource => resource != RemoteResource.Services))
            await _falcon.CanaryAsync(resource);
        await using var following = Follow();
        await _sink.UntilAsync(
            sink => sink.Statuses.GetValueOrDefault("falcon") is { NodesSynced: true, IpEntriesSynced: true, IdentitiesSynced: true },
            "three resources");
        var status = following.Cluster.Status;
        Assert.Equal((false, false, true), (status.ServicesSynced, status.Ready, status.Connected));
        Assert.DoesNotContain("shop/cart", _sink.Text);
        await _falcon.CanaryAsync(RemoteResource.Services);
        await _sink.UntilReadyAsync("falcon");
        Assert.Contains("shop/cart", _sink.Text);
    }

    [Fact]
    public async Task A_sibling_whose_name_begins_alike_is_not_seen()
    {
        var sibling = new Producer(_store, "falcon2", 8);
        await sibling.NodeAsync("x");
        await sibling.ServiceAsync("cart");
        await using var following = await FollowReadyAsync();
        Assert.Equal(_falcon.Records, _sink.Text);
        Assert.Equal(0, following.Cluster.Status.Rejected);
    }

    [Fact]
    public async Task A_hostile_value_disturbs_no_other_record()
    {
        await using var following = await FollowReadyAsync();
        var foreign = Falcon.Node.Replace("\"ClusterID\":7", "\"ClusterID\":9", StringComparison.Ordinal);
        string[] hostile = ["{", "null", "{}", "\u0001\u001b[2J", """{"ID":999999999999}""", foreign];
        foreach (var value in hostile)
        {
            // As an update of what is valid …
            await _falcon.PutAsync(Keys.Node("falcon", "n1"), Falcon.Bytes(value));
            await _falcon.PutAsync(Keys.Service("falcon", new ServiceName("shop", "cart")), Falcon.Bytes(value));
            await _falcon.PutAsync(Keys.Ip(IpPrefix.Parse("10.7.0.9")), Falcon.Bytes(value));
            await _falcon.PutAsync(Keys.Identity(_falcon.Identity(1)), Falcon.Bytes(value));
            // … and under keys that are none.
            await _falcon.PutAsync("cilium/state/nodes/v1/falcon/a/b", Falcon.Bytes(value));
            await _falcon.PutAsync("cilium/state/services/v1/falcon/cart", Falcon.Bytes(value));
            await _falcon.PutAsync("cilium/state/ip/v1/default/10.7.0.9/33", Falcon.Bytes(value));
            await _falcon.PutAsync("cilium/state/identities/v1/id/0458753", Falcon.Bytes(value));
        }
        await _sink.UntilAsync(sink => sink.Statuses["falcon"].Rejected == 8 * hostile.Length, "all rejections counted");
        Assert.Equal(_falcon.Records, _sink.Text);
        Assert.DoesNotContain(following.Cluster.Status.LastRejection!, char.IsControl);
        Assert.Equal(0, _sink.Deletions);
        // Deleting a key that never was valid takes nothing with it, deleting a spoiled one does.
        await _falcon.DeleteAsync("cilium/state/identities/v1/id/0458753");
        await _falcon.DeleteAsync(Keys.Identity(_falcon.Identity(1)));
        await _sink.UntilAsync(sink => sink.Identities.Count == 0, "the identity is gone");
        Assert.Equal(1, _sink.Deletions);
    }

    [Fact]
    public async Task A_record_spoiled_before_a_relist_counts_as_not_listed()
    {
        await using var following = await FollowReadyAsync();
        await _falcon.PutAsync(Keys.Node("falcon", "n1"), Falcon.Bytes("{"));
        await _sink.UntilAsync(sink => sink.Statuses["falcon"].Rejected == 1, "the rejection");
        Assert.Contains("falcon/n1", _sink.Text);
        await following.StopAsync();
        using var stop = new CancellationTokenSource();
        var run = following.Cluster.RunAsync(() => new Borrowed(_store), stop.Token);
        await _sink.UntilAsync(sink => sink.Nodes.Count == 0, "n1 is gone");
        Assert.Equal(1, _sink.Deletions);
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => run);
    }

    [Fact]
    public async Task Deleting_what_was_never_accepted_is_not_handed_on()
    {
        await using var following = await FollowReadyAsync();
        await _falcon.PutAsync(Keys.Identity(65537), Falcon.Bytes(Falcon.Identity));
        await _falcon.DeleteAsync(Keys.Identity(65537));
        await _falcon.PutAsync("cilium/state/ip/v1/default/10.7.0.9/32x", []);
        await _falcon.DeleteAsync("cilium/state/ip/v1/default/10.7.0.9/32x");
        await _falcon.NodeAsync("last");
        await _sink.UntilAsync(sink => sink.Nodes.Count == 2, "the last write");
        await _sink.UntilAsync(sink => sink.Statuses["falcon"].Rejected == 2, "both rejections");
        Assert.Equal(0, _sink.Deletions);
    }

    [Fact]
    public async Task A_service_no_longer_shared_is_withdrawn()
    {
        await using var following = await FollowReadyAsync();
        await _falcon.ServiceAsync("cart", shared: false);
        await _sink.UntilAsync(sink => sink.Services.Count == 0, "cart is withdrawn");
        await _falcon.ServiceAsync("cart");
        await _sink.UntilAsync(sink => sink.Services.Count == 1, "cart is back");
    }

    [Fact]
    public async Task An_identity_gets_other_labels_under_its_number()
    {
        await using var following = await FollowReadyAsync();
        await _falcon.IdentityAsync(1, "basket");
        var key = ("falcon", _falcon.Identity(1));
        await _sink.UntilAsync(sink => sink.Identities[key].Contains("app=basket", StringComparison.Ordinal), "basket");
    }

    /// <summary>A producer writes one resource at a time, so what two lost in one transaction was not its doing; a relay commits
    /// whatever has come.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Deletions_in_one_transaction_are_doubted_unless_a_relay_made_it(bool relayed)
    {
        await _falcon.RecordsAsync();
        var layout = relayed ? Layout.Cache("falcon") : Layout.State("falcon");
        foreach (var item in (await _store.ListAsync("cilium/state/", Cancellation)).Items)
            await _falcon.PutAsync(Layout.State("falcon").Rewrite(item.Key, layout)!, item.Value.ToArray());
        foreach (var resource in RemoteResources.OfEveryCluster)
            await _falcon.PutAsync(layout.Canary(resource), []);
        await _falcon.ConfigAsync(new ClusterConfig { Id = 7, Capabilities = new() { SyncedCanaries = true, Cached = relayed } });
        var patient = Following.Options.DefaultImports with { Breaker = new() { Settle = TimeSpan.FromMilliseconds(100) } };
        await using var following = Follow(options: Following.Options with { DefaultImports = patient });
        await _sink.UntilReadyAsync("falcon");
        await _store.WriteAsync(
            [new(layout.Prefix(RemoteResource.Services) + "shop/cart", null), new(layout.Prefix(RemoteResource.IpEntries) + "10.7.0.9", null)], Cancellation);
        if (relayed)
        {
            await _sink.UntilAsync(sink => sink.Services.Count + sink.IpEntries.Count == 0, "both gone");
            return;
        }
        await _sink.UntilStatusAsync("falcon", "other resources lost keys in the same transaction, which no producer does");
        Assert.Equal(_falcon.Records, _sink.Text);
    }

    [Fact]
    public async Task A_hold_outlives_the_connection_it_began_in()
    {
        await using var following = await FollowReadyAsync();
        await _store.DeletePrefixAsync("cilium/state/", Cancellation);
        await _sink.UntilStatusAsync("falcon", "let go when");
        await following.StopAsync();
        using var stop = new CancellationTokenSource();
        var run = following.Cluster.RunAsync(() => new Borrowed(_store), stop.Token);
        await _sink.UntilAsync(sink => sink.SyncedMessages == 8, "everything listed again");
        Assert.Equal(_falcon.Records, _sink.Text);
        await _falcon.HeartbeatAsync();
        await _sink.UntilAsync(sink => sink.Text.Length == 0, "let go: the owner lives and does not say otherwise");
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => run);
    }

    [Fact]
    public async Task The_same_address_from_two_clusters_is_handed_on_from_both()
    {
        await using var other = new InMemoryKVStore();
        var osprey = new Producer(other, "osprey", 8);
        await osprey.EverythingAsync();
        await osprey.IpAsync("10.7.0.9");
        await using var following = await FollowReadyAsync();
        await using var second = Follow("osprey", other);
        await _sink.UntilReadyAsync("osprey");
        Assert.Equal(2, _sink.Read(sink => sink.IpEntries.Keys.Count(key => key.Prefix == IpPrefix.Parse("10.7.0.9"))));
    }

    [Fact]
    public async Task A_removal_drains_and_a_mere_stop_does_not()
    {
        var following = await FollowReadyAsync();
        await following.StopAsync();
        Assert.Equal(_falcon.Records, _sink.Text);
        following.Cluster.Drain();
        Assert.Equal("", _sink.Text);
        Assert.Equal([("falcon", 7u)], _sink.Drains);
        Assert.Equal(IdReservation.Granted, _reservations.TryReserve(7, "other", out _));
        await following.DisposeAsync();
    }

    [Fact]
    public async Task A_stale_heartbeat_reconnects_and_keeps_everything()
    {
        var time = new FakeTimeProvider();
        await _falcon.EverythingAsync();
        await using var following = Follow(time: time);
        await _sink.UntilReadyAsync("falcon");
        // The negative control: beating, the connection lasts for five minutes.
        for (var second = 0; second < 300; second++)
        {
            if (second % 60 == 0)
                await _falcon.HeartbeatAsync();
            await StepAsync(time);
        }
        Assert.Equal(0, following.Cluster.Status.Failures);
        for (var second = 0; second < 400 && following.Cluster.Status.Failures == 0; second++)
            await StepAsync(time);
        Assert.Equal(1, following.Cluster.Status.Failures);
        Assert.Equal(_falcon.Records, _sink.Text);
        for (var second = 0; second < 10; second++)
            await StepAsync(time);
        await _sink.UntilReadyAsync("falcon");
        Assert.Equal(0, _sink.Deletions);
        Assert.NotNull(following.Cluster.Status.LastFailure);
    }

    // A second of fake time, and real time for the loop to notice.
    private static async Task StepAsync(FakeTimeProvider time)
    {
        time.Advance(TimeSpan.FromSeconds(1));
        await Task.Delay(2, Cancellation);
    }

    [Fact]
    public async Task A_lone_event_is_handed_on_at_once_and_a_burst_in_few_batches()
    {
        await _falcon.EverythingAsync();
        var oneByOne = new Borrowed(_store, oneByOne: true);
        await using var following = new Following("falcon", () => oneByOne, _sink, _reservations);
        await _sink.UntilReadyAsync("falcon");
        var before = _sink.IpBatches.Count;
        await _falcon.IpAsync("10.7.1.1");
        await _sink.UntilAsync(sink => sink.IpEntries.Count == 2, "the lone entry");
        Assert.Equal([1], _sink.IpBatches.Skip(before));

        // Five thousand watch responses of one event each, while the sink is busy with the first.
        _sink.Open.Reset();
        var seen = oneByOne.Batches;
        var burst = Enumerable.Range(0, 5000).Select(i => IpAddr.V4(0x0a071000u + (uint)i).ToString()).ToList();
        await _store.WriteAsync(
            [.. burst.Select(address => new WriteOperation(Keys.Ip(IpPrefix.Parse(address)), _falcon.IpValue(address)))], Cancellation);
        await Poll(() => oneByOne.Batches >= seen + 256);
        _sink.Open.Set();
        await _sink.UntilAsync(sink => sink.IpEntries.Count == 5002, "the burst");
        Assert.True(_sink.IpBatches.Max() >= 250, $"largest batch {_sink.IpBatches.Max()}");
    }

    private static async Task Poll(Func<bool> condition)
    {
        using var deadline = new CancellationTokenSource(TimeSpan.FromSeconds(20));
        while (!condition())
            await Task.Delay(1, deadline.Token);
    }

    [Fact]
    public async Task A_refused_permission_is_named_and_recovered_from()
    {
        await using var following = await FollowReadyAsync();
        _store.Deny("cilium/state/services/");
        await _sink.UntilStatusAsync("falcon", "permission denied");
        Assert.Equal(_falcon.Records, _sink.Text);
        _store.Deny(null);
        await _falcon.ServiceAsync("other");
        await _sink.UntilReadyAsync("falcon");
        await _sink.UntilAsync(sink => sink.Services.Count == 2, "the other service");
    }

    [Fact]
    public async Task A_store_that_cannot_be_opened_is_named_and_tried_again()
    {
        await _falcon.EverythingAsync();
        var missing = true;
        await using var following = new Following(
            "falcon", () => missing ? throw new FileNotFoundException("client.crt is not there") : new Borrowed(_store), _sink,
            options: Following.Options with { OpenRetry = TimeSpan.FromMilliseconds(20) });
        await _sink.UntilStatusAsync("falcon", "client.crt is not there");
        missing = false;
        await _sink.UntilReadyAsync("falcon");
    }
}
