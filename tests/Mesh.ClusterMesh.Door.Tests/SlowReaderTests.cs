using System.Text;
using Etcdserverpb;
using Google.Protobuf;
using Mesh.KVStore;
using Mesh.TestKit;
using Xunit;

namespace Mesh.ClusterMesh.Door.Tests;

/// <summary>Readers that do not keep up cost little, hurt nobody, and end with the truth.</summary>
public sealed class SlowReaderTests : IAsyncLifetime
{
    private const string Prefix = "cilium/state/";
    private const int Keys = 50;
    private const int ValueBytes = 2000;
    private const int Window = 64 << 10;
    private EtcdServer _etcd = null!;
    private EtcdKVStore _store = null!;
    private DoorUnderTest? _door;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        _etcd = await EtcdServer.StartAsync();
        _store = _etcd.NewStore();
        await WriteAsync(0, 1);
    }

    public async ValueTask DisposeAsync()
    {
        if (_door is not null)
            await _door.DisposeAsync();
        await _store.DisposeAsync();
        await _etcd.DisposeAsync();
    }

    /// <summary>Writes that many revisions over the same keys.</summary>
    private async Task WriteAsync(int from, int count)
    {
        for (var i = from; i < from + count; i++)
        {
            var value = Encoding.UTF8.GetBytes($"{i}".PadRight(ValueBytes));
            await _store.WriteAsync([new WriteOperation($"{Prefix}{i % Keys}", value)], Cancellation);
        }
    }

    private async Task<RawReader> WatchAsync()
    {
        var reader = await RawReader.ConnectAsync("127.0.0.1", _door!.Door.Address!.Port, DoorUnderTest.TlsTo(_door.As("remote")), Window, Cancellation);
        await reader.OpenAsync(1, "/etcdserverpb.Watch/Watch");
        await reader.SendAsync(1, new WatchRequest
        {
            CreateRequest = new WatchCreateRequest { Key = ByteString.CopyFromUtf8(Prefix), RangeEnd = ByteString.CopyFromUtf8("cilium/state0") },
        }.ToByteArray());
        return reader;
    }

    private async Task<Dictionary<string, string>> TruthAsync() =>
        (await _store.ListAsync(Prefix, Cancellation)).Items.ToDictionary(item => item.Key, item => Encoding.UTF8.GetString(item.Value.Span).TrimEnd());

    [Fact]
    public async Task A_reader_that_slept_gets_the_newest_value_of_each_key_in_order()
    {
        _door = await DoorUnderTest.OpenAsync(_etcd, options => options with { Limits = new DoorLimits { ConflateBehind = 64 } });
        await using var slow = await WatchAsync();
        await Wait.UntilAsync(() => _door.Door.Status.Watches == 1, "the watch");
        await using var quick = new StreamReading(_door.Channel("remote"), Prefix);
        await Wait.UntilAsync(() => quick.Created, "the other watch");
        await WriteAsync(1, 1500);
        var known = new Dictionary<string, string>();
        var events = 0;
        var last = 0L;
        using var stop = new CancellationTokenSource();
        slow.OnMessage = (_, bytes) =>
        {
            var response = WatchResponse.Parser.ParseFrom(bytes.Span);
            Assert.False(response.Canceled, "it was still in the history");
            foreach (var change in response.Events)
            {
                Assert.True(change.Kv.ModRevision > last, "revisions ascend");
                last = change.Kv.ModRevision;
                events++;
                lock (known)
                    known[change.Kv.Key.ToStringUtf8()] = change.Kv.Value.ToStringUtf8().TrimEnd();
            }
        };
        var reading = slow.ReadAsync(stop.Token);
        var truth = await TruthAsync();
        await Wait.UntilAsync(() => { lock (known) return known.Count == Keys && known.All(pair => truth[pair.Key] == pair.Value); }, "the truth");
        Assert.True(events < 600, $"{events} events: nothing was conflated");
        Assert.True(_door.Door.Status.ConflatedEvents > 900);
        // The one that kept up was sent every one of them.
        await Wait.UntilAsync(() => quick.Events.Count() == 1500, "every event at the quick reader");
        await stop.CancelAsync();
        await reading.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing | ConfigureAwaitOptions.ContinueOnCapturedContext);
    }

    [Fact]
    public async Task Readers_that_never_read_cost_a_bounded_memory_and_are_told_that_they_missed_something()
    {
        const int readers = 40;
        _door = await DoorUnderTest.OpenAsync(_etcd,
            options => options with { Limits = new DoorLimits { HistoryRevisions = 256, HistoryBytes = 2 << 20 } });
        await WriteAsync(1, 600);
        await _door.Door.Cache.WaitForAsync(601, Cancellation);
        var slow = new List<RawReader>();
        for (var i = 0; i < readers; i++)
            slow.Add(await WatchAsync());
        await Wait.UntilAsync(() => _door.Door.Status.Watches == readers, "the watches");
        var before = GC.GetTotalMemory(forceFullCollection: true);
        await WriteAsync(601, 3000);
        await Task.Delay(200, Cancellation);
        var cost = (GC.GetTotalMemory(forceFullCollection: true) - before) / readers;
        // 3000 events of 2 KB are 6 MB for each; one response and the connection's buffers are what it may have.
        Assert.True(cost < 512 << 10, $"{cost >> 10} KiB per reader");
        var compacted = 0;
        using var stop = new CancellationTokenSource();
        var loops = new List<Task>();
        foreach (var reader in slow)
        {
            reader.OnMessage = (_, bytes) =>
            {
                if (WatchResponse.Parser.ParseFrom(bytes.Span) is { Canceled: true, CompactRevision: > 0 })
                    Interlocked.Increment(ref compacted);
            };
            loops.Add(reader.ReadAsync(stop.Token));
        }
        await Wait.UntilAsync(() => Volatile.Read(ref compacted) == readers, "every reader to be told");
        TestContext.Current.SendDiagnosticMessage($"{cost >> 10} KiB per stuck reader");
        await stop.CancelAsync();
        await Task.WhenAll(loops).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing | ConfigureAwaitOptions.ContinueOnCapturedContext);
        foreach (var reader in slow)
            await reader.DisposeAsync();
    }
}
