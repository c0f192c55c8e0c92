using System.Diagnostics;
using Mesh.ClusterMesh.Door;
using Mesh.ClusterMesh.Tests.Remote;
using Mesh.ClusterMesh.Wire;
using Mesh.KVStore;
using Mesh.Model;
using Mesh.TestKit;
using Xunit;

namespace Mesh.ClusterMesh.Relay.Tests;

/// <summary>What one peer may cost the others.</summary>
public sealed class FairnessTests
{
    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_peer_over_its_quota_keeps_what_fits_and_is_read_again_when_there_is_room()
    {
        await using var etcd = await EtcdServer.StartAsync();
        await using var store = etcd.NewStore();
        var falcon = new Producer(store, "falcon", 7);
        await falcon.EverythingAsync();
        await falcon.PutAsync(Keys.Service("falcon", new ServiceName("shop", "huge")), new byte[3000]);
        for (var i = 0; i < 20; i++)
            await falcon.NodeAsync($"n{i:d2}");
        await using var relay = await RelayUnderTest.StartedAsync();
        relay.Limit("falcon", """{"quotas":{"keys":15,"valueBytes":2000},"breaker":{"sharePercent":100}}""");
        relay.Add("falcon", etcd.Options);
        await relay.UntilReadyAsync("falcon");
        Assert.Equal(15, relay.Mirror.Count("cilium/cache/"));
        Assert.Null(relay.Mirror.Get("cilium/cache/services/v1/falcon/shop/huge"));
        Assert.InRange(relay.Status("falcon").Refused, 10, 100);
        Assert.Contains("allowed are", relay.Status("falcon").LastRefusal, StringComparison.Ordinal);
        for (var i = 0; i < 14; i++)
            await falcon.DeleteAsync(Keys.Node("falcon", $"n{i:d2}"));
        await relay.UntilAsync(() => relay.Mirror.Count("cilium/cache/nodes/v1/falcon/") == 7, "the others have room now");
    }

    [Theory]
    [InlineData("""{"quotas":{"kyes":15}}""", "kyes")]
    [InlineData("""{"clusterID":9}""", "pins 9")]
    public async Task Limits_that_cannot_be_read_or_met_keep_the_peer_out(string imports, string reason)
    {
        await using var etcd = await EtcdServer.StartAsync();
        await using var store = etcd.NewStore();
        await new Producer(store, "falcon", 7).EverythingAsync();
        await using var relay = await RelayUnderTest.StartedAsync();
        relay.Limit("falcon", imports);
        relay.Add("falcon", etcd.Options);
        await relay.UntilAsync(() => relay.Relay.Statuses is [{ Status: var text }] && text.Contains(reason, StringComparison.Ordinal), reason);
        Assert.Equal("", relay.Dump("cilium/c"));
        // The control: mended, it comes in.
        relay.Limit("falcon", """{"clusterID":7}""");
        await relay.UntilReadyAsync("falcon");
    }

    [Fact]
    public async Task A_loud_peer_does_not_delay_a_quiet_one()
    {
        await using var etcd = await EtcdServer.StartAsync();
        await using var store = etcd.NewStore();
        var (loud, quiet) = (new Producer(store, "loud", 8), new Producer(store, "quiet", 9));
        await loud.EverythingAsync();
        await quiet.EverythingAsync();
        await using var relay = await RelayUnderTest.StartedAsync();
        relay.Limit("loud", """{"quotas":{"eventsPerSecond":200}}""");
        relay.Add("loud", etcd.Options);
        relay.Add("quiet", etcd.Options);
        await relay.UntilReadyAsync("loud");
        await relay.UntilReadyAsync("quiet");
        await store.WriteAsync([.. Enumerable.Range(0, 3000).Select(i =>
            new WriteOperation($"cilium/state/services/v1/loud/shop/s{i}", new byte[200]))], Cancellation);
        var clock = Stopwatch.StartNew();
        await quiet.NodeAsync("now");
        await relay.UntilAsync(() => relay.Mirror.Get("cilium/cache/nodes/v1/quiet/now") is not null, "the quiet one's change");
        // Behind all of the loud one's it would have waited for 13 s.
        Assert.InRange(clock.Elapsed.TotalSeconds, 0, 8);
        // The control: the loud one itself is held to its rate.
        Assert.InRange(relay.Mirror.Count("cilium/cache/services/v1/loud/"), 1, 2900);
        await relay.UntilAsync(() => relay.Mirror.Count("cilium/cache/services/v1/loud/") == 3001, "but loses nothing", 40);
    }

    [Fact]
    public async Task One_who_commits_without_pause_leaves_the_others_their_turn()
    {
        await using var mirror = MirrorView.Open(new MirrorOptions(), TimeProvider.System, _ => { });
        using var enough = new CancellationTokenSource();
        var rounds = 0;
        var loud = Task.Run(async () =>
        {
            for (; !enough.IsCancellationRequested; rounds++)
                await mirror.CommitAsync(
                    [.. Enumerable.Range(0, 1000).Select(i => new MirrorChange($"loud/{i}", BitConverter.GetBytes(rounds)))], Cancellation);
        }, Cancellation);
        while (Volatile.Read(ref rounds) < 3)
            await Task.Delay(1, Cancellation);
        var late = 0;
        for (var i = 0; i < 50; i++)
        {
            var before = Volatile.Read(ref rounds);
            await mirror.CommitAsync([new MirrorChange("quiet", BitConverter.GetBytes(i))], Cancellation);
            late += Volatile.Read(ref rounds) - before > 3 ? 1 : 0;
        }
        await enough.CancelAsync();
        await loud;
        // Not none: this thread may have to wait for a processor while the loud one has it.
        Assert.InRange(late, 0, 10);
    }
}
