using System.Text.Json.Nodes;
using Mesh.KubeApi.Store;

namespace Mesh.KubeApi.Api;

/// <summary>fieldValidation=Strict: unknown fields of custom resources are an error, with Warn a header, instead of being pruned silently.</summary>
internal static class Strictness
{
    public static void Check(ApiRequest request, ResourceType type, JsonObject body)
    {
        var mode = request.Query("fieldValidation");
        if (mode is not ("Strict" or "Warn") || !type.Custom || type.Served(request.Version).Schema is not { } schema)
            return;
        var pruned = schema.Prune((JsonObject)body.DeepClone()).Select(path => $"unknown field \"{path}\"").ToList();
        if (pruned.Count == 0)
            return;
        if (mode == "Strict")
            throw KubeApiException.BadRequest($"{type.Kind} in version \"{request.Version}\" cannot be handled as a {type.Kind}: strict decoding error: "
                + string.Join(", ", pruned));
        foreach (var one in pruned)
            request.Http.Response.Headers.Warning = Microsoft.Extensions.Primitives.StringValues.Concat(request.Http.Response.Headers.Warning,
                $"299 - \"{one.Replace("\"", "\\\"", StringComparison.Ordinal)}\"");
    }
}
