using System.Text.Json.Nodes;
using Mesh.KubeApi.Objects;
using Mesh.KubeApi.Store;

namespace Mesh.KubeApi.Api;

/// <summary>CustomResourceDefinitions: checked like a structural schema must be, then served; gone with all their objects when deleted.</summary>
internal sealed class Definitions(KubeApiOptions options, ObjectStore store, TypeRegistry types)
{
    /// <summary>Fills in names and refuses what a kube-apiserver would.</summary>
    public static void Prepare(JsonObject node, JsonObject? old)
    {
        var spec = node.Need("spec");
        var names = spec.Need("names");
        var kind = names.Str("kind") ?? "";
        names.Default("singular", kind.ToLowerInvariant());
        names.Default("listKind", $"{kind}List");
        spec.Need("conversion").Default("strategy", "None");
        var causes = new List<KubeApiException.Cause>();
        if (spec.Str("group") is null or "")
            causes.Add(KubeApiException.Cause.Required("spec.group"));
        if (kind == "")
            causes.Add(KubeApiException.Cause.Required("spec.names.kind"));
        if (names.Str("plural") is null or "")
            causes.Add(KubeApiException.Cause.Required("spec.names.plural"));
        if (node["metadata"].Str("name") != $"{names.Str("plural")}.{spec.Str("group")}")
            causes.Add(KubeApiException.Cause.Invalid("metadata.name", $"\"{node["metadata"].Str("name")}\"",
                $"must be spec.names.plural+\".\"+spec.group"));
        if (spec.Str("scope") is not ("Namespaced" or "Cluster"))
            causes.Add(KubeApiException.Cause.Unsupported("spec.scope", $"\"{spec.Str("scope")}\"", ["Cluster", "Namespaced"]));
        if (old is not null && old.Obj("spec").Str("scope") != spec.Str("scope"))
            causes.Add(KubeApiException.Cause.Invalid("spec.scope", $"\"{spec.Str("scope")}\"", "field is immutable"));
        var versions = spec.Arr("versions").Objects().ToList();
        if (versions.Count == 0)
            causes.Add(KubeApiException.Cause.Required("spec.versions"));
        if (versions.Count(version => version.Bool("storage") == true) != 1)
            causes.Add(KubeApiException.Cause.Invalid("spec.versions", Json.Text(new JsonArray([.. versions.Select(one => (JsonNode?)one.Str("name"))])),
                "must have exactly one version marked as storage version"));
        for (var i = 0; i < versions.Count; i++)
        {
            if (versions[i].Obj("schema").Obj("openAPIV3Schema") is not { } schema)
                causes.Add(KubeApiException.Cause.Required($"spec.versions[{i}].schema.openAPIV3Schema", "schemas are required"));
            else
                Structural(schema, $"spec.versions[{i}].schema.openAPIV3Schema", causes, top: true);
            if (versions[i]["served"] is null)
                causes.Add(KubeApiException.Cause.Required($"spec.versions[{i}].served"));
        }
        if (causes.Count > 0)
            throw KubeApiException.Invalid("CustomResourceDefinition", "apiextensions.k8s.io", node["metadata"].Str("name") ?? "", causes);
    }

    private static void Structural(JsonObject schema, string path, List<KubeApiException.Cause> causes, bool top = false)
    {
        var free = schema.Bool("x-kubernetes-int-or-string") == true || schema.Bool("x-kubernetes-preserve-unknown-fields") == true;
        if (schema.Str("type") is null or "" && !free)
            causes.Add(KubeApiException.Cause.Required($"{path}.type", "must not be empty for specified object fields"));
        if (top && schema.Str("type") != "object")
            causes.Add(KubeApiException.Cause.Invalid($"{path}.type", $"\"{schema.Str("type")}\"", "must be object at the root"));
        if (schema.Str("type") == "array" && schema["items"] is not JsonObject)
            causes.Add(KubeApiException.Cause.Required($"{path}.items", "must be specified"));
        if (schema["properties"] is not null && schema["additionalProperties"] is not null)
            causes.Add(new($"{path}.additionalProperties", "FieldValueForbidden", "Forbidden: additionalProperties and properties are mutual exclusive"));
        foreach (var (name, child) in schema.Obj("properties") ?? [])
            if (child is JsonObject inner)
                Structural(inner, $"{path}.properties[{name}]", causes);
        if (schema["items"] is JsonObject items)
            Structural(items, $"{path}.items", causes);
        if (schema["additionalProperties"] is JsonObject rest)
            Structural(rest, $"{path}.additionalProperties", causes);
        if (schema.Str("pattern") is { } pattern)
        {
            try
            {
                _ = new System.Text.RegularExpressions.Regex(pattern);
            }
            catch (ArgumentException failure)
            {
                causes.Add(KubeApiException.Cause.Invalid($"{path}.pattern", $"\"{pattern}\"", failure.Message));
            }
        }
        foreach (var banned in new[] { "$ref", "definitions", "dependencies", "deprecated",
            "discriminator", "id", "patternProperties", "readOnly", "writeOnly", "xml" })
            if (schema.ContainsKey(banned))
                causes.Add(new($"{path}.{banned}", "FieldValueForbidden", $"Forbidden: {banned} is not supported"));
    }

    /// <summary>Serves the resource at once and says so in the CRD's status.</summary>
    public StoredObject Serve(StoredObject stored)
    {
        var spec = stored.Node.Obj("spec")!;
        var names = spec.Obj("names")!;
        static string[] Strings(JsonArray? list) => [.. (list ?? []).Select(one => (string)one!)];
        var versions = spec.Arr("versions").Objects().Where(version => version.Bool("served") == true).Select(version => new ServedVersion(version.Str("name")!)
        {
            Schema = version.Obj("schema").Obj("openAPIV3Schema") is { } schema ? new StructuralSchema(schema) : null,
            PrinterColumns = version.Arr("additionalPrinterColumns"),
            Status = version.Obj("subresources")?.ContainsKey("status") == true,
            Scale = version.Obj("subresources").Obj("scale"),
        }).ToList();
        if (versions.Count > 0)
            types.Serve(new ResourceType(spec.Str("group")!, names.Str("plural")!, names.Str("kind")!)
            {
                Versions = versions,
                Singular = names.Str("singular")!,
                ListKind = names.Str("listKind")!,
                Namespaced = spec.Str("scope") == "Namespaced",
                ShortNames = Strings(names.Arr("shortNames")),
                Categories = Strings(names.Arr("categories")),
                Subresources = versions.Any(version => version.Scale is not null) ? ["scale"] : [],
                Custom = true,
            });
        if (stored.Node.Obj("status").Arr("conditions") is { Count: > 0 })
            return stored;
        var node = stored.Copy("v1");
        var now = Writes.Rfc3339(options.Time.GetUtcNow());
        JsonObject Condition(string kind, string reason, string message) => new()
        {
            ["type"] = kind,
            ["status"] = "True",
            ["lastTransitionTime"] = now,
            ["reason"] = reason,
            ["message"] = message,
        };
        node["status"] = new JsonObject
        {
            ["conditions"] = new JsonArray(Condition("NamesAccepted", "NoConflicts", "no conflicts found"),
                Condition("Established", "InitialNamesAccepted", "the initial names have been accepted")),
            ["acceptedNames"] = names.DeepClone(),
            ["storedVersions"] = new JsonArray(spec.Arr("versions").Objects().First(version => version.Bool("storage") == true).Str("name")),
        };
        return store.TryCommit(stored.Type, "", stored.Name, stored, node, out var told) ? told! : stored;
    }

    /// <summary>A CRD that has gone takes its objects with it.</summary>
    public void Gone(StoredObject last)
    {
        if (last.Type.Kind != "CustomResourceDefinition")
            return;
        var key = $"{last.Node.Obj("spec").Str("group")}/{last.Node.Obj("spec").Obj("names").Str("plural")}";
        if (types.All.FirstOrDefault(type => type.Key == key) is not { } type)
            return;
        store.Drop(type);
        types.Withdraw(key);
        store.CutWatches(type);
    }
}
