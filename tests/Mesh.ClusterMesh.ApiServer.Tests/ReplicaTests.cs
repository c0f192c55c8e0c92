using System.Collections.Concurrent;
using System.Diagnostics;
using System.Globalization;
using System.Text;
using Etcdserverpb;
using Google.Protobuf;
using Mesh.KVStore;
using Mesh.TestKit;
using Xunit;

namespace Mesh.ClusterMesh.ApiServer.Tests;

/// <summary>More than one of everything: etcd members, and API servers on one etcd.</summary>
public class ReplicaTests
{
    private const string CartKey = "cilium/state/services/v1/tokyo/shop/cart";

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    private static async Task<bool> WritesAsync(TestCluster replica) =>
        (await replica.TryPageAsync("/metrics"))?.Contains("cilium_clustermesh_apiserver_writer{source_cluster=\"tokyo\"} 1", StringComparison.Ordinal)
        == true;

    [Fact]
    public async Task When_the_writer_is_killed_the_other_takes_over_and_nothing_is_withdrawn()
    {
        await using var etcd = await EtcdServer.StartAsync();
        await using var direct = new Watching(etcd.NewStore());
        await using var one = new TestCluster();
        await using var two = new TestCluster(one);
        one.Write("cart.yaml", Yaml.Service("cart") + Yaml.Service("till"));
        await using var first = RunningProgram.Start(one.ArgumentsOver(etcd.Options));
        await Deadline.Until(one.TryReadyAsync, "the first to be ready");
        await using var second = RunningProgram.Start(two.ArgumentsOver(etcd.Options));
        await Deadline.Until(two.TryReadyAsync, "the second to be ready");
        // The first, unless the machine was so busy meanwhile that its lease ended.
        await Deadline.Until(async () => await WritesAsync(one) != await WritesAsync(two), "one of them to write");
        var (writer, other) = await WritesAsync(one) ? (first, two) : (second, one);
        await using var reader = new Watching(other.ReaderOf("remote"));
        await Deadline.Until(() => reader.Has("cart") && reader.Has("till"), "the standby's door to serve");

        var clock = Stopwatch.StartNew();
        writer.Signal(RunningProgram.SigKill);
        one.Write("stall.yaml", Yaml.Service("stall"));
        await Deadline.Until(() => reader.Has("stall"), "the other to write");
        Assert.True(clock.Elapsed < TimeSpan.FromSeconds(15), $"after {clock.Elapsed}; the lease has 5 s, and etcd looks every half second");
        Assert.True(await WritesAsync(other));
        Assert.Empty(direct.Deleted);
        Assert.Empty(reader.Deleted);

        // It knows what the first wrote as its own: a deletion that comes now is made, and by itself.
        File.Delete(Path.Combine(one.Manifests, "stall.yaml"));
        await Deadline.Until(() => reader.Deleted.Contains("stall") && direct.Deleted.Contains("stall"), "the deletion");
        Assert.True(reader.Has("cart") && reader.Has("till"));
    }

    [Fact]
    public async Task A_writer_that_was_paused_stands_by_when_it_wakes()
    {
        await using var etcd = await EtcdServer.StartAsync();
        await using var store = etcd.NewStore();
        await using var one = new TestCluster();
        await using var two = new TestCluster(one);
        one.Write("cart.yaml", Yaml.Service("cart") + Yaml.Slice("cart", "10.1.0.1"));
        await using var paused = RunningProgram.Start(one.ArgumentsOver(etcd.Options));
        await Deadline.Until(one.TryReadyAsync, "the first to be ready");
        await using var other = RunningProgram.Start(two.ArgumentsOver(etcd.Options));
        await Deadline.Until(two.TryReadyAsync, "the second to be ready");

        paused.Signal(RunningProgram.SigStop);
        await Deadline.Until(() => WritesAsync(two), "the second to be elected");
        one.Write("cart.yaml", Yaml.Service("cart") + Yaml.Slice("cart", "10.1.0.2"));
        await Deadline.Until(async () => (await store.TextAsync(CartKey))?.Contains("10.1.0.2", StringComparison.Ordinal) == true, "a change");
        var written = (await store.GetAsync(CartKey, Cancellation))!.Value.ModRevision;

        paused.Signal(RunningProgram.SigCont);
        await Deadline.Until(async () => await one.TryPageAsync("/metrics") is not null && !await WritesAsync(one), "the first to stand by");
        await Deadline.Until(() => WritesAsync(two), "the second to write still");
        Assert.Equal(written, (await store.GetAsync(CartKey, Cancellation))!.Value.ModRevision);

        // An orderly end of the writer needs no waiting for a lease.
        other.Signal(RunningProgram.SigTerm);
        await other.EndedAsync();
        await Deadline.Until(() => WritesAsync(one), "the first to write again");
    }

    [Fact]
    public async Task Any_member_of_etcd_is_killed_and_all_are_restarted_one_by_one_and_no_event_is_lost()
    {
        await using var etcd = await EtcdCluster.StartAsync();
        await using var tokyo = new TestCluster();
        tokyo.Write("cart.yaml", Yaml.Service("cart"));
        await tokyo.StartOverAsync(etcd);
        await using var reader = tokyo.ReaderOf("admin-tokyo");
        await using var services = new Watching(tokyo.ReaderOf("remote"));
        await using var store = etcd.NewStore();
        await using var traffic = new Traffic(store, reader);
        await traffic.SeesAsync(50);

        // The leader first, without warning.
        var leader = await etcd.LeaderAsync();
        etcd.Kill(leader);
        await traffic.SeesAsync(50);
        await etcd.StartAsync(leader);
        // One that stands and does not answer.
        var mute = (leader + 1) % 3;
        etcd.Pause(mute);
        await traffic.SeesAsync(50);
        etcd.Continue(mute);
        for (var member = 0; member < 3; member++)
        {
            etcd.Stop(member);
            await traffic.SeesAsync(20);
            await etcd.StartAsync(member);
        }
        tokyo.Write("till.yaml", Yaml.Service("till"));
        await Deadline.Until(() => services.Has("till"), "a change after it", () => tokyo.Logged);

        await traffic.StopAsync();
        await Deadline.Until(() => traffic.Missing.Count == 0, "every acknowledged write to be seen",
            () => $"missing {string.Join(' ', traffic.Missing.Take(20))}\n{tokyo.Logged}");
        // Not one more, not one less, not in another order than etcd's own history has them.
        var history = await HistoryAsync(etcd, "load/number");
        Assert.Equal(history.SkipWhile(version => version != traffic.Seen[0]), traffic.Seen);
        Assert.Empty(services.Deleted);
        Assert.Equal(0, reader.Status.Relists);
        Assert.Equal(0, tokyo.Server.Door!.Status.Etcd.Reloads);
    }

    [Fact]
    public async Task A_door_that_knows_one_member_only_serves_what_it_has_until_that_one_is_back()
    {
        // The control of the test above.
        await using var etcd = await EtcdCluster.StartAsync();
        await using var tokyo = new TestCluster();
        tokyo.Write("cart.yaml", Yaml.Service("cart"));
        await tokyo.StartOverAsync(etcd.Options with { Endpoints = [etcd.Endpoints[0]] }, withDoor: true);
        await using var reader = tokyo.ReaderOf("admin-tokyo");
        await using var store = etcd.NewStore();
        await using var traffic = new Traffic(store, reader);
        await traffic.SeesAsync(20);
        etcd.Kill(0);
        await Deadline.Until(async () => (await tokyo.PageAsync("/problems")).Text.Contains("door: serves from memory", StringComparison.Ordinal),
            "the door to say so");
        var seen = traffic.Seen.Count;
        var missing = traffic.Missing.Count;
        await Deadline.Until(() => traffic.Missing.Count > missing + 20, "writes at the other members");
        Assert.Equal(seen, traffic.Seen.Count);
        await etcd.StartAsync(0);
        await traffic.SeesAsync(20);
        await traffic.StopAsync();
        await Deadline.Until(() => traffic.Missing.Count == 0, "all of them to arrive");
    }

    [Fact]
    public async Task Behind_one_address_a_reader_does_not_notice_which_replica_it_is_led_to()
    {
        await using var etcd = await EtcdServer.StartAsync();
        await using var one = new TestCluster();
        await using var two = new TestCluster(one);
        one.Write("cart.yaml", Yaml.Service("cart"));
        await one.StartOverAsync(etcd, withDoor: true);
        await two.StartOverAsync(etcd, withDoor: true);
        await using var address = new TcpProxy(one.Port);
        await using var reader = new Watching(new EtcdKVStore(one.ReaderOptions("remote") with { Endpoints = [$"https://127.0.0.1:{address.Port}"] }));
        await Deadline.Until(() => reader.Has("cart"), "the reader to read");
        for (var turn = 0; turn < 4; turn++)
        {
            address.Cut();
            // What happens while it is nowhere: one comes, one goes.
            one.Write("till.yaml", Yaml.Service($"till-{turn}"));
            address.Heal(turn % 2 == 0 ? two.Port : one.Port);
            await Deadline.Until(() => reader.Has($"till-{turn}") && !reader.Has($"till-{turn - 1}"), "the change", () => $"{reader.Store.Status}");
        }
        Assert.Equal(["till-0", "till-1", "till-2"], reader.Deleted);
        Assert.True(reader.Store.Status.Resumptions >= 4, $"{reader.Store.Status}");
        Assert.Equal(0, reader.Store.Status.Relists);
    }

    [Fact]
    public async Task Two_doors_advertise_one_cluster_and_a_reader_that_moves_between_them_loses_nothing()
    {
        await using var etcd = await EtcdCluster.StartAsync();
        await using var one = new TestCluster();
        await using var two = new TestCluster(one);
        one.Write("cart.yaml", Yaml.Service("cart"));
        await one.StartOverAsync(etcd);
        await two.StartOverAsync(etcd);
        await Deadline.Until(() => one.Server.IsWriter != two.Server.IsWriter, "one of them to write");
        var advertised = one.Server.Door!.Status.ClusterId;
        Assert.Equal(advertised, two.Server.Door!.Status.ClusterId);
        Assert.NotEqual(one.Server.Door.Status.Etcd.EtcdClusterId, advertised);

        await using var reader = one.ReaderOf("admin-tokyo", replicas: two);
        await using var store = etcd.NewStore();
        await using var traffic = new Traffic(store, reader);
        for (var turn = 0; turn < 4; turn++)
        {
            await traffic.SeesAsync(30);
            // The one that the reader is at goes away, and comes back.
            var (leaving, staying) = reader.Status.Endpoint == one.Url ? (one, two) : (two, one);
            await leaving.StopAsync();
            await traffic.SeesAsync(30);
            await Deadline.Until(() => staying.Server.IsWriter, "the one that stays to write", () => staying.Logged);
            await leaving.StartOverAsync(etcd);
            Assert.Equal(advertised, leaving.Server.Door!.Status.ClusterId);
        }
        await traffic.StopAsync();
        await Deadline.Until(() => traffic.Missing.Count == 0, "every acknowledged write to be seen", () => $"{reader.Status}");
        var history = await HistoryAsync(etcd, "load/number");
        Assert.Equal(history.SkipWhile(version => version != traffic.Seen[0]), traffic.Seen);
    }

    [Fact]
    public async Task When_etcd_is_wiped_both_doors_change_to_the_same_new_cluster_and_readers_list_again()
    {
        await using var etcd = await EtcdServer.StartAsync();
        await using var one = new TestCluster();
        await using var two = new TestCluster(one);
        one.Write("cart.yaml", Yaml.Service("cart"));
        await one.StartOverAsync(etcd, withDoor: true);
        await two.StartOverAsync(etcd, withDoor: true);
        await using (var store = etcd.NewStore())
        {
            for (var i = 0; i < 200; i++)
                await store.WriteAsync([new($"load/{i}", new byte[10])], Cancellation);
        }
        await using var reader = new Watching(two.ReaderOf("remote"));
        await Deadline.Until(() => reader.Has("cart"), "the reader to read");
        var before = one.Server.Door!.Status;
        Assert.Equal(before.ClusterId, two.Server.Door!.Status.ClusterId);

        // The same etcd ID, and a revision that readers were beyond.
        await etcd.WipeAsync(sameClusterId: true);
        await Deadline.Until(() => one.Server.Door.Status is { Etcd.Connected: true } a && two.Server.Door.Status is { Etcd.Connected: true } b
            && a.ClusterId == b.ClusterId && a.ClusterId != before.ClusterId, "both to advertise another cluster",
            () => $"{one.Server.Door.Status}\n{two.Server.Door.Status}\n{one.Logged}");
        Assert.Equal(before.Etcd.EtcdClusterId, one.Server.Door.Status.Etcd.EtcdClusterId);
        Assert.True(one.Server.Door.Status.Revision < before.Revision);
        one.Write("till.yaml", Yaml.Service("till"));
        await Deadline.Until(() => reader.Has("till") && reader.Has("cart"), "the reader to be in the new one", () => two.Logged);
        Assert.True(reader.Store.Status.Relists > 0);

        // One that knows nothing of either joins them, and keys that somebody deletes by the way do not make them part.
        var after = one.Server.Door.Status.ClusterId;
        await two.StopAsync();
        Directory.Delete(Path.Combine(two.Home, "state"), recursive: true);
        await two.StartOverAsync(etcd, withDoor: true);
        Assert.Equal(after, two.Server.Door!.Status.ClusterId);
        await using (var store = etcd.NewStore())
        {
            await store.DeletePrefixAsync("mesh/door/", Cancellation);
            await Deadline.Until(async () => await store.TextAsync("mesh/door/era") is not null, "the name to be back");
        }
        Assert.Equal((after, after), (one.Server.Door.Status.ClusterId, two.Server.Door.Status.ClusterId));
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task A_door_that_knows_nothing_of_a_wipe_is_told_by_etcd_and_would_otherwise_pass_for_the_old_one(bool shared)
    {
        await using var etcd = await EtcdServer.StartAsync();
        await using var one = new TestCluster();
        await using var two = new TestCluster(one);
        one.Write("cart.yaml", Yaml.Service("cart"));
        await one.StartOverAsync(etcd, withDoor: true, shared);
        var before = one.Server.Door!.Status.ClusterId;
        await etcd.WipeAsync(sameClusterId: true);
        await Deadline.Until(() => one.Server.Door.Status.ClusterId != before, "the one that was there to notice", () => one.Logged);

        await two.StartOverAsync(etcd, withDoor: true, shared);
        // Not shared, it advertises what readers of the old history hold, and these would resume in the new one.
        Assert.Equal(shared ? one.Server.Door.Status.ClusterId : before, two.Server.Door!.Status.ClusterId);
    }

    /// <summary>Every version that the key ever had, from etcd itself.</summary>
    private static async Task<List<(string, long)>> HistoryAsync(EtcdCluster etcd, string key)
    {
        using var channel = EtcdChannel.Open(etcd.Options);
        var name = ByteString.CopyFromUtf8(key);
        var last = (await new KV.KVClient(channel).RangeAsync(new RangeRequest { Key = name })).Kvs[0].ModRevision;
        using var call = new Watch.WatchClient(channel).Watch(cancellationToken: Cancellation);
        await call.RequestStream.WriteAsync(new WatchRequest { CreateRequest = new WatchCreateRequest { Key = name, StartRevision = 1 } });
        var history = new List<(string, long)>();
        while ((history.Count == 0 || history[^1].Item2 < last) && await call.ResponseStream.MoveNext(Cancellation))
            history.AddRange(call.ResponseStream.Current.Events.Select(e => (e.Kv.Value.ToStringUtf8(), e.Kv.ModRevision)));
        return history;
    }

    /// <summary>Numbers written to one key as fast as etcd takes them, and the numbers that a reader at the door saw.</summary>
    private sealed class Traffic : IAsyncDisposable
    {
        private readonly CancellationTokenSource _stop = new();
        private readonly CancellationTokenSource _stopReading = new();
        private readonly ConcurrentQueue<(int Number, long Revision)> _seen = new();
        private readonly ConcurrentQueue<int> _written = new();
        private readonly Task _writing;
        private readonly Task _reading;

        public Traffic(EtcdKVStore store, EtcdKVStore reader)
        {
            _reading = Task.Run(() => ReadAsync(reader));
            _writing = Task.Run(() => WriteAsync(store));
        }

        /// <summary>From the one that the reader's list began with.</summary>
        public IReadOnlyCollection<int> Missing =>
            [.. _written.Except(_seen.Select(item => item.Number)).Where(number => number > (_seen.TryPeek(out var first) ? first.Number : 0))];

        /// <summary>What the reader saw: text and revision.</summary>
        public IReadOnlyList<(string, long)> Seen => [.. _seen.Select(item => (item.Number.ToString(CultureInfo.InvariantCulture), item.Revision))];

        public async Task SeesAsync(int more)
        {
            var before = _seen.Count;
            await Deadline.Until(() => _seen.Count >= before + more, $"{more} more events",
                () => $"{_written.Count} written, {_seen.Count} seen; {_writing.Exception?.InnerException?.Message}");
        }

        public async Task StopAsync()
        {
            await _stop.CancelAsync();
            await _writing;
        }

        public async ValueTask DisposeAsync()
        {
            await _stop.CancelAsync();
            await _writing.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            await _stopReading.CancelAsync();
            await _reading.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            _stop.Dispose();
            _stopReading.Dispose();
        }

        private async Task WriteAsync(EtcdKVStore store)
        {
            for (var number = 1; !_stop.IsCancellationRequested; number++)
            {
                var text = number.ToString(CultureInfo.InvariantCulture);
                for (var written = false; !written && !_stop.IsCancellationRequested;)
                {
                    try
                    {
                        await store.WriteAsync([new("load/number", Encoding.UTF8.GetBytes(text))], CancellationToken.None);
                        written = true;
                    }
                    catch (KVStoreException)
                    {
                        // Its retries ended while etcd elected: the same number again.
                        continue;
                    }
                    _written.Enqueue(number);
                }
                await Task.Delay(5);
            }
        }

        private async Task ReadAsync(EtcdKVStore reader)
        {
            await foreach (var batch in reader.ListWatchAsync("load/", _stopReading.Token))
            {
                foreach (var item in batch.Events)
                    _seen.Enqueue((int.Parse(Encoding.UTF8.GetString(item.Value.Span), CultureInfo.InvariantCulture), item.ModRevision));
            }
        }
    }
}
