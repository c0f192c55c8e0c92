using System.Diagnostics;
using System.Globalization;
using System.Net.Security;
using System.Runtime.InteropServices;
using System.Security.Cryptography.X509Certificates;
using Etcdserverpb;
using Google.Protobuf;
using Grpc.Net.Client;
using Mesh.TestKit;

namespace Mesh.ClusterMesh.Door.Bench;

/// <summary>
/// One writer, many watchers of the same prefix, TLS on both sides: how much arrives and how late, counted from the start of the put
/// in etcd. The same harness, payload and pace against etcd itself and against a door before that same etcd, in turn.
/// </summary>
internal static class DoorFanOut
{
    private const int ValueBytes = 250;
    private static ReadOnlySpan<byte> Mark => "<MESHMARK>"u8;

    private sealed record Round(string Server, long Expected, long Delivered, double P50, double P99, double Max, double BytesPerWatcher,
        double ServerCpuSeconds, double PutsPerSecond);

    public static async Task<int> RunAsync(string[] arguments)
    {
        int Argument(int index, int fallback) =>
            arguments.Length > index ? int.Parse(arguments[index], CultureInfo.InvariantCulture) : fallback;
        var (watchers, connections, rate, seconds, rounds) =
            (Argument(0, 1000), Argument(1, 100), Argument(2, 100), Argument(3, 10), Argument(4, 3));
        Console.WriteLine($"{watchers} watchers on {connections} connections, {rate} changes/s of {ValueBytes} B for {seconds} s, {rounds} rounds");
        await using var etcd = await EtcdServer.StartAsync(tls: true, "--heartbeat-interval", "100", "--election-timeout", "1000");
        _ = etcd.OptionsFor("admin-falcon");
        var results = new List<Round>();
        for (var round = 0; round < rounds; round++)
        {
            // ABBA: neither always comes first.
            foreach (var name in round % 2 == 0 ? (string[])["etcd", "door"] : ["door", "etcd"])
            {
                var result = await MeasureAsync(name, etcd, watchers, connections, rate, seconds);
                results.Add(result);
                Console.WriteLine($"{result.Server}: {100.0 * result.Delivered / result.Expected:f2} % delivered, p50 {result.P50:f2} ms, " +
                    $"p99 {result.P99:f2} ms, max {result.Max:f1} ms, {result.PutsPerSecond:f0} puts/s, " +
                    $"{result.BytesPerWatcher / 1024:f1} KiB per watcher, {result.ServerCpuSeconds:f2} CPU s");
            }
        }
        var (ours, theirs) = (results.Where(r => r.Server == "door").ToList(), results.Where(r => r.Server == "etcd").ToList());
        Console.WriteLine($"median p99: etcd {Median(theirs, r => r.P99):f2} ms, door {Median(ours, r => r.P99):f2} ms, " +
            $"ratio {Median(theirs, r => r.P99) / Median(ours, r => r.P99):f1}; p50 ratio {Median(theirs, r => r.P50) / Median(ours, r => r.P50):f1}");
        return ours.All(r => r.Delivered == r.Expected) ? 0 : 1;
    }

    private static double Median(List<Round> rounds, Func<Round, double> of) => rounds.Select(of).Order().ElementAt(rounds.Count / 2);

    private static async Task<Round> MeasureAsync(string name, EtcdServer etcd, int watchers, int connections, int rate, int seconds)
    {
        using var door = name == "door" ? StartDoor(etcd) : null;
        var port = door is null ? new Uri(etcd.Endpoint).Port : int.Parse((await door.StandardOutput.ReadLineAsync())!, CultureInfo.InvariantCulture);
        var pid = door?.Id ?? etcd.ProcessId;
        var before = Resident(pid);
        var prefix = $"cilium/state/bench/{Guid.NewGuid():n}/";
        var latencies = new Latencies(watchers * rate * seconds);
        var created = new CountdownEvent(watchers);
        using var stop = new CancellationTokenSource();
        var readers = new List<RawReader>();
        var loops = new List<Task>();
        var create = new WatchRequest
        {
            CreateRequest = new WatchCreateRequest { Key = ByteString.CopyFromUtf8(prefix), RangeEnd = ByteString.CopyFromUtf8(prefix[..^1] + "0") },
        }.ToByteArray();
        for (var i = 0; i < connections; i++)
        {
            var reader = await RawReader.ConnectAsync("127.0.0.1", port, Tls(etcd));
            reader.OnMessage = (_, message) => Take(message.Span, latencies, created);
            readers.Add(reader);
            loops.Add(reader.ReadAsync(stop.Token));
            for (var w = i; w < watchers; w += connections)
            {
                var stream = (2 * (w / connections)) + 1;
                await reader.OpenAsync(stream, "/etcdserverpb.Watch/Watch");
                await reader.SendAsync(stream, create);
            }
        }
        if (!created.Wait(TimeSpan.FromSeconds(30)))
            throw new InvalidOperationException($"{name}: {created.CurrentCount} watches were not created");
        await Task.Delay(500);
        var held = Resident(pid);
        latencies.Recording = false;
        await WriteAsync(etcd, prefix, rate, 1);
        await Task.Delay(500);
        latencies.Recording = true;
        var cpu = Cpu(pid);
        var clock = Stopwatch.StartNew();
        var written = await WriteAsync(etcd, prefix, rate, seconds);
        var elapsed = clock.Elapsed.TotalSeconds;
        var expected = (long)written * watchers;
        for (var i = 0; i < 200 && latencies.Count < expected; i++)
            await Task.Delay(50);
        var used = Cpu(pid) - cpu;
        await stop.CancelAsync();
        foreach (var reader in readers)
            await reader.DisposeAsync();
        await Task.WhenAll(loops).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        door?.StandardInput.Close();
        if (door is not null)
            await door.WaitForExitAsync();
        var (p50, p99, max) = latencies.Summary();
        return new Round(name, expected, latencies.Count, p50, p99, max, (double)(held - before) / watchers, used, written / elapsed);
    }

    /// <summary>Puts at a steady pace, never waiting for one before the next is due.</summary>
    private static async Task<int> WriteAsync(EtcdServer etcd, string prefix, int rate, int seconds)
    {
        using var channel = GrpcChannel.ForAddress(etcd.Endpoint, new GrpcChannelOptions
        {
            HttpHandler = new SocketsHttpHandler { SslOptions = Tls(etcd) },
            DisposeHttpClient = true,
        });
        var kv = new KV.KVClient(channel);
        await kv.RangeAsync(new RangeRequest { Key = ByteString.CopyFromUtf8(prefix) });
        var puts = new List<Task>();
        var began = Stopwatch.GetTimestamp();
        for (var i = 0; i < rate * seconds; i++)
        {
            var due = began + (i * Stopwatch.Frequency / rate);
            var wait = Stopwatch.GetElapsedTime(Stopwatch.GetTimestamp(), due);
            if (wait > TimeSpan.Zero)
                await Task.Delay(wait);
            var value = new byte[ValueBytes];
            Mark.CopyTo(value);
            var now = Stopwatch.GetTimestamp();
            MemoryMarshal.Write(value.AsSpan(Mark.Length), in now);
            puts.Add(kv.PutAsync(new PutRequest
            {
                Key = ByteString.CopyFromUtf8($"{prefix}{i % 500:d4}"),
                Value = UnsafeByteOperations.UnsafeWrap(value),
            }).ResponseAsync);
        }
        await Task.WhenAll(puts).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        var failed = puts.Count(put => !put.IsCompletedSuccessfully);
        if (failed > 0)
            Console.WriteLine($"  etcd refused {failed} of {puts.Count} puts: it could not keep up");
        return puts.Count - failed;
    }

    private static void Take(ReadOnlySpan<byte> message, Latencies latencies, CountdownEvent created)
    {
        var now = Stopwatch.GetTimestamp();
        var any = false;
        while (message.IndexOf(Mark) is var at and >= 0)
        {
            message = message[(at + Mark.Length)..];
            latencies.Add(now - MemoryMarshal.Read<long>(message));
            any = true;
        }
        if (!any && created.CurrentCount > 0)
            created.Signal();
    }

    private static SslClientAuthenticationOptions Tls(EtcdServer etcd) => new()
    {
        ClientCertificates = [X509Certificate2.CreateFromPemFile(
            Path.Combine(etcd.WorkDirectory, "admin-falcon.crt"), Path.Combine(etcd.WorkDirectory, "admin-falcon.key"))],
        CertificateChainPolicy = DoorProcess.Trust(etcd.CaFile),
    };

    private static Process StartDoor(EtcdServer etcd)
    {
        var info = new ProcessStartInfo(Environment.ProcessPath!) { RedirectStandardOutput = true, RedirectStandardInput = true };
        info.ArgumentList.Add("serve");
        info.ArgumentList.Add(etcd.Endpoint);
        info.ArgumentList.Add(etcd.WorkDirectory);
        return Process.Start(info)!;
    }

    private static long Resident(int pid) =>
        long.Parse(File.ReadLines($"/proc/{pid}/status").First(line => line.StartsWith("VmRSS", StringComparison.Ordinal))
            .Split(' ', StringSplitOptions.RemoveEmptyEntries)[1], CultureInfo.InvariantCulture) * 1024;

    private static double Cpu(int pid)
    {
        var fields = File.ReadAllText($"/proc/{pid}/stat").Split(')')[^1].Split(' ');
        return (double.Parse(fields[12], CultureInfo.InvariantCulture) + double.Parse(fields[13], CultureInfo.InvariantCulture)) / 100;
    }

    /// <summary>Every latency of a round, in ticks; room for all is made beforehand.</summary>
    private sealed class Latencies(int room)
    {
        private readonly long[] _ticks = new long[room];
        private int _count;

        public volatile bool Recording;

        public long Count => Math.Min(Volatile.Read(ref _count), _ticks.Length);

        public void Add(long ticks)
        {
            if (!Recording)
                return;
            var at = Interlocked.Increment(ref _count) - 1;
            if (at < _ticks.Length)
                _ticks[at] = ticks;
        }

        public (double P50, double P99, double Max) Summary()
        {
            var sorted = _ticks[..(int)Count];
            Array.Sort(sorted);
            double At(double share) => sorted.Length == 0 ? double.NaN
                : sorted[(int)((sorted.Length - 1) * share)] * 1000.0 / Stopwatch.Frequency;
            return (At(0.5), At(0.99), At(1));
        }
    }
}
