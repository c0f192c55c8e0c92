using System.Collections.Concurrent;
using System.Globalization;
using System.Text.Json.Nodes;
using Mesh.KubeApi.Objects;
using Mesh.KubeWorld.Controllers;

namespace Mesh.KubeWorld.Nodes;

/// <summary>One node's kubelet: its Node object, and a <see cref="PodRun"/> for each pod that is bound to it.</summary>
internal sealed class Kubelet(Node node, KubeObjects objects, ClusterFacts facts, string providerId) : IAsyncDisposable
{
    private readonly ConcurrentDictionary<string, PodRun> _pods = [];

    public Node Node => node;

    public async Task RegisterAsync(CancellationToken stop) => await objects.CreateAsync("/api/v1/nodes", node.Object(providerId), stop);

    public PodRun? Find(string space, string name) =>
        objects.Api.Find("pods", space, name) is { } pod && _pods.TryGetValue(pod.Uid(), out var run) ? run : null;

    /// <summary>The ends of all containers' logs.</summary>
    public IEnumerable<(string Pod, string Text)> Logs() =>
        from file in Directory.GetFiles($"{node.Directory}/var/log")
        select (Path.GetFileName(file), string.Join('\n', File.ReadLines(file).TakeLast(10)));

    public async Task ReconcileAsync(CancellationToken stop)
    {
        await TellNodeAsync(stop);
        foreach (var pod in objects.List("pods").Where(pod => pod.Obj("spec").Str("nodeName") == node.Name && !Selecting.Ended(pod)))
        {
            if (_pods.ContainsKey(pod.Uid()))
                continue;
            var run = new PodRun(node, objects, facts, pod);
            _pods[pod.Uid()] = run;
            run.Start();
        }
        foreach (var run in _pods.Values.Where(run => run.Done).ToList())
        {
            _pods.Remove(run.Uid, out _);
            await run.DisposeAsync();
        }
    }

    public async ValueTask DisposeAsync()
    {
        await Task.WhenAll(_pods.Values.Select(run => run.DisposeAsync().AsTask()));
        node.Dispose();
    }

    /// <summary>Ready as soon as there is a CNI configuration; then the taint goes.</summary>
    private async Task TellNodeAsync(CancellationToken stop)
    {
        if (objects.Api.Find("nodes", "", node.Name) is not { } now)
            return;
        var ready = Sandbox.IsConfigured(node);
        var taints = now.Obj("spec").Arr("taints").Objects().Where(taint => taint.Str("key") != "node.kubernetes.io/not-ready").ToList();
        if (!ready)
            taints.Add(new JsonObject { ["key"] = "node.kubernetes.io/not-ready", ["effect"] = "NoSchedule" });
        if (taints.Count != (now.Obj("spec").Arr("taints")?.Count ?? 0))
            await objects.MergeAsync($"/api/v1/nodes/{node.Name}", new JsonObject
            {
                ["spec"] = new JsonObject { ["taints"] = new JsonArray([.. taints.Select(taint => taint.DeepClone())]) },
            }, stop);
        await objects.SetStatusAsync($"/api/v1/nodes/{node.Name}", now, new JsonObject
        {
            ["addresses"] = new JsonArray(
                new JsonObject { ["type"] = "InternalIP", ["address"] = node.Address }, new JsonObject { ["type"] = "Hostname", ["address"] = node.Name }),
            ["conditions"] = new JsonArray(new JsonObject
            {
                ["type"] = "Ready",
                ["status"] = ready ? "True" : "False",
                ["reason"] = ready ? "KubeletReady" : "KubeletNotReady",
                ["message"] = ready ? "kubelet is posting ready status" : "container runtime network not ready: cni config uninitialized",
            }),
            ["nodeInfo"] = new JsonObject
            {
                ["kubeletVersion"] = "v1.30.4",
                ["kernelVersion"] = File.ReadAllText("/proc/sys/kernel/osrelease").Trim(),
                ["osImage"] = "Debian GNU/Linux 12 (bookworm)",
                ["operatingSystem"] = "linux",
                ["architecture"] = "amd64",
                ["containerRuntimeVersion"] = string.Create(CultureInfo.InvariantCulture, $"namespaces://1.0"),
            },
        }, stop);
    }
}
