using System.Diagnostics;
using Mesh.ControlPlane.IPCache;
using Mesh.ControlPlane.LoadBalancing;
using Mesh.Datapath.Tests.IPCache;
using Mesh.Datapath.Tests.LoadBalancing;
using Mesh.Model;
using static Mesh.Datapath.Tests.LoadBalancing.Rows;

namespace Mesh.Datapath.Tests;

/// <summary>Measures, not judgements: run with `-explicit only -class Mesh.Datapath.Tests.Figures -showLiveOutput`.</summary>
public sealed class Figures(ITestOutputHelper output)
{
    [Fact(Explicit = true)]
    public void Publishing_one_service()
    {
        using var node = new LbNode(services: 16384, blocks: 262144, backends: 524288);
        var rows = Enumerable.Range(0, 10_000).Select(i => Row(i, 0)).ToArray();
        var cold = Stopwatch.StartNew();
        Assert.Empty(node.Update(rows));
        output.WriteLine($"cold load of 10000 services x 4 clusters x 10 backends: {cold.ElapsedMilliseconds} ms");
        foreach (var (name, make) in new (string, Func<int, Frontend>)[]
            { ("nothing changed", i => Row(i, 0)), ("one of 4 clusters changed", i => Row(i, 1)), ("one state changed", i => Row(i, 2)) })
        {
            var times = new List<double>();
            for (var i = 0; i < 2000; i++)
            {
                var row = make(i);
                var start = Stopwatch.GetTimestamp();
                Assert.Empty(node.Update(row));
                times.Add(Stopwatch.GetElapsedTime(start).TotalMicroseconds);
            }
            node.Update(rows);
            node.Grace.Collect();
            times.Sort();
            output.WriteLine($"publish one service, {name}: p50 {times[1000]:F1} us, p99 {times[1980]:F1} us");
        }
        var barrier = Stopwatch.StartNew();
        node.Update(Row(0, 1));
        node.Grace.Collect();
        output.WriteLine($"grace period: {barrier.Elapsed.TotalMilliseconds:F1} ms");
        node.Update(rows);
        var restart = Stopwatch.StartNew();
        node.Restart();
        output.WriteLine($"adopt 10000 services: {restart.ElapsedMilliseconds} ms");
        var again = Stopwatch.StartNew();
        node.Update(rows);
        output.WriteLine($"compare 10000 unchanged rows: {again.ElapsedMilliseconds} ms");
    }

    [Fact(Explicit = true)]
    public void Ten_thousand_services_of_ten_and_one_of_ten_thousand()
    {
        using var node = new LbNode(services: 16384, blocks: 262144, backends: 524288);
        var rows = Enumerable.Range(0, 10_000).Select(i => Frontend($"10.96.{i / 256}.{i % 256}:80/TCP",
            [.. Enumerable.Range(1, 10).Select(host => Backend($"10.1.{i % 250}.{host}:8080/TCP"))])
            with
        { Service = new ServiceName("default", $"service-{i}") }).ToArray();
        var cold = Stopwatch.StartNew();
        Assert.Empty(node.Update(rows));
        output.WriteLine($"cold load of 10000 services x 10 backends: {cold.ElapsedMilliseconds} ms");

        var large = Frontend("10.97.0.1:80/TCP",
            [.. Enumerable.Range(0, 10_000).Select(i => Backend($"10.{100 + i / 65536}.{i / 256 % 256}.{i % 256}:80/TCP"))]);
        var first = Stopwatch.StartNew();
        Assert.Empty(node.Update(large));
        output.WriteLine($"a service of 10000 backends, whole: {first.Elapsed.TotalMicroseconds:F0} us");
        var changes = Enumerable.Range(0, 400).Select(i => large with
        {
            Backends = new(large.Backends.Items.SetItem(i * 25,
                large.Backends[i * 25] with { State = i % 2 == 0 ? BackendState.Draining : BackendState.Dead })),
        }).ToList();
        // From the row before: each has one backend back and another out, so every second update is one state alone.
        var times = new List<double>();
        foreach (var change in changes)
        {
            var start = Stopwatch.GetTimestamp();
            Assert.Empty(node.Update(change));
            times.Add(Stopwatch.GetElapsedTime(start).TotalMicroseconds);
            start = Stopwatch.GetTimestamp();
            Assert.Empty(node.Update(large));
            times.Add(Stopwatch.GetElapsedTime(start).TotalMicroseconds);
        }
        times.Sort();
        output.WriteLine($"one state of it: p50 {times[400]:F1} us, p99 {times[792]:F1} us");
    }

    [Fact(Explicit = true)]
    public void Loading_the_ipcache()
    {
        const int count = 200_000;
        using var node = new IPCacheNode(ipcache: 1 << 20, nodes: 65536);
        var rows = Enumerable.Range(0, count).Select(i => (uint)i).Select(i => new IPCacheEntry(
            IpPrefix.Host(IpAddr.V4(0x0a000000 + i)), 65536 + i % 5000, IpAddr.V4(0xac1e0000 + i / 100), 0,
            IPCacheSource.ClusterMesh, "osaka", 2, "default", "pod")).Select(row => KeyValuePair.Create(row.Prefix, row)).ToArray();
        var empty = node.Memory();
        var load = Stopwatch.StartNew();
        foreach (var batch in rows.Chunk(16384))
            node.Operations.Update(batch, (_, fault) => Assert.Fail(fault.Cause));
        var loaded = load.Elapsed;
        var prune = Stopwatch.StartNew();
        Assert.Equal(0, node.Operations.Prune(rows.ToDictionary(pair => pair.Key, pair => pair.Value)));
        output.WriteLine($"load 200000 ipcache entries of 2000 nodes: {loaded.TotalMilliseconds:F0} ms, "
            + $"{(node.Memory() - empty) / (double)count:F1} bytes of map memory per entry; "
            + $"prune of the whole table {prune.ElapsedMilliseconds} ms");
    }

    private static Frontend Row(int service, int change) => Frontend($"10.96.{service / 256}.{service % 256}:80/TCP",
    [
        .. from cluster in Enumerable.Range(1, 4)
           from backend in Enumerable.Range(1, 10)
           let host = cluster == 2 && backend == 10 && change == 1 ? 11 : backend
           select Backend($"10.{cluster}.{service % 250}.{host}:8080/TCP", (uint)cluster,
               state: change == 2 && cluster == 3 && backend == 5 ? BackendState.Draining : BackendState.Active),
    ]);
}
