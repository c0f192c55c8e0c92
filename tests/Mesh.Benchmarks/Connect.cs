using System.Buffers.Binary;
using System.Diagnostics;
using System.Globalization;
using Mesh.Benchmarks.Surroundings;
using Mesh.ControlPlane;
using Mesh.ControlPlane.LoadBalancing;
using Mesh.Model;
using Backend = Mesh.ControlPlane.LoadBalancing.Backend;

namespace Mesh.Benchmarks;

/// <summary>
/// connect(2) to a service through the socket hook, against connect(2) to the backend itself where no hook is. This process joins
/// two cgroups of its own in turn, one with the hooks of the real datapath and one without; the backend listens on the loopback of
/// our namespace. Only the call is timed: the accepted socket is closed by the same thread afterwards, with a reset, so that nothing
/// waits in the kernel. Blocks of calls of the three kinds alternate forth and back.
/// </summary>
internal static unsafe class Connect
{
    private const int Rounds = 20;
    private const int CallsPerBlock = 500;
    private const int Backends = 5;
    private static readonly int[] RuledServices = [10, 1000, 10_000];

    private const int Inet = 2;
    private const int Inet6 = 10;
    private const int Stream = 1;
    private const int Datagram = 2;
    private const int SocketLevel = 1;
    private const int Linger = 13;

    public static Task RunAsync(Report report, CancellationToken cancellation)
    {
        using var node = new Node();
        for (var i = 1; i <= Backends; i++)
            Node.Shell($"ip addr add 10.1.0.{i}/32 dev lo; ip -6 addr add fd00:1::{i}/128 dev lo nodad");
        var home = Cgroups.Current;
        var bare = node.AddCgroup("bare");
        var hooked = node.AddCgroup("hooked");
        var desired = Desired();
        using var datapath = Mesh.Datapath.Datapath.Start(node.DatapathOptions with { CgroupPath = hooked }, desired);
        using (var feed = desired.Frontends.Subscribe())
            datapath.Loops.Frontends.RunOnce(feed);
        try
        {
            Tell(report, "connect(), TCP over IPv4", Measure(Stream, false, bare, hooked, cancellation));
            Tell(report, "connect(), TCP over IPv6", Measure(Stream, true, bare, hooked, cancellation));
            Tell(report, "connect(), UDP over IPv4", Measure(Datagram, false, bare, hooked, cancellation));
            Tell(report, "connect(), UDP over IPv6", Measure(Datagram, true, bare, hooked, cancellation));
            // A way must lead there before the rules are asked.
            Node.Shell("ip route replace 10.97.0.0/16 dev lo");
            foreach (var kind in KubeProxyRules.Kinds)
                foreach (var services in RuledServices)
                    NextToRules(report, kind, services, bare, hooked, cancellation);
        }
        finally
        {
            Cgroups.Join(home);
        }
        return Task.CompletedTask;
    }

    /// <summary>The same backends behind kube-proxy's rules, where the hooks are not.</summary>
    private static void NextToRules(Report report, string kind, int services, string bare, string hooked, CancellationToken cancellation)
    {
        using var rules = new KubeProxyRules(kind, services, Backends, (_, backend) => $"10.1.0.{backend + 1}:8080");
        var times = Measure(Stream, false, bare, hooked, cancellation, KubeProxyRules.Address(services - 1));
        var added = times.Service.P50 - times.Direct.P50;
        report.Add($"connect(), TCP over IPv4, next to {kind} with {services:N0} services", Text(times.Service), $"{kind}: {Text(times.Ruled)}",
            times.Service.P50 / times.Ruled.P50);
        report.Add("  added to connect() to the backend itself", string.Create(CultureInfo.InvariantCulture, $"{added:0.00} µs"),
            string.Create(CultureInfo.InvariantCulture, $"{kind}: {times.Ruled.P50 - times.Direct.P50:0.00} µs"), aim: "≤ 1.5 µs", met: added <= 1.5);
    }

    private static void Tell(Report report, string what, (Sample Direct, Sample Passed, Sample Service, Sample Ruled) times)
    {
        report.Add($"{what}: to a service, hook", Text(times.Service), $"to the backend, no hook: {Text(times.Direct)}",
            times.Service.P50 / times.Direct.P50);
        report.Add("  to the backend itself, hook in place", Text(times.Passed), $"no hook: {Text(times.Direct)}",
            times.Passed.P50 / times.Direct.P50);
    }

    private static string Text(Sample sample) =>
        string.Create(CultureInfo.InvariantCulture, $"p10 {sample.At(0.1):0.00} µs, p50 {sample.P50:0.00} µs, {1000 / sample.Mean:0.0} k/s");

    private static DesiredState Desired()
    {
        var desired = new DesiredState();
        desired.Frontends.Write(table =>
        {
            // As many as the rules have at most.
            var ours = Enumerable.Range(0, RuledServices[^1]).Select(service => (KubeProxyRules.Address(service), "10.1.0."));
            foreach (var (address, backend) in ours.Append(("10.96.0.10", "10.1.0.")).Append(("fd00:96::10", "fd00:1::")))
            {
                foreach (var protocol in (L4Protocol[])[L4Protocol.TCP, L4Protocol.UDP])
                {
                    var frontend = new L3n4Addr(IpAddr.Parse(address), 80, protocol);
                    var backends = Enumerable.Range(1, Backends).Select(i => new L3n4Addr(IpAddr.Parse($"{backend}{i}"), 8080, protocol));
                    table.Upsert(frontend, new Frontend(frontend, new ServiceName("default", $"to-{address}"), "", ServiceType.ClusterIP,
                        ServiceAffinity.None,
                        new([.. backends.Select(at => new Backend(at, 1, "tokyo", "", "", BackendState.Active, 0))])));
                }
            }
        });
        return desired;
    }

    /// <param name="ruled">A service of the rules' and of ours; null = one of ours alone.</param>
    private static (Sample Direct, Sample Passed, Sample Service, Sample Ruled) Measure(
        int type, bool v6, string bare, string hooked, CancellationToken cancellation, string? ruled = null)
    {
        var backend = SocketAddress(v6 ? "fd00:1::1" : "10.1.0.1", 8080);
        var service = SocketAddress(ruled ?? (v6 ? "fd00:96::10" : "10.96.0.10"), 80);
        // All addresses: the service has several backends, and any of them must answer.
        var listener = Check(Native.Socket(v6 ? Inet6 : Inet, type, 0), "socket");
        try
        {
            var everywhere = SocketAddress(v6 ? "::" : "0.0.0.0", 8080);
            fixed (byte* address = everywhere)
                Check(Native.Bind(listener, address, (uint)everywhere.Length), "bind");
            if (type == Stream)
                Check(Native.Listen(listener, 128), "listen");
            List<double> direct = [], passed = [], served = [], translated = [];
            (string Cgroup, byte[] Target, List<double> Times)[] blocks =
                [(bare, backend, direct), (hooked, backend, passed), (hooked, service, served)];
            if (ruled is not null)
                blocks = [.. blocks, (bare, SocketAddress(ruled, 80), translated)];
            // The first round warms up.
            for (var round = 0; round <= Rounds; round++)
            {
                foreach (var (cgroup, target, times) in round % 2 == 0 ? blocks : blocks.Reverse())
                {
                    cancellation.ThrowIfCancellationRequested();
                    Cgroups.Join(cgroup);
                    Block(type, v6, listener, target, round == 0 ? [] : times);
                }
            }
            return (new Sample(direct), new Sample(passed), new Sample(served), new Sample(translated));
        }
        finally
        {
            Native.Close(listener);
        }
    }

    private static void Block(int type, bool v6, int listener, byte[] target, List<double> times)
    {
        fixed (byte* address = target)
        {
            for (var call = 0; call < CallsPerBlock; call++)
            {
                var socket = Check(Native.Socket(v6 ? Inet6 : Inet, type, 0), "socket");
                var start = Stopwatch.GetTimestamp();
                var result = Native.Connect(socket, address, (uint)target.Length);
                var elapsed = Stopwatch.GetElapsedTime(start);
                Check(result, "connect");
                times.Add(elapsed.TotalMicroseconds);
                if (type == Stream)
                {
                    var resetOnClose = 1L | 0L << 32;
                    Check(Native.SetOption(socket, SocketLevel, Linger, &resetOnClose, sizeof(long)), "setsockopt");
                    Native.Close(Check(Native.Accept(listener, null, null), "accept"));
                }
                Native.Close(socket);
            }
        }
    }

    private static int Check(int result, string what) => result >= 0 ? result : throw Native.Failure(what);

    /// <summary>struct sockaddr_in or sockaddr_in6.</summary>
    private static byte[] SocketAddress(string address, ushort port)
    {
        var parsed = IpAddr.Parse(address);
        var bytes = new byte[parsed.IsV6 ? 28 : 16];
        bytes[0] = parsed.IsV6 ? (byte)Inet6 : (byte)Inet;
        BinaryPrimitives.WriteUInt16BigEndian(bytes.AsSpan(2), port);
        parsed.ToBytes().CopyTo(bytes, parsed.IsV6 ? 8 : 4);
        return bytes;
    }
}
