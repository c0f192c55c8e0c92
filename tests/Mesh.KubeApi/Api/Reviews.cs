using System.Text.Json.Nodes;
using Mesh.KubeApi.Auth;
using Mesh.KubeApi.Objects;
using Mesh.KubeApi.Store;

namespace Mesh.KubeApi.Api;

/// <summary>Kinds that are questions: answered, never stored.</summary>
internal sealed class Reviews(Access access)
{
    public JsonObject Answer(ApiRequest request, ResourceType type, JsonObject body)
    {
        body["kind"] = type.Kind;
        body["apiVersion"] = type.ApiVersion(request.Version);
        body.Need("metadata");
        var spec = body.Need("spec");
        body["status"] = type.Kind switch
        {
            "TokenReview" => Token(spec),
            "SelfSubjectReview" => new JsonObject { ["userInfo"] = UserInfo(request.User) },
            "SelfSubjectAccessReview" => Decision(request.User, spec),
            "SubjectAccessReview" or "LocalSubjectAccessReview" => Decision(new KubeUser(spec.Str("user") ?? "",
                [.. (spec.Arr("groups") ?? []).Select(one => (string)one!)]), spec),
            _ => RulesOf(request.User, spec.Str("namespace") ?? ""),
        };
        return body;
    }

    private static JsonObject UserInfo(KubeUser user) => new()
    {
        ["username"] = user.Name,
        ["groups"] = new JsonArray([.. user.Groups.Select(group => (JsonNode)group)]),
    };

    private JsonObject Token(JsonObject spec) => access.OfToken(spec.Str("token") ?? "") is { } user
        ? new JsonObject { ["authenticated"] = true, ["user"] = UserInfo(user) }
        : new JsonObject { ["authenticated"] = false, ["error"] = "[invalid bearer token]" };

    private JsonObject Decision(KubeUser user, JsonObject spec)
    {
        var allowed = spec.Obj("resourceAttributes") is { } resource
            ? access.Allowed(user, resource.Str("verb") ?? "", resource.Str("group") ?? "", resource.Str("resource") ?? "", resource.Str("namespace") ?? "",
                resource.Str("name") ?? "", resource.Str("subresource") ?? "")
            : access.AllowedPath(user, spec.Obj("nonResourceAttributes").Str("verb") ?? "", spec.Obj("nonResourceAttributes").Str("path") ?? "");
        return new JsonObject { ["allowed"] = allowed };
    }

    private JsonObject RulesOf(KubeUser user, string @namespace)
    {
        IEnumerable<JsonObject> rules = user.Groups.Contains("system:masters")
            ? [new JsonObject { ["verbs"] = new JsonArray("*"), ["apiGroups"] = new JsonArray("*"), ["resources"] = new JsonArray("*") },
                new JsonObject { ["verbs"] = new JsonArray("*"), ["nonResourceURLs"] = new JsonArray("*") }]
            : access.Rules(user, @namespace);
        var list = rules.ToList();
        return new JsonObject
        {
            ["resourceRules"] = new JsonArray([.. list.Where(rule => rule["resources"] is not null).Select(rule => rule.DeepClone())]),
            ["nonResourceRules"] = new JsonArray([.. list.Where(rule => rule["nonResourceURLs"] is not null).Select(rule => rule.DeepClone())]),
            ["incomplete"] = false,
        };
    }
}
