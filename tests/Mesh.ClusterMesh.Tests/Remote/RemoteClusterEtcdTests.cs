using Mesh.ClusterMesh.Wire;
using Mesh.KVStore;
using Mesh.Model;
using Mesh.TestKit;
using Xunit;

namespace Mesh.ClusterMesh.Tests.Remote;

/// <summary>The scenarios whose faults only a real etcd has.</summary>
public sealed class RemoteClusterEtcdTests : IAsyncLifetime
{
    private readonly RecordingSink _sink = new();
    private EtcdServer _etcd = null!;
    private EtcdKVStore _store = null!;
    private Producer _falcon = null!;

    public async ValueTask InitializeAsync()
    {
        _etcd = await EtcdServer.StartAsync();
        _store = new EtcdKVStore(_etcd.Options);
        _falcon = new Producer(_store, "falcon", 7);
        await _falcon.EverythingAsync();
    }

    public async ValueTask DisposeAsync()
    {
        await _store.DisposeAsync();
        await _etcd.DisposeAsync();
    }

    private async Task<Following> FollowReadyAsync()
    {
        var following = new Following("falcon", () => new EtcdKVStore(_etcd.Options), _sink);
        await _sink.UntilReadyAsync("falcon");
        Assert.Equal(_falcon.Records, _sink.Text);
        return following;
    }

    [Fact]
    public async Task The_last_known_good_survives_a_kill_of_etcd()
    {
        await using var following = await FollowReadyAsync();
        await _etcd.KillAsync();
        await _sink.UntilStatusAsync("falcon", "not able to connect to any etcd endpoints");
        Assert.Equal(_falcon.Records, _sink.Text);
        await _etcd.RestartAsync();
        await _falcon.NodeAsync("n2");
        await _sink.UntilAsync(sink => sink.Nodes.Count == 2 && sink.Statuses["falcon"].Ready, "n2 after the restart");
        Assert.Equal(0, _sink.Deletions);
        // The negative control: a deletion is one.
        await _falcon.DeleteAsync(Keys.Node("falcon", "n1"));
        await _sink.UntilAsync(sink => sink.Nodes.Count == 1, "n1 is gone");
    }

    /// <summary>The control: for ever, unless somebody wants it otherwise.</summary>
    [Theory]
    [InlineData(1)]
    [InlineData(0)]
    public async Task Services_of_a_peer_not_reached_for_the_time_to_live_go_and_come_back_with_it(int seconds)
    {
        var options = Following.Options with { CacheTtl = TimeSpan.FromSeconds(seconds), HeartbeatTimeout = TimeSpan.FromSeconds(2) };
        await using var following = new Following("falcon", () => new EtcdKVStore(_etcd.Options), _sink, options: options);
        await _sink.UntilReadyAsync("falcon");
        await _etcd.KillAsync();
        if (seconds > 0)
        {
            await _sink.UntilStatusAsync("falcon", "its services were withdrawn after 00:00:01");
            Assert.Equal((0, 1, 1, 1), _sink.Read(sink => (sink.Services.Count, sink.Nodes.Count, sink.IpEntries.Count, sink.Identities.Count)));
        }
        else
        {
            await _sink.UntilAsync(sink => sink.Statuses["falcon"].Failures > 1, "it was tried again");
            Assert.Equal((_falcon.Records, 0), (_sink.Text, _sink.Deletions));
        }
        await _etcd.RestartAsync();
        await _sink.UntilAsync(sink => sink.Statuses["falcon"].Ready && sink.Text == _falcon.Records, "they are back");
        Assert.Equal(seconds, _sink.Deletions);
        await _falcon.HeartbeatAsync();
        await _falcon.DeleteAsync(Keys.Service("falcon", new ServiceName("shop", "cart")));
        await _sink.UntilAsync(sink => sink.Services.Count == 0, "and what the owner deletes goes");
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task A_wiped_etcd_withdraws_nothing_until_the_cluster_has_written_again(bool sameClusterId)
    {
        await using var following = await FollowReadyAsync();
        await _etcd.WipeAsync(sameClusterId);
        await _sink.UntilStatusAsync("falcon", "cluster-config/falcon is missing");
        Assert.Equal(_falcon.Records, _sink.Text);
        await _falcon.ConfigAsync();
        await _falcon.ServiceAsync("cart", true, "10.7.0.9");
        await _falcon.NodeAsync("n2");
        await _falcon.CanariesAsync();
        await _sink.UntilAsync(sink => sink.Statuses["falcon"].Holds == 3, "node, address and identity to have been held");
        await _falcon.HeartbeatAsync();
        await _sink.UntilAsync(sink => sink.Text == "falcon/n2 falcon:shop/cart", "what was written again, and only that");
        Assert.Empty(_sink.Drains);
    }

    [Fact]
    public async Task A_compaction_during_an_outage_leads_to_a_relist_with_deletions()
    {
        await using var following = await FollowReadyAsync();
        _etcd.Pause();
        _etcd.Continue();
        await _falcon.DeleteAsync(Keys.Ip(IpPrefix.Parse("10.7.0.9")));
        var revision = await _store.WriteAsync([new WriteOperation(Keys.Heartbeat, new byte[] { 1 })],
            TestContext.Current.CancellationToken);
        await _etcd.EtcdctlAsync("compact", revision.ToString(System.Globalization.CultureInfo.InvariantCulture));
        await _sink.UntilAsync(sink => sink.IpEntries.Count == 0, "the entry is gone");
        Assert.Equal(1, _sink.Deletions);
    }

    [Fact]
    public async Task Twenty_thousand_entries_arrive_once_and_in_batches()
    {
        var addresses = Enumerable.Range(0, 20_000).Select(i => IpAddr.V4(0x0a070000u + (uint)i)).ToList();
        await _store.WriteAsync(
            [.. addresses.Select(a => new WriteOperation(Keys.Ip(IpPrefix.Host(a)), _falcon.IpValue(a.ToString())))],
                TestContext.Current.CancellationToken);
        await using var following = new Following("falcon", () => new EtcdKVStore(_etcd.Options), _sink);
        await _sink.UntilAsync(sink => sink.IpEntries.Count == 20_000 && sink.Statuses["falcon"].Ready, "all of them");
        Assert.Equal(20_000, _sink.Read(sink => sink.IpBatches.Sum()));
        Assert.InRange(_sink.IpBatches.Count, 1, 100);
    }
}
