using System.Text.Json.Nodes;
using Mesh.Cli.Kube;
using Mesh.Kubernetes.Api;

namespace Mesh.Cli.Reachability;

/// <summary>What helps to find a failure's cause: of every cluster the agents' status, maps and logs, the test's pods with their logs, and events.
/// What cannot be had leaves a file that says why.</summary>
internal static class Collection
{
    private const int LogLines = 2000;

    private static readonly (string File, string[] Words)[] Questions =
    [
        ("status.txt", ["cilium", "status"]),
        ("bpf-lb-list.txt", ["cilium", "bpf", "lb", "list"]),
        ("bpf-ipcache-list.txt", ["cilium", "bpf", "ipcache", "list"]),
        ("service-list.txt", ["cilium", "service", "list"]),
        ("endpoint-list.txt", ["cilium", "endpoint", "list"]),
        ("policy-list.txt", ["cilium", "policy", "list"]),
        ("node-list.txt", ["cilium", "node", "list"]),
    ];

    /// <exception cref="IOException">The directory cannot be written.</exception>
    public static async Task WriteAsync(IReadOnlyList<KubeCluster> clusters, string ns, string directory, CancellationToken cancel)
    {
        foreach (var cluster in clusters)
        {
            var root = Path.Combine(directory, FileName(cluster.Name));
            Directory.CreateDirectory(root);
            await KeepAsync(root, "events.txt", async () => Events(
                [.. await cluster.Client.ListAsync(KubeResources.Events.Raw, ns, cancel), .. await cluster.Client.ListAsync(KubeResources.Events.Raw,
                    cluster.Namespace, cancel)]), cancel);
            IReadOnlyList<JsonObject> pods = [];
            await KeepAsync(root, "pods.json", async () =>
            {
                pods = await cluster.Client.ListAsync(KubeResources.Pods.Raw, ns, cancel);
                return new JsonArray([.. pods.Select(pod => pod.DeepClone())]).ToJsonString();
            }, cancel);
            foreach (var pod in pods)
                await KeepAsync(root, $"{pod.Name()}.log", () => LogAsync(cluster, ns, pod.Name(), null, cancel), cancel);
            IReadOnlyList<string> agents = [];
            await KeepAsync(root, "agents.txt", async () => string.Join('\n', agents = await KubeClusterMesh.PodsAsync(cluster, "k8s-app=cilium", cancel)),
                cancel);
            foreach (var agent in agents)
            {
                foreach (var (file, words) in Questions)
                {
                    await KeepAsync(root, $"{agent}.{file}", async () =>
                    {
                        var (text, failure) = await KubeStage.AskAsync(cluster, agent, words, cancel);
                        return failure is null ? text : $"{string.Join(' ', words)}: {failure}\n";
                    }, cancel);
                }
                await KeepAsync(root, $"{agent}.log", () => LogAsync(cluster, cluster.Namespace, agent, "cilium-agent", cancel), cancel);
            }
        }
    }

    /// <summary>One line each, the latest last.</summary>
    internal static string Events(IEnumerable<JsonObject> events) => string.Concat(events
        .Select(one => (When: one.Text("lastTimestamp") ?? one.Text("eventTime") ?? one.Text("metadata", "creationTimestamp") ?? "", Event: one))
        .OrderBy(one => one.When, StringComparer.Ordinal)
        .Select(one => $"{one.When} {one.Event.Text("type")} {one.Event.Text("involvedObject", "kind")} "
            + $"{one.Event.Text("involvedObject", "namespace")}/{one.Event.Text("involvedObject", "name")} {one.Event.Text("reason")}: "
            + $"{one.Event.Text("message")}\n"));

    private static async Task<string> LogAsync(KubeCluster cluster, string ns, string pod, string? container, CancellationToken cancel)
    {
        var lines = new List<string>();
        await foreach (var line in cluster.Client.LogsAsync(ns, pod, container, cancel, tailLines: LogLines))
            lines.Add(line + "\n");
        return string.Concat(lines);
    }

    private static async Task KeepAsync(string root, string file, Func<Task<string>> content, CancellationToken cancel)
    {
        string text;
        try
        {
            text = await content();
        }
        catch (KubeApiException e)
        {
            text = $"not to be had: {e.Message}\n";
        }
        await File.WriteAllTextAsync(Path.Combine(root, file), text, cancel);
    }

    private static string FileName(string name) =>
        string.Concat(name.Select(one => char.IsAsciiLetterOrDigit(one) || one is '-' or '.' or '_' ? one : '_'));
}
