using System.Globalization;
using Microsoft.AspNetCore.Http;

namespace Mesh.KubeApi.Api;

/// <summary>What a request is about, read from method, path and query as a kube-apiserver reads them.</summary>
internal sealed record ApiRequest(HttpContext Http, KubeUser User)
{
    public string Verb { get; init; } = "";

    /// <summary>False: a path such as /version or /apis that names no resource.</summary>
    public bool IsResource { get; init; }

    public string Group { get; init; } = "";

    public string Version { get; init; } = "";

    public string Resource { get; init; } = "";

    public string Namespace { get; init; } = "";

    public string Name { get; init; } = "";

    public string Sub { get; init; } = "";

    public string Path => Http.Request.Path.Value ?? "/";

    public string ResourceAndSub => Sub == "" ? Resource : $"{Resource}/{Sub}";

    public string Query(string name) => Http.Request.Query[name].FirstOrDefault() ?? "";

    public bool Flag(string name) => Query(name) is "true" or "1" or "True";

    public long? Number(string name) => Query(name) switch
    {
        "" => null,
        var text when long.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var value) => value,
        var text => throw KubeApiException.BadRequest($"query parameter {name} must be a whole number, not \"{text}\""),
    };

    public bool DryRun => Http.Request.Query["dryRun"].FirstOrDefault() switch
    {
        null or "" => false,
        "All" => true,
        var other => throw KubeApiException.BadRequest($"dryRun: Unsupported value: \"{other}\": supported values: \"All\""),
    };

    /// <summary>Who is written down as the writer of fields: the parameter, or the first word of the client's name.</summary>
    public string FieldManager => Query("fieldManager") is { Length: > 0 } named ? named
        : Http.Request.Headers.UserAgent.ToString().Split('/', 2)[0] is { Length: > 0 } agent ? agent : "unknown";

    public KubeApiException NotFound() => KubeApiException.NotFound(Resource, Group, Name);

    public static ApiRequest Read(HttpContext http, KubeUser user)
    {
        var request = new ApiRequest(http, user) { Verb = http.Request.Method.ToLowerInvariant() };
        var parts = (http.Request.Path.Value ?? "").Split('/', StringSplitOptions.RemoveEmptyEntries);
        int at;
        if (parts.Length >= 3 && parts[0] == "api")
        {
            request = request with { Version = parts[1] };
            at = 2;
        }
        else if (parts.Length >= 4 && parts[0] == "apis")
        {
            request = request with { Group = parts[1], Version = parts[2] };
            at = 3;
        }
        else
        {
            return request;
        }
        request = request with { IsResource = true };
        var deprecatedWatch = parts[at] == "watch" && parts.Length > at + 1;
        if (deprecatedWatch)
            at++;
        if (parts[at] == "namespaces" && parts.Length > at + 2 && !(parts.Length == at + 3 && parts[at + 2] is "status" or "finalize"))
        {
            request = request with { Namespace = parts[at + 1] };
            at += 2;
        }
        request = request with
        {
            Resource = parts[at],
            Name = parts.Length > at + 1 ? parts[at + 1] : "",
            Sub = parts.Length > at + 2 ? string.Join('/', parts[(at + 2)..]) : "",
        };
        // A namespace is in itself, for those who may do something in it.
        if (request.Resource == "namespaces" && request.Group == "")
            request = request with { Namespace = request.Name };
        var watch = deprecatedWatch || request.Flag("watch");
        return request with
        {
            Verb = http.Request.Method switch
            {
                "GET" or "HEAD" when request.Name == "" => watch ? "watch" : "list",
                "GET" or "HEAD" => watch ? "watch" : "get",
                "POST" => "create",
                "PUT" => "update",
                "PATCH" => "patch",
                "DELETE" => request.Name == "" ? "deletecollection" : "delete",
                _ => throw KubeApiException.MethodNotAllowed(),
            },
        };
    }
}
