using System.Globalization;
using System.Text.Json.Nodes;
using Mesh.Kubernetes.Api;
using Mesh.Kubernetes.Objects;

namespace Mesh.Operator.Multicluster;

/// <summary>What a ServiceExport says of itself. Written only when something is another; the time is that of the last change of the status word.</summary>
internal static class Conditions
{
    /// <summary>As long as a message may be.</summary>
    private const int LongestMessage = 32_768;

    public static async Task TellAsync(KubeClient client, ServiceExport export, IReadOnlyList<(string Type, bool Status, string Reason, string Message)> wanted,
        TimeProvider time, CancellationToken cancellation)
    {
        var present = export.Status?.Conditions ?? [];
        if (wanted.All(one => present.Any(old => old.Type == one.Type && old.Status == Word(one.Status) && old.Reason == one.Reason
            && (old.Message ?? "") == Short(one.Message))))
            return;
        var conditions = new JsonArray();
        foreach (var (type, status, reason, message) in wanted)
        {
            var before = present.FirstOrDefault(old => old.Type == type && old.Status == Word(status))?.LastTransitionTime;
            conditions.Add((JsonNode)new JsonObject
            {
                ["type"] = type,
                ["status"] = Word(status),
                ["reason"] = reason,
                ["message"] = Short(message),
                ["lastTransitionTime"] = Time(before ?? time.GetUtcNow()),
            });
        }
        foreach (var old in present.Where(old => old.Type is not null && wanted.All(one => one.Type != old.Type)))
        {
            conditions.Add((JsonNode)new JsonObject
            {
                ["type"] = old.Type,
                ["status"] = old.Status,
                ["reason"] = old.Reason,
                ["message"] = old.Message,
                ["lastTransitionTime"] = Time(old.LastTransitionTime ?? time.GetUtcNow()),
            });
        }
        var patch = new JsonObject
        {
            ["metadata"] = new JsonObject { ["resourceVersion"] = export.Metadata.ResourceVersion },
            ["status"] = new JsonObject { ["conditions"] = conditions },
        };
        await client.PatchAsync(KubeResources.ServiceExports, export.Metadata.Namespace, export.Metadata.Name!, KubePatch.Merge(patch), cancellation,
            new KubeWrite { Subresource = "status", FieldManager = "mesh-operator" });
    }

    private static string Word(bool status) => status ? "True" : "False";

    private static string Short(string message) => message.Length <= LongestMessage ? message : message[..LongestMessage];

    private static string Time(DateTimeOffset time) => time.UtcDateTime.ToString("yyyy-MM-dd'T'HH:mm:ss'Z'", CultureInfo.InvariantCulture);
}
