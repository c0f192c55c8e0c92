using System.Globalization;
using Mesh.AgentApi;
using Mesh.Benchmarks.Surroundings;
using Mesh.Bpf;
using Mesh.Datapath.Maps;
using Mesh.Lab;
using Mesh.Lab.Native;
using Mesh.Lab.Plan;
using Mesh.Lab.Pods;

namespace Mesh.Benchmarks;

/// <summary>
/// How long connections are lost after something is: in a lab of three clusters, under load from a pod, the tunnels to a cluster are cut,
/// a node is cut off, a backend is made silent. Measured is the beginning of the last connection that failed or was reset, after the
/// cut; what failed is counted. After a trial the agent that judges is killed, so that its memory of flapping does not grow, and what it
/// has written is undone, so that the next trial need not wait for the hold time: its successor begins with everybody in.
/// </summary>
internal static class Failover
{
    /// <summary>trials=N: of each kind; cluster=N, node=N, backend=N: of that kind only; flapping=SECONDS: a tunnel cut and mended every
    /// three seconds for so long. 200 for the whole distribution; each trial is a line on stderr, so that runs can be joined.</summary>
    public static readonly string[] Sizes = ["trials", "cluster", "node", "backend", "flapping"];

    private const string Name = "failover";
    private const int PerSecond = 200;
    private static readonly TimeSpan Watched = TimeSpan.FromMilliseconds(1500);
    private static readonly TimeSpan FlapPeriod = TimeSpan.FromSeconds(3);
    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(1);

    public static async Task RunAsync(Report report, Settings settings, CancellationToken stopping)
    {
        var one = new[] { "cluster", "node", "backend", "flapping" }.Any(name => settings.Of(name, 0) > 0);
        int TrialsOf(string name) => settings.Of(name, one ? 0 : settings.Of("trials", 3));
        if (Environment.GetEnvironmentVariable("MESH_BIN") is not { Length: > 0 })
            Environment.SetEnvironmentVariable("MESH_BIN", Path.GetFullPath("out/bin"));
        await LabDown.RunAsync(Name, stopping);
        var plan = await LabUp.RunAsync(new LabSpec(Name, 3, 2, 1), line => Console.Error.WriteLine($"bench: {line}"), stopping);
        try
        {
            var (tokyo, osaka) = (plan.Clusters[0], plan.Clusters[1]);
            Task CutTunnel(bool cut) => LabFaults.CutTunnelAsync(plan, tokyo, osaka, cut, CancellationToken.None);
            await MeasureAsync(report, plan, TrialsOf("cluster"), "cluster cut off", CutTunnel, (180, 250), stopping);
            await MeasureAsync(report, plan, TrialsOf("node"), "node cut off",
                cut => LabFaults.CutNodeAsync(plan, tokyo.Nodes[0], cut, CancellationToken.None), (180, 250), stopping);
            await MeasureAsync(report, plan, TrialsOf("backend"), "backend silent", cut => SilenceAsync(tokyo.Nodes[0].Pods[0], cut), (0, 0), stopping);
            if (settings.Of("flapping", 0) is > 0 and var seconds)
                await FlapAsync(report, osaka.Nodes[0], TimeSpan.FromSeconds(seconds), CutTunnel, stopping);
        }
        finally
        {
            await LabDown.RunAsync(plan, CancellationToken.None);
        }
    }

    private static async Task MeasureAsync(Report report, LabPlan plan, int trials, string what, Func<bool, Task> fault,
        (double P50, double P99) aim, CancellationToken stopping)
    {
        if (trials == 0)
            return;
        var osaka = plan.Clusters[1];
        var (last, failed, all) = (new List<double>(), new List<double>(), 0);
        for (var trial = 0; trial < trials; trial++)
        {
            await UntilAsync(() => IsSettledAsync(osaka.Nodes[0]), stopping);
            await using var load = LoadRun.Start(plan, $"{osaka.Name}/{osaka.Nodes[0].Name}/{osaka.Nodes[0].Pods[0].Name}",
                "--target", $"{osaka.ServiceIPv4}:80", "--rate", PerSecond.ToString(CultureInfo.InvariantCulture), "--timeout", "500ms");
            // Every backend answers: six pods, one a node.
            await UntilAsync(() => Task.FromResult(
                load.Snapshot().Where(r => r.At > Now - 500).Select(r => r.From).OfType<string>().Distinct().Count() == 6), stopping);
            await fault(true);
            var cut = Now;
            try
            {
                await Task.Delay(Watched, stopping);
            }
            finally
            {
                await fault(false);
            }
            var results = (await load.StopAsync(stopping)).Where(r => r.At > cut - 200 && r.At < cut + Watched.TotalMilliseconds).ToList();
            var lost = results.Where(r => r.Error is not null).ToList();
            last.Add(lost.Count == 0 ? 0 : Math.Max(0, lost.Max(r => r.At) - cut));
            failed.Add(lost.Count);
            all += results.Count;
            Console.Error.WriteLine(string.Create(CultureInfo.InvariantCulture, $"bench: {what}: {last[^1]:0} ms, {lost.Count} of {results.Count} failed"));
            ProcessReference.FromPidFile(plan.PidFile($"{osaka.Nodes[0].Name}-agent"))?.Kill();
            Forgive(osaka.Nodes[0].BpfRoot);
        }
        last.Sort();
        failed.Sort();
        static double At(List<double> sorted, double share) => sorted[(int)Math.Min(sorted.Count - 1, Math.Ceiling(share * sorted.Count) - 1)];
        var text = string.Create(CultureInfo.InvariantCulture,
            $"p10 {At(last, 0.1):0}, p50 {At(last, 0.5):0}, p90 {At(last, 0.9):0}, p99 {At(last, 0.99):0}, longest {last[^1]:0} ms")
            + string.Create(CultureInfo.InvariantCulture,
            $"; {failed.Sum():0} of {all} requests failed in {trials} trials (p50 {At(failed, 0.5):0}, most {failed[^1]:0})");
        if (aim.P50 > 0)
            report.Add($"failover, {what}: last failed connection", text, aim: $"p50 ≤ {aim.P50:0} ms, p99 ≤ {aim.P99:0} ms",
                met: At(last, 0.5) <= aim.P50 && At(last, 0.99) <= aim.P99);
        else
            report.Add($"failover, {what}: last failed connection", text);
    }

    private static async Task FlapAsync(Report report, NodePlan node, TimeSpan length, Func<bool, Task> cut, CancellationToken stopping)
    {
        await UntilAsync(() => IsSettledAsync(node), stopping);
        var before = await TransitionsAsync(node);
        var flaps = 0;
        for (var clock = System.Diagnostics.Stopwatch.StartNew(); clock.Elapsed < length; flaps++)
        {
            await cut(flaps % 2 == 0);
            await Task.Delay(FlapPeriod, stopping);
        }
        if (flaps % 2 != 0)
            await cut(false);
        var during = await TransitionsAsync(node) - before;
        await UntilAsync(() => IsSettledAsync(node), stopping);
        var transitions = await TransitionsAsync(node) - before;
        report.Add($"failover, tunnel cut and mended every {FlapPeriod.TotalSeconds:0} s for {length.TotalSeconds:0} s",
            $"{transitions} transitions, {during} of them while it flapped", aim: "at most 2 transitions", met: transitions <= 2);
    }

    /// <summary>Everybody is in, with a full share, and has been heard.</summary>
    private static async Task<bool> IsSettledAsync(NodePlan node) =>
        await LivenessAsync(node) is { Clusters: { Count: 2 } clusters, Nodes: { Count: > 2 } nodes, Ejected: null or { Count: 0 } }
        && clusters.All(cluster => cluster.State == "in") && nodes.All(one => one.State == "in" && one.Answered > 3);

    private static async Task<long> TransitionsAsync(NodePlan node) => (await LivenessAsync(node))?.Clusters?.Sum(cluster => cluster.Transitions) ?? 0;

    /// <summary>Null while the agent does not answer.</summary>
    private static async Task<LivenessStatus?> LivenessAsync(NodePlan node)
    {
        using var agent = new AgentClient(node.Socket, node.Name, TimeSpan.FromSeconds(2));
        try
        {
            return (await agent.GetStatusAsync()).Mesh?.Liveness;
        }
        catch (AgentException)
        {
            return null;
        }
    }

    /// <summary>Undoes, between two agents, what the last one has found out.</summary>
    private static void Forgive(string bpfRoot)
    {
        string Pin(string map) => Directory.EnumerateFiles(bpfRoot, map, SearchOption.AllDirectories).First();
        using (var clusters = BpfMaps.OpenPinnedArray<ClusterLivenessValue>(Pin("cluster_liveness")))
            for (var cluster = 0u; cluster < LbLimits.Clusters; cluster++)
            {
                clusters[0].Ramp[(int)cluster] = ClusterLivenessValue.RampFull;
                ClusterBits.Set(ref clusters[0].Alive, cluster, on: true);
            }
        using (var nodes = BpfMaps.OpenPinnedArray<NodeValue>(Pin("nodes")))
            for (var node = 1u; node < nodes.Info.MaxEntries; node++)
                if (nodes[node].State == NodeState.Silent)
                    nodes[node].State = NodeState.Up;
        using var health = BpfMaps.OpenPinnedArray<LbBackendHealth>(Pin("lb_backend_health"));
        for (var slot = 1u; slot < health.Info.MaxEntries; slot++)
            if (health[slot].EjectedUntilMs != 0 || health[slot].Failures != 0)
                (health[slot].EjectedUntilMs, health[slot].Failures) = (0, 0);
    }

    private static Task SilenceAsync(PodPlan pod, bool cut)
    {
        Node.Shell($"nsenter --net={NetworkNamespace.PathOf(pod.Namespace)} nft '" + (cut
            ? "add table inet bench; add chain inet bench in { type filter hook input priority 0; }; add rule inet bench in tcp dport 8080 drop"
            : "delete table inet bench") + "'");
        return Task.CompletedTask;
    }

    private static double Now => (DateTime.UtcNow - DateTime.UnixEpoch).TotalMilliseconds;

    private static async Task UntilAsync(Func<Task<bool>> condition, CancellationToken stopping)
    {
        var clock = System.Diagnostics.Stopwatch.StartNew();
        while (!await condition())
        {
            if (clock.Elapsed > Patience)
                throw new LabException($"waited {Patience.TotalSeconds:0} s in vain for the lab");
            await Task.Delay(20, stopping);
        }
    }
}
