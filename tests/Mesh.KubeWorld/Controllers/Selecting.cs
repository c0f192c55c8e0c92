using System.Text.Json.Nodes;
using Mesh.KubeApi.Objects;

namespace Mesh.KubeWorld.Controllers;

/// <summary>What several controllers ask of pods and nodes.</summary>
internal static class Selecting
{
    public static string Name(this JsonObject one) => one.Obj("metadata")!.Str("name")!;

    public static string Space(this JsonObject one) => one.Obj("metadata")!.Str("namespace") ?? "";

    public static string Uid(this JsonObject one) => one.Obj("metadata")!.Str("uid")!;

    public static bool Deleting(this JsonObject one) => one.Obj("metadata")!.ContainsKey("deletionTimestamp");

    public static bool OwnedBy(this JsonObject one, JsonObject owner) =>
        one.Obj("metadata").Arr("ownerReferences").Objects().Any(reference => reference.Str("uid") == owner.Uid());

    public static bool HasLabels(JsonObject one, JsonObject? wanted) =>
        wanted?.All(pair => one.Obj("metadata").Obj("labels")?[pair.Key]?.ToString() == pair.Value?.ToString()) != false;

    public static bool IsReady(JsonObject pod) =>
        pod.Obj("status").Arr("conditions").Objects().Any(condition => condition.Str("type") == "Ready" && condition.Str("status") == "True");

    public static bool Ended(JsonObject pod) => pod.Obj("status").Str("phase") is "Succeeded" or "Failed";

    /// <summary>Whether a pod of this spec may stand on the node.</summary>
    public static bool Suits(JsonObject spec, JsonObject node) =>
        HasLabels(node, spec.Obj("nodeSelector")) && node.Obj("spec").Arr("taints").Objects().All(taint => spec.Arr("tolerations").Objects()
            .Any(toleration => (toleration.Str("key") ?? "") is var key && (key == "" || key == taint.Str("key"))
                && (toleration.Str("effect") ?? "") is var effect && (effect == "" || effect == taint.Str("effect"))));

    /// <summary>A pod of a template, with an owner.</summary>
    public static JsonObject Pod(JsonObject owner, string apiVersion, string kind, string name, JsonObject template, string hash, string? node)
    {
        var pod = (JsonObject)template.DeepClone();
        var meta = pod.Need("metadata");
        meta["name"] = name;
        meta["namespace"] = owner.Space();
        meta.Need("labels")["pod-template-hash"] = hash;
        meta["ownerReferences"] = new JsonArray(Owner(owner, apiVersion, kind));
        if (node is not null)
            pod.Need("spec")["nodeName"] = node;
        return pod;
    }

    public static JsonObject Owner(JsonObject owner, string apiVersion, string kind) => new()
    {
        ["apiVersion"] = apiVersion,
        ["kind"] = kind,
        ["name"] = owner.Name(),
        ["uid"] = owner.Uid(),
        ["controller"] = true,
        ["blockOwnerDeletion"] = true,
    };

    public static string Hash(JsonObject template) => Fingerprint.Of(template.ToJsonString());
}
