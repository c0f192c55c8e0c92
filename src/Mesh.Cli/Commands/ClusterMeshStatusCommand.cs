using System.CommandLine;
using System.Diagnostics;
using Mesh.AgentApi;
using Mesh.Cli.ClusterMesh;
using Mesh.Cli.Contexts;
using Mesh.Cli.Kube;
using Mesh.Cli.Text;
using Mesh.Lab;

namespace Mesh.Cli.Commands;

/// <summary>`mesh clustermesh status`: asks every agent of a cluster, and its API server, and says what they say.</summary>
internal static class ClusterMeshStatusCommand
{
    private static readonly TimeSpan AgentTimeout = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan RetryPause = TimeSpan.FromMilliseconds(500);
    private static readonly TimeSpan TellEvery = TimeSpan.FromSeconds(10);

    public static Command Build(TextWriter output, TextWriter error)
    {
        var options = new ContextOptions();
        var format = new Option<string>("--output", "-o") { Description = "summary or json", DefaultValueFactory = _ => "summary" };
        format.AcceptOnlyFromAmong("summary", "json");
        var wait = new Option<bool>("--wait") { Description = "Until every node is connected to every cluster" };
        var waitDuration = new Option<string>("--wait-duration") { Description = "How long at most", DefaultValueFactory = _ => "15m0s" };
        var verbose = new Option<bool>("--verbose") { Description = "Also the evidence: how old the newest proof of each resource is" };
        var command = new Command("status", "Whether every node of a cluster is connected to every other cluster. "
            + "Exit code: 0 all is proved to be well, 1 not everything could be asked, 2 a cluster is not connected or not proved, 3 degraded.")
        {
            options.Context, format, wait, waitDuration, verbose,
        };
        var kubernetes = new KubeTarget();
        kubernetes.AddTo(command);
        command.SetAction(async (parsed, cancel) =>
        {
            var limit = GoText.ParseDuration(parsed.GetValue(waitDuration)!)
                ?? throw new CliException($"--wait-duration {parsed.GetValue(waitDuration)}: must be a duration such as 30s or 2m");
            var json = parsed.GetValue(format) == "json";
            using var cluster = kubernetes.Find(parsed, parsed.GetValue(options.Context));
            var context = cluster is null ? Context.Find(parsed.GetValue(options.Context)) : null;
            Task<ClusterMeshReport> LookAsync() => cluster is not null ? KubeClusterMesh.CollectAsync(cluster, cancel) : CollectAsync(context!, cancel);
            var clock = Stopwatch.StartNew();
            var told = TimeSpan.MinValue;
            var report = await LookAsync();
            while (parsed.GetValue(wait) && !report.IsConnected && clock.Elapsed < limit)
            {
                if (told == TimeSpan.MinValue || clock.Elapsed - told > TellEvery)
                {
                    // Only the report goes to stdout when it is JSON.
                    await (json ? error : output).WriteLineAsync(
                        $"⌛ Waiting ({GoText.Duration(clock.Elapsed)}) for clusters to be connected: {report.WhatIsMissing}");
                    told = clock.Elapsed;
                }
                await Task.Delay(RetryPause, cancel);
                report = await LookAsync();
            }
            output.Write(json ? report.ToJson() + "\n" : ClusterMeshText.Format(report, parsed.GetValue(verbose)));
            if (parsed.GetValue(wait) && !report.IsConnected)
                throw new CliException($"timeout while waiting for condition, last error: {report.WhatIsMissing}");
            return report.ExitCode;
        });
        return command;
    }

    /// <summary>Never throws for what could not be found out: that is part of the report.</summary>
    public static async Task<ClusterMeshReport> CollectAsync(Context context, CancellationToken cancel)
    {
        var answers = await Task.WhenAll(context.Nodes.Select(node => AskAsync(node, cancel)));
        var unknown = new SortedDictionary<string, string>(StringComparer.Ordinal);
        foreach (var answer in answers.Where(a => a.Failure is not null))
            unknown[$"node \"{answer.Node}\""] = answer.Failure!;
        var expected = context.Cluster is { } cluster ? Expected(cluster.ClusterMeshConfig, cluster.Name) : [];
        var apiServer = context.Cluster is null ? null : await LabReady.ControlPlaneAsync(context.Cluster, cancel);
        var relayed = context.Cluster?.RelayConfig is not null;
        var relay = relayed ? await RelayAsync(context, unknown, cancel) : null;
        // What is said of a relayed peer stands at that peer already.
        var complaints = context.Cluster is null ? [] : (await LabReady.ProblemsAsync(context.Cluster, cancel))
            .Where(line => !(relay?.Clusters.Keys ?? Enumerable.Empty<string>()).Any(peer => line.StartsWith($"relay: {peer}: ", StringComparison.Ordinal)))
            .ToList();
        return new ClusterMeshReport
        {
            KvstoreMesh = new KvstoreMesh { Enabled = relayed, Status = relay },
            ApiServerProblems = complaints.Count > 0 ? complaints : null,
            AccessInformation = context.Cluster is null ? null : Access(context.Cluster),
            ApiServerNotReady = apiServer,
            Connectivity = ClusterMeshEvaluation.Evaluate(
                answers, expected, $"mesh status --context {context.Name}", DateTimeOffset.UtcNow, relayed),
            Unknown = unknown.Count > 0 ? unknown : null,
            Evidence = PerNode(answers, mesh => mesh.Peers),
            Faults = PerNode(answers, mesh => mesh.Faults),
        };
    }

    /// <summary>The relay's connections in the shape of a node's; null when it does not answer, which is noted.</summary>
    private static async Task<Connectivity?> RelayAsync(Context context, SortedDictionary<string, string> unknown, CancellationToken cancel)
    {
        try
        {
            var rows = await LabReady.RelayAsync(context.Cluster!, cancel);
            var status = new StatusResponse { ClusterMesh = new ClusterMeshStatus { Clusters = rows } };
            return ClusterMeshEvaluation.Evaluate([new NodeAnswer("clustermesh-apiserver", status, null)],
                Expected(context.Cluster!.RelayConfig!, context.Cluster.Name), null, DateTimeOffset.UtcNow);
        }
        catch (LabException e)
        {
            unknown["KVStoreMesh"] = e.Message;
            return null;
        }
    }

    private static SortedDictionary<string, IReadOnlyList<T>>? PerNode<T>(
        IEnumerable<NodeAnswer> answers, Func<MeshStatus, IReadOnlyList<T>?> part)
    {
        var all = new SortedDictionary<string, IReadOnlyList<T>>(StringComparer.Ordinal);
        foreach (var answer in answers)
        {
            if (answer.Status?.Mesh is { } mesh && part(mesh) is { Count: > 0 } items)
                all[answer.Node] = items;
        }
        return all.Count > 0 ? all : null;
    }

    private static async Task<NodeAnswer> AskAsync(ContextNode node, CancellationToken cancel)
    {
        var name = node.Name.Length > 0 ? node.Name : "this node";
        using var agent = node.Connect(AgentTimeout);
        try
        {
            return new NodeAnswer(name, await agent.GetStatusAsync(cancel), null);
        }
        catch (AgentException e)
        {
            return new NodeAnswer(name, null, e.Message);
        }
    }

    /// <summary>Peers that are configured: files that hold endpoints.</summary>
    private static List<string> Expected(string directory, string own)
    {
        if (!Directory.Exists(directory))
            return [];
        return [.. Directory.EnumerateFiles(directory)
            .Where(f => Path.GetFileName(f) is { } name && name != own && name[0] != '.'
                && File.ReadAllText(f).Contains("endpoints:", StringComparison.Ordinal))
            .Select(f => Path.GetFileName(f)!)];
    }

    private static AccessInformation Access(Mesh.Lab.Plan.ClusterPlan cluster)
    {
        var endpoint = new Uri(cluster.Etcd.Endpoint);
        return new AccessInformation
        {
            ServiceIPs = [endpoint.Host],
            ServicePort = endpoint.Port,
            ClusterId = $"{cluster.Id}",
            ClusterName = cluster.Name,
            Ca = File.Exists(cluster.Etcd.CaFile) ? Convert.ToBase64String(File.ReadAllBytes(cluster.Etcd.CaFile)) : null,
            Tunnel = "vxlan",
            MaxConnectedClusters = 255,
        };
    }
}
