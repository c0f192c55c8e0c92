using System.Diagnostics;
using System.Text.Json.Nodes;
using Mesh.Lab.Plan;

namespace Mesh.Cli.Reachability;

/// <summary>A cluster of a lab: its pods stand already, and commands run in them by `mesh lab exec`.</summary>
internal sealed class LabStage(LabPlan plan, ClusterPlan cluster) : IStage
{
    private const int ServicePort = 80;

    /// <summary>Names of all tests here.</summary>
    public static readonly IReadOnlyList<string> Names = ["no-policies"];

    public string Name => $"{plan.Name}/{cluster.Name}";

    /// <param name="peers">The other clusters that are to be reached.</param>
    public IReadOnlyList<ConnectivityTest> Build(IReadOnlyList<ClusterPlan> peers)
    {
        var own = cluster.Nodes.SelectMany(node => node.Pods.Select(pod => Of(cluster, node, pod))).ToList();
        // One client on each of two nodes sees both ways through the tunnel.
        var clients = cluster.Nodes.Take(2).SelectMany(node => node.Pods.Take(1).Select(pod => Of(cluster, node, pod))).ToList();
        var remote = peers.SelectMany(peer => peer.Nodes.SelectMany(node => node.Pods.Take(1).Select(pod => Of(peer, node, pod)))).ToList();
        var backends = own.Concat(plan.Clusters.Where(one => one != cluster).SelectMany(peer => peer.Nodes.SelectMany(node =>
            node.Pods.Select(pod => Of(peer, node, pod))))).Select(pod => pod.Role).ToList();
        return
        [
            new ConnectivityTest("no-policies",
            [
                Between("pod-to-pod", clients, own),
                Between("pod-to-remote-pod", clients, remote) with { SkipReason = remote.Count > 0 ? null : "the cluster has no peers" },
                new Scenario("pod-to-service", [.. clients.SelectMany((client, number) => Actions.ToAddresses(number, client,
                    "global service rebel-base", [cluster.ServiceIPv4, cluster.ServiceIPv6], ServicePort, Expectation.Answer(backends)))]),
            ], []),
        ];
    }

    public async Task<CommandOutcome> RunAsync(Workload from, IReadOnlyList<string> command, CancellationToken cancel)
    {
        var program = Environment.ProcessPath ?? throw new CliException("this program does not know where it is: run `mesh` by its path");
        var start = new ProcessStartInfo(program) { RedirectStandardOutput = true, RedirectStandardError = true, RedirectStandardInput = true };
        foreach (var word in (string[])["lab", "exec", "--name", plan.Name, from.Name, "--", .. command])
            start.ArgumentList.Add(word);
        using var process = Process.Start(start) ?? throw new CliException($"{program} could not be started");
        process.StandardInput.Close();
        var (output, errors) = (process.StandardOutput.ReadToEndAsync(cancel), process.StandardError.ReadToEndAsync(cancel));
        try
        {
            await process.WaitForExitAsync(cancel);
            return new CommandOutcome(process.ExitCode, await output, await errors);
        }
        finally
        {
            if (!process.HasExited)
                process.Kill(entireProcessTree: true);
        }
    }

    public Task ApplyAsync(IReadOnlyList<JsonObject> policies, CancellationToken cancel) =>
        throw new CliException("tests with policies need a cluster on Kubernetes");

    public Task WithdrawAsync(IReadOnlyList<JsonObject> policies, CancellationToken cancel) => Task.CompletedTask;

    /// <summary>The logs of all processes; status and maps, as `mesh` tells them.</summary>
    public async Task CollectAsync(string directory, CancellationToken cancel)
    {
        Directory.CreateDirectory(directory);
        foreach (var process in LabInfo.Of(plan).Processes.Where(process => File.Exists(process.Log)))
            File.Copy(process.Log, Path.Combine(directory, Path.GetFileName(process.Log)), overwrite: true);
        foreach (var node in cluster.Nodes)
        {
            foreach (var (file, words) in new[]
            {
                ("status.txt", new[] { "status" }), ("bpf-lb-list.txt", ["bpf", "lb", "list"]), ("endpoint-list.txt", ["endpoint", "list"]),
            })
            {
                var text = new StringWriter();
                await MeshCommand.RunAsync([.. words, "--context", $"{Name}/{node.Name}"], text, text);
                await File.WriteAllTextAsync(Path.Combine(directory, $"{node.Name}.{file}"), text.ToString(), cancel);
            }
        }
    }

    /// <summary>Its echo server calls itself by its place.</summary>
    private static Workload Of(ClusterPlan cluster, NodePlan node, PodPlan pod)
    {
        var place = $"{cluster.Name}/{node.Name}/{pod.Name}";
        return new Workload(place, place, cluster.Name, [pod.IPv4, pod.IPv6]);
    }

    private static Scenario Between(string name, IReadOnlyList<Workload> sources, IReadOnlyList<Workload> targets) =>
        new(name, [.. (from source in sources from target in targets where source.Name != target.Name select (source, target))
            .SelectMany((pair, number) => Actions.ToPod(number, pair.source, pair.target))]);
}
