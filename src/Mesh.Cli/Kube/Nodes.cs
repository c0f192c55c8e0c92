using System.Text.Json.Nodes;

namespace Mesh.Cli.Kube;

/// <summary>Walking objects as they came; what is absent is null.</summary>
internal static class Nodes
{
    public static JsonNode? At(this JsonNode? node, params ReadOnlySpan<string> path)
    {
        foreach (var step in path)
            node = (node as JsonObject)?[step];
        return node;
    }

    public static string? Text(this JsonNode? node, params ReadOnlySpan<string> path) => node.At(path) is JsonValue value ? value.ToString() : null;

    public static long Number(this JsonNode? node, params ReadOnlySpan<string> path) =>
        long.TryParse(node.Text(path), System.Globalization.CultureInfo.InvariantCulture, out var number) ? number : 0;

    public static IEnumerable<JsonObject> Items(this JsonNode? node, params ReadOnlySpan<string> path) =>
        (node.At(path) as JsonArray)?.OfType<JsonObject>() ?? [];

    public static string Name(this JsonObject one) => one.Text("metadata", "name") ?? "";

    /// <summary>An entry of a Secret, decoded; null when there is none.</summary>
    public static string? Secret(this JsonObject? secret, string key) =>
        secret.Text("data", key) is { } data ? System.Text.Encoding.UTF8.GetString(Convert.FromBase64String(data)) : null;
}
