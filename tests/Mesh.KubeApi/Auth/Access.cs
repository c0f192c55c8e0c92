using System.Text.Json.Nodes;
using Mesh.KubeApi.Api;
using Mesh.KubeApi.Objects;
using Mesh.KubeApi.Store;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;

namespace Mesh.KubeApi.Auth;

/// <summary>Who asks, and may they: certificates, tokens, impersonation; then RBAC over the roles and bindings in the store.</summary>
internal sealed class Access(KubeApiOptions options, ObjectStore store, Authority authority, TokenBook tokens)
{
    public async Task<KubeUser> AuthenticateAsync(HttpContext http)
    {
        var user = await WhoAsync(http);
        if (http.Request.Headers["Impersonate-User"].FirstOrDefault() is not { Length: > 0 } other)
            return user;
        if (!Allowed(user, "impersonate", "", "users", "", other, "") && options.Authorization == KubeAuthorization.Rbac)
            throw KubeApiException.Forbidden("users", "", other,
                $"User \"{user.Name}\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope");
        return new KubeUser(other, [.. http.Request.Headers["Impersonate-Group"].OfType<string>(), "system:authenticated"]);
    }

    private async Task<KubeUser> WhoAsync(HttpContext http)
    {
        var header = http.Request.Headers.Authorization.ToString();
        if (header.StartsWith("Bearer ", StringComparison.OrdinalIgnoreCase))
            return OfToken(header[7..].Trim()) ?? throw KubeApiException.Unauthorized();
        // Browsers' way of a token with a WebSocket.
        foreach (var protocol in http.Request.Headers.SecWebSocketProtocol.ToString().Split(',', StringSplitOptions.TrimEntries))
            if (protocol.StartsWith("base64url.bearer.authorization.k8s.io.", StringComparison.Ordinal))
            {
                var text = protocol["base64url.bearer.authorization.k8s.io.".Length..].Replace('-', '+').Replace('_', '/');
                return OfToken(System.Text.Encoding.UTF8.GetString(Convert.FromBase64String(text.PadRight((text.Length + 3) / 4 * 4, '='))))
                    ?? throw KubeApiException.Unauthorized();
            }
        if (http.Features.Get<ITlsConnectionFeature>() is { } tls && await tls.GetClientCertificateAsync(http.RequestAborted) is { } certificate)
            return authority.UserOf(certificate) ?? throw KubeApiException.Unauthorized();
        return options.Authorization == KubeAuthorization.AlwaysAllow ? KubeUser.Admin : KubeUser.Anonymous;
    }

    /// <summary>The user of a token; null when it is not good (any more).</summary>
    public KubeUser? OfToken(string token)
    {
        if (tokens.Find(token) is { } known)
            return known;
        if (tokens.Verify(token) is not { } claims)
            return null;
        var about = claims.Obj("kubernetes.io");
        var @namespace = about.Str("namespace") ?? "";
        var account = about.Obj("serviceaccount");
        // A token dies with its account, and with the pod that it was made for.
        if (store.Get(BuiltIns.ServiceAccounts, @namespace, account.Str("name") ?? "")?.Uid != account.Str("uid"))
            return null;
        if (about.Obj("pod") is { } pod && store.Get(BuiltIns.Pods, @namespace, pod.Str("name") ?? "")?.Uid != pod.Str("uid"))
            return null;
        return new KubeUser($"system:serviceaccount:{@namespace}:{account.Str("name")}",
            "system:serviceaccounts", $"system:serviceaccounts:{@namespace}", "system:authenticated");
    }

    public void Authorize(ApiRequest request)
    {
        if (options.Authorization == KubeAuthorization.AlwaysAllow)
            return;
        if (!request.IsResource)
        {
            if (!AllowedPath(request.User, request.Verb, request.Path))
                throw new KubeApiException(403, "Forbidden", $"forbidden: User \"{request.User.Name}\" cannot {request.Verb} path \"{request.Path}\"", []);
            return;
        }
        if (!Allowed(request.User, request.Verb, request.Group, request.ResourceAndSub, request.Namespace, request.Name))
            throw Denied(request);
    }

    public static KubeApiException Denied(ApiRequest request) => KubeApiException.Forbidden(request.Resource, request.Group, request.Name,
        $"User \"{request.User.Name}\" cannot {request.Verb} resource \"{request.ResourceAndSub}\" in API group \"{request.Group}\" "
        + (request.Namespace == "" || request.Resource == "namespaces" ? "at the cluster scope" : $"in the namespace \"{request.Namespace}\""));

    public bool Allowed(KubeUser user, string verb, string group, string resource, string @namespace, string name, string sub = "")
    {
        if (options.Authorization == KubeAuthorization.AlwaysAllow || user.Groups.Contains("system:masters"))
            return true;
        if (sub != "")
            resource = $"{resource}/{sub}";
        return Rules(user, @namespace).Any(rule => Has(rule, "verbs", verb) && Has(rule, "apiGroups", group) && HasResource(rule, resource)
            && (rule.Arr("resourceNames") is not { Count: > 0 } names || names.Any(one => (string?)one == name && name != "")));
    }

    public bool AllowedPath(KubeUser user, string verb, string path)
    {
        if (options.Authorization == KubeAuthorization.AlwaysAllow || user.Groups.Contains("system:masters"))
            return true;
        return Rules(user, "").Any(rule => Has(rule, "verbs", verb) && (rule.Arr("nonResourceURLs")?.Any(one =>
            (string)one! is var pattern && (pattern == path || pattern == "*"
                || (pattern.EndsWith('*') && path.StartsWith(pattern[..^1], StringComparison.Ordinal)))) ?? false));
    }

    private static bool Has(JsonObject rule, string list, string value) =>
        rule.Arr(list)?.Any(one => (string?)one is var text && (text == "*" || text == value)) ?? false;

    private static bool HasResource(JsonObject rule, string resource) => rule.Arr("resources")?.Any(one => (string)one! is var text
        && (text == "*" || text == resource
            || (text.StartsWith("*/", StringComparison.Ordinal) && resource.EndsWith(text[1..], StringComparison.Ordinal)))) ?? false;

    /// <summary>All rules that speak for the user in a namespace ("" = cluster-wide ones only).</summary>
    public IEnumerable<JsonObject> Rules(KubeUser user, string @namespace)
    {
        foreach (var binding in store.Snapshot(BuiltIns.ClusterRoleBindings).Table.Values)
            if (Speaks(binding.Node, user, ""))
                foreach (var rule in RoleRules(binding.Node, ""))
                    yield return rule;
        if (@namespace == "")
            yield break;
        foreach (var binding in store.Snapshot(BuiltIns.RoleBindings).Table.Values)
            if (binding.Namespace == @namespace && Speaks(binding.Node, user, @namespace))
                foreach (var rule in RoleRules(binding.Node, @namespace))
                    yield return rule;
    }

    private static bool Speaks(JsonObject binding, KubeUser user, string @namespace) =>
        binding.Arr("subjects").Objects().Any(subject => subject.Str("kind") switch
    {
        "User" => subject.Str("name") == user.Name,
        "Group" => user.Groups.Contains(subject.Str("name")!),
        "ServiceAccount" => user.Name == $"system:serviceaccount:{subject.Str("namespace") ?? @namespace}:{subject.Str("name")}",
        _ => false,
    });

    private IEnumerable<JsonObject> RoleRules(JsonObject binding, string @namespace)
    {
        var name = binding.Obj("roleRef").Str("name") ?? "";
        var role = binding.Obj("roleRef").Str("kind") == "Role" ? store.Get(BuiltIns.Roles, @namespace, name) : store.Get(BuiltIns.ClusterRoles, "", name);
        if (role is null)
            yield break;
        foreach (var rule in role.Node.Arr("rules").Objects())
            yield return rule;
        foreach (var selector in role.Node.Obj("aggregationRule").Arr("clusterRoleSelectors").Objects())
            foreach (var other in store.Snapshot(BuiltIns.ClusterRoles).Table.Values)
                if (other != role && (selector.Obj("matchLabels") ?? []).All(pair =>
                    other.Node["metadata"].Obj("labels").Str(pair.Key) == (string?)pair.Value))
                    foreach (var rule in other.Node.Arr("rules").Objects())
                        yield return rule;
    }
}
