using System.Diagnostics;
using System.Runtime.InteropServices;
using Mesh.Benchmarks;
using Mesh.Benchmarks.Surroundings;

// Mesh.Benchmarks [NAME…] [SIZE=NUMBER…]: runs the benchmarks named, or all, and prints one table. A missed aim is told in the table
// and is no error; exit code 1 means that something could not be measured. Started by tests/bench.sh, which gives it a network and a
// mount namespace of its own. Some benchmarks start this program again as a server to be measured.
if (DoorProcess.IsMeant(args))
    return await DoorProcess.ServeAsync(args);
if (Copier.IsMeant(args))
    return await Copier.RunAsync(args);

var settings = new Settings();
Benchmark[] benchmarks =
[
    new("propagation", Propagation.RunAsync),
    new("burst", Burst.RunAsync),
    new("ipcache", ColdStart.RunAsync),
    new("packets", Packets.RunAsync),
    new("policy", PolicyVerdicts.RunAsync),
    new("north", North.RunAsync),
    new("live", LiveFrames.RunAsync),
    new("tables", Tables.RunAsync),
    new("connect", Connect.RunAsync),
    new("overlay", Overlay.RunAsync),
    new("cni", PodNetwork.RunAsync),
    new("kube", (report, stopping) => Kube.RunAsync(report, settings, stopping), Kube.Sizes),
    new("fanout", (report, stopping) => FanOut.RunAsync(report, settings, stopping), FanOut.Sizes),
    new("herd", (report, stopping) => Herd.RunAsync(report, settings, stopping), Herd.Sizes),
    new("chain", (report, stopping) => Chain.RunAsync(report, settings, stopping), Chain.Sizes),
    new("peers", (report, stopping) => Peers.RunAsync(report, settings, stopping), Peers.Sizes),
    new("failover", (report, stopping) => Failover.RunAsync(report, settings, stopping), Failover.Sizes),
];

var names = args.Where(argument => !argument.Contains('=')).ToArray();
var chosen = benchmarks.Where(benchmark => names.Length == 0 || names.Contains(benchmark.Name)).ToArray();
var faults = args.Except(names).Select(settings.Take).OfType<string>()
    .Concat(names.Except(benchmarks.Select(benchmark => benchmark.Name))
        .Select(name => $"{name}: unknown; there are {string.Join(' ', benchmarks.Select(benchmark => benchmark.Name))}")).ToList();
var sizes = chosen.SelectMany(benchmark => benchmark.Sizes ?? []).ToList();
faults.AddRange(settings.Unknown(sizes).Select(size => $"{size}: no size of {string.Join(' ', names)}; there are {string.Join(' ', sizes)}"));
if (faults.Count > 0)
{
    Console.Error.WriteLine($"Mesh.Benchmarks: {string.Join("; ", faults)}");
    return 1;
}
// Devices, routes and settings are made here: never in a namespace that was not made for it.
if (Environment.GetEnvironmentVariable("MESH_BENCH_OUTSIDE") is not ['n', 'e', 't', ':', ..] outside
    || new FileInfo("/proc/self/ns/net").LinkTarget is not ['n', 'e', 't', ':', ..] inside || inside == outside)
{
    Console.Error.WriteLine("Mesh.Benchmarks: not in a network namespace of its own; start it by tests/bench.sh, which makes one");
    return 1;
}

Node.Shell("ip link set lo up");
using var stop = new CancellationTokenSource();
using var interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, OnSignal);
using var term = PosixSignalRegistration.Create(PosixSignal.SIGTERM, OnSignal);
var report = new Report();
var failed = false;
foreach (var (name, run, _) in chosen)
{
    var clock = Stopwatch.StartNew();
    try
    {
        await run(report, stop.Token);
        Console.Error.WriteLine($"bench: {name} took {clock.Elapsed.TotalSeconds:0} s");
    }
    catch (OperationCanceledException) when (stop.IsCancellationRequested)
    {
        Console.Error.WriteLine("bench: stopped");
        return 1;
    }
    catch (Exception failure)
    {
        // The others may still be measured.
        Console.Error.WriteLine($"bench: {name}: {failure}");
        failed = true;
    }
}
report.Print(Console.Out);
return failed ? 1 : 0;

void OnSignal(PosixSignalContext context)
{
    context.Cancel = true;
    stop.Cancel();
}

/// <param name="Sizes">Settings it knows.</param>
internal sealed record Benchmark(string Name, Func<Report, CancellationToken, Task> Run, string[]? Sizes = null);
