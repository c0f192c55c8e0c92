using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using Mesh.Benchmarks.Surroundings;

namespace Mesh.Benchmarks;

/// <summary>
/// What the tunnel costs two pods on two nodes: one TCP flow, datagrams of 64 bytes, and a datagram there and back; by the mesh with headers
/// that our programs write, with those of the device, by two programs that only pass on, and by the kernel's routes. All ways stand side by
/// side in namespaces of their own, and rounds go through them forth and back; the ratio is the median of the rounds' ratios. Then one TCP
/// flow to a service, next to the same by kube-proxy's rules where the kernel routes.
/// </summary>
internal static class Overlay
{
    private const int Rounds = 9;
    private const int RuledRounds = 5;
    private const int RoundTrips = 2000;
    private const int RuledBackends = 5;
    private const int Datagram = 64;
    private static readonly TimeSpan Length = TimeSpan.FromMilliseconds(400);

    public static Task RunAsync(Report report, CancellationToken cancellation)
    {
        (string Name, PodPair Pair)[] ways =
        [
            ("programs that only pass on", PodPair.Redirected(1)), ("mesh", PodPair.Meshed(2, builtHeaders: true)),
            ("mesh, the device's headers", PodPair.Meshed(3, builtHeaders: false)), ("routes", PodPair.Routed(4)),
        ];
        try
        {
            var ends = ways.Select(way => new Ends(way.Pair)).ToArray();
            Tell(report, ways, "one TCP flow", "Gb/s", Rounded(ends, end => end.Bulk(), cancellation), "≥ 0.95", ratio => ratio >= 0.95);
            Tell(report, ways, "datagrams of 64 bytes", "k/s", Rounded(ends, end => end.Datagrams(), cancellation), "≥ 0.9", ratio => ratio >= 0.9);
            var trips = Rounded(ends, end => end.RoundTrip(), cancellation);
            Tell(report, ways, "a datagram there and back, p10", "µs", trips, "≤ +1 µs",
                _ => new Sample(trips[1]).P50 - new Sample(trips[0]).P50 <= 1);
            foreach (var end in ends)
                end.Dispose();
        }
        finally
        {
            foreach (var (_, pair) in ways)
                pair.Dispose();
        }
        foreach (var services in (int[])[10, 1000, 10_000])
            NextToRules(report, services, cancellation);
        return Task.CompletedTask;
    }

    private static void NextToRules(Report report, int services, CancellationToken cancellation)
    {
        using var routed = PodPair.Routed(4);
        using var plain = new Ends(routed);
        using var meshed = PodPair.Meshed(2, builtHeaders: true, services, plain.Port);
        using var ours = new Ends(meshed, plain.Port);
        var service = new IPEndPoint(IPAddress.Parse(KubeProxyRules.Address(services - 1)), 80);
        var node = routed.Sides[0].Node;
        foreach (var kind in KubeProxyRules.Kinds)
        {
            using var rules = new KubeProxyRules(kind, services, RuledBackends, (_, _) => $"{routed.Target}:{plain.Port}", command => node.Shell(command));
            var (mine, theirs) = (new List<double>(), new List<double>());
            for (var round = 0; round < RuledRounds; round++)
            {
                cancellation.ThrowIfCancellationRequested();
                mine.Add(ours.Bulk(service));
                theirs.Add(plain.Bulk(service));
            }
            report.Add($"one TCP flow to one of {services:N0} services, through the tunnel", Text(mine, "Gb/s"),
                $"{kind}, no tunnel: {Text(theirs, "Gb/s")}", Ratio(mine, theirs));
        }
    }

    private static List<double>[] Rounded(Ends[] ends, Func<Ends, double> measure, CancellationToken cancellation)
    {
        var results = ends.Select(_ => new List<double>()).ToArray();
        // The first round warms up.
        for (var round = 0; round <= Rounds; round++)
            for (var i = 0; i < ends.Length; i++)
            {
                cancellation.ThrowIfCancellationRequested();
                var at = round % 2 == 0 ? i : ends.Length - 1 - i;
                var result = measure(ends[at]);
                if (round > 0)
                    results[at].Add(result);
            }
        return results;
    }

    private static void Tell(Report report, (string Name, PodPair Pair)[] ways, string what, string unit, List<double>[] results, string aim,
        Func<double, bool> met)
    {
        for (var way = 1; way < ways.Length; way++)
        {
            var ratio = Ratio(results[way], results[0]);
            report.Add($"pod to pod, {what}: {ways[way].Name}", Text(results[way], unit), $"{ways[0].Name}: {Text(results[0], unit)}", ratio,
                way == 1 ? aim : "", way == 1 ? met(ratio) : null);
        }
    }

    private static double Ratio(List<double> ours, List<double> theirs) => new Sample(ours.Zip(theirs, (mine, other) => mine / other)).P50;

    private static string Text(List<double> rounds, string unit)
    {
        var sample = new Sample(rounds);
        return string.Create(CultureInfo.InvariantCulture, $"{sample.P50:0.0} {unit} ({sample.At(0.1):0.0} to {sample.At(0.9):0.0})");
    }

    /// <summary>Sockets in both pods.</summary>
    private sealed class Ends : IDisposable
    {
        private readonly PodPair _pair;
        private readonly Socket _listener;
        private readonly Socket _sink;
        private readonly Socket _echo;
        private readonly Thread _echoing;

        /// <param name="port">Where TCP is answered; 0 = any.</param>
        public Ends(PodPair pair, ushort port = 0)
        {
            _pair = pair;
            (_listener, _sink, _echo) = pair.Sides[1].Pod.Run(() =>
            {
                var listener = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
                listener.Bind(new IPEndPoint(IPAddress.Any, port));
                listener.Listen();
                return (listener, Bound(), Bound());
            });
            _echoing = new Thread(Echo) { IsBackground = true };
            _echoing.Start();
        }

        public ushort Port => (ushort)((IPEndPoint)_listener.LocalEndPoint!).Port;

        /// <summary>Gb/s that were read at the other end.</summary>
        /// <param name="target">Null = the pod itself.</param>
        public double Bulk(IPEndPoint? target = null)
        {
            using var client = _pair.Sides[0].Pod.Run(() => new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp));
            client.Connect(target ?? At(_listener));
            using var server = _listener.Accept();
            var read = 0L;
            var clock = Stopwatch.StartNew();
            var reader = new Thread(() =>
            {
                var buffer = new byte[1 << 18];
                for (int count; (count = server.Receive(buffer)) > 0;)
                    read += count;
            });
            reader.Start();
            var sent = new byte[1 << 17];
            while (clock.Elapsed < Length)
                client.Send(sent);
            client.Shutdown(SocketShutdown.Send);
            reader.Join();
            return read * 8 / clock.Elapsed.TotalSeconds / 1e9;
        }

        /// <summary>Thousands a second that arrived at the other pod's device, sent by one thread; nobody reads them there.</summary>
        public double Datagrams()
        {
            using var client = Connected(_sink);
            var datagram = new byte[Datagram];
            var before = Arrived();
            var clock = Stopwatch.StartNew();
            while (clock.Elapsed < Length)
                for (var i = 0; i < 64; i++)
                    client.Send(datagram);
            var elapsed = clock.Elapsed.TotalSeconds;
            return (Arrived() - before) / elapsed / 1e3;
        }

        /// <summary>µs, the tenth part of the quickest.</summary>
        public double RoundTrip()
        {
            using var client = Connected(_echo);
            client.ReceiveTimeout = 1000;
            var datagram = new byte[Datagram];
            var times = new double[RoundTrips];
            for (var i = 0; i < times.Length; i++)
            {
                var start = Stopwatch.GetTimestamp();
                client.Send(datagram);
                client.Receive(datagram);
                times[i] = Stopwatch.GetElapsedTime(start).TotalMicroseconds;
            }
            return new Sample(times).At(0.1);
        }

        public void Dispose()
        {
            // An empty datagram ends the echo.
            using (var client = Connected(_echo))
                client.Send(Array.Empty<byte>());
            _echoing.Join();
            _listener.Dispose();
            _sink.Dispose();
            _echo.Dispose();
        }

        private void Echo()
        {
            var buffer = new byte[2 * Datagram];
            EndPoint from = new IPEndPoint(IPAddress.Any, 0);
            for (int count; (count = _echo.ReceiveFrom(buffer, ref from)) > 0;)
                _echo.SendTo(buffer.AsSpan(0, count), from);
        }

        private IPEndPoint At(Socket socket) => new(IPAddress.Parse(_pair.Target), ((IPEndPoint)socket.LocalEndPoint!).Port);

        private Socket Connected(Socket to)
        {
            var client = _pair.Sides[0].Pod.Run(() => new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp));
            client.Connect(At(to));
            return client;
        }

        private static Socket Bound()
        {
            var socket = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp);
            socket.Bind(new IPEndPoint(IPAddress.Any, 0));
            return socket;
        }

        private double Arrived() => _pair.Sides[1].Pod.Run(() =>
        {
            var line = File.ReadLines("/proc/thread-self/net/dev").First(line => line.TrimStart().StartsWith("eth0:", StringComparison.Ordinal));
            return double.Parse(line.Split(':')[1].Split(' ', StringSplitOptions.RemoveEmptyEntries)[1], CultureInfo.InvariantCulture);
        });
    }
}
