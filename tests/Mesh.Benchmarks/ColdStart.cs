using System.Diagnostics;
using System.Globalization;
using Mesh.Benchmarks.Surroundings;
using Mesh.Bpf;
using Mesh.Datapath.Loader;
using Mesh.Model;

namespace Mesh.Benchmarks;

/// <summary>
/// 200,000 addresses of another cluster in a real etcd, and an agent that starts with nothing: the time from the start of its process
/// until the last of them is in the kernel, next to `etcdctl get` of the same keys; its memory; and the kernel's, as the maps' own
/// descriptors tell it (memlock), which for these maps follows the entries.
/// </summary>
internal static class ColdStart
{
    private const int Entries = 200_000;
    private const int KeysPerWrite = 20_000;
    private const double AimMegabytes = 200;
    private static readonly TimeSpan Settling = TimeSpan.FromSeconds(3);

    public static async Task RunAsync(Report report, CancellationToken cancellation)
    {
        using var node = new Node();
        await using var peer = await PeerCluster.StartAsync(cancellation);
        for (var first = 0; first < Entries; first += KeysPerWrite)
        {
            var numbers = Enumerable.Range(first, KeysPerWrite);
            await peer.Store.WriteAsync(
                [.. numbers.Select(i => PeerCluster.Entry(Address(i).ToString(), PeerCluster.Identity(i % 1000)))], cancellation);
        }

        var clock = Stopwatch.StartNew();
        await PrintAllAsync(peer, cancellation);
        var etcdctl = clock.Elapsed;

        clock.Restart();
        await using var agent = AgentProcess.Start(node, peer);
        var started = await EmptyMapBytesAsync(node, agent, cancellation);
        var next = 0;
        await agent.UntilAsync(() =>
        {
            while (next < Entries && agent.IdentityOf(Address(next)) != 0)
                next++;
            return next == Entries;
        }, $"{Entries} entries in the kernel", cancellation);
        var filled = clock.Elapsed;
        var atOnce = agent.Memory("VmRSS");
        var bytes = MapBytes(node);
        await Task.Delay(Settling, cancellation);
        Tell(report, filled, etcdctl, atOnce, agent, started, bytes);
    }

    private static void Tell(Report report, TimeSpan filled, TimeSpan etcdctl, long rss, AgentProcess agent, long empty, long full)
    {
        var culture = CultureInfo.InvariantCulture;
        report.Add($"{Entries:N0} remote addresses, cold start → all in the kernel",
            string.Create(culture, $"{filled.TotalSeconds:0.00} s"),
            string.Create(culture, $"etcdctl get: {etcdctl.TotalSeconds:0.00} s"), filled / etcdctl);
        var megabytes = rss / 1e6;
        report.Add("  agent memory then (VmRSS)", string.Create(culture, $"{megabytes:0} MB"),
            aim: string.Create(culture, $"≤ {AimMegabytes} MB"), met: megabytes <= AimMegabytes);
        report.Add($"  agent memory {Settling.TotalSeconds:0} s later, and its peak",
            string.Create(culture, $"{agent.Memory("VmRSS") / 1e6:0} MB, {agent.Memory("VmHWM") / 1e6:0} MB"));
        report.Add("  of that its own, and of its mapped files (program, libraries, shared maps)",
            string.Create(culture, $"{agent.Memory("RssAnon") / 1e6:0} MB, {agent.Memory("RssFile") / 1e6:0} MB"));
        report.Add("  kernel memory per entry (memlock)",
            string.Create(culture, $"{(double)(full - empty) / Entries:0} B ({full / 1e6:0} MB, empty {empty / 1e6:0} MB)"));
    }

    private static IpAddr Address(int number) => IpAddr.V4((10u << 24 | 16u << 16) + (uint)number);

    /// <summary>Waits for the maps and asks what they cost with nothing, or hardly anything, in them.</summary>
    private static async Task<long> EmptyMapBytesAsync(Node node, AgentProcess agent, CancellationToken cancellation)
    {
        long bytes = 0;
        await agent.UntilAsync(() => (bytes = MapBytes(node)) > 0, "the maps", cancellation);
        return bytes;
    }

    private static long MapBytes(Node node)
    {
        var pins = new PinDirectory(node.BpfRoot);
        long bytes = 0;
        foreach (var map in (string[])["ipcache4", "ipcache6", "ipcache4_prefixes", "ipcache6_prefixes"])
        {
            using var fd = BpfFd.OpenPinned(pins.Map(map), readOnly: true);
            bytes += MapInfo.MemoryOf(fd);
        }
        return bytes;
    }

    private static async Task PrintAllAsync(PeerCluster peer, CancellationToken cancellation)
    {
        using var process = Process.Start(peer.Etcd.EtcdctlInfo("get", "--prefix", "cilium/state/ip/v1/default/"))!;
        var errors = process.StandardError.ReadToEndAsync(cancellation);
        await process.StandardOutput.BaseStream.CopyToAsync(Stream.Null, 1 << 20, cancellation);
        await process.WaitForExitAsync(cancellation);
        if (process.ExitCode != 0)
            throw new InvalidOperationException($"etcdctl get: {await errors}");
    }
}
