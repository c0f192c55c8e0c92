using Mesh.TestKit;
using Xunit;

namespace Mesh.KVStore.Tests;

/// <summary>The first keys of a long list say how many there will be, so that a reader can make room at once.</summary>
public sealed class ExpectedCountTests : IAsyncLifetime
{
    private const int Keys = ListTurns.FirstPage + 100;
    private EtcdServer _server = null!;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        _server = await EtcdServer.StartAsync();
        await using var store = _server.NewStore();
        foreach (var some in Enumerable.Range(0, Keys).Chunk(100))
            await store.WriteAsync([.. some.Select(i => new WriteOperation($"long/{i:0000}", "v"u8.ToArray()))], Cancellation);
        await store.WriteAsync([new WriteOperation("short/1", "v"u8.ToArray()), new WriteOperation("short/2", "v"u8.ToArray())], Cancellation);
    }

    public async ValueTask DisposeAsync() => await _server.DisposeAsync();

    /// <param name="pageSize">Of the reader: also one that asks for less than a first page at once.</param>
    [Theory]
    [InlineData(1500)]
    [InlineData(100)]
    public async Task The_first_keys_of_a_long_list_say_how_many_there_will_be(int pageSize)
    {
        var batches = await ListAsync("long/", pageSize);
        Assert.Equal(Keys, batches.Sum(batch => batch.Events.Count));
        Assert.True(batches.Count > 1, "one batch has all");
        Assert.Equal([Keys, .. Enumerable.Repeat(0L, batches.Count - 1)], batches.Select(batch => batch.Expected));
    }

    /// <summary>The control: what comes in one piece needs no word of it.</summary>
    [Fact]
    public async Task A_short_list_says_nothing() => Assert.Equal([0L], (await ListAsync("short/", 1500)).Select(batch => batch.Expected));

    /// <returns>What brought keys, until the end of the first list.</returns>
    private async Task<IReadOnlyList<WatchBatch>> ListAsync(string prefix, int pageSize)
    {
        await using var store = new EtcdKVStore(_server.Options with { PageSize = pageSize });
        var batches = new List<WatchBatch>();
        await foreach (var batch in store.ListWatchAsync(prefix, Cancellation))
        {
            if (batch.Kind == WatchBatchKind.ListEnd)
                break;
            if (batch.Kind == WatchBatchKind.Put)
                batches.Add(batch);
        }
        return batches;
    }
}
