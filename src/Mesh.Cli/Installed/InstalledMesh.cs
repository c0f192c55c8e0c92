using System.Text.Json;
using System.Text.Json.Nodes;
using Mesh.AgentApi;
using Mesh.Cli.ClusterMesh;
using Mesh.Cli.Kube;
using Mesh.Install.Applying;
using Mesh.Install.Releases;
using Mesh.Kubernetes.Api;

namespace Mesh.Cli.Installed;

/// <summary>
/// `mesh status` of a Kubernetes cluster: the workloads, their pods, and what each agent says of itself when asked in its pod. Whatever
/// cannot be found out is named in the report and hides nothing else.
/// </summary>
internal static class InstalledMesh
{
    public const string Agent = "cilium";
    public const string Operator = "cilium-operator";
    public const string Envoy = "cilium-envoy";
    public const string Relay = "hubble-relay";
    public const string ApiServer = "clustermesh-apiserver";

    /// <summary>Agents that are asked at once.</summary>
    public const int DefaultWorkers = 5;

    private static readonly (string Name, KubeResource<JsonObject> Resource, string Labels)[] Workloads =
    [
        (Agent, KubeResources.DaemonSets.Raw, "k8s-app=cilium"),
        (Envoy, KubeResources.DaemonSets.Raw, "name=cilium-envoy"),
        (Operator, KubeResources.Deployments.Raw, "io.cilium/app=operator"),
        (Relay, KubeResources.Deployments.Raw, "k8s-app=hubble-relay"),
        ("hubble-ui", KubeResources.Deployments.Raw, "k8s-app=hubble-ui"),
        (ApiServer, KubeResources.Deployments.Raw, "k8s-app=clustermesh-apiserver"),
    ];

    /// <param name="workers">Agents that are asked at once; 1 at least.</param>
    public static async Task<InstallationReport> CollectAsync(KubeCluster cluster, int workers, CancellationToken cancel)
    {
        var report = new InstallationReport();
        foreach (var (name, resource, labels) in Workloads)
            await TryAsync(report, name, () => WorkloadAsync(cluster, report, name, resource, labels, cancel));
        await TryAsync(report, "pods of all namespaces", async () => report = report with { Pods = await CountAsync(cluster, cancel) });
        await TryAsync(report, "release", async () =>
            report.ChartVersion = (await new ReleaseStore(cluster.Client, cluster.Namespace, "cilium").NewestAsync(cancel))?.ChartVersion ?? "");
        await TryAsync(report, "cilium-config", () => ConfigurationAsync(cluster, report, cancel));
        await AgentsAsync(cluster, report, workers, cancel);
        return report;
    }

    private static async Task TryAsync(InstallationReport report, string what, Func<Task> collect)
    {
        try
        {
            await collect();
        }
        catch (Exception e) when (e is KubeApiException or Install.InstallException)
        {
            report.Uncollected.Add($"unable to retrieve {what}: {e.Message}");
        }
    }

    private static async Task WorkloadAsync(KubeCluster cluster, InstallationReport report, string name, KubeResource<JsonObject> resource, string labels,
        CancellationToken cancel)
    {
        var workload = await cluster.Client.FindAsync(resource, cluster.Namespace, name, cancel);
        if (workload is null)
        {
            // Every other one is somebody's choice.
            if (name == Agent)
                report.Of(name, name).Errors.Add($"daemonset {cluster.Namespace}/{name} not found: is the mesh installed, and in this namespace (-n)?");
            else
                report.Of(name, name).Disabled = true;
            return;
        }
        var daemons = resource.Kind == "DaemonSet";
        long Status(string ofDaemonSet, string ofDeployment) => workload.Number("status", daemons ? ofDaemonSet : ofDeployment);
        var state = new WorkloadState(resource.Kind, Status("desiredNumberScheduled", "replicas"), Status("numberReady", "readyReplicas"),
            Status("numberAvailable", "availableReplicas"), Status("numberUnavailable", "unavailableReplicas"));
        var updated = Status("updatedNumberScheduled", "updatedReplicas");
        report.Workloads[name] = state;
        var complaints = report.Of(name, name);
        if (workload.Number("status", "observedGeneration") < workload.Number("metadata", "generation"))
            complaints.Warnings.Add($"{name} is updated but rollout has not started");
        if (state.Ready < state.Desired)
            complaints.Errors.Add($"{state.Desired - state.Ready} pods of {resource.Kind} {name} are not ready");
        else if (state.Available < state.Desired)
            complaints.Warnings.Add($"{state.Desired - state.Available} pods of {resource.Kind} {name} are not available");
        if (updated < state.Desired)
            complaints.Warnings.Add($"{name} is rolling out - {updated} out of {state.Desired} pods updated");

        var pods = await cluster.Client.ListAsync(KubeResources.Pods.Raw, cluster.Namespace, cancel, new KubeSelection { LabelSelector = labels });
        var (phases, images) = (report.Phases[name] = new(StringComparer.Ordinal), report.Images[name] = new(StringComparer.Ordinal));
        foreach (var pod in pods)
        {
            Count(phases, pod.Text("status", "phase") ?? "Unknown");
            foreach (var container in pod.Items("spec", "containers"))
                Count(images, container.Text("image") ?? "");
            if (PodTrouble.Of(pod, await EventsAsync(cluster, pod, cancel)) is { } trouble)
                report.Of(name, pod.Name()).Errors.Add($"{(trouble.Container.Length > 0 ? $"container {trouble.Container}: " : "")}{trouble.State}"
                    + (trouble.Cause.Length > 0 ? $": {trouble.Cause}" : $" (try 'kubectl -n {cluster.Namespace} describe pod {pod.Name()}')"));
        }
    }

    private static async Task<IReadOnlyList<JsonObject>> EventsAsync(KubeCluster cluster, JsonObject pod, CancellationToken cancel) =>
        await cluster.Client.ListAsync(KubeResources.Events.Raw, cluster.Namespace, cancel,
            new KubeSelection { FieldSelector = $"involvedObject.name={pod.Name()}" });

    private static void Count(SortedDictionary<string, int> counts, string key) => counts[key] = counts.GetValueOrDefault(key) + 1;

    private static async Task<PodCount> CountAsync(KubeCluster cluster, CancellationToken cancel)
    {
        var pods = await cluster.Client.ListAsync(KubeResources.Pods.Raw, null, cancel);
        var ours = pods.Where(pod => pod.Text("spec", "hostNetwork") != "true" && pod.Text("status", "phase") is "Running" or "Pending")
            .Select(pod => (pod.Text("metadata", "namespace"), pod.Name())).ToHashSet();
        IReadOnlyList<JsonObject> endpoints = [];
        try
        {
            endpoints = await cluster.Client.ListAsync(KubeResources.CiliumEndpoints.Raw, null, cancel);
        }
        catch (KubeApiException e) when (e.Fault == KubeFault.NotFound)
        {
            // Not defined: nobody has taken up any.
        }
        return new PodCount(ours.Count, endpoints.Count(one => ours.Contains((one.Text("metadata", "namespace"), one.Name()))));
    }

    private static async Task ConfigurationAsync(KubeCluster cluster, InstallationReport report, CancellationToken cancel)
    {
        var map = await cluster.Client.FindAsync(KubeResources.ConfigMaps.Raw, cluster.Namespace, "cilium-config", cancel);
        report.Configuration.AddRange((map.At("metadata", "annotations") as JsonObject ?? [])
            .Where(pair => pair.Key.StartsWith("config.cilium.io", StringComparison.Ordinal)).Select(pair => $"{pair.Value}"));
    }

    private static async Task AgentsAsync(KubeCluster cluster, InstallationReport report, int workers, CancellationToken cancel)
    {
        var names = new List<string>();
        await TryAsync(report, "agents", async () => names.AddRange(
            (await cluster.Client.ListAsync(KubeResources.Pods.Raw, cluster.Namespace, cancel, new KubeSelection { LabelSelector = "k8s-app=cilium" }))
                .Where(pod => pod.Text("status", "phase") == "Running").Select(pod => pod.Name())));
        var answers = new List<(string Pod, NodeAnswer Status, IReadOnlyList<Endpoint>? Endpoints, string? Failure)>();
        await Parallel.ForEachAsync(names, new ParallelOptions { MaxDegreeOfParallelism = workers, CancellationToken = cancel }, async (pod, stop) =>
        {
            // Side by side: an agent that does not answer costs its time once.
            var (asking, listing) = (KubeClusterMesh.AgentAsync(cluster, pod, stop), EndpointsAsync(cluster, pod, stop));
            await Task.WhenAll(asking, listing);
            var status = await asking;
            var (endpoints, failure) = await listing;
            lock (answers)
                answers.Add((pod, status, endpoints, failure));
        });
        foreach (var (pod, status, endpoints, failure) in answers.OrderBy(answer => answer.Pod, StringComparer.Ordinal))
        {
            if (status.Status is { } said)
            {
                report.Agents[pod] = said;
                Judge(report.Of(Agent, pod), said);
            }
            else
            {
                report.Of(Agent, pod).Errors.Add($"unable to retrieve cilium status: {status.Failure}");
            }
            if (endpoints is not null)
            {
                report.Endpoints[pod] = endpoints;
                var unready = endpoints.Count(endpoint => endpoint.Status?.State != "ready");
                if (unready > 0)
                    report.Of(Agent, pod).Warnings.Add($"{unready} endpoints are not ready");
            }
            else if (status.Status is not null)
            {
                report.Of(Agent, pod).Errors.Add($"unable to retrieve cilium endpoint information: {failure}");
            }
        }
    }

    private static async Task<(IReadOnlyList<Endpoint>?, string?)> EndpointsAsync(KubeCluster cluster, string pod, CancellationToken cancel)
    {
        var (text, failure) = await KubeClusterMesh.ExecAsync(cluster, pod, "cilium-agent", ["cilium", "endpoint", "list", "-o", "json"], cancel,
            KubeClusterMesh.Patience);
        if (failure is not null)
            return (null, failure);
        try
        {
            return (JsonSerializer.Deserialize(text, AgentApiJson.Wire.IReadOnlyListEndpoint) ?? [], null);
        }
        catch (JsonException e)
        {
            return (null, $"the answer is no list of endpoints: {e.Message}");
        }
    }

    /// <summary>What Cilium's own tool makes of an agent's answer, and then the faults that ours tells besides: a peer that is cut off, a
    /// tunnel that carries nothing. A status that is green while traffic is not is of no use.</summary>
    private static void Judge(Complaints complaints, StatusResponse status)
    {
        Subsystem(complaints, "Cilium", status.Cilium);
        Subsystem(complaints, "Hubble", status.Hubble);
        Subsystem(complaints, "KVstore", status.Kvstore);
        foreach (var fault in status.Mesh?.Faults ?? [])
            complaints.Warnings.Add($"Mesh: {(fault.Peer is { Length: > 0 } peer ? $"{peer}: " : "")}{fault.Class}: {fault.Cause}");
    }

    private static void Subsystem(Complaints complaints, string name, Status? status)
    {
        var list = status?.State.ToUpperInvariant() switch
        {
            "WARNING" => complaints.Warnings,
            "FAILURE" => complaints.Errors,
            _ => null,
        };
        list?.Add($"{name}: {status!.Msg}");
    }
}
