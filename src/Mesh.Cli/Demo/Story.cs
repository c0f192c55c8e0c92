using System.Diagnostics;
using System.Globalization;
using Mesh.Cli.ClusterMesh;
using Mesh.Cli.Commands;
using Mesh.Cli.Contexts;
using Mesh.Lab;
using Mesh.Lab.Making;
using Mesh.Lab.Native;
using Mesh.Lab.Plan;
using Mesh.Lab.Pods;

namespace Mesh.Cli.Demo;

/// <summary>
/// The demo: three clusters, one service, and what its clients notice when things break. Every number is measured by real
/// connections from a pod in osaka, one per request; every claim is checked.
/// </summary>
internal sealed partial class Story(LabPlan plan, Narrator tell, CancellationToken cancel)
{
    private const int PerSecond = 400;

    /// <summary>A lost packet is sent again after a second: with this patience it shows as a slow request, a lost request as a
    /// failed one, and a machine that is busy with other things as neither.</summary>
    private static readonly string[] Steadily =
        ["--rate", PerSecond.ToString(CultureInfo.InvariantCulture), "--timeout", "3s"];

    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(20);

    private readonly ClusterPlan _tokyo = plan.Clusters[0];
    private readonly ClusterPlan _osaka = plan.Clusters[1];

    private string Client => $"{_osaka.Name}/{_osaka.Nodes[0].Name}/{_osaka.Nodes[0].Pods[0].Name}";

    private string[] HttpTargets => ["--target", $"{_osaka.ServiceIPv4}:80", "--target", $"[{_osaka.ServiceIPv6}]:80"];

    public async Task RunAsync()
    {
        tell.Step("The clusters are connected");
        await StatusAsync();
        await DoorAsync();
        await EveryClusterAnswersAsync();
        await DecisionIsExplainedAsync();
        await BackendsLeaveAsync();
        await HostileWriteAsync();
        await EtcdIsWipedAsync();
        await TokenAsync();
        await ControlPlaneIsCutOffAsync();
        await TunnelIsCutAsync();
        await DrillAsync();
        await AgentsAreKilledAsync();
        tell.Step("All is as it was");
        await StatusAsync();
    }

    private async Task StatusAsync()
    {
        tell.Say($"$ mesh clustermesh status --context {plan.Name}/{_osaka.Name}");
        var report = await CollectAsync();
        tell.Say(ClusterMeshText.Format(report));
        tell.Check(report.IsConnected, "osaka is connected to every cluster", report.WhatIsMissing);
    }

    private async Task EveryClusterAnswersAsync()
    {
        tell.Step($"A pod in osaka calls rebel-base, a service that every cluster has ({Client})");
        foreach (var (what, target, udp) in new[]
        {
            ("TCP, IPv4", $"{_osaka.ServiceIPv4}:80", false),
            ("TCP, IPv6", $"[{_osaka.ServiceIPv6}]:80", false),
            ("UDP, IPv4", $"{_osaka.ServiceIPv4}:53", true),
            ("UDP, IPv6", $"[{_osaka.ServiceIPv6}]:53", true),
        })
        {
            string[] arguments = ["--target", target, "--rate", "1000", "--count", "240", .. udp ? new[] { "--udp" } : []];
            await using var run = LoadRun.Start(plan, Client, arguments);
            var results = await run.EndAsync(cancel);
            var by = results.Where(r => r.Cluster is not null).GroupBy(r => r.Cluster!)
                .OrderBy(g => g.Key, StringComparer.Ordinal).ToList();
            var failed = results.Count(r => r.Error is not null);
            tell.Check(failed == 0 && by.Count == plan.Clusters.Count,
                $"{what} to {target}: {results.Count} answers, {string.Join(", ", by.Select(g => $"{g.Key} {g.Count()}"))}",
                $"{failed} failed, first: {results.FirstOrDefault(r => r.Error is not null)?.Error}");
        }
    }

    private async Task BackendsLeaveAsync()
    {
        tell.Step($"tokyo's backends leave, under {PerSecond} new connections per second from osaka");
        await using var run = LoadRun.Start(plan, Client, [.. HttpTargets, .. Steadily]);
        await UntilAsync(() => run.Snapshot().Count(r => r.Cluster == _tokyo.Name) > 20, "tokyo answers");
        var change = Now();
        Manifests.SetBackends(_tokyo, false);
        await UntilAsync(() => Now() - change > 500 && Last(run, _tokyo.Name) < Now() - 500, "no request goes to tokyo any more");
        var returned = Now();
        var gap = Math.Max(0, Last(run, _tokyo.Name) - change);
        Manifests.SetBackends(_tokyo, true);
        await UntilAsync(() => Last(run, _tokyo.Name) > returned, "tokyo answers again");
        var back = run.Snapshot().Where(r => r.Cluster == _tokyo.Name && r.At > returned).Min(r => r.At) - returned;
        var results = await run.StopAsync(cancel);
        tell.Check(gap < 1000, string.Create(CultureInfo.InvariantCulture,
            $"last request steered to tokyo {gap:0} ms after its manifest changed; back {back:0} ms after it returned"),
            "more than 1000 ms");
        NoneLost(results);
    }

    private async Task ControlPlaneIsCutOffAsync()
    {
        tell.Step("tokyo's control plane is cut off from everybody; its pods are not");
        await using var run = LoadRun.Start(plan, Client, [.. HttpTargets, .. Steadily]);
        var clock = Stopwatch.StartNew();
        await LabFaults.CutControlPlaneAsync(plan, _tokyo, cut: true, cancel);
        try
        {
            await UntilAsync(async () => !await IsTokyoReadAsync(), "osaka's relay notices");
            tell.Say(string.Create(CultureInfo.InvariantCulture, $"osaka's relay noticed after {clock.Elapsed.TotalSeconds:0.0} s:"));
            tell.Say(ClusterMeshText.Format(await CollectAsync()));
            var noticed = Now();
            await UntilAsync(() => Now() - noticed > 1500, "a while passes");
            var stillUsed = run.Snapshot().Count(r => r.Cluster == _tokyo.Name && r.At > noticed);
            tell.Check(stillUsed > 0, $"tokyo's backends are still used: {stillUsed} answers since osaka noticed");
        }
        finally
        {
            await LabFaults.CutControlPlaneAsync(plan, _tokyo, cut: false, CancellationToken.None);
        }
        clock.Restart();
        await UntilAsync(IsTokyoReadAsync, "osaka is connected to tokyo again");
        tell.Say(string.Create(CultureInfo.InvariantCulture, $"link back; connected again after {clock.Elapsed.TotalSeconds:0.0} s"));
        var results = await run.StopAsync(cancel);
        NoneLost(results);
    }

    private async Task AgentsAreKilledAsync()
    {
        var agents = plan.Processes.Where(p => p.Name.EndsWith("-agent", StringComparison.Ordinal)).ToList();
        tell.Step($"All {agents.Count} agents are killed with kill -9, under load");
        await using var run = LoadRun.Start(plan, Client, [.. HttpTargets, .. Steadily]);
        await UntilAsync(() => run.Snapshot().Count > 50, "the load runs");
        var before = agents.ToDictionary(a => a.Name, a => ProcessReference.FromPidFile(plan.PidFile(a.Name)));
        foreach (var reference in before.Values)
            reference?.Kill();
        var clock = Stopwatch.StartNew();
        await LabReady.WaitForMeshAsync(plan, Patience, cancel);
        var healed = clock.Elapsed;
        var allNew = agents.All(a => ProcessReference.FromPidFile(plan.PidFile(a.Name)) is { } now && now != before[a.Name]);
        tell.Check(allNew, string.Create(CultureInfo.InvariantCulture,
            $"{agents.Count} new agents, each connected to every cluster, after {healed.TotalSeconds:0.0} s"),
            "an agent was not restarted");
        await UntilAsync(() => clock.Elapsed > healed + TimeSpan.FromMilliseconds(500), "a while passes");
        var results = await run.StopAsync(cancel);
        NoneLost(results);
    }

    private void NoneLost(IReadOnlyList<LoadResult> results)
    {
        var failed = results.Count(r => r.Error is not null);
        var slowest = results.Count == 0 ? 0 : results.Max(r => r.Milliseconds);
        tell.Check(failed == 0 && results.Count > 0,
            string.Create(CultureInfo.InvariantCulture, $"{results.Count} requests, {failed} failed, slowest {slowest:0} ms"),
            results.FirstOrDefault(r => r.Error is not null) is { } first ? $"first to {first.Target}: {first.Error}" : "there were none");
    }

    private Task<ClusterMeshReport> CollectAsync() =>
        ClusterMeshStatusCommand.CollectAsync(Context.Find($"{plan.Name}/{_osaka.Name}"), cancel);

    /// <summary>Whether osaka's relay, through which its nodes read tokyo, says that it is connected.</summary>
    private async Task<bool> IsTokyoReadAsync() =>
        (await LabReady.RelayAsync(_osaka, cancel)).Any(c => c.Name == _tokyo.Name && c.Ready);

    /// <summary>A command of this program, in a process of its own, as a person would run it.</summary>
    private async Task<(int Code, string Output, string Error)> RunMeshAsync(params string[] arguments)
    {
        using var process = Process.Start(new ProcessStartInfo(plan.Processes[0].Program, arguments)
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        })!;
        var error = process.StandardError.ReadToEndAsync(cancel);
        var output = await process.StandardOutput.ReadToEndAsync(cancel);
        await process.WaitForExitAsync(cancel);
        return (process.ExitCode, output, await error);
    }

    /// <summary>The output of a command that has to succeed.</summary>
    private async Task<string> MeshAsync(params string[] arguments)
    {
        var (code, output, error) = await RunMeshAsync(arguments);
        return code == 0 ? output : throw new LabException($"mesh {string.Join(' ', arguments)}: exit code {code}: {output}{error}".TrimEnd());
    }

    private Task<(int Code, string Output, string Error)> EtcdctlAsync(params string[] arguments) =>
        RunMeshAsync(["lab", "etcdctl", "--name", plan.Name, .. arguments]);

    private static string LastLine(string text) => text.TrimEnd().Split('\n')[^1];

    private static double Now() => (DateTime.UtcNow - DateTime.UnixEpoch).TotalMilliseconds;

    /// <summary>When the last request that this cluster answered began; 0 when it answered none.</summary>
    private static double Last(LoadRun run, string cluster) =>
        run.Snapshot().Where(r => r.Cluster == cluster).Select(r => r.At).DefaultIfEmpty(0).Max();

    private Task UntilAsync(Func<bool> condition, string what) => UntilAsync(() => Task.FromResult(condition()), what);

    private async Task UntilAsync(Func<Task<bool>> condition, string what)
    {
        var clock = Stopwatch.StartNew();
        while (!await condition())
        {
            if (clock.Elapsed > Patience)
                throw new LabException($"waited {Patience.TotalSeconds:0} s in vain until {what}");
            await Task.Delay(20, cancel);
        }
    }
}
