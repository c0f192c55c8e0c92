using System.Text;
using Xunit;

namespace Mesh.KVStore.Tests;

/// <summary>The producer against the store in memory, whose faults come exactly when a test wants them.</summary>
public sealed class SyncStoreTests : IAsyncDisposable
{
    private const string Canary = "synced/tokyo/p";
    private readonly InMemoryKVStore _store = new();
    private readonly LeasePool _leases;

    public SyncStoreTests() => _leases = new LeasePool(_store, TimeSpan.FromMinutes(15));

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public async ValueTask DisposeAsync()
    {
        await _leases.DisposeAsync();
        await _store.DisposeAsync();
    }

    [Fact]
    public async Task What_is_wanted_is_written_and_then_the_canary()
    {
        await using var sync = NewSync();
        await using var all = new Reader(_store, "");
        sync.Set("p/a", Bytes("1"));
        sync.Set("p/b", Bytes("2"));
        await all.UntilAsync("p/a=1 p/b=2");
        Assert.Null(await _store.GetAsync(Canary, Cancellation));
        sync.MarkSynced();
        await sync.WaitForSyncedAsync(Cancellation);
        Assert.NotNull(await _store.GetAsync(Canary, Cancellation));
        Assert.True(sync.Status.Synced);
    }

    [Fact]
    public async Task What_is_there_already_is_not_written_again()
    {
        var lease = await _leases.AcquireAsync(Cancellation);
        await _store.WriteAsync([Put("p/a", "1")], Cancellation);
        await using var sync = NewSync(leased: false);
        sync.Set("p/a", Bytes("1"));
        sync.MarkSynced();
        await sync.WaitForSyncedAsync(Cancellation);
        var before = _store.Revision;
        sync.Set("p/a", Bytes("1"));
        sync.Set("p/b", Bytes("1"));
        await IdleAsync(sync);
        Assert.Equal(before + 1, _store.Revision);
        Assert.Equal(1, sync.Status.Written);
        Assert.Equal(1, lease.Epoch);
    }

    [Fact]
    public async Task Leftovers_go_after_MarkSynced_and_not_before()
    {
        await _store.WriteAsync([Put("p/old", "x"), Put("q/other", "y")], Cancellation);
        await using var sync = NewSync();
        await using var reader = new Reader(_store, "p/");
        sync.Set("p/a", Bytes("1"));
        await reader.UntilAsync("p/a=1 p/old=x");
        sync.MarkSynced();
        await reader.UntilAsync("p/a=1");
        Assert.NotNull(await _store.GetAsync("q/other", Cancellation));
    }

    [Fact]
    public async Task A_key_that_somebody_else_deletes_overwrites_or_adds_is_put_right()
    {
        await using var sync = await SyncedAsync();
        await using var reader = new Reader(_store, "p/");
        await reader.UntilAsync("p/a=1 p/b=2");
        await _store.WriteAsync([new WriteOperation("p/a", null)], Cancellation);
        await reader.UntilAsync(() => reader.Events >= 2 && reader.State == "p/a=1 p/b=2");
        await _store.WriteAsync([Put("p/b", "forged"), Put("p/c", "extra")], Cancellation);
        await reader.UntilAsync(() => reader.Events >= 6 && reader.State == "p/a=1 p/b=2");
        Assert.Equal(3, sync.Status.Repaired);
    }

    [Fact]
    public async Task The_canary_that_somebody_else_deletes_is_put_right()
    {
        await using var sync = await SyncedAsync();
        await using var reader = new Reader(_store, Canary);
        await reader.UntilAsync(() => reader.State.Length > 0);
        await _store.WriteAsync([new WriteOperation(Canary, null)], Cancellation);
        await reader.UntilAsync(() => reader.Events >= 2 && reader.State.Length > 0);
    }

    [Fact]
    public async Task A_lost_lease_has_all_keys_and_then_the_canary_written_again()
    {
        await using var sync = await SyncedAsync();
        var before = (await _store.GetAsync("p/a", Cancellation))!.Value.Lease;
        await using var all = new Reader(_store, "");
        await all.UntilAsync(() => all.State.StartsWith("p/a=1 p/b=2 synced/", StringComparison.Ordinal));
        _store.ExpireLeases();
        await all.UntilAsync(() => all.Events >= 6 && all.State.StartsWith("p/a=1 p/b=2 synced/", StringComparison.Ordinal));
        var data = (await _store.GetAsync("p/a", Cancellation))!.Value;
        var canary = (await _store.GetAsync(Canary, Cancellation))!.Value;
        Assert.NotEqual(before, data.Lease);
        Assert.True(canary.ModRevision > data.ModRevision, "the canary must come after the data");
    }

    [Fact]
    public async Task A_store_that_comes_back_empty_is_filled_again()
    {
        await using var sync = await SyncedAsync();
        _store.Wipe();
        await using var all = new Reader(_store, "");
        await all.UntilAsync(() => all.State.StartsWith("p/a=1 p/b=2 synced/", StringComparison.Ordinal));
        var data = (await _store.GetAsync("p/a", Cancellation))!.Value;
        Assert.True((await _store.GetAsync(Canary, Cancellation))!.Value.ModRevision > data.ModRevision);
    }

    [Fact]
    public async Task Changes_during_an_outage_arrive_as_their_latest_value_only()
    {
        await using var sync = await SyncedAsync();
        var before = _store.Revision;
        _store.Disconnect();
        for (var i = 0; i < 100; i++)
            sync.Set("p/a", Bytes($"v{i}"));
        sync.Remove("p/b");
        await PollAsync(() => sync.Status.Errors > 0);
        Assert.NotNull(sync.Status.LastError);
        _store.Connect();
        await IdleAsync(sync);
        await using var reader = new Reader(_store, "p/");
        await reader.UntilAsync("p/a=v99");
        Assert.InRange(_store.Revision - before, 1, 3);
        Assert.Null(sync.Status.LastError);
    }

    [Fact]
    public async Task A_value_that_the_store_refuses_disturbs_no_other_key()
    {
        await using var sync = NewSync();
        sync.Set("p/a", Bytes("1"));
        sync.Set("p/huge", new byte[2_000_000]);
        sync.Set("p/b", Bytes("2"));
        sync.MarkSynced();
        await sync.WaitForSyncedAsync(Cancellation);
        await PollAsync(() => sync.Status.Refused == 1);
        Assert.Contains("p/huge", sync.Status.LastError, StringComparison.Ordinal);
        await using var reader = new Reader(_store, "p/");
        await reader.UntilAsync("p/a=1 p/b=2");
        sync.Set("p/huge", Bytes("small"));
        await reader.UntilAsync("p/a=1 p/b=2 p/huge=small");
        Assert.Equal(0, sync.Status.Refused);
    }

    [Fact]
    public async Task Thousands_of_keys_take_few_transactions_and_leases_of_a_thousand_keys()
    {
        await using var sync = NewSync();
        await using var first = new Reader(_store, "p/");
        await first.UntilAsync("");
        var before = _store.Revision;
        for (var i = 0; i < 2500; i++)
            sync.Set($"p/{i:0000}", Bytes("v"));
        sync.MarkSynced();
        await sync.WaitForSyncedAsync(Cancellation);
        var (items, _) = await _store.ListAsync("p/", Cancellation);
        Assert.Equal(2500, items.Count);
        Assert.Equal([1000, 1000, 500], items.GroupBy(i => i.Lease).Select(g => g.Count()).OrderDescending());
        Assert.True(_store.Revision - before < 200, $"{_store.Revision - before} transactions");
    }

    [Fact]
    public async Task Failed_writes_are_repeated_until_they_succeed()
    {
        await using var sync = await SyncedAsync();
        _store.FailWrites(3);
        sync.Set("p/a", Bytes("new"));
        await using var reader = new Reader(_store, "p/");
        await reader.UntilAsync("p/a=new p/b=2");
        Assert.Equal(3, sync.Status.Errors);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task A_write_that_the_store_acknowledged_and_lost_is_made_again(bool delete)
    {
        var forgetful = new ForgetfulStore(_store);
        await using var sync = SyncStore.Start(forgetful, new SyncStoreOptions
        {
            Prefix = "p/",
            ConfirmPatience = TimeSpan.FromMilliseconds(100),
        });
        sync.Set("p/a", Bytes("1"));
        sync.MarkSynced();
        await sync.WaitForSyncedAsync(Cancellation);
        await using var reader = new Reader(_store, "p/");
        await reader.UntilAsync("p/a=1");
        forgetful.Forget = 1;
        if (delete)
            sync.Remove("p/a");
        else
            sync.Set("p/a", Bytes("2"));
        await PollAsync(() => forgetful.Forget == 0);
        await reader.UntilAsync(delete ? "" : "p/a=2");
        Assert.Equal(0, sync.Status.Queue);
    }

    private SyncStore NewSync(bool leased = true) => SyncStore.Start(_store, new SyncStoreOptions
    {
        Prefix = "p/",
        Leases = leased ? _leases : null,
        CanaryKey = Canary,
        RetryMin = TimeSpan.FromMilliseconds(5),
        RetryMax = TimeSpan.FromMilliseconds(50),
    });

    private async Task<SyncStore> SyncedAsync()
    {
        var sync = NewSync();
        sync.Set("p/a", Bytes("1"));
        sync.Set("p/b", Bytes("2"));
        sync.MarkSynced();
        await sync.WaitForSyncedAsync(Cancellation);
        return sync;
    }

    private static Task IdleAsync(SyncStore sync) => PollAsync(() => sync.Status.Queue == 0);

    internal static async Task PollAsync(Func<bool> holds)
    {
        using var patience = CancellationTokenSource.CreateLinkedTokenSource(Cancellation);
        patience.CancelAfter(Reader.Patience);
        while (!holds())
            await Task.Delay(5, patience.Token);
    }

    private static WriteOperation Put(string key, string value) => new(key, Bytes(value));

    private static byte[] Bytes(string text) => Encoding.UTF8.GetBytes(text);
}
