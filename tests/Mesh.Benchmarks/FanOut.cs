using System.Diagnostics;
using System.Globalization;
using Mesh.Benchmarks.Surroundings;
using Mesh.TestKit;

namespace Mesh.Benchmarks;

/// <summary>
/// One writer, many watchers of the same prefix, TLS on both sides: how much arrives and how late, counted from the start of the put
/// in etcd. The same clients, payload and pace against etcd itself and against a door before that same etcd, in turn (ABBA). Then the
/// most watchers: all that were asked for are held open while one change goes to every one of them, and what they cost is counted.
/// </summary>
internal static class FanOut
{
    public static readonly string[] Sizes = ["watchers", "connections", "rate", "seconds", "rounds", "held", "heldconnections"];

    private const string Reader = "remote";
    private const double AimRatio = 0.05;
    private const double AimKilobytes = 12;
    private static readonly TimeSpan Settling = TimeSpan.FromSeconds(4);
    private static readonly TimeSpan Draining = TimeSpan.FromSeconds(10);

    private sealed record Round(long Expected, long Delivered, Sample Latency, double BytesPerWatcher, double CpuPerDelivery, double PutsPerSecond);

    private sealed record Held(double BytesPerWatcher, double Reached, TimeSpan Last);

    private sealed record Load(int Watchers, int Connections, int Rate, int Seconds);

    public static async Task RunAsync(Report report, Settings settings, CancellationToken cancellation)
    {
        var load = new Load(settings.Of("watchers", 1000), settings.Of("connections", 100), settings.Of("rate", 100), settings.Of("seconds", 5));
        var rounds = settings.Of("rounds", 3);
        var (held, heldConnections) = (settings.Of("held", 5000), settings.Of("heldconnections", 1000));
        // etcd's own defaults, not the test kit's: it must not lose its leader under this load.
        await using var etcd = await EtcdServer.StartAsync(tls: true, "--heartbeat-interval", "100", "--election-timeout", "1000");
        var (ours, theirs) = (new List<Round>(), new List<Round>());
        for (var round = 0; round < rounds; round++)
        {
            foreach (var door in round % 2 == 0 ? (bool[])[false, true] : [true, false])
                (door ? ours : theirs).Add(await OnServerAsync(door, etcd, (port, pid) => FanAsync(etcd, port, pid, load, cancellation), cancellation));
        }
        Tell(report, load, ours, theirs);
        var etcdHeld = await OnServerAsync(false, etcd, (port, pid) => HoldAsync(etcd, port, pid, held, heldConnections, cancellation),
            cancellation);
        var doorHeld = await OnServerAsync(true, etcd, (port, pid) => HoldAsync(etcd, port, pid, held, heldConnections, cancellation),
            cancellation);
        Tell(report, held, heldConnections, doorHeld, etcdHeld);
    }

    private static void Tell(Report report, Load load, List<Round> ours, List<Round> theirs)
    {
        var culture = CultureInfo.InvariantCulture;
        double Median(List<Round> rounds, Func<Round, double> of) => rounds.Select(of).Order().ElementAt(rounds.Count / 2);
        double Share(List<Round> rounds) => 100.0 * rounds.Sum(round => round.Delivered) / rounds.Sum(round => round.Expected);
        string Says(List<Round> rounds) => string.Create(culture,
            $"p50 {Median(rounds, r => r.Latency.P50) / 1000:0.0} ms, p99 {Median(rounds, r => r.Latency.P99) / 1000:0.0} ms");
        var ratio = Median(ours, r => r.Latency.P99) / Median(theirs, r => r.Latency.P99);
        report.Add(string.Create(culture, $"{load.Watchers:N0} watchers × {load.Rate} changes/s × {SteadyWriter.ValueBytes} B, median round of {ours.Count}"),
            Says(ours), $"etcd: {Says(theirs)}", ratio, "p99 ≤ 1/20 of etcd's", ratio <= AimRatio);
        report.Add("  delivered, of what etcd had taken", string.Create(culture, $"{Share(ours):0.00} %"),
            string.Create(culture, $"etcd: {Share(theirs):0.00} %"), aim: "100 %", met: ours.All(round => round.Delivered == round.Expected));
        report.Add("  changes that etcd took meanwhile",
            string.Create(culture, $"{Median(ours, r => r.PutsPerSecond):0}/s"), string.Create(culture, $"etcd: {Median(theirs, r => r.PutsPerSecond):0}/s"));
        var (cpu, etcdCpu) = (Median(ours, r => r.CpuPerDelivery), Median(theirs, r => r.CpuPerDelivery));
        report.Add("  processor time of the server per delivery",
            string.Create(culture, $"{cpu:0.0} µs"), string.Create(culture, $"etcd: {etcdCpu:0.0} µs"), cpu / etcdCpu);
        var (bytes, etcdBytes) = (Median(ours, r => r.BytesPerWatcher), Median(theirs, r => r.BytesPerWatcher));
        report.Add(string.Create(culture, $"  memory of the server per watcher, {load.Connections} connections"),
            string.Create(culture, $"{bytes / 1024:0.0} KiB"), string.Create(culture, $"etcd: {etcdBytes / 1024:0.0} KiB"), bytes / etcdBytes);
    }

    private static void Tell(Report report, int watchers, int connections, Held ours, Held theirs)
    {
        var culture = CultureInfo.InvariantCulture;
        string Says(Held held) => string.Create(culture, $"{held.BytesPerWatcher / 1024:0.0} KiB each");
        string Reach(Held held) => string.Create(culture, $"{held.Reached:0.00} %, last after {held.Last.TotalMilliseconds:0} ms");
        report.Add(string.Create(culture, $"{watchers:N0} watchers held on {connections:N0} TLS connections: memory of the server"),
            Says(ours), $"etcd: {Says(theirs)}", ours.BytesPerWatcher / theirs.BytesPerWatcher,
            string.Create(culture, $"≤ {AimKilobytes} KiB each"), ours.BytesPerWatcher <= AimKilobytes * 1024);
        report.Add("  one change then: reached", Reach(ours), $"etcd: {Reach(theirs)}", ours.Last / theirs.Last,
            "100 %", ours.Reached >= 100);
    }

    private static async Task<T> OnServerAsync<T>(
        bool door, EtcdServer etcd, Func<int, int, Task<T>> measure, CancellationToken cancellation)
    {
        if (!door)
            return await measure(new Uri(etcd.Endpoint).Port, etcd.ProcessId);
        await using var process = await DoorProcess.StartAsync(
            etcd, PeerCluster.Name, PeerCluster.Id, "door", EtcdServer.FreePort(), cancellation);
        // What its start has left behind.
        await Task.Delay(1000, cancellation);
        return await measure(process.Port, process.Id);
    }

    private static async Task<Round> FanAsync(EtcdServer etcd, int port, int pid, Load load, CancellationToken cancellation)
    {
        var before = ProcessFacts.Memory(pid, "VmRSS");
        var prefix = NewPrefix();
        var count = load.Rate * load.Seconds;
        await using var watchers = await Watchers.StartAsync(
            etcd, port, Reader, prefix, load.Watchers, load.Connections, load.Watchers * count, cancellation);
        await Task.Delay(500, cancellation);
        var bytes = (double)(ProcessFacts.Memory(pid, "VmRSS") - before) / load.Watchers;
        using var writer = new SteadyWriter(etcd, prefix);
        await writer.WriteAsync(load.Rate, load.Rate, cancellation);
        await Task.Delay(500, cancellation);
        watchers.Latencies.Recording = true;
        var cpu = ProcessFacts.Cpu(pid);
        var clock = Stopwatch.StartNew();
        var written = await writer.WriteAsync(load.Rate, count, cancellation);
        var elapsed = clock.Elapsed;
        var expected = written * load.Watchers;
        await watchers.Latencies.UntilAsync(expected, Draining, cancellation);
        var used = ProcessFacts.Cpu(pid) - cpu;
        return new Round(expected, watchers.Latencies.Count, watchers.Latencies.Sample(), bytes,
            used.TotalMicroseconds / Math.Max(1, watchers.Latencies.Count), written / elapsed.TotalSeconds);
    }

    private static async Task<Held> HoldAsync(EtcdServer etcd, int port, int pid, int count, int connections, CancellationToken cancellation)
    {
        var before = ProcessFacts.Memory(pid, "VmRSS");
        var prefix = NewPrefix();
        await using var watchers = await Watchers.StartAsync(etcd, port, Reader, prefix, count, connections, count, cancellation);
        // Longer than it takes a door to tidy up after a burst of connections.
        await Task.Delay(Settling, cancellation);
        var bytes = (double)(ProcessFacts.Memory(pid, "VmRSS") - before) / count;
        watchers.Latencies.Recording = true;
        using var writer = new SteadyWriter(etcd, prefix);
        await writer.WriteAsync(1, 1, cancellation);
        await watchers.Latencies.UntilAsync(count, Draining, cancellation);
        return new Held(bytes, 100.0 * watchers.Latencies.Count / count,
            watchers.Latencies.Count == 0 ? TimeSpan.Zero : TimeSpan.FromMicroseconds(watchers.Latencies.Sample().At(1)));
    }

    private static string NewPrefix() => $"cilium/state/bench/{Guid.NewGuid():n}/";
}
