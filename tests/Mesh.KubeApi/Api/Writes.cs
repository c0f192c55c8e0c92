using System.Globalization;
using System.Text.Json.Nodes;
using Mesh.KubeApi.Objects;
using Mesh.KubeApi.Patching;
using Mesh.KubeApi.Store;

namespace Mesh.KubeApi.Api;

/// <summary>
/// Create, update, patch: what a kube-apiserver does to an object between the body and the store. Defaults, checks, allocation, the
/// line between spec and status, generation, and who wrote which field. Writers take turns; readers never wait for them.
/// </summary>
internal sealed class Writes(KubeApiOptions options, ObjectStore store, TypeRegistry types, Definitions definitions, string authority)
{
    private readonly Lock _turn = new();
    private readonly ServiceAllocator _services = new(options, store);
    private readonly Deletion _deletion = new(options, store);

    public Deletion Deletion => _deletion;

    public static string Rfc3339(DateTimeOffset time) => time.UtcDateTime.ToString("yyyy-MM-dd'T'HH:mm:ss'Z'", CultureInfo.InvariantCulture);

    /// <summary>Who writes, how, and whether it is only a trial.</summary>
    public sealed record Writer(string Manager, bool DryRun = false, string Sub = "", string User = "")
    {
        public static Writer Internal { get; } = new("kube-apiserver");
    }

    public StoredObject Create(ResourceType type, string version, string @namespace, JsonObject node, Writer writer, string pathName = "")
    {
        lock (_turn)
            return CreateInTurn(type, version, @namespace, node, writer, pathName);
    }

    private StoredObject CreateInTurn(ResourceType type, string version, string @namespace, JsonObject node, Writer writer, string pathName)
    {
        CheckKind(type, version, node);
        var metadata = node.Need("metadata");
        if (metadata.Str("resourceVersion") is { Length: > 0 })
            throw KubeApiException.BadRequest("resourceVersion should not be set on objects to be created");
        if (metadata.Str("name") is null or "" && metadata.Str("generateName") is { Length: > 0 } begin)
            metadata["name"] = begin + Names.Suffix(5);
        else if (metadata.Str("name") is null or "" && pathName != "")
            metadata["name"] = pathName;
        CheckMetadata(type, @namespace, node);
        var name = metadata.Str("name")!;
        if (type.Namespaced)
            CheckNamespace(type, metadata.Str("namespace")!, name);
        if (store.Get(type, metadata.Str("namespace") ?? "", name) is not null)
            throw KubeApiException.AlreadyExists(type.Plural, type.Group, name);
        metadata["uid"] = Guid.NewGuid().ToString();
        metadata["creationTimestamp"] = Rfc3339(options.Time.GetUtcNow());
        metadata.Remove("deletionTimestamp");
        metadata.Remove("deletionGracePeriodSeconds");
        metadata.Remove("selfLink");
        metadata.Remove("generation");
        if (type.Generation || type.Custom)
            metadata["generation"] = 1;
        if (type.HasStatus(version) && type.Kind is not ("Node" or "CertificateSigningRequest"))
            node.Remove("status");
        if (type.Kind == "Pod")
            node["status"] = new JsonObject { ["phase"] = "Pending", ["qosClass"] = "BestEffort" };
        else if (type.Kind == "Service")
            node["status"] = new JsonObject { ["loadBalancer"] = new JsonObject() };
        else if (type.Kind == "Namespace")
        {
            node["status"] = new JsonObject { ["phase"] = "Active" };
            node.Need("spec")["finalizers"] = new JsonArray("kubernetes");
        }
        if (type.Kind == "Pod")
            AdmitPod(node);
        Finish(type, version, node, null);
        FieldOwners.Written(type, types, version, null, node, writer, options.Time.GetUtcNow());
        var made = Commit(type, null, node, writer.DryRun);
        // A controller does this in a real cluster, some moments later; here no pod has to wait for it.
        if (type == BuiltIns.Namespaces && options.MakeServiceAccounts && !writer.DryRun)
            foreach (var (kind, own) in Bootstrapping.OfNamespace(authority))
                CreateInTurn(kind, "v1", name, own, Writer.Internal, "");
        return made;
    }

    private void AdmitPod(JsonObject pod)
    {
        var account = pod.Obj("spec").Str("serviceAccountName") ?? "default";
        var @namespace = pod["metadata"].Str("namespace")!;
        var there = store.Get(BuiltIns.ServiceAccounts, @namespace, account);
        if (there is null && options.MakeServiceAccounts)
            throw KubeApiException.Forbidden("pods", "", pod["metadata"].Str("name")!,
                $"error looking up service account {@namespace}/{account}: serviceaccount \"{account}\" not found");
        Defaults.AdmitServiceAccount(pod, there?.Node.Bool("automountServiceAccountToken") ?? true);
    }

    private static void CheckKind(ResourceType type, string version, JsonObject node)
    {
        var wanted = type.ApiVersion(version);
        var said = node.Str("apiVersion");
        var kind = node.Str("kind");
        if (said is not null && said != wanted)
            throw KubeApiException.BadRequest($"the API version in the data ({said}) does not match the expected API version ({wanted})");
        if (kind is not null && kind != type.Kind)
            throw KubeApiException.BadRequest($"{kind} in version \"{type.Versions[0].Name}\" cannot be handled as a {type.Kind}");
        if (type.Custom && (said is null || kind is null))
            throw KubeApiException.BadRequest($"Object 'Kind' is missing in '{Json.Text(node)}'");
        node.Remove("apiVersion");
        node.Remove("kind");
        node.Insert(0, "apiVersion", wanted);
        node.Insert(0, "kind", type.Kind);
    }

    private static void CheckMetadata(ResourceType type, string @namespace, JsonObject node)
    {
        var metadata = node.Need("metadata");
        var name = metadata.Str("name") ?? "";
        if (type.Namespaced)
        {
            if (metadata.Str("namespace") is { Length: > 0 } said && said != @namespace)
                throw KubeApiException.BadRequest($"the namespace of the provided object does not match the namespace sent on the request");
            metadata["namespace"] = @namespace;
        }
        else
        {
            metadata.Remove("namespace");
        }
        var causes = new List<KubeApiException.Cause>();
        if (name == "")
            causes.Add(KubeApiException.Cause.Required("metadata.name", "name or generateName is required"));
        else if (Names.Problem(type.Kind, name) is { } problem)
            causes.Add(KubeApiException.Cause.Invalid("metadata.name", $"\"{name}\"", problem));
        foreach (var (key, value) in metadata.Obj("labels") ?? [])
            if (value?.GetValueKind() != System.Text.Json.JsonValueKind.String)
                throw KubeApiException.BadRequest($"{type.Kind} in version \"{type.Versions[0].Name}\" cannot be handled as a {type.Kind}: "
                    + $"json: cannot unmarshal {value?.GetValueKind().ToString().ToLowerInvariant()} "
                    + "into Go struct field ObjectMeta.metadata.labels of type string");
            else if (!Names.IsLabelValue((string)value!))
                causes.Add(KubeApiException.Cause.Invalid("metadata.labels", $"\"{value}\"", "a valid label must be an empty string or consist of "
                    + "alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"));
        foreach (var (key, value) in metadata.Obj("annotations") ?? [])
            if (value?.GetValueKind() != System.Text.Json.JsonValueKind.String)
                throw KubeApiException.BadRequest($"{type.Kind} in version \"{type.Versions[0].Name}\" cannot be handled as a {type.Kind}: "
                    + $"json: cannot unmarshal {value?.GetValueKind().ToString().ToLowerInvariant()} "
                    + "into Go struct field ObjectMeta.metadata.annotations of type string");
        if (causes.Count > 0)
            throw KubeApiException.Invalid(type.Kind, type.Group, name, causes);
    }

    private void CheckNamespace(ResourceType type, string @namespace, string name)
    {
        var there = store.Get(BuiltIns.Namespaces, "", @namespace) ?? throw KubeApiException.NotFound("namespaces", "", @namespace);
        if (there.Deleting)
            throw new KubeApiException(403, "Forbidden", $"{type.Plural} \"{name}\" is forbidden: unable to create new content in namespace {@namespace} "
                + "because it is being terminated", new()
                {
                    ["name"] = name,
                    ["kind"] = type.Plural,
                    ["causes"] = new JsonArray(new JsonObject
                    {
                        ["reason"] = "NamespaceTerminating",
                        ["message"] = $"namespace {@namespace} is being terminated",
                        ["field"] = "metadata.namespace",
                    })
                });
    }

    /// <summary>Defaults, schema, checks of the kind, allocation: the same for new and changed objects.</summary>
    private void Finish(ResourceType type, string version, JsonObject node, JsonObject? old)
    {
        if (type.Custom)
        {
            if (type.Served(version).Schema is { } schema)
            {
                schema.Prune(node);
                schema.ApplyDefaults(node);
                if (schema.Validate(node) is { Count: > 0 } causes)
                    throw KubeApiException.Invalid(type.Kind, type.Group, node["metadata"].Str("name") ?? "", causes);
            }
            return;
        }
        Defaults.Apply(type, node);
        Validation.Check(type, node, old);
        if (type.Kind == "Service")
            _services.Prepare(node, old);
        else if (type.Kind == "CustomResourceDefinition")
            Definitions.Prepare(node, old);
    }

    private StoredObject Commit(ResourceType type, StoredObject? before, JsonObject node, bool dryRun)
    {
        if (dryRun)
        {
            node["metadata"]!["resourceVersion"] = before?.Node["metadata"].Str("resourceVersion");
            if (before is null)
                ((JsonObject)node["metadata"]!).Remove("resourceVersion");
            return new StoredObject(type, node, before?.Revision ?? 0);
        }
        var metadata = node["metadata"]!;
        if (!store.TryCommit(type, metadata.Str("namespace") ?? "", metadata.Str("name")!, before, node, out var stored))
            throw before is null ? KubeApiException.AlreadyExists(type.Plural, type.Group, metadata.Str("name")!)
                : KubeApiException.Stale(type.Plural, type.Group, metadata.Str("name")!);
        if (type.Kind == "CustomResourceDefinition" && type.Group == "apiextensions.k8s.io")
            stored = definitions.Serve(stored!);
        return stored!;
    }

    /// <summary>
    /// Changes an object: <paramref name="change"/> gets a copy in the version asked for and gives the new whole (of which only what
    /// the subresource owns is taken). Writers take turns, so a change without a resourceVersion never conflicts.
    /// </summary>
    public StoredObject Change(ResourceType type, string version, string @namespace, string name, Writer writer, Func<JsonObject, JsonObject> change,
        bool applied = false)
    {
        lock (_turn)
        {
            var before = store.Get(type, @namespace, name) ?? throw KubeApiException.NotFound(type.Plural, type.Group, name);
            var node = change(before.Copy(version));
            var metadata = node.Need("metadata");
            CheckKind(type, version, node);
            if (metadata.Str("name") is { } said && said != name)
                throw KubeApiException.BadRequest($"the name of the object ({said}) does not match the name on the URL ({name})");
            metadata["name"] = name;
            if (metadata.Str("resourceVersion") is { Length: > 0 } expected && expected != before.Node["metadata"].Str("resourceVersion"))
                throw KubeApiException.Stale(type.Plural, type.Group, name);
            if (metadata.Str("uid") is { Length: > 0 } uid && uid != before.Uid)
                throw KubeApiException.Conflict(type.Plural, type.Group, name,
                    $"Precondition failed: UID in precondition: {uid}, UID in object meta: {before.Uid}");
            var old = before.Copy(version);
            node = Keep(type, version, old, node, writer.Sub);
            CheckMetadata(type, @namespace, node);
            Finish(type, version, node, old);
            if ((type.Generation || type.Custom) && !SameBeside(old, node))
                node["metadata"]!["generation"] = (old["metadata"].Num("generation") ?? 0) + 1;
            if (!applied)
                FieldOwners.Written(type, types, version, old, node, writer, options.Time.GetUtcNow());
            if (FieldOwners.SameButTime(old, node))
                return before;
            var finished = before.Deleting && node["metadata"].Arr("finalizers") is not { Count: > 0 } && Deletion.GraceIsOver(before)
                && node["spec"].Arr("finalizers") is not { Count: > 0 };
            if (finished && !writer.DryRun)
            {
                // The last finalizer has gone: the change is the removal.
                var last = new StoredObject(type, node, before.Revision);
                store.TryCommit(type, @namespace, name, before, null, out _);
                definitions.Gone(last);
                return last;
            }
            return Commit(type, before, node, writer.DryRun);
        }
    }

    /// <summary>What the writer may not change stays as it was.</summary>
    private static JsonObject Keep(ResourceType type, string version, JsonObject old, JsonObject node, string sub)
    {
        var oldMetadata = (JsonObject)old["metadata"]!;
        if (sub == "status")
        {
            var result = (JsonObject)old.DeepClone();
            result.Remove("status");
            if (node["status"] is { } status)
                result["status"] = status.DeepClone();
            if (!type.Custom)
                foreach (var part in new[] { "labels", "annotations", "finalizers" })
                    if (node["metadata"]![part] is { } value && type.Kind is "Node" or "Pod" && part != "finalizers")
                        result["metadata"]![part] = value.DeepClone();
            if (node["metadata"]!["managedFields"] is { } fields)
                result["metadata"]!["managedFields"] = fields.DeepClone();
            return result;
        }
        var metadata = node.Need("metadata");
        foreach (var part in new[] { "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "generateName", "namespace" })
        {
            metadata.Remove(part);
            if (oldMetadata[part] is { } value)
                metadata[part] = value.DeepClone();
        }
        metadata.Remove("selfLink");
        metadata["resourceVersion"] = oldMetadata["resourceVersion"]?.DeepClone();
        if (sub == "finalize" || type.HasStatus(version))
        {
            node.Remove("status");
            if (old["status"] is { } status)
                node["status"] = status.DeepClone();
        }
        if (type.Kind == "Namespace" && sub != "finalize")
        {
            node.Remove("spec");
            if (old["spec"] is { } spec)
                node["spec"] = spec.DeepClone();
        }
        return node;
    }

    private static bool SameBeside(JsonObject old, JsonObject node) =>
        old.Where(pair => pair.Key is not ("metadata" or "status")).Count() == node.Where(pair => pair.Key is not ("metadata" or "status")).Count()
        && old.All(pair => pair.Key is "metadata" or "status" || Json.Same(pair.Value, node[pair.Key]));

    /// <summary>Replaces an object by the body given; a resourceVersion in it must be the present one.</summary>
    public StoredObject Update(ResourceType type, string version, string @namespace, string name, JsonObject body, Writer writer)
    {
        var metadata = body.Need("metadata");
        if (metadata.Str("name") is null)
            throw KubeApiException.Invalid(type.Kind, type.Group, name, [KubeApiException.Cause.Required("metadata.name", "name or generateName is required")]);
        if (type.Custom && metadata.Str("resourceVersion") is null or "")
        {
            if (type.Custom && store.Get(type, @namespace, name) is not null)
                throw KubeApiException.Invalid(type.Kind, type.Group, name, [new("metadata.resourceVersion", "FieldValueInvalid",
                    "Invalid value: 0x0: must be specified for an update")]);
        }
        return Change(type, version, @namespace, name, writer, old =>
        {
            // Clients that do not know of managed fields leave them out; that takes nothing away.
            if (body["metadata"]!["managedFields"] is null && old["metadata"]!["managedFields"] is { } fields)
                body["metadata"]!["managedFields"] = fields.DeepClone();
            return (JsonObject)body.DeepClone();
        });
    }

    public StoredObject Patch(ResourceType type, string version, string @namespace, string name, string mediaType, JsonNode? patch, Writer writer) =>
        Change(type, version, @namespace, name, writer, old => mediaType switch
        {
            "application/merge-patch+json" => MergePatch.Apply(old, patch) as JsonObject ?? throw KubeApiException.BadRequest("the patch is not an object"),
            "application/json-patch+json" => JsonPatch.Apply(old, patch) as JsonObject ?? throw KubeApiException.BadRequest("the result is not an object"),
            "application/strategic-merge-patch+json" when !type.Custom => new StrategicMergePatch(type.Group, type.Kind).Apply(old, patch),
            _ => throw KubeApiException.UnsupportedMediaType("application/json-patch+json, application/merge-patch+json, "
                + (type.Custom ? "application/apply-patch+yaml" : "application/strategic-merge-patch+json, application/apply-patch+yaml")),
        });

    /// <summary>Server-side apply: creates what is not there; conflicts with other owners unless forced.</summary>
    public (StoredObject Stored, bool Created) Apply(ResourceType type, string version, string @namespace, string name,
        JsonObject intent, Writer writer, bool force)
    {
        lock (_turn)
        {
            var intentMetadata = intent.Need("metadata");
            if (intentMetadata["managedFields"] is JsonArray { Count: > 0 })
                throw KubeApiException.BadRequest("metadata.managedFields must be nil");
            CheckKind(type, version, intent);
            if (store.Get(type, @namespace, name) is null && writer.Sub == "")
            {
                if (intentMetadata.Str("uid") is { Length: > 0 })
                    throw KubeApiException.Conflict(type.Plural, type.Group, name, "uid mismatch: the provided object specified a uid and there is none");
                intentMetadata.Default("name", name);
                var made = (JsonObject)intent.DeepClone();
                FieldOwners.Applied(type, types, version, made, intent, writer, options.Time.GetUtcNow());
                return (CreateInTurn(type, version, @namespace, made, writer with { Manager = "" }, name), true);
            }
            var stored = Change(type, version, @namespace, name, writer,
                old => FieldOwners.Apply(type, types, version, old, intent, writer, force, options.Time.GetUtcNow()), applied: true);
            return (stored, false);
        }
    }

    /// <summary>All objects of a text, created or replaced, as the administrator would.</summary>
    public void ApplyAll(string text, string defaultNamespace)
    {
        var documents = text.TrimStart().StartsWith('{') ? [JsonNode.Parse(text)!] : Json.FromYaml(text).ToList();
        foreach (var node in documents.SelectMany(one => one.Arr("items") is { } items && one.Str("kind")?.EndsWith("List", StringComparison.Ordinal) == true
            ? items.Objects() : [(JsonObject)one]).ToList())
            ApplyOne(node, defaultNamespace);
    }

    /// <summary>One object, created or replaced with its status, as the administrator would.</summary>
    public void ApplyOne(JsonObject node, string defaultNamespace)
    {
        var apiVersion = node.Str("apiVersion") ?? throw KubeApiException.BadRequest("an object without apiVersion");
        var slash = apiVersion.IndexOf('/', StringComparison.Ordinal);
        var group = slash < 0 ? "" : apiVersion[..slash];
        var type = types.OfKind(group, node.Str("kind") ?? "")
            ?? throw KubeApiException.BadRequest($"no kind {node.Str("kind")} of {apiVersion} is served; apply its CustomResourceDefinition first");
        var version = apiVersion[(slash + 1)..];
        var @namespace = type.Namespaced ? node["metadata"].Str("namespace") ?? defaultNamespace : "";
        var name = node["metadata"].Str("name") ?? throw KubeApiException.BadRequest($"a {type.Kind} without a name");
        var copy = (JsonObject)node.DeepClone();
        var status = copy["status"]?.DeepClone();
        copy.Need("metadata").Remove("resourceVersion");
        copy.Need("metadata").Remove("uid");
        if (store.Get(type, @namespace, name) is null)
            Create(type, version, @namespace, copy, Writer.Internal);
        else
            Change(type, version, @namespace, name, Writer.Internal, old =>
            {
                copy["metadata"]!["managedFields"] = old["metadata"]!["managedFields"]?.DeepClone();
                return copy;
            });
        if (status is not null && type.HasStatus(version))
            Change(type, version, @namespace, name, Writer.Internal with { Sub = "status" }, old =>
            {
                old["status"] = status;
                return old;
            });
    }

    /// <summary>Deletes in turn with the other writers.</summary>
    public (StoredObject Last, bool Gone) Delete(ResourceType type, string @namespace, string name, JsonObject deleteOptions, bool dryRun)
    {
        lock (_turn)
        {
            var before = store.Get(type, @namespace, name) ?? throw KubeApiException.NotFound(type.Plural, type.Group, name);
            var (last, gone) = _deletion.Delete(before, deleteOptions, dryRun);
            if (gone && !dryRun)
                definitions.Gone(last);
            return (last, gone);
        }
    }
}
