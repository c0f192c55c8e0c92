using System.Text.Json.Nodes;
using Mesh.KubeApi.Auth;
using Mesh.KubeApi.Objects;
using Mesh.KubeApi.Patching;
using Mesh.KubeApi.Store;
using Mesh.KubeApi.Streams;

namespace Mesh.KubeApi.Api;

/// <summary>What hangs below an object beside its status: scale, binding, eviction, tokens, finalize, and a pod's streams.</summary>
internal sealed class Subresources(KubeApiOptions options, KubeApiServer server, ObjectStore store, Writes writes, TokenBook tokens)
{
    private readonly PodConnections _connections = new(server, options);

    public async Task HandleAsync(ApiRequest request, ResourceType type, CancellationToken serverStops)
    {
        if (!type.Subresources.Contains(request.Sub))
            throw KubeApiException.NoSuchPath();
        switch (request.Sub, request.Verb)
        {
            case ("scale", "get"):
                await Reply.JsonAsync(request.Http, 200, Scale(type, request.Version, Get(request, type).Node));
                break;
            case ("scale", "update" or "patch"):
                await ScaleAsync(request, type);
                break;
            case ("binding", "create"):
                await BindAsync(request, type);
                break;
            case ("eviction", "create"):
                var eviction = await ApiHandler.BodyAsync(request);
                writes.Delete(type, request.Namespace, request.Name, eviction.Obj("deleteOptions") ?? [], request.DryRun);
                await Reply.JsonAsync(request.Http, 201, Success());
                break;
            case ("token", "create"):
                await TokenAsync(request, type);
                break;
            case ("finalize", "update"):
                var body = await ApiHandler.BodyAsync(request);
                var stored = writes.Update(type, request.Version, "", request.Name, body, new Writes.Writer(request.FieldManager, request.DryRun, "finalize"));
                await Reply.ObjectAsync(request, 200, stored, options.Time);
                break;
            case ("log", "get"):
            case ("exec" or "attach" or "portforward", "create" or "get"):
                await _connections.HandleAsync(request, Get(request, type), serverStops);
                break;
            default:
                throw KubeApiException.MethodNotAllowed();
        }
    }

    private StoredObject Get(ApiRequest request, ResourceType type) =>
        store.Get(type, type.Namespaced ? request.Namespace : "", request.Name) ?? throw request.NotFound();

    private static JsonObject Success() => new()
    { ["kind"] = "Status", ["apiVersion"] = "v1", ["metadata"] = new JsonObject(), ["status"] = "Success", ["code"] = 201 };

    private static string[] Path(string? path, string fallback) => (path ?? fallback).Trim('.').Split('.');

    private static JsonNode? At(JsonObject node, string[] path) => path.Aggregate((JsonNode?)node, (at, step) => (at as JsonObject)?[step]);

    private static JsonObject Scale(ResourceType type, string version, JsonObject node)
    {
        var scale = type.Custom ? type.Served(version).Scale : null;
        var metadata = new JsonObject();
        foreach (var part in new[] { "name", "namespace", "uid", "resourceVersion", "creationTimestamp" })
            if (node["metadata"]![part] is { } value)
                metadata[part] = value.DeepClone();
        var selector = node.Obj("spec").Obj("selector");
        var labels = selector.Obj("matchLabels") ?? (type.Kind == "ReplicationController" ? selector : null);
        return new JsonObject
        {
            ["kind"] = "Scale",
            ["apiVersion"] = "autoscaling/v1",
            ["metadata"] = metadata,
            ["spec"] = new JsonObject { ["replicas"] = At(node, Path(scale.Str("specReplicasPath"), "spec.replicas"))?.DeepClone() ?? 0 },
            ["status"] = new JsonObject
            {
                ["replicas"] = At(node, Path(scale.Str("statusReplicasPath"), "status.replicas"))?.DeepClone() ?? 0,
                ["selector"] = scale?.Str("labelSelectorPath") is { } where ? At(node, Path(where, ""))?.DeepClone()
                    : string.Join(',', (labels ?? []).Select(pair => $"{pair.Key}={pair.Value}")),
            },
        };
    }

    private async Task ScaleAsync(ApiRequest request, ResourceType type)
    {
        var mediaType = request.Http.Request.ContentType?.Split(';')[0] ?? "";
        var body = Json.Parse(await ApiHandler.BytesAsync(request));
        var stored = writes.Change(type, request.Version, request.Namespace, request.Name, new Writes.Writer(request.FieldManager, request.DryRun), node =>
        {
            var before = Scale(type, request.Version, node);
            var after = request.Verb == "update" ? body as JsonObject
                : mediaType == "application/json-patch+json" ? JsonPatch.Apply(before, body) as JsonObject : MergePatch.Apply(before, body) as JsonObject;
            if (after?["metadata"].Str("resourceVersion") is { Length: > 0 } expected && expected != node["metadata"].Str("resourceVersion"))
                throw KubeApiException.Stale(type.Plural, type.Group, request.Name);
            if (after.Obj("spec").Num("replicas") is not { } replicas || replicas < 0)
                throw KubeApiException.Invalid("Scale", "autoscaling", request.Name, [KubeApiException.Cause.Invalid("spec.replicas",
                    Json.Text(after.Obj("spec")?["replicas"]), "must be greater than or equal to 0")]);
            var path = Path(type.Custom ? type.Served(request.Version).Scale.Str("specReplicasPath") : null, "spec.replicas");
            var parent = path[..^1].Aggregate(node, (at, step) => at.Need(step));
            parent[path[^1]] = replicas;
            return node;
        });
        await Reply.JsonAsync(request.Http, 200, Scale(type, request.Version, stored.Node));
    }

    private async Task BindAsync(ApiRequest request, ResourceType type)
    {
        var body = await ApiHandler.BodyAsync(request);
        var target = body.Obj("target").Str("name") ?? throw KubeApiException.BadRequest("a Binding names its node in target.name");
        writes.Change(type, "v1", request.Namespace, request.Name, new Writes.Writer(request.FieldManager, request.DryRun), node =>
        {
            if (node.Obj("spec").Str("nodeName") is { Length: > 0 } bound)
                throw KubeApiException.Conflict("pods/binding", "", request.Name, $"pod {request.Name} is already assigned to node \"{bound}\"");
            node.Need("spec")["nodeName"] = target;
            return node;
        });
        writes.Change(type, "v1", request.Namespace, request.Name, new Writes.Writer(request.FieldManager, request.DryRun, "status"), node =>
        {
            var conditions = node.Need("status").Arr("conditions") ?? [];
            node.Need("status")["conditions"] = new JsonArray([.. conditions.Objects().Where(one => one.Str("type") != "PodScheduled")
                .Select(one => one.DeepClone()).Append(new JsonObject
                {
                    ["type"] = "PodScheduled",
                    ["status"] = "True",
                    ["lastProbeTime"] = null,
                    ["lastTransitionTime"] = Writes.Rfc3339(options.Time.GetUtcNow()),
                })]);
            return node;
        });
        await Reply.JsonAsync(request.Http, 201, Success());
    }

    private async Task TokenAsync(ApiRequest request, ResourceType type)
    {
        var account = Get(request, type);
        var body = await ApiHandler.BodyAsync(request);
        var spec = body.Need("spec");
        var audiences = (spec.Arr("audiences") ?? []).Select(one => (string)one!).ToList();
        if (audiences.Count == 0)
            audiences.Add(TokenBook.Issuer);
        var seconds = spec.Num("expirationSeconds") ?? 3600;
        if (seconds < 600)
            throw KubeApiException.Invalid("TokenRequest", "authentication.k8s.io", "", [KubeApiException.Cause.Invalid("spec.expirationSeconds",
                Json.Text(spec["expirationSeconds"]), "may not specify a duration less than 10 minutes")]);
        JsonObject? pod = null;
        if (spec.Obj("boundObjectRef") is { } bound && bound.Str("kind") == "Pod")
        {
            var there = store.Get(BuiltIns.Pods, request.Namespace, bound.Str("name") ?? "")
                ?? throw KubeApiException.NotFound("pods", "", bound.Str("name") ?? "");
            if (bound.Str("uid") is { Length: > 0 } uid && uid != there.Uid)
                throw KubeApiException.Conflict("pods", "", there.Name, $"the UID in the bound object reference ({uid}) does not match the UID in record");
            pod = new() { ["name"] = there.Name, ["uid"] = there.Uid };
        }
        var (token, expires) = tokens.ServiceAccount(account.Namespace, account.Name, account.Uid, audiences, TimeSpan.FromSeconds(seconds), pod);
        body["kind"] = "TokenRequest";
        body["apiVersion"] = "authentication.k8s.io/v1";
        spec["audiences"] = new JsonArray([.. audiences.Select(one => (JsonNode)one)]);
        spec["expirationSeconds"] = seconds;
        body["status"] = new JsonObject { ["token"] = token, ["expirationTimestamp"] = Writes.Rfc3339(expires) };
        await Reply.JsonAsync(request.Http, 201, body);
    }
}
