using System.Text.Json.Nodes;
using Mesh.Install.Objects;
using Mesh.Kubernetes.Api;

namespace Mesh.Install.Applying;

/// <summary>How long is waited.</summary>
public sealed record WaitOptions
{
    /// <summary>For everything together.</summary>
    public TimeSpan Total { get; init; } = TimeSpan.FromMinutes(5);

    /// <summary>The same fault of the same pod for so long ends the waiting before that.</summary>
    public TimeSpan Patience { get; init; } = TimeSpan.FromSeconds(45);

    /// <summary>A container that has failed so often ends it at once.</summary>
    public int Restarts { get; init; } = 3;

    /// <summary>Between two looks.</summary>
    public TimeSpan Interval { get; init; } = TimeSpan.FromSeconds(1);

    public TimeProvider Time { get; init; } = TimeProvider.System;
}

/// <summary>
/// Waits until workloads have rolled out, saying what for and why; and finds the true cause when they do not: from the pods' statuses,
/// their events and, where those are mute, the logs of the container that failed.
/// </summary>
public sealed class Rollout(KubeClient client, Narrator narrator, WaitOptions options)
{
    private const int LogLines = 20;
    private const int ShownCauses = 5;

    private static readonly KubeResource<JsonObject> Pods = KubeResources.Pods.Raw;
    private static readonly KubeResource<JsonObject> Events = KubeResources.Events.Raw;

    private readonly Dictionary<(string Pod, string Container, string State), DateTimeOffset> _since = [];

    /// <summary>Until all of them run, ready, in the form that was applied.</summary>
    /// <exception cref="InstallException">They do not: the message is the cause.</exception>
    public async Task WaitAsync(IReadOnlyList<KubeObject> workloads, CancellationToken cancellation)
    {
        var start = options.Time.GetUtcNow();
        while (true)
        {
            var waiting = new List<string>();
            var troubles = new List<PodTrouble>();
            foreach (var workload in workloads)
            {
                var found = await client.FindAsync(workload.Resource.Raw, workload.Namespace, workload.Name, cancellation);
                if (found is null)
                    throw new InstallException($"{workload} has gone while it was waited for: somebody deleted it");
                if (Progress(found) is not { } progress)
                    continue;
                var of = await TroublesAsync(found, cancellation);
                troubles.AddRange(of);
                waiting.Add($"{workload.Kind} {workload.Name}: {progress}{(of.Count > 0 ? $"; {of[0]}" : "")}");
            }
            var passed = options.Time.GetUtcNow() - start;
            if (waiting.Count == 0)
                return;
            narrator.Waits(passed, string.Join(" · ", waiting));
            if (troubles.Exists(GivesUp))
                throw await CauseAsync("will not become ready", troubles, cancellation);
            if (passed >= options.Total)
                throw await CauseAsync($"not ready after {passed.TotalSeconds:0}s ({string.Join(" · ", waiting)})", troubles, cancellation);
            await Task.Delay(options.Interval, options.Time, cancellation);
        }
    }

    /// <summary>Until no pod with the labels is left.</summary>
    /// <exception cref="InstallException">Some stay.</exception>
    public async Task WaitGoneAsync(string ns, string selector, CancellationToken cancellation)
    {
        var start = options.Time.GetUtcNow();
        while (true)
        {
            var left = await client.ListAsync(Pods, ns, cancellation, new KubeSelection { LabelSelector = selector });
            if (left.Count == 0)
                return;
            var passed = options.Time.GetUtcNow() - start;
            var names = string.Join(", ", left.Select(pod => $"{pod["metadata"]!["name"]} on {(string?)pod["spec"]?["nodeName"] ?? "no node"}"));
            narrator.Waits(passed, $"pods that end: {names}");
            if (passed >= options.Total)
                throw new InstallException($"pods did not end within {options.Total.TotalSeconds:0}s: {names}");
            await Task.Delay(options.Interval, options.Time, cancellation);
        }
    }

    /// <returns>Null when it is done.</returns>
    internal static string? Progress(JsonObject workload)
    {
        var status = workload["status"] as JsonObject ?? [];
        long Count(string name) => (long?)status[name] ?? 0;
        if (((long?)workload["metadata"]?["generation"] ?? 0) > Count("observedGeneration"))
            return "its controller has not seen it yet";
        var isSet = (string?)workload["kind"] == "DaemonSet" || status.ContainsKey("desiredNumberScheduled");
        var wanted = isSet ? Count("desiredNumberScheduled") : (long?)workload["spec"]?["replicas"] ?? 1;
        var updated = Count(isSet ? "updatedNumberScheduled" : "updatedReplicas");
        var ready = Count(isSet ? "numberReady" : "readyReplicas");
        if (isSet && wanted == 0)
            return "no node is its own";
        if (updated < wanted)
            return $"{updated} of {wanted} brought up to date";
        if (ready < wanted)
            return $"{ready} of {wanted} ready";
        return !isSet && Count("replicas") > wanted ? $"{Count("replicas") - wanted} of the former still there" : null;
    }

    private async Task<List<PodTrouble>> TroublesAsync(JsonObject workload, CancellationToken cancellation)
    {
        var ns = (string)workload["metadata"]!["namespace"]!;
        var labels = (workload["spec"]?["selector"]?["matchLabels"] as JsonObject ?? []).Select(label => $"{label.Key}={(string?)label.Value}");
        var pods = await client.ListAsync(Pods, ns, cancellation, new KubeSelection { LabelSelector = string.Join(',', labels) });
        var troubles = new List<PodTrouble>();
        foreach (var pod in pods.Where(pod => pod["metadata"]?["deletionTimestamp"] is null))
        {
            if (PodTrouble.Of(pod, await EventsAsync(ns, (string)pod["metadata"]!["name"]!, cancellation)) is { } trouble)
                troubles.Add(trouble);
        }
        if (pods.Count == 0)
        {
            // The controller itself may be refused, by a quota or an admission.
            var name = (string)workload["metadata"]!["name"]!;
            if ((await EventsAsync(ns, name, cancellation)).LastOrDefault(one => (string?)one["type"] == "Warning") is { } refused)
                troubles.Add(new PodTrouble(name, "", "", (string?)refused["reason"] ?? "refused", (string?)refused["message"] ?? "", IsFault: true));
        }
        return [.. troubles.OrderByDescending(trouble => trouble.IsFault).ThenBy(trouble => trouble.Node, StringComparer.Ordinal)];
    }

    private async Task<IReadOnlyList<JsonObject>> EventsAsync(string ns, string name, CancellationToken cancellation)
    {
        try
        {
            var events = await client.ListAsync(Events, ns, cancellation, new KubeSelection { FieldSelector = $"involvedObject.name={name}" });
            return [.. events.OrderBy(one => (string?)one["lastTimestamp"] ?? (string?)one["eventTime"] ?? "", StringComparer.Ordinal)];
        }
        catch (KubeApiException e) when (e.Fault == KubeFault.Forbidden)
        {
            // Statuses say something too.
            return [];
        }
    }

    private bool GivesUp(PodTrouble trouble)
    {
        var now = options.Time.GetUtcNow();
        var key = (trouble.Pod, trouble.Container, trouble.IsFault ? "fault" : trouble.State);
        if (!trouble.IsFault)
            return false;
        _since.TryAdd(key, now);
        return trouble.Restarts >= options.Restarts || now - _since[key] >= options.Patience;
    }

    private async Task<InstallException> CauseAsync(string what, List<PodTrouble> troubles, CancellationToken cancellation)
    {
        var lines = new List<string> { what };
        foreach (var trouble in troubles.Take(ShownCauses))
            lines.Add(trouble.Cause.Length > 0 || trouble.Container.Length == 0 ? $"  {trouble}" : $"  {trouble}{await LogAsync(trouble, cancellation)}");
        if (troubles.Count > ShownCauses)
            lines.Add($"  and {troubles.Count - ShownCauses} pods more");
        if (troubles.Count == 0)
            lines.Add("  no pod and no event says why: is there a controller, and do its nodes answer? (kubectl get nodes)");
        return new InstallException(string.Join('\n', lines));
    }

    /// <summary>Where a container left no word behind, its log may have one.</summary>
    private async Task<string> LogAsync(PodTrouble trouble, CancellationToken cancellation)
    {
        foreach (var previous in new[] { true, false })
        {
            try
            {
                var last = "";
                await foreach (var line in client.LogsAsync(Namespace, trouble.Pod, trouble.Container, cancellation, tailLines: LogLines, previous: previous))
                    last = line.Trim().Length > 0 ? line.Trim() : last;
                if (last.Length > 0)
                    return $": {last}";
            }
            catch (KubeApiException e)
            {
                narrator.Did($"its log could not be read: {e.Message}");
                return "";
            }
        }
        return "";
    }

    /// <summary>Where the workloads are.</summary>
    public required string Namespace { get; init; }
}
