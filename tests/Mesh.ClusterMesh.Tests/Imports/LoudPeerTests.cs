using System.Diagnostics;
using System.Globalization;
using Mesh.ClusterMesh.Imports;
using Mesh.ClusterMesh.Remote;
using Mesh.ClusterMesh.Tests.Remote;
using Mesh.ClusterMesh.Wire;
using Mesh.KVStore;
using Mesh.Model;
using Mesh.TestKit;
using Microsoft.Extensions.Time.Testing;
using Xunit;

namespace Mesh.ClusterMesh.Tests.Imports;

/// <summary>A peer that changes more than it may waits at its own streams; nobody else does, and nothing is lost.</summary>
public sealed class LoudPeerTests : RemoteClusterStory
{
    private static RemoteClusterOptions Allowing(int eventsPerSecond) => Following.Options with
    {
        DefaultImports = ImportPolicy.Default with { Quotas = new ImportQuotas { EventsPerSecond = eventsPerSecond } },
    };

    [Theory]
    [InlineData(2_000)]
    [InlineData(1_000_000)]
    public async Task A_loud_peer_is_slowed_down_and_a_quiet_one_is_not(int allowed)
    {
        const int changes = 12_000;
        await using var quietStore = new InMemoryKVStore();
        var osprey = new Producer(quietStore, "osprey", 8);
        await osprey.EverythingAsync();
        await _falcon.EverythingAsync();
        await using var loud = Follow(options: Allowing(allowed));
        await using var quiet = Follow("osprey", quietStore);
        await _sink.UntilReadyAsync("falcon");
        await _sink.UntilReadyAsync("osprey");

        var clock = Stopwatch.StartNew();
        foreach (var chunk in Enumerable.Range(0, changes).Chunk(100))
            await _store.WriteAsync([.. chunk.Select(i => Operation(_falcon, i))], Cancellation);
        var late = 0;
        for (var i = 0; i < 50; i++)
        {
            var asked = Stopwatch.StartNew();
            await osprey.NodeAsync($"q{i}");
            await _sink.UntilAsync(sink => sink.Nodes.ContainsKey(("osprey", $"q{i}")), "the quiet peer's change");
            late += asked.Elapsed > TimeSpan.FromMilliseconds(500) ? 1 : 0;
        }
        // Not none: on a busy machine anybody waits now and then.
        Assert.InRange(late, 0, 5);
        await _sink.UntilAsync(sink => sink.IpEntries.Count(entry => entry.Key.Cluster == "falcon") == changes + 1, "all of the loud peer's changes");
        // A burst of one second's worth, then at the rate; the control runs free.
        var least = TimeSpan.FromSeconds((double)changes / allowed - 1) * 0.8;
        Assert.Equal(allowed < changes, loud.Cluster.Throttled > TimeSpan.Zero);
        Assert.Equal(TimeSpan.Zero, quiet.Cluster.Throttled);
        if (allowed < changes)
            Assert.True(clock.Elapsed > least, $"{changes} changes in {clock.Elapsed}, allowed are {allowed} a second");
        else
            Assert.InRange(clock.Elapsed, TimeSpan.Zero, TimeSpan.FromSeconds(20));
    }

    [Fact]
    public async Task Readers_wait_until_there_is_room_and_a_batch_too_large_for_all_of_it_gets_in_alone()
    {
        var inFlight = new InFlight(10);
        await inFlight.EnterAsync(100, Cancellation);
        var second = inFlight.EnterAsync(4, Cancellation).AsTask();
        var third = inFlight.EnterAsync(4, Cancellation).AsTask();
        var fourth = inFlight.EnterAsync(4, Cancellation).AsTask();
        Assert.False(second.IsCompleted);
        inFlight.Leave(100);
        await Task.WhenAll(second, third).WaitAsync(TimeSpan.FromSeconds(30), Cancellation);
        Assert.False(fourth.IsCompleted);
        inFlight.Leave(4);
        await fourth.WaitAsync(TimeSpan.FromSeconds(30), Cancellation);
    }

    [Fact]
    public async Task An_allowance_is_a_burst_and_then_a_rate()
    {
        var time = new FakeTimeProvider();
        var allowance = new EventAllowance(100, 100, time);
        await allowance.TakeAsync(100, Cancellation);
        var wait = allowance.TakeAsync(50, Cancellation).AsTask();
        time.Advance(TimeSpan.FromMilliseconds(400));
        Assert.False(wait.IsCompleted);
        time.Advance(TimeSpan.FromMilliseconds(110));
        await wait.WaitAsync(TimeSpan.FromSeconds(30), Cancellation);
        Assert.Equal(500, allowance.Waited.TotalMilliseconds, 5.0);
        time.Advance(TimeSpan.FromSeconds(60));
        await allowance.TakeAsync(100, Cancellation);
        Assert.False(allowance.TakeAsync(1, Cancellation).AsTask().IsCompleted);
    }

    /// <summary>Not run by default: 200,000 keys and 5,000 changes a second on a real etcd beside a quiet peer on another. Run it with
    /// -explicit only; the figures are printed.</summary>
    [Fact(Explicit = true)]
    public async Task Measure()
    {
        await using var loudEtcd = await EtcdServer.StartAsync();
        await using var quietEtcd = await EtcdServer.StartAsync();
        await using var loudStore = loudEtcd.NewStore();
        await using var quietStore = quietEtcd.NewStore();
        var falcon = new Producer(loudStore, "falcon", 7);
        var osprey = new Producer(quietStore, "osprey", 8);
        await falcon.EverythingAsync();
        await osprey.EverythingAsync();
        var keys = 200_000;
        await loudStore.WriteAsync([.. Enumerable.Range(0, keys).Select(i => Operation(falcon, i))], Cancellation);
        await using var quiet = new Following("osprey", quietEtcd.NewStore, _sink, _reservations, Allowing(5_000));
        await _sink.UntilReadyAsync("osprey");
        var alone = await LatenciesAsync(osprey, "alone", 200);
        var clock = Stopwatch.StartNew();
        await using var loud = new Following("falcon", loudEtcd.NewStore, _sink, _reservations, Allowing(5_000));
        var listing = await LatenciesAsync(osprey, "listing", 50);
        await _sink.UntilReadyAsync("falcon");
        var listed = clock.Elapsed;
        using var stop = new CancellationTokenSource();
        var written = 0;
        var writing = Task.Run(async () =>
        {
            var pace = Stopwatch.StartNew();
            while (!stop.IsCancellationRequested)
            {
                await loudStore.WriteAsync([.. Enumerable.Range(0, 500).Select(i => Operation(falcon, (written + i) % keys))], CancellationToken.None);
                written += 500;
                var ahead = TimeSpan.FromSeconds(written / 5_000.0) - pace.Elapsed;
                if (ahead > TimeSpan.Zero)
                    await Task.Delay(ahead, CancellationToken.None);
            }
        }, CancellationToken.None);
        var busy = await LatenciesAsync(osprey, "busy", 400);
        await stop.CancelAsync();
        await writing;
        GC.Collect();
        TestContext.Current.SendDiagnosticMessage(string.Create(CultureInfo.InvariantCulture,
            $"quiet peer, write to sink: alone {alone}; while the loud one lists {keys} keys ({listed.TotalSeconds:0.0} s) {listing}; at 5,000 changes/s "
            + $"({written} written) {busy}; managed memory {GC.GetTotalMemory(true) >> 20} MiB, RSS {Process.GetCurrentProcess().WorkingSet64 >> 20} MiB"));
    }

    private static WriteOperation Operation(Producer producer, int i) =>
        new(Keys.Ip(Address(i)), producer.IpValue(Address(i).Address.ToString()));

    private async Task<string> LatenciesAsync(Producer quiet, string name, int count)
    {
        var times = new List<double>();
        for (var i = 0; i < count; i++)
        {
            var clock = Stopwatch.StartNew();
            await quiet.NodeAsync($"{name}-{i}");
            await _sink.UntilAsync(sink => sink.Nodes.ContainsKey(("osprey", $"{name}-{i}")), "the quiet peer's change");
            times.Add(clock.Elapsed.TotalMilliseconds);
            await Task.Delay(20, Cancellation);
        }
        times.Sort();
        return string.Create(CultureInfo.InvariantCulture, $"p50 {times[count / 2]:0.0} ms, p99 {times[count * 99 / 100]:0.0} ms, worst {times[^1]:0.0} ms");
    }

    private static IpPrefix Address(int i) => IpPrefix.Host(IpAddr.V4(0x0a400000u + (uint)i));
}
