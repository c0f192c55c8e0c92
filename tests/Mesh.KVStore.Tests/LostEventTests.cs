using System.Diagnostics;
using System.Text;
using Mesh.TestKit;
using Xunit;

namespace Mesh.KVStore.Tests;

/// <summary>Watch events that disappear without an error, between a real etcd and the reader: what the audit is for.</summary>
public sealed class LostEventTests : IAsyncLifetime
{
    /// <summary>On a machine with nothing else to do.</summary>
    private static readonly TimeSpan Promise = TimeSpan.FromSeconds(2);

    /// <summary>On any: an etcd that is no door would be asked after 45 s.</summary>
    public static readonly TimeSpan Within = TimeSpan.FromSeconds(10);

    private EtcdServer _etcd = null!;
    private EtcdKVStore _writer = null!;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        _etcd = await EtcdServer.StartAsync();
        _writer = _etcd.NewStore();
    }

    public async ValueTask DisposeAsync()
    {
        await _writer.DisposeAsync();
        await _etcd.DisposeAsync();
    }

    /// <summary>What is lost, and what happens besides. b is the key that is deleted, c the one that is created.</summary>
    public static TheoryData<string> Losses => ["put", "update", "delete", "delete and put", "delete, put, and its next update is seen",
        "delete and put, and its delete is seen"];

    [Theory]
    [MemberData(nameof(Losses))]
    public async Task Behind_a_door_what_was_lost_is_back_within_seconds(string loss)
    {
        await using var door = await GrpcProxy.StartAsync(_etcd.Endpoint, asDoor: true);
        await using var store = new EtcdKVStore(new EtcdOptions { Endpoints = [door.Endpoint] });
        await using var reader = await ReadingAsync(store);
        var (expected, lost) = await LoseAsync(door, loss);
        await reader.UntilAsync(expected);
        Assert.InRange(lost.Elapsed, TimeSpan.Zero, Within);
        Assert.Equal(2, reader.Lists);
        Assert.Equal(1, store.Status.Repairs);
        Assert.Contains("audit", store.Status.LastRelistReason, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("put")]
    [InlineData("delete, put, and its next update is seen")]
    public async Task Without_audits_it_is_lost_for_good(string loss)
    {
        await using var door = await GrpcProxy.StartAsync(_etcd.Endpoint, asDoor: true);
        await using var store = new EtcdKVStore(new EtcdOptions
        {
            Endpoints = [door.Endpoint],
            DoorAuditInterval = Timeout.InfiniteTimeSpan,
        });
        await using var reader = await ReadingAsync(store);
        var (expected, lost) = await LoseAsync(door, loss);
        // Later events arrive, and still nobody notices.
        await _writer.WriteAsync([Put("w/z", "1")], Cancellation);
        await reader.UntilAsync(() => reader.State.EndsWith("w/z=1", StringComparison.Ordinal));
        await Task.Delay(Promise + TimeSpan.FromSeconds(0.2), Cancellation);
        Assert.NotEqual($"{expected} w/z=1", reader.State);
        Assert.Equal(1, reader.Lists);
    }

    [Fact]
    public async Task Behind_a_foreign_etcd_the_same_takes_as_long_as_its_audits_are_apart()
    {
        Assert.InRange(new EtcdOptions { Endpoints = [] }.AuditInterval + 2 * new EtcdOptions { Endpoints = [] }.AuditGrace,
            TimeSpan.Zero, TimeSpan.FromSeconds(60));
        await using var wire = await GrpcProxy.StartAsync(_etcd.Endpoint, asDoor: false);
        await using var store = new EtcdKVStore(new EtcdOptions
        {
            Endpoints = [wire.Endpoint],
            DoorAuditInterval = Timeout.InfiniteTimeSpan,
            AuditInterval = TimeSpan.FromSeconds(0.5),
            AuditGrace = TimeSpan.FromSeconds(0.2),
        });
        await using var reader = await ReadingAsync(store);
        var (expected, _) = await LoseAsync(wire, "delete, put, and its next update is seen");
        await reader.UntilAsync(expected);
        Assert.Equal(1, store.Status.Repairs);
    }

    /// <summary>A server may not grant reads in a transaction: the control too, which shows what is saved.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task The_watches_of_one_etcd_ask_together_and_each_gets_its_own_answer(bool refused)
    {
        await using var wire = await GrpcProxy.StartAsync(_etcd.Endpoint, asDoor: false);
        wire.RefusesTransactions = refused;
        await using var store = new EtcdKVStore(new EtcdOptions
        {
            Endpoints = [wire.Endpoint],
            AuditInterval = TimeSpan.FromSeconds(0.5),
            AuditGrace = TimeSpan.FromSeconds(0.2),
        });
        await _writer.WriteAsync([Put("u/a", "1"), Put("v/a", "1")], Cancellation);
        await using var others = new Reader(store, "u/");
        await using var more = new Reader(store, "v/");
        await using var reader = await ReadingAsync(store);
        await UntilAsync(() => store.Status.Watches.All(watch => watch.Streaming), "all watches streaming");
        var (transactions, ranges, audits) = (wire.Transactions, wire.Ranges, store.Status.Audits);
        await UntilAsync(() => store.Status.Audits >= audits + 12, "twelve audits");
        if (refused)
        {
            Assert.InRange(wire.Transactions - transactions, 0, 1);
            Assert.InRange(wire.Ranges - ranges, 12, 24);
        }
        else
        {
            Assert.InRange(wire.Transactions - transactions, 4, 8);
            // The question whether the store lives, at most.
            Assert.InRange(wire.Ranges - ranges, 0, 3);
        }
        var (expected, _) = await LoseAsync(wire, "delete and put");
        await reader.UntilAsync(expected);
        Assert.Equal((2, 1, 1), (reader.Lists, others.Lists, more.Lists));
        Assert.Equal(1, store.Status.Repairs);
    }

    /// <summary>Among hundreds of stores each is asked rarely whether it lives; what its audits ask anyway then tells. The control: among few
    /// nothing goes along.</summary>
    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task Where_many_stores_are_asked_in_turns_the_audits_of_one_ask_along_whether_it_lives(bool many)
    {
        var pace = new AuditPace(1, TimeProvider.System);
        for (var other = 0; many && other < 50; other++)
            pace.Book(TimeSpan.Zero, TimeSpan.FromMinutes(2));
        await using var wire = await GrpcProxy.StartAsync(_etcd.Endpoint, asDoor: false);
        await using var store = new EtcdKVStore(new EtcdOptions
        {
            Endpoints = [wire.Endpoint],
            AuditInterval = TimeSpan.FromSeconds(0.5),
            AuditGrace = TimeSpan.FromSeconds(0.2),
            LivenessPace = pace,
        });
        await using var beside = new Reader(store, "u/");
        await using var reader = await ReadingAsync(store);
        await UntilAsync(() => store.Status.Watches.All(watch => watch.Streaming), "all watches streaming");
        await UntilAsync(() => store.Status.Audits >= 8, "eight audits");
        if (!many)
        {
            Assert.Equal(0, wire.ProvingTransactions);
            return;
        }
        Assert.NotEqual(0, wire.ProvingTransactions);
        var (ranges, audits) = (wire.Ranges, store.Status.Audits);
        wire.HasNoLeader = true;
        await UntilAsync(() => store.Status.Fault == StoreFault.NoQuorum, "it has no leader");
        // They go on without, and nothing is listed anew.
        await UntilAsync(() => store.Status.Audits >= audits + 4, "four audits");
        Assert.True(store.Status.Connected);
        wire.HasNoLeader = false;
        await UntilAsync(() => store.Status.Fault == StoreFault.None, "it has one again");
        Assert.Equal((0, 1), (wire.Ranges - ranges, reader.Lists));
    }

    [Fact]
    public async Task Long_lists_stand_in_line_and_say_so_and_a_slow_one_keeps_nobody_waiting()
    {
        using var turns = new ListTurns(1, TimeSpan.FromSeconds(1), TimeProvider.System);
        await _writer.WriteAsync([.. Enumerable.Range(0, ListTurns.FirstPage + 1).Select(i => Put($"long/{i}", "1"))], Cancellation);
        await _writer.WriteAsync([Put("short/1", "1")], Cancellation);
        await using var store = new EtcdKVStore(_etcd.Options with { Turns = turns });
        var slow = store.ListWatchAsync("long/", Cancellation).GetAsyncEnumerator(Cancellation);
        // It has a turn from its second page on.
        await slow.MoveNextAsync();
        await slow.MoveNextAsync();
        await slow.MoveNextAsync();
        await using var line = new Reader(store, "long/");
        await using var unconcerned = new Reader(store, "short/");
        await unconcerned.UntilAsync("short/1=1");
        await UntilAsync(() => store.Status.Watches.Any(watch => watch.InLine), "one stands in line");
        Assert.Equal((0, 1), (line.Lists, turns.Waiting));
        await line.UntilAsync(() => line.Lists == 1);
        Assert.Equal(0, turns.Waiting);
        await slow.DisposeAsync();
        // The control: with a turn free nobody waits, though somebody is slow.
        using var two = new ListTurns(2, TimeSpan.FromMinutes(1), TimeProvider.System);
        using var first = await two.TakeAsync(Cancellation);
        using var second = await two.TakeAsync(Cancellation);
        var third = two.TakeAsync(Cancellation);
        Assert.False(third.IsCompleted);
        first.Dispose();
        first.Dispose();
        (await third).Dispose();
    }

    [Fact]
    public async Task Audits_of_a_door_under_load_find_nothing_when_nothing_is_lost()
    {
        await using var door = await GrpcProxy.StartAsync(_etcd.Endpoint, asDoor: true);
        await using var store = new EtcdKVStore(new EtcdOptions
        {
            Endpoints = [door.Endpoint],
            DoorAuditInterval = TimeSpan.FromMilliseconds(20),
            Pace = new AuditPace(1000, TimeProvider.System),
        });
        await using var reader = await ReadingAsync(store);
        // Slower than the writer, so that audits ask while events are under way.
        reader.OnEvent = () => SpinWait.SpinUntil(() => false, 2);
        for (var i = 0; store.Status.Audits < 20; i++)
        {
            await _writer.WriteAsync([Put($"w/{i % 50}", $"{i}"), new WriteOperation($"w/{(i + 7) % 50}", null)], Cancellation);
            if (i % 50 == 49)
                await reader.UntilAsync(() => $"{reader.State} ".Contains($"={i} ", StringComparison.Ordinal));
        }
        Assert.Equal(1, reader.Lists);
        Assert.Equal(0, store.Status.Repairs);
    }

    [Fact]
    public void Hundreds_of_watches_take_turns_and_none_waits_longer_than_the_bound()
    {
        var pace = new AuditPace(20, TimeProvider.System);
        var waits = Enumerable.Range(0, 2000).Select(_ => pace.Book(TimeSpan.FromSeconds(1), TimeSpan.FromSeconds(45))).ToArray();
        Assert.InRange(waits[0].TotalSeconds, 0.9, 1.1);
        Assert.InRange(waits[200].TotalSeconds, 10.5, 11.5);
        Assert.InRange(waits[^1].TotalSeconds, 44.9, 45.1);
    }

    private static async Task UntilAsync(Func<bool> holds, string what)
    {
        for (var clock = Stopwatch.StartNew(); !holds(); await Task.Delay(5, Cancellation))
            Assert.True(clock.Elapsed < Reader.Patience, $"waited {clock.Elapsed} for: {what}");
    }

    private async Task<Reader> ReadingAsync(EtcdKVStore store)
    {
        await _writer.WriteAsync([Put("w/a", "1"), Put("w/b", "1")], Cancellation);
        var reader = new Reader(store, "w/");
        await reader.UntilAsync("w/a=1 w/b=1");
        // An event proves that the watch stands.
        await _writer.WriteAsync([Put("w/a", "2")], Cancellation);
        await reader.UntilAsync("w/a=2 w/b=1");
        return reader;
    }

    /// <summary>Returns what the store holds in the end, and a clock that runs since the first loss.</summary>
    private async Task<(string Expected, Stopwatch Lost)> LoseAsync(GrpcProxy wire, string loss)
    {
        var toLose = loss switch { "put" or "update" or "delete" => 1, _ => 2 };
        wire.Lose = _ => Interlocked.Decrement(ref toLose) >= 0;
        var clock = Stopwatch.StartNew();
        var expected = "";
        switch (loss)
        {
            case "put":
                await _writer.WriteAsync([Put("w/c", "1")], Cancellation);
                expected = "w/a=2 w/b=1 w/c=1";
                break;
            case "update":
                await _writer.WriteAsync([Put("w/b", "2")], Cancellation);
                expected = "w/a=2 w/b=2";
                break;
            case "delete":
                await _writer.WriteAsync([new WriteOperation("w/b", null)], Cancellation);
                expected = "w/a=2";
                break;
            default:
                await _writer.WriteAsync([new WriteOperation("w/b", null)], Cancellation);
                await _writer.WriteAsync([Put("w/c", "1")], Cancellation);
                expected = "w/a=2 w/c=1";
                break;
        }
        if (loss.EndsWith("update is seen", StringComparison.Ordinal))
        {
            await _writer.WriteAsync([Put("w/c", "2")], Cancellation);
            expected = "w/a=2 w/c=2";
        }
        if (loss.EndsWith("delete is seen", StringComparison.Ordinal))
        {
            await _writer.WriteAsync([new WriteOperation("w/c", null)], Cancellation);
            expected = "w/a=2";
        }
        while (wire.Dropped < (loss is "put" or "update" or "delete" ? 1 : 2))
            await Task.Delay(1, Cancellation);
        return (expected, clock);
    }

    private static WriteOperation Put(string key, string value) => new(key, Encoding.UTF8.GetBytes(value));
}
