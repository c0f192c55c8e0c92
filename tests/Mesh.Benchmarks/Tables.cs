using System.Diagnostics;
using System.Globalization;
using Mesh.Benchmarks.Surroundings;
using Mesh.ControlPlane;
using Mesh.ControlPlane.LoadBalancing;
using Mesh.Datapath.LoadBalancing;
using Mesh.Datapath.Maps;
using Mesh.Model;
using Backend = Mesh.ControlPlane.LoadBalancing.Backend;

namespace Mesh.Benchmarks;

/// <summary>
/// Tables of backends: what one costs to make and to keep, what moves when a backend leaves (next to making the table anew, which is
/// what others do), and the cold load of 10,000 services of 10 backends through the real datapath, next to nft with the rules that
/// kube-proxy would write for a tenth of them: its time grows faster than their number.
/// </summary>
internal static class Tables
{
    private const int Services = 10_000;
    private const int PerService = 10;
    private const int NftServices = 1000;

    public static Task RunAsync(Report report, CancellationToken cancellation)
    {
        foreach (var count in (int[])[10, 100, 1000])
        {
            cancellation.ThrowIfCancellationRequested();
            Departure(report, count);
        }
        ColdLoad(report);
        return Task.CompletedTask;
    }

    private static void Departure(Report report, int count)
    {
        var backends = Enumerable.Range(1, count).Select(At).ToArray();
        var table = new ushort[Maglev.TableSize(count)];
        var (make, paint) = (new List<double>(), new List<double>());
        var after = new ushort[table.Length];
        for (var round = 0; round < 200; round++)
        {
            var start = Stopwatch.GetTimestamp();
            Maglev.Fill(backends, table);
            make.Add(Stopwatch.GetElapsedTime(start).TotalMicroseconds);
            start = Stopwatch.GetTimestamp();
            Maglev.Repaint(table, Without(count, round % count), count - 1, after);
            paint.Add(Stopwatch.GetElapsedTime(start).TotalMicroseconds);
        }
        var (moved, anew, worst) = (0, 0, 0.0);
        var fresh = new ushort[table.Length];
        for (var gone = 0; gone < count; gone += Math.Max(1, count / 10))
        {
            Maglev.Repaint(table, Without(count, gone), count - 1, after);
            Maglev.Fill([.. backends.Where((_, i) => i != gone)], fresh);
            int Old(ushort index) => index < gone ? index : index + 1;
            moved += table.Zip(after).Count(pair => pair.First != gone && pair.First != Old(pair.Second));
            anew += table.Zip(fresh).Count(pair => pair.First != gone && pair.First != Old(pair.Second));
            worst = Math.Max(worst, after.CountBy(index => index).Max(pair => pair.Value) * (count - 1.0) / table.Length);
        }
        var departures = (count + Math.Max(1, count / 10) - 1) / Math.Max(1, count / 10);
        report.Add($"table of {count:N0} backends ({table.Length * (count > 255 ? 2 : 1):N0} bytes): made, repainted",
            string.Create(CultureInfo.InvariantCulture, $"{new Sample(make).P50:0.0} µs, {new Sample(paint).P50:0.0} µs"));
        report.Add("  one leaves: entries of others that move",
            string.Create(CultureInfo.InvariantCulture, $"{(double)moved / departures / table.Length:0.0 %}"),
            string.Create(CultureInfo.InvariantCulture, $"made anew: {(double)anew / departures / table.Length:0.0 %}"), aim: "0", met: moved == 0);
        report.Add("  largest share next to the mean then", string.Create(CultureInfo.InvariantCulture, $"{worst:0.000}"), aim: "≤ 1.05", met: worst <= 1.05);
        if (count == PerService)
        {
            var bytes = table.Length + LbLimits.BlockBytes + (count * 40);
            report.Add("  bytes of a service: table, header, backends",
                string.Create(CultureInfo.InvariantCulture, $"{bytes:N0}"), aim: "≤ 1.1 KB", met: bytes <= 1126);
        }
    }

    private static void ColdLoad(Report report)
    {
        using var node = new Node();
        var desired = new DesiredState();
        desired.Frontends.Write(table =>
        {
            for (var i = 0; i < Services; i++)
            {
                var frontend = new L3n4Addr(IpAddr.V4(0x0a600000u + (uint)i), 80, L4Protocol.TCP);
                var backends = Enumerable.Range(0, PerService).Select(b => new Backend(
                    new L3n4Addr(IpAddr.V4(0x0a020000u + (uint)((i * PerService) + b)), 8080, L4Protocol.TCP), 2, "osaka", "", "", BackendState.Active, 0));
                table.Upsert(frontend, new Frontend(frontend, new ServiceName("default", $"service-{i}"), "", ServiceType.ClusterIP,
                    ServiceAffinity.None, new([.. backends])));
            }
        });
        using var datapath = Mesh.Datapath.Datapath.Start(node.DatapathOptions, desired);
        var clock = Stopwatch.StartNew();
        using (var feed = desired.Frontends.Subscribe())
            datapath.Loops.Frontends.RunOnce(feed);
        var ours = clock.Elapsed.TotalSeconds;
        if (datapath.Loops.Frontends.Failing > 0)
            throw new InvalidOperationException($"{datapath.Loops.Frontends.Failing} services failed");
        var peers = KubeProxyRules.Kinds.Select(kind =>
        {
            var services = kind == "nft" ? NftServices : Services;
            clock.Restart();
            using var rules = new KubeProxyRules(kind, services, PerService,
                (service, backend) => $"{IpAddr.V4(0x0a020000u + (uint)((service * PerService) + backend))}:8080");
            return string.Create(CultureInfo.InvariantCulture,
                $"{kind}{(services == Services ? "" : $" with {services:N0}")} {clock.Elapsed.TotalSeconds:0.00} s");
        });
        report.Add($"cold load: {Services:N0} services × {PerService} backends, table row → kernel",
            string.Create(CultureInfo.InvariantCulture, $"{ours:0.00} s"), string.Join(", ", peers), aim: "≤ 1 s", met: ours <= 1);
    }

    private static int[] Without(int count, int gone) => [.. Enumerable.Range(0, count).Select(i => i == gone ? -1 : i > gone ? i - 1 : i)];

    private static LbBackend At(int i) => new()
    {
        Address = MeshAddress.From(IpAddr.V4(0x0a010000u + (uint)i)),
        Port = BigEndianUInt16.FromHost(8080),
        Protocol = 6,
        Family = Family.IPv4,
    };
}
