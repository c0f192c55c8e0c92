using System.CommandLine;
using System.Globalization;
using Mesh.Cli.Contexts;
using Mesh.Cli.Kube;
using Mesh.Cli.Reachability;
using Mesh.Cli.Text;
using Mesh.Kubernetes.Api;
using Mesh.Lab;

namespace Mesh.Cli.Commands.Reachability;

/// <summary>`mesh connectivity test`: pods that ask each other, in one cluster or across two, with and without policies. Exit code 0 when every
/// action came out as it must, 1 otherwise.</summary>
internal static class ConnectivityCommand
{
    /// <summary>For taking everything away, also after an interruption.</summary>
    private static readonly TimeSpan RemoveWithin = TimeSpan.FromMinutes(3);

    public static Command Build(TextWriter output) => new("connectivity", "Whether pods reach each other as they should.") { BuildTest(output) };

    private static Command BuildTest(TextWriter output)
    {
        var target = new KubeTarget();
        var context = new Option<string?>("--context") { Description = "Context of the kubeconfig, or a cluster of a lab: where the clients stand" };
        var multi = new Option<string?>("--multi-cluster") { Description = "Context of the cluster where echo-other-node stands" };
        var ns = new Option<string>("--test-namespace") { Description = "Made, and removed afterwards", DefaultValueFactory = _ => "cilium-test-1" };
        var tests = new Option<string[]>("--test") { Description = "Name of a test; may be repeated. Default: all", DefaultValueFactory = _ => [] };
        tests.AllowMultipleArgumentsPerToken = true;
        var junit = new Option<string?>("--junit-file") { Description = "Also write the results as JUnit XML" };
        var collect = new Option<string?>("--collect") { Description = "Directory for logs, maps and events of failures; default cilium-connectivity-TIME" };
        var timeout = new Option<string>("--timeout") { Description = "How long any part of the deployment may take", DefaultValueFactory = _ => "5m" };
        var keep = new Option<bool>("--keep") { Description = "Leave namespace and pods where they are" };
        var command = new Command("test", "Deploy pods and services, let them ask each other, with and without policies, and judge the answers.")
        {
            context, multi, ns, tests, junit, collect, timeout, keep,
        };
        target.AddTo(command);
        command.SetAction(async (parsed, cancel) =>
        {
            var within = GoText.ParseDuration(parsed.GetValue(timeout)!)
                ?? throw new CliException($"--timeout {parsed.GetValue(timeout)}: must be a duration such as 90s or 5m");
            var wanted = parsed.GetValue(tests)!;
            var began = TimeProvider.System.GetUtcNow();
            var directory = parsed.GetValue(collect) ?? $"cilium-connectivity-{began.ToString("yyyyMMdd-HHmmss", CultureInfo.InvariantCulture)}";
            if (parsed.GetValue(junit) is { } file && Path.GetDirectoryName(Path.GetFullPath(file)) is { } parent && !Directory.Exists(parent))
                throw new CliException($"--junit-file {file}: there is no directory {parent}");
            using var source = target.Find(parsed, parsed.GetValue(context));
            if (source is null)
                return await LabAsync();
            KubeSuite.Require(wanted);
            using var destination = parsed.GetValue(multi) is { } other
                ? new KubeCluster(new KubeClient(KubeConfiguration.Find(parsed.GetValue(target.Kubeconfig), other),
                    new KubeClientOptions { UserAgent = "mesh" }), source.Namespace)
                : null;
            IReadOnlyList<KubeCluster> clusters = destination is null ? [source] : [source, destination];
            var stage = new KubeStage(clusters, parsed.GetValue(ns)!, output, TimeProvider.System);
            var deployment = new Deployment(stage, clusters, parsed.GetValue(ns)!, output, within);
            try
            {
                return await RunAsync(stage, KubeSuite.Build(await DeployAsync(stage, deployment)), KubeSuite.Names);
            }
            finally
            {
                if (deployment.HasBegun && !parsed.GetValue(keep))
                    await RemoveAsync(deployment, parsed.GetValue(ns)!, output);
            }

            async Task<KubeFacts> DeployAsync(KubeStage place, Deployment made)
            {
                try
                {
                    return await made.DeployAsync(cancel);
                }
                catch (CliException)
                {
                    // Why it does not stand is in the same logs and events.
                    if (made.HasBegun && !cancel.IsCancellationRequested)
                    {
                        await place.CollectAsync(Path.Combine(directory, "deployment"), cancel);
                        output.WriteLine($"📦 [{place.Name}] Logs, maps and events are in {directory}");
                    }
                    throw;
                }
            }

            async Task<int> LabAsync()
            {
                var found = Context.Find(parsed.GetValue(context));
                if (found is not { Lab: { } lab, Cluster: { } cluster })
                    throw new CliException("a connectivity test needs a cluster on Kubernetes (--kubeconfig, --context) or a lab (`mesh lab up`)");
                LabStore.RequireRoot();
                var peers = parsed.GetValue(multi) is { } name ? [LabPlace.FindCluster(lab, name)]
                    : lab.Connected ? lab.Clusters.Where(one => one != cluster).ToList() : [];
                var place = new LabStage(lab, cluster);
                return await RunAsync(place, place.Build(peers), LabStage.Names);
            }

            async Task<int> RunAsync(IStage place, IReadOnlyList<ConnectivityTest> suite, IReadOnlyList<string> names)
            {
                if (wanted.FirstOrDefault(name => !names.Contains(name)) is { } unknown)
                    throw new CliException($"--test {unknown}: not here; there are {string.Join(", ", names)}");
                var chosen = suite.Where(test => wanted.Length == 0 || wanted.Contains(test.Name)).ToList();
                var results = await new SuiteRun(place, output, directory, TimeProvider.System).RunAsync(chosen, cancel);
                if (parsed.GetValue(junit) is { } report)
                    JUnit.Write(report, place.Name, results, began);
                return results.Any(result => result.Failures.Count > 0) ? 1 : 0;
            }
        });
        return command;
    }

    /// <summary>What is left behind is told with the command that takes it away.</summary>
    private static async Task RemoveAsync(Deployment deployment, string ns, TextWriter output)
    {
        using var bound = new CancellationTokenSource(RemoveWithin);
        try
        {
            output.WriteLine($"🧹 [{ns}] Removing the namespace");
            await deployment.RemoveAsync(bound.Token);
        }
        catch (Exception e) when (e is KubeApiException or CliException or OperationCanceledException)
        {
            output.WriteLine($"⚠️  [{ns}] the namespace is not gone: {e.Message}; see `kubectl get all -n {ns}`");
        }
    }
}
