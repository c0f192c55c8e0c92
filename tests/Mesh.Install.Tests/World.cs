using System.Collections.Concurrent;
using System.Text;
using System.Text.Json.Nodes;
using Mesh.Install.Applying;
using Mesh.Install.Preflight;
using Mesh.KubeApi;
using Mesh.Kubernetes.Api;

namespace Mesh.Install.Tests;

/// <summary>
/// An API server and just enough behind it for an installation: every DaemonSet has a pod on every node, every Deployment its replicas, pods
/// become what <see cref="Become"/> says, and those of errands write what <see cref="Report"/> says and end.
/// </summary>
internal sealed class World : IAsyncDisposable, IPodRuntime
{
    public const string Namespace = "kube-system";

    private readonly CancellationTokenSource _stop = new();
    private readonly string _directory = Directory.CreateTempSubdirectory("mesh-install-").FullName;
    private readonly ConcurrentDictionary<string, string> _logs = new(StringComparer.Ordinal);
    private Task _loop = Task.CompletedTask;

    private World(KubeApiServer server) => Server = server;

    public KubeApiServer Server { get; }

    public string Kubeconfig => Path.Combine(_directory, "config");

    public KubeClient Client { get; private set; } = null!;

    public List<string> Told { get; } = [];

    /// <summary>Status of a pod of a workload; null leaves it pending. Default: it runs and is ready.</summary>
    public Func<JsonObject, JsonObject?> Become { get; set; } = Ready;

    /// <summary>What the preflight of a node writes; null: its container fails.</summary>
    public Func<string, string?> Report { get; set; } = _ => new NodeReport("6.1.0-18-amd64", "x64", [new("kernel", CheckResult.Ok, "6.1.0")]).ToJson();

    /// <summary>What a command in a pod writes; null: it fails.</summary>
    public Func<PodExec, string?> Answer { get; set; } = _ => null;

    /// <summary>A log by "pod/container".</summary>
    public void Log(string container, string text) => _logs[container] = text;

    public Narrator Narrator => new(line =>
    {
        lock (Told)
            Told.Add(line);
    });

    public WaitOptions Wait { get; init; } = new()
    {
        Total = TimeSpan.FromSeconds(20),
        Patience = TimeSpan.FromMilliseconds(300),
        Interval = TimeSpan.FromMilliseconds(20),
    };

    public InstallTarget Target { get; } = new();

    public Planner Planner => new(Client, Target, TimeProvider.System);

    public static async Task<World> StartAsync(int nodes = 2, Action<JsonObject>? node = null, string version = "v1.30.4")
    {
        var world = new World(await KubeApiServer.StartAsync(new KubeApiOptions { Version = version }));
        world.Server.Pods = world;
        world.Server.WriteKubeconfig(world.Kubeconfig, "kind-tokyo");
        world.Client = new KubeClient(KubeConfiguration.FromFile(world.Kubeconfig));
        for (var i = 1; i <= nodes; i++)
        {
            var body = new JsonObject
            {
                ["apiVersion"] = "v1",
                ["kind"] = "Node",
                ["metadata"] = new JsonObject { ["name"] = $"node-{i}", ["labels"] = new JsonObject { ["kubernetes.io/os"] = "linux" } },
                ["spec"] = new JsonObject { ["providerID"] = $"kind://docker/tokyo/node-{i}" },
            };
            node?.Invoke(body);
            await world.Client.CreateAsync(KubeResources.Nodes.Raw, null, body, CancellationToken.None);
        }
        world._loop = world.RunAsync();
        return world;
    }

    /// <summary>All objects of this cluster that an installation may have to do with, without what the server and its controllers keep.</summary>
    public SortedDictionary<string, string> Snapshot()
    {
        var all = new SortedDictionary<string, string>(StringComparer.Ordinal);
        foreach (var resource in new[]
        {
            "namespaces", "serviceaccounts", "configmaps", "secrets", "services", "pods", "daemonsets.apps", "deployments.apps",
            "clusterroles.rbac.authorization.k8s.io", "clusterrolebindings.rbac.authorization.k8s.io", "roles.rbac.authorization.k8s.io",
            "rolebindings.rbac.authorization.k8s.io", "customresourcedefinitions.apiextensions.k8s.io",
        })
        {
            foreach (var found in Server.List(resource))
            {
                var metadata = (JsonObject)found["metadata"]!;
                foreach (var ofServer in new[] { "resourceVersion", "managedFields", "generation", "uid", "creationTimestamp" })
                    metadata.Remove(ofServer);
                found.Remove("status");
                all[$"{resource} {(string?)metadata["namespace"]}/{metadata["name"]}"] = found.ToJsonString();
            }
        }
        return all;
    }

    public JsonObject? Find(string resource, string name) => Server.Find(resource, Namespace, name);

    public static JsonObject Ready(JsonObject pod) => new()
    {
        ["phase"] = "Running",
        ["conditions"] = new JsonArray(new JsonObject { ["type"] = "Ready", ["status"] = "True" }),
    };

    /// <summary>A container that failed.</summary>
    public static JsonObject Failing(string list, string container, string reason, int restarts, string? said) => new()
    {
        ["phase"] = "Pending",
        ["conditions"] = new JsonArray(new JsonObject { ["type"] = "Ready", ["status"] = "False" }),
        [list] = new JsonArray(new JsonObject
        {
            ["name"] = container,
            ["image"] = "mesh/agent",
            ["imageID"] = "",
            ["ready"] = false,
            ["restartCount"] = restarts,
            ["state"] = new JsonObject { ["waiting"] = new JsonObject { ["reason"] = reason } },
            ["lastState"] = said is null ? new JsonObject() : new JsonObject
            {
                ["terminated"] = new JsonObject { ["exitCode"] = 1, ["reason"] = "Error", ["message"] = said },
            },
        }),
    };

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        try
        {
            await _loop;
        }
        catch (OperationCanceledException)
        {
            // As asked.
        }
        Client.Dispose();
        await Server.DisposeAsync();
        _stop.Dispose();
        Directory.Delete(_directory, recursive: true);
    }

    async Task IPodRuntime.LogAsync(PodLog log, Stream output, CancellationToken stop)
    {
        var pod = Server.Find("pods", log.Namespace, log.Pod);
        var text = pod?["metadata"]?["labels"]?["mesh.cilium.io/errand"] is null
            ? _logs.GetValueOrDefault($"{log.Pod}/{log.Container}", "")
            : (string?)pod["metadata"]!["labels"]!["mesh.cilium.io/errand"] == "preflight" ? Report((string)pod["spec"]!["nodeName"]!) ?? ""
            : "removed device mesh_host\n";
        await output.WriteAsync(Encoding.UTF8.GetBytes(text), stop);
    }

    async Task<int> IPodRuntime.ExecAsync(PodExec exec, PodStreams streams, CancellationToken stop)
    {
        var answer = Answer(exec);
        await (answer is null ? streams.Error! : streams.Output!).WriteAsync(Encoding.UTF8.GetBytes(answer ?? "it does not answer"), stop);
        return answer is null ? 1 : 0;
    }

    Task IPodRuntime.AttachAsync(PodExec attach, PodStreams streams, CancellationToken stop) => throw new NotSupportedException();

    Task<Stream> IPodRuntime.ConnectAsync(string @namespace, string pod, int port, CancellationToken stop) => throw new NotSupportedException();

    private async Task RunAsync()
    {
        while (true)
        {
            var seen = Server.Revision;
            foreach (var set in Server.List("daemonsets.apps"))
                await PlayAsync(set, [.. Server.List("nodes").Select(node => (string)node["metadata"]!["name"]!)], isSet: true);
            foreach (var deployment in Server.List("deployments.apps"))
                await PlayAsync(deployment, [.. Enumerable.Repeat("node-1", (int)deployment["spec"]!["replicas"]!)], isSet: false);
            foreach (var pod in Server.List("pods"))
                await PlayAsync(pod);
            await Server.WhenAsync(server => server.Revision != seen, _stop.Token);
        }
    }

    private async Task PlayAsync(JsonObject workload, IReadOnlyList<string> nodes, bool isSet)
    {
        var (name, ns) = ((string)workload["metadata"]!["name"]!, (string)workload["metadata"]!["namespace"]!);
        var generation = (long?)workload["metadata"]!["generation"] ?? 1;
        var ready = 0;
        for (var i = 0; i < nodes.Count; i++)
        {
            var podName = $"{name}-{i + 1}";
            var pod = Server.Find("pods", ns, podName);
            if (pod is null)
                await TryAsync(() => Client.CreateAsync(KubeResources.Pods.Raw, ns, PodOf(workload, podName, nodes[i], generation), _stop.Token));
            else if ((string?)pod["metadata"]!["annotations"]?["generation"] != generation.ToString(System.Globalization.CultureInfo.InvariantCulture))
                await TryAsync(() => Client.DeleteAsync(KubeResources.Pods, ns, podName, _stop.Token, new KubeDelete { GracePeriodSeconds = 0 }));
            else if (PodTrouble.Of(pod, []) is null)
                ready++;
        }
        var status = isSet
            ? new JsonObject
            {
                ["observedGeneration"] = generation,
                ["desiredNumberScheduled"] = nodes.Count,
                ["currentNumberScheduled"] = nodes.Count,
                ["numberMisscheduled"] = 0,
                ["updatedNumberScheduled"] = nodes.Count,
                ["numberReady"] = ready,
                ["numberAvailable"] = ready,
            }
            : new JsonObject
            {
                ["observedGeneration"] = generation,
                ["replicas"] = nodes.Count,
                ["updatedReplicas"] = nodes.Count,
                ["readyReplicas"] = ready,
                ["availableReplicas"] = ready,
            };
        await WriteStatusAsync(isSet ? KubeResources.DaemonSets.Raw : KubeResources.Deployments.Raw, workload, status);
    }

    private async Task PlayAsync(JsonObject pod)
    {
        var (name, ns) = ((string)pod["metadata"]!["name"]!, (string)pod["metadata"]!["namespace"]!);
        if (pod["metadata"]!["deletionTimestamp"] is not null)
        {
            await TryAsync(() => Client.DeleteAsync(KubeResources.Pods, ns, name, _stop.Token, new KubeDelete { GracePeriodSeconds = 0 }));
            return;
        }
        JsonObject? status;
        if ((string?)pod["metadata"]!["labels"]?["mesh.cilium.io/errand"] is { } errand)
        {
            status = errand == "preflight" && Report((string)pod["spec"]!["nodeName"]!) is null
                ? Failing("containerStatuses", errand, "ImagePullBackOff", 0, null)
                : new JsonObject { ["phase"] = "Succeeded" };
        }
        else
        {
            status = Become(pod);
        }
        if (status is not null)
            await WriteStatusAsync(KubeResources.Pods.Raw, pod, status);
    }

    private async Task WriteStatusAsync(KubeResource<JsonObject> resource, JsonObject found, JsonObject status)
    {
        if ((found["status"] as JsonObject)?.ToJsonString() == status.ToJsonString() || Covers(found["status"], status))
            return;
        var body = (JsonObject)found.DeepClone();
        body["status"] = status;
        var metadata = (JsonObject)body["metadata"]!;
        metadata.Remove("managedFields");
        metadata.Remove("resourceVersion");
        await TryAsync(() => Client.UpdateAsync(resource, (string)metadata["namespace"]!, (string)metadata["name"]!, body, _stop.Token,
            new KubeWrite { Subresource = "status" }));
    }

    /// <summary>The server may have added defaults.</summary>
    private static bool Covers(JsonNode? found, JsonNode? wanted) => (found, wanted) switch
    {
        (JsonObject a, JsonObject b) => b.All(member => Covers(a[member.Key], member.Value)),
        (JsonArray a, JsonArray b) => a.Count == b.Count && a.Zip(b).All(pair => Covers(pair.First, pair.Second)),
        _ => found?.ToJsonString() == wanted?.ToJsonString(),
    };

    /// <summary>What is gone or changed meanwhile is seen in the next round.</summary>
    private static async Task TryAsync(Func<Task> write)
    {
        try
        {
            await write();
        }
        catch (Kubernetes.Api.KubeApiException e) when (e.Fault is KubeFault.NotFound or KubeFault.Conflict or KubeFault.AlreadyExists)
        {
            return;
        }
    }

    private static JsonObject PodOf(JsonObject workload, string name, string node, long generation)
    {
        var template = workload["spec"]!["template"]!;
        var spec = (JsonObject)template["spec"]!.DeepClone();
        spec["nodeName"] = node;
        return new JsonObject
        {
            ["apiVersion"] = "v1",
            ["kind"] = "Pod",
            ["metadata"] = new JsonObject
            {
                ["name"] = name,
                ["namespace"] = (string)workload["metadata"]!["namespace"]!,
                ["labels"] = template["metadata"]!["labels"]!.DeepClone(),
                ["annotations"] = new JsonObject { ["generation"] = $"{generation}" },
                ["ownerReferences"] = new JsonArray(new JsonObject
                {
                    ["apiVersion"] = "apps/v1",
                    ["kind"] = (string)workload["kind"]!,
                    ["name"] = (string)workload["metadata"]!["name"]!,
                    ["uid"] = (string)workload["metadata"]!["uid"]!,
                    ["controller"] = true,
                }),
            },
            ["spec"] = spec,
        };
    }
}
