using System.Text.Json.Nodes;

namespace Mesh.Install.Applying;

/// <summary>Why a pod does not do its work: what its status and its events say, most telling first.</summary>
/// <param name="Node">"" when it is on none.</param>
/// <param name="Container">"" when the trouble is the pod's own.</param>
/// <param name="State">In short: "CrashLoopBackOff, exited with code 1".</param>
/// <param name="Cause">The words of whoever failed; "" when nobody said anything.</param>
/// <param name="IsFault">It will not get better by waiting a little.</param>
/// <param name="Restarts">Of the container.</param>
public sealed record PodTrouble(string Pod, string Node, string Container, string State, string Cause, bool IsFault, int Restarts = 0)
{
    private static readonly string[] Hopeless =
    [
        "CrashLoopBackOff", "ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError",
        "CreateContainerError", "RunContainerError",
    ];

    /// <param name="events">Of this pod, oldest first.</param>
    /// <returns>Null when it is ready.</returns>
    public static PodTrouble? Of(JsonObject pod, IReadOnlyList<JsonObject> events)
    {
        var name = (string)pod["metadata"]!["name"]!;
        var node = (string?)pod["spec"]?["nodeName"] ?? "";
        var status = pod["status"] as JsonObject ?? [];
        if (Condition(status, "Ready") is { } ready && (string?)ready["status"] == "True")
            return null;
        if (node.Length == 0)
        {
            var scheduled = Condition(status, "PodScheduled");
            return new PodTrouble(name, "", "", "waits for a node", (string?)scheduled?["message"] ?? "", (string?)scheduled?["reason"] == "Unschedulable");
        }
        foreach (var container in Statuses(status, "initContainerStatuses").Concat(Statuses(status, "containerStatuses")))
        {
            if (Of(name, node, container, events) is { } trouble)
                return trouble;
        }
        var (why, count) = Warning(events);
        if ((string?)status["phase"] == "Failed")
            return new PodTrouble(name, node, "", (string?)status["reason"] ?? "failed", (string?)status["message"] ?? why, IsFault: true);
        var last = events.Count > 0 ? events[^1] : null;
        return new PodTrouble(name, node, "", last is null ? "waits for the node's kubelet" : Words((string?)last["reason"]), why, IsFault: count > 1);
    }

    /// <summary>One line: pod, node, container, what is the matter.</summary>
    public override string ToString() => $"{Pod}{(Node.Length > 0 ? $" on {Node}" : "")}{(Container.Length > 0 ? $", {Container}" : "")}: {State}"
        + (Cause.Length > 0 ? $": {Cause}" : "");

    private static PodTrouble? Of(string pod, string node, JsonObject container, IReadOnlyList<JsonObject> events)
    {
        var name = (string?)container["name"] ?? "";
        var restarts = (int?)container["restartCount"] ?? 0;
        var isReady = (bool?)container["ready"] ?? false;
        var ended = container["state"]?["terminated"] as JsonObject;
        if (isReady || ended is not null && (int?)ended["exitCode"] == 0)
            return null;
        var before = ended ?? container["lastState"]?["terminated"] as JsonObject;
        var exit = before is null ? "" : $"exited with code {(int?)before["exitCode"] ?? 0}";
        var said = Tail((string?)before?["message"]);
        if (container["state"]?["waiting"] is JsonObject waiting)
        {
            var reason = (string?)waiting["reason"] ?? "waiting";
            var message = (string?)waiting["message"] ?? "";
            if (reason is "PodInitializing" or "ContainerCreating" && Warning(events) is { Count: > 0 } warned)
                return new PodTrouble(pod, node, name, Words(reason), warned.Message, IsFault: warned.Count > 1, restarts);
            var isFault = Hopeless.Contains(reason);
            return new PodTrouble(pod, node, name, exit.Length > 0 ? $"{Words(reason)}, {exit}" : Words(reason),
                said.Length > 0 ? said : message.Length > 0 ? message : isFault ? Warning(events).Message : "", isFault, restarts);
        }
        if (ended is not null)
            return new PodTrouble(pod, node, name, exit, said.Length > 0 ? said : (string?)ended["reason"] ?? "", IsFault: true, restarts);
        var probe = events.LastOrDefault(one => (string?)one["reason"] == "Unhealthy");
        return new PodTrouble(pod, node, name, "runs, and is not ready", Tail((string?)probe?["message"]), IsFault: false, restarts);
    }

    private static (string Message, int Count) Warning(IReadOnlyList<JsonObject> events) =>
        events.LastOrDefault(one => (string?)one["type"] == "Warning" && (string?)one["reason"] is not ("BackOff" or "Unhealthy")) is { } warning
            ? (Tail((string?)warning["message"]), Math.Max(1, (int?)warning["count"] ?? 1))
            : ("", 0);

    private static JsonObject? Condition(JsonObject status, string type) =>
        (status["conditions"] as JsonArray)?.OfType<JsonObject>().FirstOrDefault(condition => (string?)condition["type"] == type);

    private static IEnumerable<JsonObject> Statuses(JsonObject status, string list) => (status[list] as JsonArray)?.OfType<JsonObject>() ?? [];

    /// <summary>The last line that says something: what a program that failed says last is why.</summary>
    private static string Tail(string? text) =>
        (text ?? "").Split('\n').Select(line => line.Trim()).LastOrDefault(line => line.Length > 0) ?? "";

    private static string Words(string? reason) => reason switch
    {
        "PodInitializing" => "waits for the containers before it",
        "ContainerCreating" => "is being created",
        "Pulling" => "pulls its image",
        null or "" => "waits",
        _ => reason,
    };
}
