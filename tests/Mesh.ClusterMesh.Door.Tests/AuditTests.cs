using System.Diagnostics;
using System.Text;
using Mesh.KVStore;
using Mesh.KVStore.Tests;
using Mesh.TestKit;
using Xunit;

namespace Mesh.ClusterMesh.Door.Tests;

/// <summary>
/// The whole way of a record: a real etcd, the door before it, a wire that swallows watch events without a word, and the product's own
/// reader behind. What was swallowed is back within two seconds, because the door is asked about it; with the audit off it never is.
/// </summary>
public sealed class AuditTests : IAsyncLifetime
{
    private const string Prefix = $"cilium/state/services/v1/{DoorUnderTest.Cluster}/";
    /// <summary>On a machine with nothing else to do.</summary>
    private static readonly TimeSpan Promise = TimeSpan.FromSeconds(2);

    /// <summary>On any: an etcd that is no door would be asked after 45 s.</summary>
    private static readonly TimeSpan Within = TimeSpan.FromSeconds(10);

    private EtcdServer _etcd = null!;
    private EtcdKVStore _writer = null!;
    private DoorUnderTest _door = null!;
    private GrpcProxy _wire = null!;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        _etcd = await EtcdServer.StartAsync();
        _writer = _etcd.NewStore();
        _door = await DoorUnderTest.OpenAsync(_etcd);
        _wire = await GrpcProxy.StartAsync(_door.Endpoint, asDoor: false, DoorUnderTest.TlsTo(_door.As("remote")));
    }

    public async ValueTask DisposeAsync()
    {
        await _wire.DisposeAsync();
        await _door.DisposeAsync();
        await _writer.DisposeAsync();
        await _etcd.DisposeAsync();
    }

    [Theory]
    [InlineData("a new record", 1, "a=2 b=1 c=1")]
    [InlineData("a change", 1, "a=2 b=2")]
    [InlineData("a deletion", 1, "a=2")]
    [InlineData("a deletion and a new record", 2, "a=2 c=1")]
    [InlineData("a deletion and a new record, whose next change is seen", 2, "a=2 c=2")]
    public async Task What_was_lost_behind_a_door_is_back_within_seconds(string loss, int events, string expected)
    {
        await using var store = new EtcdKVStore(new EtcdOptions { Endpoints = [_wire.Endpoint] });
        await using var reader = await ReadingAsync(store);
        Assert.True(store.Status.IsDoor);
        var lost = await LoseAsync(loss, events);
        await reader.UntilAsync(Keyed(expected));
        Assert.InRange(lost.Elapsed, TimeSpan.Zero, Within);
        Assert.Equal((2, 1L), (reader.Lists, store.Status.Repairs));
    }

    [Theory]
    [InlineData("a new record", 1, "a=2 b=1 c=1")]
    [InlineData("a deletion and a new record, whose next change is seen", 2, "a=2 c=2")]
    public async Task The_control_without_audits_it_is_lost_for_good(string loss, int events, string expected)
    {
        await using var store = new EtcdKVStore(new EtcdOptions { Endpoints = [_wire.Endpoint], DoorAuditInterval = Timeout.InfiniteTimeSpan });
        await using var reader = await ReadingAsync(store);
        var lost = await LoseAsync(loss, events);
        // Later events arrive for longer than an audit would need, and still nobody notices.
        for (var i = 0; lost.Elapsed < Promise + TimeSpan.FromSeconds(0.2); i++)
        {
            await _writer.WriteAsync([Put("z", $"{i}")], Cancellation);
            await reader.UntilAsync(() => reader.State.EndsWith($"z={i}", StringComparison.Ordinal));
        }
        Assert.False(reader.State.StartsWith(Keyed(expected), StringComparison.Ordinal), reader.State);
        Assert.Equal((1, 0L), (reader.Lists, store.Status.Repairs));
    }

    private async Task<Reader> ReadingAsync(EtcdKVStore store)
    {
        await _writer.WriteAsync([Put("a", "1"), Put("b", "1")], Cancellation);
        var reader = new Reader(store, Prefix);
        await reader.UntilAsync(Keyed("a=1 b=1"));
        // An event proves that the watch stands.
        await _writer.WriteAsync([Put("a", "2")], Cancellation);
        await reader.UntilAsync(Keyed("a=2 b=1"));
        return reader;
    }

    /// <summary>Returns, when all is lost that shall be, a clock that runs since before it was written.</summary>
    private async Task<Stopwatch> LoseAsync(string loss, int events)
    {
        var toLose = events;
        _wire.Lose = _ => Interlocked.Decrement(ref toLose) >= 0;
        var clock = Stopwatch.StartNew();
        if (loss == "a change")
            await _writer.WriteAsync([Put("b", "2")], Cancellation);
        if (loss.StartsWith("a deletion", StringComparison.Ordinal))
            await _writer.WriteAsync([new WriteOperation(Prefix + "b", null)], Cancellation);
        if (loss.Contains("a new record", StringComparison.Ordinal))
            await _writer.WriteAsync([Put("c", "1")], Cancellation);
        await Wait.UntilAsync(() => _wire.Dropped == events, "the loss");
        if (loss.EndsWith("is seen", StringComparison.Ordinal))
            await _writer.WriteAsync([Put("c", "2")], Cancellation);
        return clock;
    }

    private static string Keyed(string state) => string.Join(' ', state.Split(' ').Select(item => Prefix + item));

    private static WriteOperation Put(string name, string value) => new(Prefix + name, Encoding.UTF8.GetBytes(value));
}
