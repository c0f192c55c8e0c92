using System.Diagnostics;
using System.Runtime.InteropServices;
using Mesh.Benchmarks;

// Mesh.Benchmarks [NAME…]: runs the benchmarks named, or all, and prints one table. A missed aim is told in the table and is no
// error; exit code 1 means that something could not be measured. Started by tests/bench.sh, which gives it a network and a mount
// namespace of its own.
(string Name, Func<Report, CancellationToken, Task> Run)[] benchmarks =
[
    ("propagation", Propagation.RunAsync),
    ("burst", Burst.RunAsync),
    ("ipcache", ColdStart.RunAsync),
    ("packets", Packets.RunAsync),
    ("connect", Connect.RunAsync),
];

if (args.Except(benchmarks.Select(benchmark => benchmark.Name)).FirstOrDefault() is { } unknown)
{
    var names = string.Join(' ', benchmarks.Select(benchmark => benchmark.Name));
    Console.Error.WriteLine($"Mesh.Benchmarks: {unknown}: unknown; there are {names}");
    return 1;
}
// Devices, routes and settings are made here: never in a namespace that was not made for it.
if (Environment.GetEnvironmentVariable("MESH_BENCH_OUTSIDE") is not ['n', 'e', 't', ':', ..] outside
    || new FileInfo("/proc/self/ns/net").LinkTarget is not ['n', 'e', 't', ':', ..] inside || inside == outside)
{
    Console.Error.WriteLine("Mesh.Benchmarks: not in a network namespace of its own; start it by tests/bench.sh, which makes one");
    return 1;
}

using var stop = new CancellationTokenSource();
using var interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, OnSignal);
using var term = PosixSignalRegistration.Create(PosixSignal.SIGTERM, OnSignal);
var report = new Report();
var failed = false;
foreach (var (name, run) in benchmarks.Where(benchmark => args.Length == 0 || args.Contains(benchmark.Name)))
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
