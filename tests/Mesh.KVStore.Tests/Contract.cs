using System.Text;
using Mesh.TestKit;
using Xunit;

namespace Mesh.KVStore.Tests;

/// <summary>What every IKVStore promises, run against etcd and against the store in memory.</summary>
public abstract class Contract : IAsyncLifetime
{
    protected static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    protected IKVStore Store { get; set; } = null!;

    public abstract ValueTask InitializeAsync();

    public abstract ValueTask DisposeAsync();

    [Fact]
    public async Task A_written_key_is_read_back_and_an_absent_one_is_null()
    {
        var revision = await Store.WriteAsync([Put("a", "1")], Cancellation);
        var read = await Store.GetAsync("a", Cancellation);
        Assert.Equal("1", Text(read!.Value));
        Assert.Equal(revision, read.Value.ModRevision);
        Assert.Null(await Store.GetAsync("b", Cancellation));
    }

    [Fact]
    public async Task A_prefix_lists_its_keys_in_order_and_not_its_neighbours()
    {
        await Store.WriteAsync([Put("p/b", "2"), Put("p/a", "1"), Put("p0", "x"), Put("p", "y"), Put("p/c/d", "3")], Cancellation);
        var (items, _) = await Store.ListAsync("p/", Cancellation);
        Assert.Equal(["p/a=1", "p/b=2", "p/c/d=3"], items.Select(i => $"{i.Key}={Text(i)}"));
        Assert.Equal(3, await Store.CountAsync("p/", Cancellation));
    }

    [Fact]
    public async Task A_call_within_the_limits_is_one_revision()
    {
        await Store.WriteAsync([.. Enumerable.Range(0, WriteLimits.MaxOperations).Select(i => Put($"k/{i}", "v"))], Cancellation);
        var (items, _) = await Store.ListAsync("k/", Cancellation);
        Assert.Equal(WriteLimits.MaxOperations, items.Count);
        Assert.Single(items.Select(i => i.ModRevision).Distinct());
    }

    [Fact]
    public async Task A_call_beyond_the_limits_writes_every_key()
    {
        var big = new byte[300_000];
        WriteOperation[] all = [.. Enumerable.Range(0, 1000).Select(i => Put($"k/{i}", "v")),
            .. Enumerable.Range(0, 10).Select(i => new WriteOperation($"big/{i}", big))];
        await Store.WriteAsync(all, Cancellation);
        Assert.Equal(1000, await Store.CountAsync("k/", Cancellation));
        Assert.Equal(10, await Store.CountAsync("big/", Cancellation));
    }

    [Fact]
    public async Task A_value_that_no_store_takes_is_refused_by_name()
    {
        var failure = await Assert.ThrowsAsync<KVStoreException>(
            () => Store.WriteAsync([new WriteOperation("huge", new byte[2_000_000])], Cancellation));
        Assert.Contains("huge", failure.Message, StringComparison.Ordinal);
        Assert.Null(await Store.GetAsync("huge", Cancellation));
    }

    [Fact]
    public async Task Deleting_a_prefix_leaves_its_neighbours()
    {
        await Store.WriteAsync([Put("p/a", "1"), Put("p/b", "2"), Put("p0", "x")], Cancellation);
        await Store.DeletePrefixAsync("p/", Cancellation);
        Assert.Equal(0, await Store.CountAsync("p/", Cancellation));
        Assert.NotNull(await Store.GetAsync("p0", Cancellation));
    }

    [Fact]
    public async Task A_watch_lists_and_then_follows()
    {
        await Store.WriteAsync([Put("w/a", "1"), Put("other", "x")], Cancellation);
        await using var reader = new Reader(Store, "w/");
        await reader.UntilAsync("w/a=1");
        await Store.WriteAsync([Put("w/b", "2"), Put("w/a", "3")], Cancellation);
        await Store.WriteAsync([new WriteOperation("w/a", null), Put("other", "y")], Cancellation);
        await reader.UntilAsync("w/b=2");
        Assert.Equal(1, reader.Lists);
    }

    [Fact]
    public async Task A_watch_of_an_empty_prefix_says_that_its_list_is_complete()
    {
        await using var reader = new Reader(Store, "nothing/");
        await reader.UntilAsync("");
        Assert.Equal(1, reader.Lists);
    }

    [Fact]
    public async Task Revoking_a_lease_deletes_its_keys_only()
    {
        var lease = await Store.CreateLeaseAsync(TimeSpan.FromSeconds(60), Cancellation);
        await Store.WriteAsync([Put("l/a", "1") with { Lease = lease }, Put("l/b", "2")], Cancellation);
        Assert.Equal(lease.Id, (await Store.GetAsync("l/a", Cancellation))!.Value.Lease);
        Assert.Equal(1, lease.Epoch);
        await lease.RevokeAsync();
        Assert.Null(await Store.GetAsync("l/a", Cancellation));
        Assert.NotNull(await Store.GetAsync("l/b", Cancellation));
    }

    [Fact]
    public async Task A_cancelled_watch_ends_with_cancellation()
    {
        using var stop = new CancellationTokenSource();
        var started = new TaskCompletionSource();
        var reading = Task.Run(async () =>
        {
            await foreach (var batch in Store.ListWatchAsync("c/", stop.Token))
            {
                if (batch.Kind == WatchBatchKind.ListEnd)
                    started.SetResult();
            }
        }, Cancellation);
        await started.Task.WaitAsync(Reader.Patience, Cancellation);
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => reading.WaitAsync(Reader.Patience, Cancellation));
    }

    protected static WriteOperation Put(string key, string value) => new(key, Encoding.UTF8.GetBytes(value));

    protected static string Text(KeyValue item) => Encoding.UTF8.GetString(item.Value.Span);
}

public sealed class InMemoryContract : Contract
{
    public override ValueTask InitializeAsync()
    {
        Store = new InMemoryKVStore();
        return ValueTask.CompletedTask;
    }

    public override ValueTask DisposeAsync() => Store.DisposeAsync();
}

public sealed class EtcdContract : Contract
{
    private EtcdServer _server = null!;

    public override async ValueTask InitializeAsync()
    {
        _server = await EtcdServer.StartAsync();
        Store = _server.NewStore();
    }

    public override async ValueTask DisposeAsync()
    {
        await Store.DisposeAsync();
        await _server.DisposeAsync();
    }
}
