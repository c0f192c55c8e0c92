using System.Diagnostics;
using System.Globalization;
using Mesh.Benchmarks.Surroundings;
using Mesh.Bpf;

namespace Mesh.Benchmarks;

/// <summary>
/// Frames per second of the XDP load balancer as it is attached: real frames of 80 bytes go out of one end of a veth, come in at the
/// other in native XDP, are translated, wrapped and sent back, and counted where they came from. One processor does all of it, so the
/// injection and the counting are in the figure; beside it a program that only sends back. Rounds alternate.
/// </summary>
internal static class LiveFrames
{
    private const int Rounds = 5;
    private const int Frames = 1_000_000;
    private const int Services = 512;

    public static Task RunAsync(Report report, CancellationToken cancellation)
    {
        Node.Shell("ip link add livewire type veth peer name liveuplink; ip link set livewire up; ip link set liveuplink up");
        try
        {
            var (wire, uplink) = ((uint)Native.InterfaceIndex("livewire"), (uint)Native.InterfaceIndex("liveuplink"));
            using var bench = new North.Bench(Services, uplink);
            using var counter = bench.Counter;
            using var transmit = bench.Transmit;
            using var counted = bench.Counted;
            using var back = BpfLink.AttachXdp(counter, (int)wire);
            bench.Prepare(v6: false, dsr: false);
            foreach (var flows in (int[])[1, 65536])
            {
                bench.Cycle(flows);
                var (ours, floor, returned) = (new List<double>(), new List<double>(), new List<double>());
                for (var round = 0; round < Rounds; round++)
                    foreach (var (program, rates) in new[] { (bench.LoadBalancer, ours), (transmit, floor) })
                    {
                        cancellation.ThrowIfCancellationRequested();
                        using var link = BpfLink.AttachXdp(program, (int)uplink);
                        var before = Sum(counted);
                        var clock = Stopwatch.StartNew();
                        bench.Send(transmit, wire, Frames);
                        rates.Add((Sum(counted) - before) / clock.Elapsed.TotalSeconds / 1e6);
                        returned.Add((double)(Sum(counted) - before) / Frames);
                        link.Detach();
                    }
                var (mine, tx) = (new Sample(ours).P50, new Sample(floor).P50);
                report.Add(string.Create(CultureInfo.InvariantCulture, $"live on native veth: XDP LB + VXLAN, SNAT, {flows:N0} flow{(flows == 1 ? "" : "s")}"),
                    string.Create(CultureInfo.InvariantCulture, $"{mine:0.00} M frames/s ({returned.Min():0.0 %} came back at the least)"),
                    string.Create(CultureInfo.InvariantCulture, $"XDP_TX only: {tx:0.00} M frames/s"), mine / tx);
            }
            back.Detach();
        }
        finally
        {
            Node.Shell("ip link del livewire");
        }
        return Task.CompletedTask;
    }

    private static ulong Sum(BpfMap<uint, ulong> counted) => counted.GetPerCpu(0)!.Aggregate(0ul, (sum, copy) => sum + copy);
}
