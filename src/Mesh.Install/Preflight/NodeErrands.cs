using System.Text.Json.Nodes;
using Mesh.Install.Applying;
using Mesh.Kubernetes.Api;

namespace Mesh.Install.Preflight;

/// <summary>What is done on every node.</summary>
/// <param name="Name">Part of the pods' names: "preflight".</param>
/// <param name="Image">With the program `mesh`.</param>
/// <param name="Command">What runs, with the node's root at /host.</param>
/// <param name="Capabilities">Of the container, which is root and is not privileged.</param>
/// <param name="Volumes">Directories of the node that it may write: name in the container → path on the node. Empty for one that only looks.</param>
public sealed record Errand(
    string Name, string Image, string PullPolicy, IReadOnlyList<string> Command, IReadOnlyList<string> Capabilities,
    IReadOnlyDictionary<string, string> Volumes);

/// <summary>How an errand ended on a node.</summary>
/// <param name="Output">What it wrote on stdout; null when it did not run to its end.</param>
/// <param name="Trouble">Why not.</param>
public sealed record ErrandResult(string Node, string? Output, PodTrouble? Trouble);

/// <summary>
/// Short-lived pods, one on every node, on the node's network and bound to it by name, so that neither a network plugin nor a scheduler is
/// needed. They are deleted however it ends.
/// </summary>
public sealed class NodeErrands(KubeClient client, string ns, Narrator narrator, WaitOptions options)
{
    private const string Label = "mesh.cilium.io/errand";

    private static readonly KubeResource<JsonObject> Pods = KubeResources.Pods.Raw;
    private static readonly KubeResource<JsonObject> Events = KubeResources.Events.Raw;

    /// <exception cref="KubeApiException">Pods cannot be made at all.</exception>
    public async Task<IReadOnlyList<ErrandResult>> RunAsync(Errand errand, IReadOnlyList<string> nodes, CancellationToken cancellation)
    {
        var pods = new Dictionary<string, string>(StringComparer.Ordinal);
        var run = Guid.NewGuid().ToString("N")[..6];
        try
        {
            for (var i = 0; i < nodes.Count; i++)
            {
                var name = $"mesh-{errand.Name}-{run}-{i}";
                // Before it is asked for: whether it arrived may stay unknown.
                pods[name] = nodes[i];
                await client.CreateAsync(Pods, ns, Pod(name, nodes[i], errand), cancellation);
            }
            return await CollectAsync(errand, pods, cancellation);
        }
        finally
        {
            await RemoveAsync(pods.Keys);
        }
    }

    private async Task<IReadOnlyList<ErrandResult>> CollectAsync(Errand errand, Dictionary<string, string> pods, CancellationToken cancellation)
    {
        var start = options.Time.GetUtcNow();
        var results = new Dictionary<string, ErrandResult>(StringComparer.Ordinal);
        var faulty = new Dictionary<string, DateTimeOffset>(StringComparer.Ordinal);
        while (true)
        {
            var open = new List<PodTrouble>();
            var passed = options.Time.GetUtcNow() - start;
            var found = await client.ListAsync(Pods, ns, cancellation, new KubeSelection { LabelSelector = $"{Label}={errand.Name}" });
            foreach (var (name, node) in pods.Where(pod => !results.ContainsKey(pod.Key)))
            {
                var pod = found.FirstOrDefault(one => (string?)one["metadata"]?["name"] == name);
                if ((string?)pod?["status"]?["phase"] == "Succeeded")
                {
                    results[name] = new ErrandResult(node, await OutputAsync(name, cancellation), null);
                    continue;
                }
                var trouble = pod is null
                    ? new PodTrouble(name, node, "", "has gone", "somebody deleted it", IsFault: true)
                    : PodTrouble.Of(pod, await EventsAsync(name, cancellation))
                        ?? new PodTrouble(name, node, "", "runs", "", IsFault: false);
                var isOver = pod is null || (string?)pod["status"]?["phase"] == "Failed";
                if (trouble.IsFault && faulty.TryAdd(name, options.Time.GetUtcNow()) is false)
                    isOver |= options.Time.GetUtcNow() - faulty[name] >= options.Patience;
                if (isOver || passed >= options.Total)
                    results[name] = new ErrandResult(node, null, trouble);
                else
                    open.Add(trouble);
            }
            if (open.Count == 0)
                return [.. results.Values.OrderBy(result => result.Node, StringComparer.Ordinal)];
            narrator.Waits(passed, $"{errand.Name} of {open.Count} of {pods.Count} nodes: {string.Join(" · ", open.Take(3))}");
            await Task.Delay(options.Interval, options.Time, cancellation);
        }
    }

    private async Task<string> OutputAsync(string pod, CancellationToken cancellation)
    {
        var lines = new List<string>();
        await foreach (var line in client.LogsAsync(ns, pod, null, cancellation))
            lines.Add(line);
        return string.Join('\n', lines);
    }

    private async Task<IReadOnlyList<JsonObject>> EventsAsync(string pod, CancellationToken cancellation) =>
        await client.ListAsync(Events, ns, cancellation, new KubeSelection { FieldSelector = $"involvedObject.name={pod}" });

    private async Task RemoveAsync(IEnumerable<string> pods)
    {
        using var deadline = new CancellationTokenSource(TimeSpan.FromSeconds(30), options.Time);
        foreach (var pod in pods)
        {
            try
            {
                await client.DeleteAsync(KubeResources.Pods, ns, pod, deadline.Token, new KubeDelete { GracePeriodSeconds = 0 });
            }
            catch (Exception e) when (e is KubeApiException or OperationCanceledException)
            {
                narrator.Say($"⚠️  pod {ns}/{pod} could not be deleted: {e.Message}; it ends by itself, delete it by hand");
            }
        }
    }

    private JsonObject Pod(string name, string node, Errand errand)
    {
        var mounts = new JsonArray(
            new JsonObject { ["name"] = "host", ["mountPath"] = "/host", ["readOnly"] = true, ["mountPropagation"] = "HostToContainer" },
            new JsonObject { ["name"] = "tmp", ["mountPath"] = "/tmp" });
        var volumes = new JsonArray(
            new JsonObject { ["name"] = "host", ["hostPath"] = new JsonObject { ["path"] = "/", ["type"] = "Directory" } },
            new JsonObject { ["name"] = "tmp", ["emptyDir"] = new JsonObject() });
        foreach (var ((mount, path), i) in errand.Volumes.Select((volume, i) => (volume, i)))
        {
            mounts.Add((JsonNode)new JsonObject { ["name"] = $"write-{i}", ["mountPath"] = mount });
            volumes.Add((JsonNode)new JsonObject { ["name"] = $"write-{i}", ["hostPath"] = Directory(path) });
        }
        return new JsonObject
        {
            ["apiVersion"] = "v1",
            ["kind"] = "Pod",
            ["metadata"] = new JsonObject
            {
                ["name"] = name,
                ["namespace"] = ns,
                ["labels"] = new JsonObject { [Label] = errand.Name, ["app.kubernetes.io/part-of"] = "cilium" },
            },
            ["spec"] = new JsonObject
            {
                ["nodeName"] = node,
                ["hostNetwork"] = true,
                ["restartPolicy"] = "Never",
                ["activeDeadlineSeconds"] = (long)Math.Ceiling(options.Total.TotalSeconds) + 60,
                ["automountServiceAccountToken"] = false,
                ["priorityClassName"] = "system-node-critical",
                ["tolerations"] = new JsonArray(new JsonObject { ["operator"] = "Exists" }),
                ["containers"] = new JsonArray(new JsonObject
                {
                    ["name"] = errand.Name,
                    ["image"] = errand.Image,
                    ["imagePullPolicy"] = errand.PullPolicy,
                    ["command"] = Strings(errand.Command),
                    ["terminationMessagePolicy"] = "FallbackToLogsOnError",
                    ["securityContext"] = new JsonObject
                    {
                        ["allowPrivilegeEscalation"] = false,
                        ["readOnlyRootFilesystem"] = true,
                        ["capabilities"] = new JsonObject { ["drop"] = Strings(["ALL"]), ["add"] = Strings(errand.Capabilities) },
                        // As for the agent: profiles of runtimes forbid bpf() and mount().
                        ["seccompProfile"] = new JsonObject { ["type"] = "Unconfined" },
                        ["appArmorProfile"] = new JsonObject { ["type"] = "Unconfined" },
                    },
                    ["volumeMounts"] = mounts,
                }),
                ["volumes"] = volumes,
            },
        };
    }

    private static JsonObject Directory(string path) => new() { ["path"] = path, ["type"] = "DirectoryOrCreate" };

    private static JsonArray Strings(IEnumerable<string> words) => new([.. words.Select(word => (JsonNode)JsonValue.Create(word))]);
}
