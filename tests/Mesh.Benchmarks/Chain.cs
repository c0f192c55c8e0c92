using System.Diagnostics;
using System.Globalization;
using Mesh.Benchmarks.Surroundings;
using Mesh.KVStore;
using Mesh.Model;
using Mesh.TestKit;

namespace Mesh.Benchmarks;

/// <summary>
/// A change in one cluster's etcd → visible in another cluster's kernel map, the long way round: through that cluster's door, the relay
/// of ours and its door; next to a chain of two etcds with a copier in between. One agent follows both, as two peers; each has an etcd
/// of its own to be written to, so that nobody works but those on the way. Puts alternate between the two, in an order that changes
/// from pair to pair, 3 to 9 ms apart.
///
/// Measured twice. As shipped, every etcd syncs its disk before it answers: once on our way, in the peer's own etcd, and twice on the
/// other. What our relay keeps is a journal that it writes before it serves, and does not sync: it outlives the process, and after
/// the machine went down readers are made to list again. Then once more with etcds that sync nothing, which is neither side as it is run
/// but leaves the disk out.
/// </summary>
internal static class Chain
{
    public static readonly string[] Sizes = ["puts", "forms"];

    private const int WarmUpPuts = 200;
    private const double Aim = 0.75;
    private static readonly IpAddr Host = IpAddr.Parse("172.30.0.2");
    private static readonly MockCluster Relayed = new("osaka", 2, Cached: false, IdentityNumbering.Max255);
    private static readonly MockCluster Copied = new("kobe", 3, Cached: false, IdentityNumbering.Max255);

    public static async Task RunAsync(Report report, Settings settings, CancellationToken cancellation)
    {
        var puts = settings.Of("puts", 1500);
        await MeasureAsync(report, puts, syncs: true, cancellation);
        if (settings.Of("forms", 2) > 1)
            await MeasureAsync(report, puts, syncs: false, cancellation);
    }

    private static async Task MeasureAsync(Report report, int puts, bool syncs, CancellationToken cancellation)
    {
        using var node = new Node();
        // The test kit's etcds do not sync unless told.
        string[] disk = [$"--unsafe-no-fsync={(syncs ? "false" : "true")}", "--heartbeat-interval", "100", "--election-timeout", "1000"];
        await using var relayedEtcd = await EtcdServer.StartAsync(tls: true, disk);
        await using var copiedEtcd = await EtcdServer.StartAsync(tls: true, disk);
        await using var secondEtcd = await EtcdServer.StartAsync(tls: true, disk);
        await using var relayedStore = relayedEtcd.NewStore();
        await using var copiedStore = copiedEtcd.NewStore();
        await relayedStore.WriteAsync([.. MockCluster.Heartbeat(), .. Relayed.Announcement(), Entry(Relayed, 0)], cancellation);
        await copiedStore.WriteAsync([.. MockCluster.Heartbeat(), .. Copied.Announcement(), Entry(Copied, 0)], cancellation);

        await using var door = await DoorProcess.StandInAsync(relayedEtcd, Relayed.Name, "door", EtcdServer.FreePort(), cancellation);
        var doorEndpoint = string.Create(CultureInfo.InvariantCulture, $"https://127.0.0.1:{door.Port}");
        await using var relay = await RelayProcess.StartAsync(relayedEtcd, Path.Combine(node.Directory, "relay"),
            [new(Relayed.Name, ClientFile.Of(relayedEtcd.OptionsFor("remote") with { Endpoints = [doorEndpoint] }))], 255, cancellation);
        await using var copier = Copier.Start(node.Directory, Copied.Name, copiedEtcd.Options, secondEtcd.Options);
        await using var agent = AgentProcess.Start(node,
            [new(Relayed.Name, ClientFile.Of(relay.Options)), new(Copied.Name, ClientFile.Of(secondEtcd.Options))], IdentityNumbering.Max255);
        await agent.UntilAsync(() => agent.IdentityOf(Address(Relayed, 0)) != 0 && agent.IdentityOf(Address(Copied, 0)) != 0,
            "both peers' records in the kernel", cancellation);

        using var eye = new KernelEye(agent);
        var (ours, theirs) = (new List<double>(), new List<double>());
        for (var put = 1; put <= WarmUpPuts + puts; put++)
        {
            foreach (var relayed in put % 4 < 2 ? (bool[])[true, false] : [false, true])
            {
                var time = relayed
                    ? await PutAsync(relayedStore, eye, Relayed, put, cancellation)
                    : await PutAsync(copiedStore, eye, Copied, put, cancellation);
                if (put > WarmUpPuts)
                    (relayed ? ours : theirs).Add(time);
            }
        }
        Tell(report, syncs, new Sample(ours), new Sample(theirs));
    }

    private static void Tell(Report report, bool syncs, Sample ours, Sample theirs)
    {
        var ratio = ours.P50 / theirs.P50;
        report.Add($"change in a peer's etcd → door → relay → kernel map ({ours.Count} puts, {(syncs ? "etcds sync their disks" : "no disk syncs")})",
            ours.Milliseconds(), $"etcd → copier → etcd: {theirs.Milliseconds()}", ratio,
            syncs ? string.Create(CultureInfo.InvariantCulture, $"p50 ≤ {Aim} × the two etcds'") : "", syncs ? ratio <= Aim : null);
        report.Add("  its p99 next to theirs", string.Create(CultureInfo.InvariantCulture, $"{ours.P99 / 1000:0.00} ms"),
            string.Create(CultureInfo.InvariantCulture, $"{theirs.P99 / 1000:0.00} ms"), ours.P99 / theirs.P99);
    }

    /// <summary>Microseconds from the start of the put.</summary>
    private static async Task<double> PutAsync(
        EtcdKVStore store, KernelEye eye, MockCluster cluster, int number, CancellationToken cancellation)
    {
        await Task.Delay(Random.Shared.Next(3, 10), cancellation);
        var entry = Entry(cluster, number);
        var seen = eye.Watch(Address(cluster, number));
        var start = Stopwatch.GetTimestamp();
        await store.WriteAsync([entry], cancellation);
        return Stopwatch.GetElapsedTime(start, await seen).TotalMicroseconds;
    }

    private static IpAddr Address(MockCluster cluster, int number) => IpAddr.V4((10u << 24 | cluster.Id << 16) + 1 + (uint)number);

    private static WriteOperation Entry(MockCluster cluster, int number) => cluster.Entry(Address(cluster, number), cluster.Identity(1), Host);
}
