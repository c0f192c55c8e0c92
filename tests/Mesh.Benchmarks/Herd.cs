using System.Diagnostics;
using System.Globalization;
using Mesh.Benchmarks.Surroundings;
using Mesh.KVStore;
using Mesh.TestKit;

namespace Mesh.Benchmarks;

/// <summary>
/// A thousand readers, each our own client library with a connection of its own and one watch, lose their server at the same moment:
/// it is killed (-9) and started again on the same port, with nothing changed. A reader is live again when a change made afterwards has
/// reached it. The same readers do the same with etcd itself. Nobody may list again; the bytes are those on the wire, from the kill
/// until the last reader is live, that one change included.
/// </summary>
internal static class Herd
{
    public static readonly string[] Sizes = ["readers", "keys"];

    private const string Reader = "remote";
    private const double AimSeconds = 2;
    private const double AimKilobytes = 64;
    private const int ConnectAtOnce = 50;
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(90);

    private sealed record Outcome(TimeSpan Open, Sample Live, long Up, long Down, int Relists, long Resumptions, TimeSpan Cpu);

    public static async Task RunAsync(Report report, Settings settings, CancellationToken cancellation)
    {
        var (readers, keys) = (settings.Of("readers", 1000), settings.Of("keys", 5000));
        await using var etcd = await EtcdServer.StartAsync(tls: true, "--heartbeat-interval", "100", "--election-timeout", "1000");
        await using var store = etcd.NewStore();
        var prefix = $"cilium/state/bench/{Guid.NewGuid():n}/";
        await store.WriteAsync([.. Enumerable.Range(0, keys).Select(i =>
            new WriteOperation(string.Create(CultureInfo.InvariantCulture, $"{prefix}{i:d6}"), new byte[SteadyWriter.ValueBytes]))], cancellation);

        var theirs = await MeasureAsync(etcd, store, prefix, new Uri(etcd.Endpoint).Port, readers, async () =>
        {
            await etcd.KillAsync();
            await etcd.RestartAsync();
            return etcd.ProcessId;
        }, cancellation);

        var port = EtcdServer.FreePort();
        var door = await StartAsync();
        try
        {
            var ours = await MeasureAsync(etcd, store, prefix, port, readers, async () =>
            {
                await door.DisposeAsync();
                door = await StartAsync();
                return door.Id;
            }, cancellation);
            Tell(report, readers, keys, ours, theirs);
        }
        finally
        {
            await door.DisposeAsync();
        }

        Task<DoorProcess> StartAsync() => DoorProcess.StartAsync(etcd, PeerCluster.Name, PeerCluster.Id, "door", port, cancellation);
    }

    private static void Tell(Report report, int readers, int keys, Outcome ours, Outcome theirs)
    {
        var culture = CultureInfo.InvariantCulture;
        double Last(Outcome outcome) => outcome.Live.At(1) / 1e6;
        string Says(Outcome outcome) => string.Create(culture,
            $"p50 {outcome.Live.P50 / 1e6:0.00} s, last {Last(outcome):0.00} s (open after {outcome.Open.TotalSeconds:0.00} s)");
        double Each(Outcome outcome) => (outcome.Up + outcome.Down) / 1024.0 / readers;
        string Bytes(Outcome outcome) => string.Create(culture,
            $"{Each(outcome):0.0} KiB ({outcome.Down / 1024.0 / readers:0.0} down, {outcome.Up / 1024.0 / readers:0.0} up)");
        report.Add(string.Create(culture, $"{readers:N0} readers of {keys:N0} keys, server killed and started → all live"),
            Says(ours), $"etcd: {Says(theirs)}", Last(ours) / Last(theirs), string.Create(culture, $"last ≤ {AimSeconds} s after it is open"),
            Last(ours) - ours.Open.TotalSeconds <= AimSeconds);
        report.Add("  bytes per reader on the wire, both ways", Bytes(ours), $"etcd: {Bytes(theirs)}", Each(ours) / Each(theirs),
            string.Create(culture, $"≤ {AimKilobytes} KiB"), Each(ours) <= AimKilobytes);
        report.Add("  processor time of the server from its start until then", string.Create(culture, $"{ours.Cpu.TotalSeconds:0.00} s"),
            string.Create(culture, $"etcd: {theirs.Cpu.TotalSeconds:0.00} s"), ours.Cpu / theirs.Cpu);
        report.Add("  resumed, and listed again", $"{ours.Resumptions}, {ours.Relists}", $"etcd: {theirs.Resumptions}, {theirs.Relists}",
            aim: "none lists again", met: ours.Relists == 0);
    }

    private static async Task<Outcome> MeasureAsync(EtcdServer etcd, EtcdKVStore writer, string prefix, int port, int count,
        Func<Task<int>> restart, CancellationToken cancellation)
    {
        var probe = $"{prefix}probe-{Guid.NewGuid():n}";
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        var options = etcd.OptionsFor(Reader) with { Endpoints = [$"https://127.0.0.1:{port}"], AuditInterval = Timeout.InfiniteTimeSpan };
        var readers = new List<HerdReader>();
        try
        {
            for (var i = 0; i < count; i++)
            {
                readers.Add(new HerdReader(options, prefix, probe, stop.Token));
                if (readers.Count % ConnectAtOnce == 0 || readers.Count == count)
                    await Task.WhenAll(readers.TakeLast(ConnectAtOnce).Select(reader => reader.Listed)).WaitAsync(Patience, cancellation);
            }
            // Lists are over; the watches that follow them stand a moment later.
            await Task.Delay(2000, cancellation);
            GC.Collect();
            using var bytes = new PortBytes(port);
            var start = Stopwatch.GetTimestamp();
            var server = await restart();
            var open = Stopwatch.GetElapsedTime(start);
            await writer.WriteAsync([new WriteOperation(probe, new byte[SteadyWriter.ValueBytes])], cancellation);
            var live = await Task.WhenAll(readers.Select(reader => reader.Live)).WaitAsync(Patience, cancellation);
            var cpu = ProcessFacts.Cpu(server);
            var (up, down) = bytes.Read();
            return new Outcome(open, new Sample(live.Select(at => Stopwatch.GetElapsedTime(start, at).TotalMicroseconds)), up, down,
                readers.Sum(reader => reader.Lists - 1), readers.Sum(reader => reader.Resumptions), cpu);
        }
        finally
        {
            await stop.CancelAsync();
            await Task.WhenAll(readers.Select(reader => reader.DisposeAsync().AsTask()));
        }
    }

    /// <summary>One reader: lists, follows, and notes when it has seen the probe.</summary>
    private sealed class HerdReader : IAsyncDisposable
    {
        private readonly EtcdKVStore _store;
        private readonly TaskCompletionSource _listed = new(TaskCreationOptions.RunContinuationsAsynchronously);
        private readonly TaskCompletionSource<long> _live = new(TaskCreationOptions.RunContinuationsAsynchronously);
        private readonly Task _running;
        private int _lists;

        public HerdReader(EtcdOptions options, string prefix, string probe, CancellationToken cancellation)
        {
            _store = new EtcdKVStore(options, random: Random.Shared);
            _running = RunAsync(prefix, probe, cancellation);
        }

        public Task Listed => _listed.Task;

        public Task<long> Live => _live.Task;

        public int Lists => _lists;

        public long Resumptions => _store.Status.Resumptions;

        public async ValueTask DisposeAsync()
        {
            await _running.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            await _store.DisposeAsync();
        }

        private async Task RunAsync(string prefix, string probe, CancellationToken cancellation)
        {
            try
            {
                await foreach (var batch in _store.ListWatchAsync(prefix, cancellation))
                {
                    if (batch.Kind == WatchBatchKind.ListStart)
                        _lists++;
                    else if (batch.Kind == WatchBatchKind.ListEnd)
                        _listed.TrySetResult();
                    else if (batch.Kind == WatchBatchKind.Put && _listed.Task.IsCompleted && batch.Events.Any(item => item.Key == probe))
                        _live.TrySetResult(Stopwatch.GetTimestamp());
                }
            }
            catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
            {
                // The benchmark is over.
            }
            catch (Exception failure)
            {
                _listed.TrySetException(failure);
                _live.TrySetException(failure);
            }
        }
    }
}
