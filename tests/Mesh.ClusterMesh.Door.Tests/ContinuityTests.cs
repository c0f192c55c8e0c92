using System.Text;
using Etcdserverpb;
using Google.Protobuf;
using Grpc.Core;
using Grpc.Core.Interceptors;
using Grpc.Net.Client;
using Mesh.ClusterMesh.Door.Cache;
using Mesh.ClusterMesh.Door.Upstream;
using Mesh.KVStore;
using Mesh.TestKit;
using Xunit;

namespace Mesh.ClusterMesh.Door.Tests;

/// <summary>What readers see when the etcd behind the door goes away, comes back, and is not what it was.</summary>
public sealed class ContinuityTests : IAsyncLifetime
{
    private const string Prefix = "cilium/state/";
    private EtcdServer _etcd = null!;
    private TcpProxy _wire = null!;
    private DoorUnderTest _door = null!;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        _etcd = await EtcdServer.StartAsync();
        _wire = new TcpProxy(new Uri(_etcd.Endpoint).Port);
        await WriteAsync("a", 10);
        _door = await DoorUnderTest.OpenAsync(_etcd, options => options with { ConfirmReads = false }, _wire.Endpoint);
    }

    public async ValueTask DisposeAsync()
    {
        await _door.DisposeAsync();
        await _wire.DisposeAsync();
        await _etcd.DisposeAsync();
    }

    private async Task WriteAsync(string value, int count)
    {
        await using var store = _etcd.NewStore();
        for (var i = 0; i < count; i++)
            await store.WriteAsync([new WriteOperation($"{Prefix}{i}", Encoding.UTF8.GetBytes(value))], Cancellation);
    }

    private async Task<RangeResponse> ListAsync() => await new KV.KVClient(_door.Channel("remote")).RangeAsync(
        new RangeRequest { Key = ByteString.CopyFromUtf8(Prefix), RangeEnd = ByteString.CopyFromUtf8("cilium/state0") }, cancellationToken: Cancellation);

    private async Task<StreamReading> FollowAsync()
    {
        var reading = new StreamReading(_door.Channel("remote"), Prefix);
        await Wait.UntilAsync(() => reading.Created, "the watch");
        return reading;
    }

    private async Task ReopenAsync() => await _door.ReopenAsync(options => options with { ConfirmReads = false }, etcdEndpoint: _wire.Endpoint);

    [Fact]
    public async Task Etcd_killed_and_back_loses_no_event_and_cuts_no_watch()
    {
        await using var reading = await FollowAsync();
        var before = await ListAsync();
        await _etcd.KillAsync();
        await Wait.UntilAsync(() => !_door.Door.Status.Etcd.Connected, "the door to notice");
        // Reads go on meanwhile, from memory.
        Assert.Equal(10, (await ListAsync()).Count);
        await _etcd.RestartAsync();
        await WriteAsync("b", 10);
        await Wait.UntilAsync(() => reading.Events.Count() == 10, "the ten events");
        Assert.Null(reading.End);
        Assert.Equal(before.Header.ClusterId, (await ListAsync()).Header.ClusterId);
        var revisions = reading.Events.Select(e => e.Kv.ModRevision).ToArray();
        Assert.Equal(Enumerable.Range((int)revisions[0], 10).Select(i => (long)i), revisions);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(3)]
    [InlineData(40)]
    public async Task A_wiped_etcd_changes_the_cluster_ID_and_makes_every_reader_list_again(int rewritten)
    {
        var before = await ListAsync();
        await using var reading = await FollowAsync();
        // The same flags make the same cluster ID; with 40 writes even the revision is further than it was.
        _wire.Cut();
        await _etcd.WipeAsync(sameClusterId: true);
        await WriteAsync("new", rewritten);
        _wire.Heal();
        await Wait.UntilAsync(() => reading.End is not null, "the stream to be cut");
        var cut = reading.Responses[^1];
        Assert.True(cut.Canceled && cut.CompactRevision > 0, cut.ToString());
        Assert.Equal(StatusCode.Unavailable, reading.End!.Value.StatusCode);
        var after = await ListAsync();
        Assert.NotEqual(before.Header.ClusterId, after.Header.ClusterId);
        Assert.Equal(after.Header.ClusterId, cut.Header.ClusterId);
        Assert.NotEqual(0UL, after.Header.ClusterId);
        Assert.Equal(Math.Min(rewritten, 40), after.Count);
    }

    [Fact]
    public async Task A_cut_wire_alone_changes_nothing()
    {
        var before = await ListAsync();
        await using var reading = await FollowAsync();
        _wire.Cut();
        await WriteAsync("b", 10);
        await Wait.UntilAsync(() => !_door.Door.Status.Etcd.Connected, "the door to notice");
        _wire.Heal();
        await Wait.UntilAsync(() => reading.Events.Count() == 10, "the ten events");
        Assert.Null(reading.End);
        Assert.Equal(before.Header.ClusterId, (await ListAsync()).Header.ClusterId);
    }

    [Fact]
    public async Task A_compaction_while_the_wire_was_cut_makes_readers_list_again_under_the_same_ID()
    {
        var before = await ListAsync();
        await using var reading = await FollowAsync();
        _wire.Cut();
        await WriteAsync("b", 10);
        await _etcd.EtcdctlAsync("compact", (before.Header.Revision + 8).ToString(System.Globalization.CultureInfo.InvariantCulture));
        _wire.Heal();
        await Wait.UntilAsync(() => reading.Responses[^1].Canceled, "the watch to be cancelled");
        Assert.Equal(before.Header.Revision + 9, reading.Responses[^1].CompactRevision);
        Assert.Empty(reading.Events);
        var after = await ListAsync();
        Assert.Equal(before.Header.ClusterId, after.Header.ClusterId);
        Assert.All(after.Kvs, kv => Assert.Equal("b", kv.Value.ToStringUtf8()));
    }

    [Theory]
    [InlineData(false, 0)]
    [InlineData(true, 3)]
    [InlineData(true, 40)]
    public async Task A_door_that_was_down_knows_whether_its_etcd_is_still_the_same(bool wiped, int rewritten)
    {
        var before = await ListAsync();
        await _door.CloseAsync();
        if (wiped)
            await _etcd.WipeAsync(sameClusterId: true);
        await WriteAsync("new", rewritten);
        await ReopenAsync();
        var after = await ListAsync();
        Assert.Equal(wiped, before.Header.ClusterId != after.Header.ClusterId);
    }

    [Fact]
    public async Task A_door_without_a_memory_is_another_one_at_each_start()
    {
        async Task<ulong> IdAsync()
        {
            await _door.ReopenAsync(options => options with { StateDir = null, ConfirmReads = false });
            return (await ListAsync()).Header.ClusterId;
        }
        Assert.NotEqual(await IdAsync(), await IdAsync());
    }

    [Fact]
    public async Task Events_that_etcd_lost_silently_are_noticed_and_fetched()
    {
        await using var direct = _etcd.NewStore();
        using var channel = GrpcChannel.ForAddress(_etcd.Endpoint);
        var lossy = new LossyWatch();
        var cache = new WatchCache();
        var follower = new EtcdFollower(channel.Intercept(lossy), cache, new Lineage(null),
            new DoorLimits(), TimeProvider.System, _ => { });
        using var stop = new CancellationTokenSource();
        var running = follower.RunAsync(stop.Token);
        await cache.WaitForAsync(0, Cancellation);
        lossy.Drop = 1;
        await WriteAsync("b", 1);
        await Wait.UntilAsync(() => lossy.Drop == 0, "an event to be lost");
        await WriteAsync("c", 3);
        var (_, revision) = await direct.ListAsync(Prefix, Cancellation);
        await cache.WaitForAsync(revision, Cancellation).WaitAsync(TimeSpan.FromSeconds(10), Cancellation);
        var events = cache.View.History;
        for (var r = events.OldestEvents + 1; r <= revision; r++)
            Assert.Single(events.Find(r)!.Events);
        Assert.Equal(1, follower.Status.Reconnections);
        await stop.CancelAsync();
        await running;
    }

    [Fact]
    public void The_advertised_ID_is_etcd_s_own_only_in_epoch_zero()
    {
        Assert.Equal(5UL, Lineage.Advertised(5, 0));
        Assert.Equal(4, new[] { Lineage.Advertised(5, 0), Lineage.Advertised(5, 1), Lineage.Advertised(5, 2), Lineage.Advertised(6, 1) }.Distinct().Count());
    }

    [Fact]
    public void A_lineage_file_that_is_none_stops_the_door()
    {
        var file = Path.Combine(_etcd.WorkDirectory, "lineage.json");
        File.WriteAllText(file, "{ not json");
        Assert.Contains("remove it", Assert.Throws<InvalidDataException>(() => new Lineage(file)).Message, StringComparison.Ordinal);
    }
}
