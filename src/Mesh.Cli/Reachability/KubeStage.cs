using System.Text.Json;
using System.Text.Json.Nodes;
using Mesh.AgentApi;
using Mesh.Cli.Kube;
using Mesh.Kubernetes.Api;

namespace Mesh.Cli.Reachability;

/// <summary>
/// One or two clusters on Kubernetes with the test's pods in them. Whether a policy holds is asked of every agent: its revision has gone on, it lists
/// (or lists no more) that very policy, and all its endpoints and policy rows are in the kernel. Nothing is waited for by the clock.
/// </summary>
/// <param name="clusters">The source first; the destination, if any, behind it.</param>
internal sealed class KubeStage(IReadOnlyList<KubeCluster> clusters, string ns, TextWriter output, TimeProvider time) : IStage
{
    private const string AgentLabels = "k8s-app=cilium";
    private static readonly TimeSpan Pause = TimeSpan.FromMilliseconds(300);
    private static readonly TimeSpan PolicyWithin = TimeSpan.FromMinutes(2);

    private readonly Dictionary<string, (KubeCluster Cluster, string Pod)> _places = [];
    private readonly Dictionary<(KubeCluster Cluster, string Agent), long> _revisions = [];

    public string Name => ns;

    /// <summary>Where a workload's container is.</summary>
    public void Place(Workload workload, KubeCluster cluster, string pod) => _places[workload.Name] = (cluster, pod);

    public async Task<CommandOutcome> RunAsync(Workload from, IReadOnlyList<string> command, CancellationToken cancel)
    {
        var (cluster, pod) = _places[from.Name];
        var result = await cluster.Client.ExecAsync(ns, pod, from.Role, command, cancel);
        return new CommandOutcome(result.ExitCode, result.Output, result.Errors);
    }

    public async Task ApplyAsync(IReadOnlyList<JsonObject> policies, CancellationToken cancel)
    {
        await NoteRevisionsAsync(cancel);
        foreach (var cluster in clusters)
        {
            foreach (var policy in policies)
                await cluster.Client.ApplyAsync(ResourceOf(policy), ns, policy.Name(), policy, TestObjects.FieldManager, cancel);
        }
        await UntilHeldAsync(policies, held: true, cancel);
    }

    public async Task WithdrawAsync(IReadOnlyList<JsonObject> policies, CancellationToken cancel)
    {
        await NoteRevisionsAsync(cancel);
        foreach (var cluster in clusters)
        {
            foreach (var policy in policies)
                await cluster.Client.DeleteAsync(ResourceOf(policy), ns, policy.Name(), cancel);
        }
        await UntilHeldAsync(policies, held: false, cancel);
    }

    public Task CollectAsync(string directory, CancellationToken cancel) => Collection.WriteAsync(clusters, ns, directory, cancel);

    /// <summary>Waits until nothing is missing any more.</summary>
    /// <param name="missing">What is missing, in one line; null when nothing is. A transient failure of the API server counts as missing.</param>
    /// <exception cref="CliException">Too late; says what was missing.</exception>
    public async Task UntilAsync(TimeSpan within, Func<CancellationToken, Task<string?>> missing, string? announce, CancellationToken cancel)
    {
        var (began, told) = (time.GetTimestamp(), "");
        while (true)
        {
            string? reason;
            try
            {
                reason = await missing(cancel);
            }
            catch (KubeApiException e) when (e.IsTransient)
            {
                reason = e.Message;
            }
            if (reason is null)
                return;
            if (announce is not null && reason != told)
                output.WriteLine($"⌛ [{ns}] {announce}: {reason}");
            told = reason;
            if (time.GetElapsedTime(began) > within)
                throw new CliException($"{(announce is null ? "" : $"{announce}: ")}not so after {within.TotalSeconds:0} s: {reason}");
            await Task.Delay(Pause, time, cancel);
        }
    }

    /// <summary>The first thing that an agent of any of these clusters finds missing.</summary>
    public static async Task<string?> EachAgentAsync(IEnumerable<KubeCluster> among, Func<KubeCluster, string, Task<string?>> missing,
        CancellationToken cancel)
    {
        foreach (var cluster in among)
        {
            var agents = await KubeClusterMesh.PodsAsync(cluster, AgentLabels, cancel);
            if (agents.Count == 0)
                return $"{cluster.Name}: there is no pod {AgentLabels} in namespace {cluster.Namespace}";
            foreach (var agent in agents)
            {
                if (await missing(cluster, agent) is { } reason)
                    return $"{cluster.Name}/{agent}: {reason}";
            }
        }
        return null;
    }

    /// <summary>What an agent answers; why not, when it does not.</summary>
    public static async Task<(string Output, string? Failure)> AskAsync(KubeCluster cluster, string agent, IReadOnlyList<string> words,
        CancellationToken cancel) => await KubeClusterMesh.ExecAsync(cluster, agent, "cilium-agent", words, cancel);

    private static KubeResource<JsonObject> ResourceOf(JsonObject policy) => (policy.Text("kind") == "NetworkPolicy"
        ? (KubeResource)KubeResources.NetworkPolicies : KubeResources.CiliumNetworkPolicies).Raw;

    private async Task NoteRevisionsAsync(CancellationToken cancel)
    {
        _revisions.Clear();
        await EachAgentAsync(clusters, async (cluster, agent) =>
        {
            var (text, failure) = await AskAsync(cluster, agent, ["cilium", "policy", "get", "-o", "jsonpath='{.revision}'"], cancel);
            // An agent that cannot be asked now begins anew when it comes back.
            _revisions[(cluster, agent)] = failure is null && long.TryParse(text.Trim().Trim('\''), out var revision) ? revision : 0;
            return null;
        }, cancel);
    }

    private async Task UntilHeldAsync(IReadOnlyList<JsonObject> policies, bool held, CancellationToken cancel)
    {
        var names = policies.Select(policy => policy.Name()).ToList();
        await UntilAsync(PolicyWithin, _ => EachAgentAsync(clusters, async (cluster, agent) =>
        {
            var (text, failure) = await AskAsync(cluster, agent, ["cilium", "policy", "get", "-o", "json"], cancel);
            if ((failure ?? PolicyState.NotYet(text, ns, names, held, _revisions.GetValueOrDefault((cluster, agent)))) is { } early)
                return early;
            (text, failure) = await AskAsync(cluster, agent, ["cilium", "endpoint", "list", "-o", "json"], cancel);
            return failure ?? PolicyState.NotRealized(text);
        }, cancel), null, cancel);
    }
}

/// <summary>Reads agents' answers about policies.</summary>
internal static class PolicyState
{
    /// <summary>Null when the agent holds (or holds no more) the policies, by its own list and a revision of its own.</summary>
    /// <param name="before">Its revision before the change.</param>
    public static string? NotYet(string answer, string ns, IReadOnlyList<string> names, bool held, long before)
    {
        try
        {
            var tree = JsonSerializer.Deserialize(answer, AgentApiJson.Wire.PolicyTree) ?? throw new JsonException("null");
            var objects = JsonSerializer.Deserialize(tree.Policy, AgentApiJson.Wire.IReadOnlyListPolicyObjectReport) ?? [];
            foreach (var name in names)
            {
                if (objects.Any(one => one.Namespace == ns && one.Name == name) != held)
                    return held ? $"it does not know policy {ns}/{name} yet" : $"it still holds policy {ns}/{name}";
            }
            // An agent that was started anew counts from 1 again, and its list says the truth.
            return tree.Revision == before ? $"its policies are still of revision {before}" : null;
        }
        catch (JsonException e)
        {
            return $"what it says of its policies cannot be read: {e.Message}";
        }
    }

    /// <summary>Null when every pod of the node has its newest policy in the kernel.</summary>
    public static string? NotRealized(string answer)
    {
        try
        {
            foreach (var endpoint in JsonSerializer.Deserialize(answer, AgentApiJson.Wire.IReadOnlyListEndpoint) ?? [])
            {
                var (who, policy) = (endpoint.Status?.ExternalIdentifiers?.PodName, endpoint.Status?.Policy);
                if (endpoint.Status?.State is "waiting-for-identity")
                    return $"{who} has no identity yet";
                if (policy?.Realized?.PolicyRevision < policy?.Spec?.PolicyRevision)
                    return $"{who} has policies of revision {policy?.Realized?.PolicyRevision} in the kernel, not yet {policy?.Spec?.PolicyRevision}";
            }
            return null;
        }
        catch (JsonException e)
        {
            return $"what it says of its endpoints cannot be read: {e.Message}";
        }
    }
}
