using System.Text.Json;
using System.Text.Json.Nodes;
using Mesh.AgentApi;
using Mesh.Cli.Kube;
using Mesh.Kubernetes.Api;

namespace Mesh.Cli.Reachability;

/// <summary>
/// Puts the test's workloads into the clusters and waits until they stand, are known to every agent and every service leads to them; takes them away
/// again. A namespace that somebody else made is never touched.
/// </summary>
/// <param name="within">For all waiting together with each condition.</param>
internal sealed class Deployment(KubeStage stage, IReadOnlyList<KubeCluster> clusters, string ns, TextWriter output, TimeSpan within)
{
    private sealed record Planned(KubeCluster Cluster, string ClusterName, string Role, string Kind, TestImage Image, TestNode Node);

    /// <summary>Whether there is anything of ours to look at, and to take away.</summary>
    public bool HasBegun { get; private set; }

    /// <exception cref="CliException">Something did not come to stand; says what and why.</exception>
    public async Task<KubeFacts> DeployAsync(CancellationToken cancel)
    {
        var source = clusters[0];
        var configs = new List<JsonObject>();
        foreach (var cluster in clusters)
            configs.Add(await AccessPoint.ConfigAsync(cluster, cancel));
        var names = configs.Select(config => config.Text("data", "cluster-name") ?? "default").ToList();
        if (names.Count > 1 && names[0] == names[1])
            throw new CliException($"--multi-cluster: both contexts lead to a cluster called {names[0]}: name the other one");
        var plans = new List<Planned>();
        IReadOnlyList<TestNode> sourceNodes = [];
        foreach (var (index, cluster) in clusters.Index())
        {
            var image = TestImage.Of(cluster.Name, await cluster.Client.FindAsync(KubeResources.DaemonSets.Raw, cluster.Namespace, "cilium", cancel));
            var nodes = TestNode.Suitable(await cluster.Client.ListAsync(KubeResources.Nodes.Raw, null, cancel));
            if (nodes.Count == 0)
                throw new CliException($"{cluster.Name}: no node is ready and takes pods");
            if (index == 0)
            {
                sourceNodes = nodes;
                foreach (var (role, kind) in new[] { ("client", "client"), ("client2", "client"), ("echo-same-node", "echo") })
                    plans.Add(new Planned(cluster, names[0], role, kind, image, nodes[0]));
            }
            var last = index == clusters.Count - 1;
            if (last && (index > 0 || nodes.Count > 1))
                plans.Add(new Planned(cluster, names[index], "echo-other-node", "echo", image, nodes[index > 0 ? 0 : 1]));
            else if (last)
                output.WriteLine($"ℹ️  [{ns}] {cluster.Name} has one node: echo-other-node is left out");
        }
        foreach (var cluster in clusters)
            await MakeNamespaceAsync(cluster, cancel);
        foreach (var cluster in clusters)
            await MakeServicesAsync(cluster, cancel);
        foreach (var plan in plans)
        {
            output.WriteLine($"✨ [{ns}] Deploying {plan.Role} to {plan.Cluster.Name}, node {plan.Node.Name}");
            await plan.Cluster.Client.ApplyAsync(KubeResources.Deployments.Raw, ns, plan.Role,
                TestObjects.Deployment(ns, plan.Role, plan.Kind, plan.Image, plan.Node), TestObjects.FieldManager, cancel);
        }
        var workloads = new List<Workload>();
        foreach (var plan in plans)
            workloads.Add(await StandingAsync(plan, cancel));
        var same = await source.Client.GetAsync(KubeResources.Services.Raw, ns, "echo-same-node", cancel);
        var other = await source.Client.GetAsync(KubeResources.Services.Raw, ns, "echo-other-node", cancel);
        var config = configs[0];
        var facts = new KubeFacts(ns, names, [.. workloads.Where(one => one.Role is "client" or "client2")],
            workloads.First(one => one.Role == "echo-same-node"), workloads.FirstOrDefault(one => one.Role == "echo-other-node"),
            VirtualAddresses(same), VirtualAddresses(other), (int)same.Items("spec", "ports").First().Number("nodePort"),
            [.. sourceNodes.SelectMany(node => node.Addresses)],
            config.Text("data", "kube-proxy-replacement") == "true", config.Text("data", "policy-default-local-cluster") != "false",
            configs.All(one => one.Text("data", "clustermesh-enable-endpoint-sync") == "true"));
        await KnownAsync(workloads, facts, cancel);
        return facts;
    }

    /// <summary>Deletes the namespace everywhere and waits until it is gone.</summary>
    public async Task RemoveAsync(CancellationToken cancel)
    {
        foreach (var cluster in clusters)
        {
            if (await cluster.Client.FindAsync(KubeResources.Namespaces.Raw, null, ns, cancel) is { } found && TestObjects.IsOurs(found))
                await cluster.Client.DeleteAsync(KubeResources.Namespaces, null, ns, cancel);
        }
        foreach (var cluster in clusters)
            await GoneAsync(cluster, cancel);
    }

    private Task GoneAsync(KubeCluster cluster, CancellationToken cancel) => stage.UntilAsync(within,
        async _ => await cluster.Client.FindAsync(KubeResources.Namespaces.Raw, null, ns, cancel) is { } found && TestObjects.IsOurs(found)
            ? $"{cluster.Name}: namespace {ns} is still {found.Text("status", "phase") ?? "there"}" : null, null, cancel);

    private async Task MakeNamespaceAsync(KubeCluster cluster, CancellationToken cancel)
    {
        if (await cluster.Client.FindAsync(KubeResources.Namespaces.Raw, null, ns, cancel) is { } found)
        {
            if (!TestObjects.IsOurs(found))
                throw new CliException($"{cluster.Name}: namespace {ns} exists and was not made by this command: choose another with --test-namespace");
            if (found.Text("metadata", "deletionTimestamp") is not null)
                await GoneAsync(cluster, cancel);
        }
        HasBegun = true;
        await cluster.Client.ApplyAsync(KubeResources.Namespaces.Raw, null, ns, TestObjects.Namespace(ns), TestObjects.FieldManager, cancel);
    }

    /// <summary>echo-other-node is there in both clusters and global, so that its name is known where its pods are not.</summary>
    private async Task MakeServicesAsync(KubeCluster cluster, CancellationToken cancel)
    {
        foreach (var (name, global) in new[] { ("echo-same-node", false), ("echo-other-node", true) })
        {
            if (!global && cluster != clusters[0])
                continue;
            foreach (var headless in new[] { false, true })
            {
                var service = TestObjects.Service(ns, headless ? $"{name}-headless" : name, name, headless, global);
                await cluster.Client.ApplyAsync(KubeResources.Services.Raw, ns, service.Name(), service, TestObjects.FieldManager, cancel);
            }
        }
    }

    private async Task<Workload> StandingAsync(Planned plan, CancellationToken cancel)
    {
        JsonObject? ready = null;
        await stage.UntilAsync(within, async _ =>
        {
            var pods = await plan.Cluster.Client.ListAsync(KubeResources.Pods.Raw, ns, cancel, new KubeSelection { LabelSelector = $"name={plan.Role}" });
            var standing = pods.Where(pod => pod.Text("metadata", "deletionTimestamp") is null).ToList();
            ready = standing.FirstOrDefault(PodState.IsReady);
            return ready is not null ? null : standing.Count == 0 ? "it has no pod yet" : PodState.Why(standing[0]);
        }, $"Waiting for {plan.Role} in {plan.Cluster.Name}", cancel);
        var addresses = ready.Items("status", "podIPs").Select(one => one.Text("ip")).OfType<string>().ToList();
        if (addresses.Count == 0 && ready.Text("status", "podIP") is { } only)
            addresses.Add(only);
        var workload = new Workload(plan.Role, $"{ns}/{ready!.Name()}", plan.ClusterName, addresses);
        stage.Place(workload, plan.Cluster, ready!.Name());
        return workload;
    }

    /// <summary>Every agent knows every pod's identity, and those of the source every service's backends.</summary>
    private async Task KnownAsync(IReadOnlyList<Workload> workloads, KubeFacts facts, CancellationToken cancel)
    {
        await stage.UntilAsync(within, _ => KubeStage.EachAgentAsync(clusters, async (cluster, agent) =>
        {
            var (text, failure) = await KubeStage.AskAsync(cluster, agent, ["cilium", "ip", "list", "-o", "json"], cancel);
            return failure ?? ServiceState.UnknownAddress(text, workloads);
        }, cancel), "Waiting for the pods' identities", cancel);
        await stage.UntilAsync(within, _ => KubeStage.EachAgentAsync([clusters[0]], async (cluster, agent) =>
        {
            var (text, failure) = await KubeStage.AskAsync(cluster, agent, ["cilium", "service", "list", "--output=json"], cancel);
            return failure ?? ServiceState.MissingBackend(text, facts.SameService, facts.SameNode)
                ?? (facts.OtherNode is { } other ? ServiceState.MissingBackend(text, facts.OtherService, other) : null);
        }, cancel), "Waiting for the services' backends", cancel);
    }

    private static List<string> VirtualAddresses(JsonObject service)
    {
        var all = (service.At("spec", "clusterIPs") as JsonArray)?.Select(one => one?.ToString()).OfType<string>().ToList() ?? [];
        return all.Count > 0 ? all : service.Text("spec", "clusterIP") is { Length: > 0 } only ? [only] : [];
    }
}

/// <summary>Why a pod is not ready.</summary>
internal static class PodState
{
    public static bool IsReady(JsonObject pod) =>
        pod.Items("status", "conditions").Any(one => one.Text("type") == "Ready" && one.Text("status") == "True");

    public static string Why(JsonObject pod)
    {
        foreach (var container in pod.Items("status", "containerStatuses"))
        {
            if (container.At("state", "waiting") is { } waiting)
                return $"{pod.Name()} is {waiting.Text("reason")} {waiting.Text("message")}".TrimEnd();
            if (container.At("state", "terminated") is { } ended)
                return $"{pod.Name()} ended with {ended.Text("exitCode")} {ended.Text("message")}".TrimEnd();
        }
        var unmet = pod.Items("status", "conditions").FirstOrDefault(one => one.Text("status") == "False" && one.Text("message") is { Length: > 0 });
        return $"{pod.Name()} is {pod.Text("status", "phase") ?? "Pending"}{(unmet is null ? "" : $": {unmet.Text("message")}")}";
    }
}

/// <summary>Reads agents' answers about services and addresses.</summary>
internal static class ServiceState
{
    /// <summary>Null when each address of the service leads to the pod of its family.</summary>
    public static string? MissingBackend(string answer, IReadOnlyList<string> addresses, Workload pod)
    {
        try
        {
            var services = (JsonSerializer.Deserialize(answer, AgentApiJson.Wire.IReadOnlyListService) ?? [])
                .Select(one => one.Status?.Realized ?? one.Spec).OfType<ServiceSpec>().ToList();
            foreach (var address in addresses)
            {
                var backends = services.FirstOrDefault(one => one.FrontendAddress.Ip == address && one.FrontendAddress.Port == Actions.Port)?.BackendAddresses;
                if (backends?.Any(backend => pod.Addresses.Contains(backend.Ip)) != true)
                    return $"service {address}:{Actions.Port} has no backend {pod.Name} ({string.Join(", ", pod.Addresses)}) yet";
            }
            return null;
        }
        catch (JsonException e)
        {
            return $"what it says of its services cannot be read: {e.Message}";
        }
    }

    /// <summary>Null when each address has an entry of its own.</summary>
    public static string? UnknownAddress(string answer, IReadOnlyList<Workload> workloads)
    {
        try
        {
            var known = (JsonSerializer.Deserialize(answer, AgentApiJson.Wire.IReadOnlyListIPListEntry) ?? []).Select(one => one.Cidr).ToHashSet();
            return workloads.SelectMany(one => one.Addresses.Select(address => (one.Name, Address: address)))
                .Where(one => !known.Contains($"{one.Address}/{(one.Address.Contains(':', StringComparison.Ordinal) ? 128 : 32)}"))
                .Select(one => $"it does not know {one.Name} ({one.Address}) yet").FirstOrDefault();
        }
        catch (JsonException e)
        {
            return $"what it says of addresses cannot be read: {e.Message}";
        }
    }
}
