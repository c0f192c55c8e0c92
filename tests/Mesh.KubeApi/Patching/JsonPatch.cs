using System.Globalization;
using System.Text.Json.Nodes;
using Mesh.KubeApi.Objects;

namespace Mesh.KubeApi.Patching;

/// <summary>RFC 6902: a list of operations, all or none.</summary>
internal static class JsonPatch
{
    public static JsonNode Apply(JsonNode target, JsonNode? patch)
    {
        if (patch is not JsonArray operations)
            throw KubeApiException.BadRequest("a JSON patch is a list of operations");
        foreach (var operation in operations)
        {
            var path = operation.Str("path") ?? throw KubeApiException.BadRequest("an operation of the JSON patch has no path");
            switch (operation.Str("op"))
            {
                case "add":
                    target = Add(target, path, operation!["value"]?.DeepClone());
                    break;
                case "remove":
                    Remove(target, path);
                    break;
                case "replace":
                    Find(target, path);
                    if (path != "")
                        Remove(target, path);
                    target = Add(target, path, operation!["value"]?.DeepClone());
                    break;
                case "move":
                    var moved = Find(target, operation.Str("from") ?? "")?.DeepClone();
                    Remove(target, operation.Str("from") ?? "");
                    target = Add(target, path, moved);
                    break;
                case "copy":
                    target = Add(target, path, Find(target, operation.Str("from") ?? "")?.DeepClone());
                    break;
                case "test":
                    if (!Json.Same(Find(target, path), operation!["value"]))
                        throw Fails($"testing value {path} failed");
                    break;
                default:
                    throw KubeApiException.BadRequest($"unknown JSON patch operation {operation.Str("op")}");
            }
        }
        return target;
    }

    private static KubeApiException Fails(string why) =>
        new(422, "Invalid", $"the server rejected our request due to an error in our request: {why}");

    private static string[] Steps(string path) =>
        path == "" ? [] : [.. path[1..].Split('/').Select(step => step.Replace("~1", "/").Replace("~0", "~"))];

    private static JsonNode? Find(JsonNode target, string path)
    {
        JsonNode? at = target;
        foreach (var step in Steps(path))
        {
            at = at switch
            {
                JsonObject map when map.ContainsKey(step) => map[step],
                JsonArray list when int.TryParse(step, NumberStyles.None, CultureInfo.InvariantCulture, out var index) && index < list.Count => list[index],
                _ => throw Fails($"path {path} does not exist"),
            };
        }
        return at;
    }

    private static (JsonNode Parent, string Last) Parent(JsonNode target, string path)
    {
        var cut = path.LastIndexOf('/');
        return (Find(target, path[..cut]) ?? throw Fails($"path {path} does not exist"), Steps(path)[^1]);
    }

    private static JsonNode Add(JsonNode target, string path, JsonNode? value)
    {
        if (path == "")
            return value ?? throw KubeApiException.BadRequest("an object cannot become null");
        var (parent, last) = Parent(target, path);
        if (parent is JsonObject map)
            map[last] = value;
        else if (parent is JsonArray list && last == "-")
            list.Add(value);
        else if (parent is JsonArray into && int.TryParse(last, NumberStyles.None, CultureInfo.InvariantCulture, out var index) && index <= into.Count)
            into.Insert(index, value);
        else
            throw Fails($"path {path} does not exist");
        return target;
    }

    private static void Remove(JsonNode target, string path)
    {
        Find(target, path);
        var (parent, last) = Parent(target, path);
        if (parent is JsonObject map)
            map.Remove(last);
        else
            ((JsonArray)parent).RemoveAt(int.Parse(last, CultureInfo.InvariantCulture));
    }
}
