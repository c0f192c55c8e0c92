using System.Globalization;
using System.Text.Json.Nodes;
using Mesh.KubeApi.Objects;

namespace Mesh.KubeWorld.Controllers;

/// <summary>
/// DaemonSets, Deployments and Jobs: pods of their templates, replaced when the template is another, and the numbers in their status. A
/// Deployment owns its pods itself; ReplicaSets are left out.
/// </summary>
internal sealed class Workloads(KubeObjects objects)
{
    private int _made;

    public async Task ReconcileAsync(CancellationToken stop)
    {
        var pods = objects.List("pods");
        foreach (var set in objects.List("daemonsets.apps").Where(one => !one.Deleting()))
            await DaemonSetAsync(set, [.. pods.Where(pod => pod.OwnedBy(set))], stop);
        foreach (var deployment in objects.List("deployments.apps").Where(one => !one.Deleting()))
            await DeploymentAsync(deployment, [.. pods.Where(pod => pod.OwnedBy(deployment))], stop);
        foreach (var job in objects.List("jobs.batch").Where(one => !one.Deleting()))
            await JobAsync(job, [.. pods.Where(pod => pod.OwnedBy(job))], stop);
    }

    private async Task DaemonSetAsync(JsonObject set, List<JsonObject> pods, CancellationToken stop)
    {
        var template = set.Obj("spec").Obj("template")!;
        var hash = Selecting.Hash(template);
        var nodes = objects.List("nodes").Where(node => !node.Deleting() && Selecting.Suits(template.Obj("spec")!, node)).ToList();
        var missing = 0;
        foreach (var node in nodes)
        {
            var here = pods.Where(pod => pod.Obj("spec").Str("nodeName") == node.Name()).ToList();
            if (here.Count == 0)
            {
                missing++;
                await objects.CreateAsync($"/api/v1/namespaces/{set.Space()}/pods",
                    Selecting.Pod(set, "apps/v1", "DaemonSet", $"{set.Name()}-{NextName()}", template, hash, node.Name()), stop);
            }
        }
        foreach (var pod in pods.Where(pod => !pod.Deleting() && (Selecting.Ended(pod) || nodes.All(node => node.Name() != pod.Obj("spec").Str("nodeName")))))
            await DeletePodAsync(pod, stop);
        // One at a time, and only while all others are ready.
        var old = pods.Where(pod => Label(pod) != hash).ToList();
        if (old.FirstOrDefault(pod => !pod.Deleting()) is { } next && missing == 0 && pods.Where(pod => pod != next).All(Selecting.IsReady))
            await DeletePodAsync(next, stop);
        var ready = pods.Count(pod => !pod.Deleting() && Selecting.IsReady(pod));
        await objects.SetStatusAsync($"/apis/apps/v1/namespaces/{set.Space()}/daemonsets/{set.Name()}", set, new JsonObject
        {
            ["observedGeneration"] = set.Obj("metadata").Num("generation"),
            ["desiredNumberScheduled"] = nodes.Count,
            ["currentNumberScheduled"] = pods.Count,
            ["numberMisscheduled"] = 0,
            ["numberReady"] = ready,
            ["numberAvailable"] = ready,
            ["numberUnavailable"] = nodes.Count - ready,
            ["updatedNumberScheduled"] = pods.Count - old.Count,
        }, stop);
    }

    private async Task DeploymentAsync(JsonObject deployment, List<JsonObject> pods, CancellationToken stop)
    {
        var spec = deployment.Obj("spec")!;
        var template = spec.Obj("template")!;
        var hash = Selecting.Hash(template);
        var wanted = (int)(spec.Num("replicas") ?? 1);
        var surge = spec.Obj("strategy").Obj("rollingUpdate")?["maxSurge"]?.ToString() != "0";
        var living = pods.Where(pod => !pod.Deleting() && !Selecting.Ended(pod)).ToList();
        var fresh = living.Where(pod => Label(pod) == hash).ToList();
        var old = living.Where(pod => Label(pod) != hash).ToList();
        foreach (var pod in pods.Where(pod => Selecting.Ended(pod) && !pod.Deleting()).Concat(fresh.Skip(wanted)))
            await DeletePodAsync(pod, stop);
        if (fresh.Count < wanted && (surge || old.Count + fresh.Count < wanted))
        {
            await objects.CreateAsync($"/api/v1/namespaces/{deployment.Space()}/pods",
                Selecting.Pod(deployment, "apps/v1", "Deployment", $"{deployment.Name()}-{hash}-{NextName()}", template, hash, null), stop);
        }
        if (old.Count > 0 && (!surge || fresh.Count(Selecting.IsReady) >= wanted))
            await DeletePodAsync(old[0], stop);
        var ready = living.Count(Selecting.IsReady);
        var complete = ready >= wanted && old.Count == 0 && fresh.Count >= wanted;
        await objects.SetStatusAsync($"/apis/apps/v1/namespaces/{deployment.Space()}/deployments/{deployment.Name()}", deployment, new JsonObject
        {
            ["observedGeneration"] = deployment.Obj("metadata").Num("generation"),
            ["replicas"] = living.Count,
            ["updatedReplicas"] = fresh.Count,
            ["readyReplicas"] = ready,
            ["availableReplicas"] = ready,
            ["unavailableReplicas"] = Math.Max(0, wanted - ready),
            ["conditions"] = new JsonArray(
                new JsonObject { ["type"] = "Available", ["status"] = ready >= wanted ? "True" : "False", ["reason"] = "MinimumReplicas" },
                new JsonObject { ["type"] = "Progressing", ["status"] = "True", ["reason"] = complete ? "NewReplicaSetAvailable" : "ReplicaSetUpdated" }),
        }, stop);
    }

    private async Task JobAsync(JsonObject job, List<JsonObject> pods, CancellationToken stop)
    {
        if (job.Obj("status").Arr("conditions").Objects().Any(condition => condition.Str("status") == "True"))
            return;
        var spec = job.Obj("spec")!;
        var template = spec.Obj("template")!;
        var wanted = (int)(spec.Num("completions") ?? 1);
        var succeeded = pods.Count(pod => pod.Obj("status").Str("phase") == "Succeeded");
        var failed = pods.Count(pod => pod.Obj("status").Str("phase") == "Failed");
        var active = pods.Count - succeeded - failed;
        var status = new JsonObject { ["active"] = active, ["succeeded"] = succeeded, ["failed"] = failed };
        if (failed > (spec.Num("backoffLimit") ?? 6))
            status["conditions"] = new JsonArray(new JsonObject { ["type"] = "Failed", ["status"] = "True", ["reason"] = "BackoffLimitExceeded" });
        else if (succeeded >= wanted)
            status["conditions"] = new JsonArray(new JsonObject { ["type"] = "Complete", ["status"] = "True" });
        else if (active < Math.Min(spec.Num("parallelism") ?? 1, wanted - succeeded))
            await objects.CreateAsync($"/api/v1/namespaces/{job.Space()}/pods", Selecting.Pod(job, "batch/v1", "Job", $"{job.Name()}-{NextName()}",
                template, Selecting.Hash(template), null), stop);
        await objects.SetStatusAsync($"/apis/batch/v1/namespaces/{job.Space()}/jobs/{job.Name()}", job, status, stop);
    }

    private Task<bool> DeletePodAsync(JsonObject pod, CancellationToken stop) =>
        objects.DeleteAsync($"/api/v1/namespaces/{pod.Space()}/pods/{pod.Name()}", null, stop);

    private static string? Label(JsonObject pod) => pod.Obj("metadata").Obj("labels").Str("pod-template-hash");

    private string NextName() => Fingerprint.Of($"{Environment.ProcessId}/{Interlocked.Increment(ref _made).ToString(CultureInfo.InvariantCulture)}")[..5];
}
