using System.CommandLine;
using System.Diagnostics;
using System.Text.Json;
using Mesh.AgentApi;
using Mesh.Cli.Contexts;
using Mesh.Cli.Installed;
using Mesh.Cli.Kube;
using Mesh.Cli.Text;

namespace Mesh.Cli.Commands;

/// <summary>`mesh status`: one agent, or the whole mesh of a Kubernetes cluster when that is what the context names. As
/// `cilium status -o json` it is also what `cilium clustermesh status` runs in each pod.</summary>
internal static class StatusCommand
{
    private static readonly TimeSpan Pause = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan TellEvery = TimeSpan.FromSeconds(10);

    /// <summary>What these add is told anyhow, or is not there to be told.</summary>
    private static readonly string[] OfCilium = ["--all-addresses", "--all-controllers", "--all-health", "--all-nodes", "--all-redirects"];

    public static Command Build(TextWriter output, TextWriter error)
    {
        var options = new ContextOptions("text", "summary");
        var kubernetes = new KubeTarget();
        var all = new Option<bool>("--all-clusters") { Description = "Also the clusters that are ready" };
        var verbose = new Option<bool>("--verbose") { Description = "The same as --all-clusters" };
        var brief = new Option<bool>("--brief") { Description = "OK, or the first thing that is wrong" };
        var wait = new Option<bool>("--wait") { Description = "Kubernetes: until nothing is wrong" };
        var waitDuration = new Option<string>("--wait-duration") { Description = "How long at most", DefaultValueFactory = _ => "5m0s" };
        var ignoreWarnings = new Option<bool>("--ignore-warnings") { Description = "With --wait: errors alone count" };
        var workers = new Option<int>("--worker-count")
        {
            Description = "Kubernetes: agents that are asked at once",
            DefaultValueFactory = _ => InstalledMesh.DefaultWorkers,
        };
        var timeout = new Option<string>("--timeout") { Description = "How long an agent may take to answer", DefaultValueFactory = _ => "5s" };
        var command = new Command("status", "What one agent says of itself and of the other clusters; of a Kubernetes cluster, the whole mesh in it.")
        {
            all, verbose, brief, wait, waitDuration, ignoreWarnings, workers, timeout,
        };
        foreach (var word in OfCilium)
            command.Options.Add(new Option<bool>(word) { Hidden = true });
        options.AddTo(command);
        kubernetes.AddTo(command);
        command.SetAction(async (parsed, cancel) =>
        {
            using var cluster = parsed.GetValue(options.Socket) is null && !parsed.GetValue(brief)
                ? kubernetes.Find(parsed, parsed.GetValue(options.Context)) : null;
            if (cluster is null)
                return await AgentAsync(options, parsed, parsed.GetValue(all) || parsed.GetValue(verbose), parsed.GetValue(brief),
                    GoText.ParseDuration(parsed.GetValue(timeout)!) is { } patience && patience > TimeSpan.Zero ? patience
                        : throw new CliException($"--timeout {parsed.GetValue(timeout)}: must be a duration such as 30s"), output, cancel);
            var limit = GoText.ParseDuration(parsed.GetValue(waitDuration)!)
                ?? throw new CliException($"--wait-duration {parsed.GetValue(waitDuration)}: must be a duration such as 30s or 2m");
            var asked = parsed.GetValue(workers) is >= 1 and <= 100 and var number ? number
                : throw new CliException($"--worker-count {parsed.GetValue(workers)}: must be 1 to 100");
            bool IsWell(InstallationReport report) => report.ErrorCount == 0 && report.Uncollected.Count == 0
                && (report.WarningCount == 0 || parsed.GetValue(ignoreWarnings));
            var clock = Stopwatch.StartNew();
            var told = -TellEvery;
            var report = await InstalledMesh.CollectAsync(cluster, asked, cancel);
            while (parsed.GetValue(wait) && !IsWell(report) && clock.Elapsed < limit)
            {
                if (clock.Elapsed - told >= TellEvery)
                {
                    await error.WriteLineAsync($"⌛ Waiting ({GoText.Duration(clock.Elapsed)}): {report.WhatIsWrong}");
                    told = clock.Elapsed;
                }
                await Task.Delay(Pause, cancel);
                report = await InstalledMesh.CollectAsync(cluster, asked, cancel);
            }
            output.Write(options.IsStructured(parsed) ? options.Form(parsed, report.ToJson()) : InstallationText.Format(report));
            if (parsed.GetValue(wait) && !IsWell(report))
                throw new CliException($"timeout while waiting for status to become successful: {report.WhatIsWrong}");
            if (report.Uncollected.Count > 0)
                throw new CliException($"status check failed: [{string.Join(", ", report.Uncollected)}]");
            return 0;
        });
        return command;
    }

    private static async Task<int> AgentAsync(ContextOptions options, ParseResult parsed, bool allClusters, bool brief, TimeSpan patience, TextWriter output,
        CancellationToken cancel)
    {
        using var agent = options.Node(parsed).Connect(patience);
        var body = await agent.GetBytesAsync("healthz", cancel);
        var status = JsonSerializer.Deserialize(body, AgentApiJson.Wire.StatusResponse)
            ?? throw new CliException("the agent answered null: is it another program?");
        if (options.IsStructured(parsed))
            output.Write(options.Form(parsed, body));
        else if (brief)
            output.WriteLine(StatusText.Brief(status));
        else
            output.Write(StatusText.Format(status, allClusters, DateTimeOffset.UtcNow));
        // These two are what other tools run this for: to them a code means that the agent itself is not well.
        return options.IsStructured(parsed) || brief ? StatusText.IsHealthy(status) ? 0 : 1 : StatusText.ExitCode(status);
    }
}
