using System.Text.Json;
using System.Text.Json.Nodes;
using Mesh.AgentApi;
using Mesh.Cli.ClusterMesh;
using Mesh.Kubernetes.Api;

namespace Mesh.Cli.Kube;

/// <summary>
/// `clustermesh status` of a Kubernetes cluster, asked as Cilium's CLI asks it: Service, Secrets and Deployment, then `cilium status -o json` in every
/// agent's pod and the relay's own status in every pod of the API server. A pod that cannot be asked is named; the others are still shown.
/// </summary>
internal static class KubeClusterMesh
{
    private const string Deployment = "clustermesh-apiserver";

    /// <summary>Longer than what is run in the pod waits for its agent, so that its own word of that arrives.</summary>
    internal static readonly TimeSpan Patience = TimeSpan.FromSeconds(8);

    /// <exception cref="CliException">Nothing is installed, or the mesh is not enabled.</exception>
    public static async Task<ClusterMeshReport> CollectAsync(KubeCluster cluster, CancellationToken cancel)
    {
        var access = await AccessPoint.ReadAsync(cluster, cancel);
        var head = new List<string>();
        if (access.Type == "NodePort")
            head.Add("⚠️  Service type NodePort detected! Service may fail when nodes are removed from the cluster!");
        if (access.ClusterId == "0" || access.ClusterName == "default")
            head.Add("⚠️  Cluster not configured for clustermesh, use '--set cluster.id' and '--set cluster.name' with 'cilium install'.");
        head.Add($"✅ Service \"{Deployment}\" of type \"{access.Type}\" found");
        head.Add("✅ Cluster access information is available:");
        head.AddRange(access.Addresses.Select(address => $"  - {address}:{access.Port}"));
        var deployment = await cluster.Client.FindAsync(KubeResources.Deployments.Raw, cluster.Namespace, Deployment, cancel);
        var notReady = NotReady(deployment);
        head.Add(notReady is null ? $"✅ Deployment {Deployment} is ready" : $"❌ deployment {Deployment} is not ready: {notReady}");
        var relayed = deployment.Items("spec", "template", "spec", "containers").Any(container => container.Text("name") == "kvstoremesh");

        var unknown = new SortedDictionary<string, string>(StringComparer.Ordinal);
        var agents = await PodsAsync(cluster, "k8s-app=cilium", cancel);
        var answers = await Task.WhenAll(agents.Select(pod => AgentAsync(cluster, pod, cancel)));
        foreach (var answer in answers.Where(answer => answer.Failure is not null))
            unknown[$"pod \"{answer.Node}\""] = answer.Failure!;
        Connectivity? relay = null;
        if (relayed)
        {
            var servers = await PodsAsync(cluster, $"k8s-app={Deployment}", cancel);
            var relays = await Task.WhenAll(servers.Select(pod => RelayAsync(cluster, pod, cancel)));
            foreach (var answer in relays.Where(answer => answer.Failure is not null))
                unknown[$"KVStoreMesh of pod \"{answer.Node}\""] = answer.Failure!;
            relay = ClusterMeshEvaluation.Evaluate(relays, await ExpectedAsync(cluster, "cilium-kvstoremesh", access.ClusterName, cancel), null,
                DateTimeOffset.UtcNow);
        }
        return new ClusterMeshReport
        {
            Head = head,
            AccessInformation = new AccessInformation
            {
                ServiceType = access.Type,
                ServiceIPs = access.Addresses,
                ServicePort = access.Port,
                ClusterId = access.ClusterId,
                ClusterName = access.ClusterName,
                Ca = access.Authority is { } pem ? Convert.ToBase64String(System.Text.Encoding.UTF8.GetBytes(pem)) : null,
                Tunnel = access.Tunnel,
                MaxConnectedClusters = access.MaxConnectedClusters,
            },
            ApiServerNotReady = notReady,
            KvstoreMesh = new KvstoreMesh { Enabled = relayed, Status = relay },
            Connectivity = ClusterMeshEvaluation.Evaluate(answers,
                await ExpectedAsync(cluster, "cilium-clustermesh", access.ClusterName, cancel), null, DateTimeOffset.UtcNow, relayed),
            Unknown = unknown.Count > 0 ? unknown : null,
        };
    }

    /// <summary>Names of pods, in order.</summary>
    internal static async Task<IReadOnlyList<string>> PodsAsync(KubeCluster cluster, string labels, CancellationToken cancel) =>
        [.. (await cluster.Client.ListAsync(KubeResources.Pods.Raw, cluster.Namespace, cancel, new KubeSelection { LabelSelector = labels }))
            .Select(pod => pod.Name()).Order(StringComparer.Ordinal)];

    /// <summary>What an agent says of itself, asked in its pod.</summary>
    internal static async Task<NodeAnswer> AgentAsync(KubeCluster cluster, string pod, CancellationToken cancel)
    {
        var (text, failure) = await ExecAsync(cluster, pod, "cilium-agent", ["cilium", "status", "-o", "json"], cancel, Patience);
        return failure is not null ? new NodeAnswer(pod, null, failure)
            : Decode(pod, () => JsonSerializer.Deserialize(text, AgentApiJson.Wire.StatusResponse));
    }

    /// <summary>The nodes of all clusters as an agent has them, asked in its pod; null when it does not say.</summary>
    internal static async Task<IReadOnlyList<NodeElement>?> NodesAsync(KubeCluster cluster, string pod, CancellationToken cancel)
    {
        var (text, failure) = await ExecAsync(cluster, pod, "cilium-agent", ["cilium", "node", "list", "-o", "json"], cancel, Patience);
        try
        {
            return failure is not null ? null : JsonSerializer.Deserialize(text, AgentApiJson.Wire.IReadOnlyListNodeElement);
        }
        catch (JsonException)
        {
            return null;
        }
    }

    /// <summary>What a relay says of its peers, asked in its pod.</summary>
    internal static async Task<NodeAnswer> RelayAsync(KubeCluster cluster, string pod, CancellationToken cancel)
    {
        var (text, failure) = await ExecAsync(cluster, pod, "kvstoremesh",
            ["/usr/bin/clustermesh-apiserver", "kvstoremesh-dbg", "status", "-o", "json"], cancel, Patience);
        return failure is not null ? new NodeAnswer(pod, null, failure)
            : Decode(pod, () => new StatusResponse
            {
                ClusterMesh = new ClusterMeshStatus { Clusters = JsonSerializer.Deserialize(text, AgentApiJson.Wire.IReadOnlyListRemoteCluster) ?? [] },
            });
    }

    private static NodeAnswer Decode(string pod, Func<StatusResponse?> read)
    {
        try
        {
            return read() is { } status ? new NodeAnswer(pod, status, null) : new NodeAnswer(pod, null, "the answer was null");
        }
        catch (JsonException e)
        {
            return new NodeAnswer(pod, null, $"the answer is no status: {e.Message}");
        }
    }

    /// <summary>Output, or why there is none. Anything on stderr counts as failure where nothing was said on stdout.</summary>
    /// <param name="patience">How long it may take; null = for ever. A process that is stopped never answers.</param>
    internal static async Task<(string Output, string? Failure)> ExecAsync(KubeCluster cluster, string pod, string container, IReadOnlyList<string> words,
        CancellationToken cancel, TimeSpan? patience = null)
    {
        using var deadline = CancellationTokenSource.CreateLinkedTokenSource(cancel);
        deadline.CancelAfter(patience ?? Timeout.InfiniteTimeSpan);
        try
        {
            var result = await cluster.Client.ExecAsync(cluster.Namespace, pod, container, words, deadline.Token);
            return result.Output.Length > 0 ? (result.Output, null)
                : ("", $"command failed (pod={cluster.Namespace}/{pod}, container={container}): \"{result.Errors.Trim()}\"");
        }
        catch (KubeApiException e)
        {
            return ("", e.Message);
        }
        catch (OperationCanceledException) when (!cancel.IsCancellationRequested)
        {
            return ("", $"no answer within {patience!.Value.TotalSeconds:0.#} s (pod={cluster.Namespace}/{pod}, container={container}): is it stopped, "
                + "or overloaded?");
        }
    }

    /// <summary>Peers that are configured: entries of a Secret that hold endpoints.</summary>
    internal static async Task<IReadOnlyList<string>> ExpectedAsync(KubeCluster cluster, string secret, string own, CancellationToken cancel)
    {
        var found = await cluster.Client.FindAsync(KubeResources.Secrets.Raw, cluster.Namespace, secret, cancel);
        return [.. (found.At("data") as JsonObject ?? []).Select(entry => entry.Key)
            .Where(key => key != own && found.Secret(key)?.Contains("endpoints:", StringComparison.Ordinal) == true)];
    }

    private static string? NotReady(JsonObject? deployment)
    {
        if (deployment is null)
            return "there is none";
        var (generation, observed) = (deployment.Number("metadata", "generation"), deployment.Number("status", "observedGeneration"));
        if (observed < generation)
            return $"observed generation ({observed}) is older than generation of the desired state ({generation})";
        var replicas = deployment.Number("status", "replicas");
        if (replicas == 0)
            return "replicas count is zero";
        foreach (var (field, word) in new[] { ("availableReplicas", "available"), ("readyReplicas", "ready"), ("updatedReplicas", "up-to-date") })
        {
            var count = deployment.Number("status", field);
            if (count < replicas)
                return $"only {count} of {replicas} replicas are {word}";
        }
        return null;
    }
}
