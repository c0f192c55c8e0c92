using System.Text.Json.Nodes;
using Mesh.KubeApi.Objects;

namespace Mesh.KubeWorld.Controllers;

/// <summary>The scheduler: a pod goes to the suitable node with the fewest; without one it waits, and says so.</summary>
internal sealed class Scheduling(KubeObjects objects)
{
    public async Task ReconcileAsync(CancellationToken stop)
    {
        var pods = objects.List("pods");
        var load = pods.Where(pod => !Selecting.Ended(pod)).CountBy(pod => pod.Obj("spec").Str("nodeName") ?? "").ToDictionary();
        foreach (var pod in pods.Where(pod => !pod.Deleting() && string.IsNullOrEmpty(pod.Obj("spec").Str("nodeName"))))
        {
            var suitable = objects.List("nodes").Where(node => Selecting.Suits(pod.Obj("spec")!, node) && !Refused(pod, node, pods)).ToList();
            if (suitable.Count == 0)
            {
                await objects.EventAsync(pod, "Pod", "Warning", "FailedScheduling", "0 nodes are available: no node is ready for this pod.",
                    "default-scheduler", stop);
                continue;
            }
            var best = suitable.MinBy(node => load.GetValueOrDefault(node.Name()))!.Name();
            load[best] = load.GetValueOrDefault(best) + 1;
            await objects.CreateAsync($"/api/v1/namespaces/{pod.Space()}/pods/{pod.Name()}/binding", new JsonObject
            {
                ["apiVersion"] = "v1",
                ["kind"] = "Binding",
                ["metadata"] = new JsonObject { ["name"] = pod.Name(), ["namespace"] = pod.Space() },
                ["target"] = new JsonObject { ["kind"] = "Node", ["name"] = best },
            }, stop);
        }
    }

    /// <summary>Required anti-affinity and affinity by hostname.</summary>
    private static bool Refused(JsonObject pod, JsonObject node, IReadOnlyList<JsonObject> pods)
    {
        bool Stands(JsonObject term) => pods.Any(other => other.Obj("spec").Str("nodeName") == node.Name() && other.Space() == pod.Space()
            && !Selecting.Ended(other) && Matches(other, term.Obj("labelSelector")));
        var affinity = pod.Obj("spec").Obj("affinity");
        return affinity.Obj("podAntiAffinity").Arr("requiredDuringSchedulingIgnoredDuringExecution").Objects().Any(Stands)
            || affinity.Obj("podAffinity").Arr("requiredDuringSchedulingIgnoredDuringExecution").Objects().Any(term => !Stands(term));
    }

    private static bool Matches(JsonObject pod, JsonObject? selector) => Selecting.HasLabels(pod, selector.Obj("matchLabels"))
        && selector.Arr("matchExpressions").Objects().All(term =>
        {
            var value = pod.Obj("metadata").Obj("labels")?[term.Str("key")!]?.ToString();
            var listed = term.Arr("values")?.Any(one => one?.ToString() == value) == true;
            return term.Str("operator") switch
            {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => value is not null,
                _ => value is null,
            };
        });
}
