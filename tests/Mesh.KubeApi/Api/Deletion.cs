using System.Globalization;
using System.Text.Json.Nodes;
using Mesh.KubeApi.Objects;
using Mesh.KubeApi.Store;

namespace Mesh.KubeApi.Api;

/// <summary>
/// What DELETE does: at once, or by a deletionTimestamp while finalizers, a pod's grace or its dependents stand in the way.
/// </summary>
internal sealed class Deletion(KubeApiOptions options, ObjectStore store)
{
    public const string ForegroundFinalizer = "foregroundDeletion";
    public const string OrphanFinalizer = "orphan";

    /// <summary>A pod in its grace is the kubelet's to remove, by a DELETE with grace 0.</summary>
    public static bool GraceIsOver(StoredObject stored) =>
        stored.Type.Kind != "Pod" || stored.Node["metadata"].Num("deletionGracePeriodSeconds") is null or 0;

    public (StoredObject Last, bool Gone) Delete(StoredObject before, JsonObject delete, bool dryRun)
    {
        var type = before.Type;
        var wanted = delete.Obj("preconditions");
        if (wanted.Str("uid") is { } uid && uid != before.Uid)
            throw KubeApiException.Conflict(type.Plural, type.Group, before.Name,
                $"Precondition failed: UID in precondition: {uid}, UID in object meta: {before.Uid}");
        if (wanted.Str("resourceVersion") is { } revision && revision != before.Node["metadata"].Str("resourceVersion"))
            throw KubeApiException.Conflict(type.Plural, type.Group, before.Name,
                $"Precondition failed: ResourceVersion in precondition: {revision}, "
                + $"ResourceVersion in object meta: {before.Node["metadata"].Str("resourceVersion")}");
        if (type.Kind == "Namespace" && before.Name is "default" or "kube-system" or "kube-public" && type.Group == "" && type.Plural == "namespaces")
            throw KubeApiException.Forbidden("namespaces", "", before.Name, "this namespace may not be deleted");

        var node = before.Copy(type.Versions[0].Name);
        var metadata = (JsonObject)node["metadata"]!;
        var finalizers = metadata.Arr("finalizers")?.Select(one => (string)one!).ToList() ?? [];
        var policy = delete.Str("propagationPolicy") ?? (delete.Bool("orphanDependents") == true ? "Orphan" : null);
        if (policy is not null)
        {
            finalizers.Remove(ForegroundFinalizer);
            finalizers.Remove(OrphanFinalizer);
        }
        if (policy == "Foreground")
            finalizers.Add(ForegroundFinalizer);
        else if (policy == "Orphan")
            finalizers.Add(OrphanFinalizer);

        var grace = Grace(type, before, delete);
        var held = finalizers.Count > 0 || (type.Kind == "Namespace" && type.Group == "");
        if (!held && grace == 0)
        {
            if (dryRun)
                return (before, true);
            if (!store.TryCommit(type, before.Namespace, before.Name, before, null, out var last))
                throw KubeApiException.Stale(type.Plural, type.Group, before.Name);
            return (last!, true);
        }
        if (before.Deleting && finalizers.SequenceEqual(metadata.Arr("finalizers")?.Select(one => (string)one!) ?? [])
            && grace >= (metadata.Num("deletionGracePeriodSeconds") ?? 0))
            return (before, false);
        if (finalizers.Count > 0)
            metadata["finalizers"] = new JsonArray([.. finalizers.Select(one => (JsonNode)one)]);
        else
            metadata.Remove("finalizers");
        if (!before.Deleting || grace < (metadata.Num("deletionGracePeriodSeconds") ?? 0))
        {
            metadata["deletionTimestamp"] = Writes.Rfc3339(options.Time.GetUtcNow().AddSeconds(grace));
            metadata["deletionGracePeriodSeconds"] = grace;
            if (metadata.Num("generation") is { } generation && !before.Deleting)
                metadata["generation"] = generation + 1;
        }
        if (type.Kind == "Namespace" && type.Group == "")
            node.Need("status")["phase"] = "Terminating";
        if (dryRun)
            return (new StoredObject(type, node, before.Revision), false);
        if (!store.TryCommit(type, before.Namespace, before.Name, before, node, out var stored))
            throw KubeApiException.Stale(type.Plural, type.Group, before.Name);
        return (stored!, false);
    }

    /// <summary>Seconds that a pod has to end; everything else has none, and so have pods without a node or that have ended.</summary>
    private static long Grace(ResourceType type, StoredObject before, JsonObject delete)
    {
        if (type.Kind != "Pod" || type.Group != "")
            return 0;
        var asked = delete.Num("gracePeriodSeconds");
        if (asked is < 0)
            throw KubeApiException.BadRequest(string.Create(CultureInfo.InvariantCulture, $"gracePeriodSeconds must not be negative: {asked}"));
        if (before.Node.Obj("spec").Str("nodeName") is null or "" || before.Node.Obj("status").Str("phase") is "Succeeded" or "Failed")
            return 0;
        return asked ?? before.Node.Obj("spec").Num("terminationGracePeriodSeconds") ?? 30;
    }
}
