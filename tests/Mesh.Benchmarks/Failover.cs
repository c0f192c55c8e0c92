using System.Globalization;
using Mesh.Benchmarks.Surroundings;
using Mesh.Lab;
using Mesh.Lab.Native;
using Mesh.Lab.Plan;
using Mesh.Lab.Pods;

namespace Mesh.Benchmarks;

/// <summary>
/// How long connections are lost after something is: in a lab of three clusters, under load from a pod, the tunnels to a cluster are cut,
/// a node is cut off, a backend is made silent. Measured is the beginning of the last connection that failed or was reset, after the
/// cut; what failed is counted. The agent that judges is killed after each trial, so that its memory of flapping does not grow.
/// </summary>
internal static class Failover
{
    /// <summary>trials=N: of each kind; 200 for the whole distribution.</summary>
    public static readonly string[] Sizes = ["trials"];

    private const string Name = "failoverbench";
    private const int PerSecond = 200;
    private static readonly TimeSpan Watched = TimeSpan.FromSeconds(2);
    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(2);

    public static async Task RunAsync(Report report, Settings settings, CancellationToken stopping)
    {
        var trials = settings.Of("trials", 3);
        if (Environment.GetEnvironmentVariable("MESH_BIN") is not { Length: > 0 })
            Environment.SetEnvironmentVariable("MESH_BIN", Path.GetFullPath("out/bin"));
        await LabDown.RunAsync(Name, stopping);
        var plan = await LabUp.RunAsync(new LabSpec(Name, 3, 2, 1), line => Console.Error.WriteLine($"bench: {line}"), stopping);
        try
        {
            var (tokyo, osaka) = (plan.Clusters[0], plan.Clusters[1]);
            await MeasureAsync(report, plan, trials, "cluster cut off", cut => LabFaults.CutTunnelAsync(plan, tokyo, osaka, cut, CancellationToken.None),
                (180, 250), stopping);
            await MeasureAsync(report, plan, trials, "node cut off", cut => LabFaults.CutNodeAsync(plan, tokyo.Nodes[0], cut, CancellationToken.None),
                (180, 250), stopping);
            await MeasureAsync(report, plan, trials, "backend silent", cut => SilenceAsync(tokyo.Nodes[0].Pods[0], cut), (0, 0), stopping);
        }
        finally
        {
            await LabDown.RunAsync(plan, CancellationToken.None);
        }
    }

    private static async Task MeasureAsync(Report report, LabPlan plan, int trials, string what, Func<bool, Task> fault,
        (double P50, double P99) aim, CancellationToken stopping)
    {
        var osaka = plan.Clusters[1];
        var (last, failed, all) = (new List<double>(), 0, 0);
        for (var trial = 0; trial < trials; trial++)
        {
            await using var load = LoadRun.Start(plan, $"{osaka.Name}/{osaka.Nodes[0].Name}/{osaka.Nodes[0].Pods[0].Name}",
                "--target", $"{osaka.ServiceIPv4}:80", "--rate", PerSecond.ToString(CultureInfo.InvariantCulture), "--timeout", "1s");
            // Every backend answers: six pods, one a node.
            await UntilAsync(() => load.Snapshot().Where(r => r.At > Now - 1000).Select(r => r.From).OfType<string>().Distinct().Count() == 6, stopping);
            await fault(true);
            var cut = Now;
            try
            {
                await UntilAsync(() => Now > cut + Watched.TotalMilliseconds, stopping);
            }
            finally
            {
                await fault(false);
            }
            var results = (await load.StopAsync(stopping)).Where(r => r.At > cut - 200 && r.At < cut + Watched.TotalMilliseconds).ToList();
            var lost = results.Where(r => r.Error is not null).ToList();
            last.Add(lost.Count == 0 ? 0 : Math.Max(0, lost.Max(r => r.At) - cut));
            (failed, all) = (failed + lost.Count, all + results.Count);
            ProcessReference.FromPidFile(plan.PidFile($"{osaka.Nodes[0].Name}-agent"))?.Kill();
            await LabReady.WaitForMeshAsync(plan, Patience, stopping);
        }
        last.Sort();
        double At(double share) => last[(int)Math.Min(last.Count - 1, Math.Ceiling(share * last.Count) - 1)];
        var text = string.Create(CultureInfo.InvariantCulture,
            $"p50 {At(0.5):0} ms, p90 {At(0.9):0} ms, p99 {At(0.99):0} ms, longest {last[^1]:0} ms; {failed} of {all} requests failed in {trials} trials");
        if (aim.P50 > 0)
            report.Add($"failover, {what}: last failed connection", text, aim: $"p50 ≤ {aim.P50:0} ms, p99 ≤ {aim.P99:0} ms",
                met: At(0.5) <= aim.P50 && At(0.99) <= aim.P99);
        else
            report.Add($"failover, {what}: last failed connection", text);
    }

    private static Task SilenceAsync(PodPlan pod, bool cut)
    {
        Node.Shell($"nsenter --net={NetworkNamespace.PathOf(pod.Namespace)} nft '" + (cut
            ? "add table inet bench; add chain inet bench in { type filter hook input priority 0; }; add rule inet bench in tcp dport 8080 drop"
            : "delete table inet bench") + "'");
        return Task.CompletedTask;
    }

    private static double Now => (DateTime.UtcNow - DateTime.UnixEpoch).TotalMilliseconds;

    private static async Task UntilAsync(Func<bool> condition, CancellationToken stopping)
    {
        var clock = System.Diagnostics.Stopwatch.StartNew();
        while (!condition())
        {
            if (clock.Elapsed > Patience)
                throw new LabException($"waited {Patience.TotalSeconds:0} s in vain for the lab");
            await Task.Delay(20, stopping);
        }
    }
}
