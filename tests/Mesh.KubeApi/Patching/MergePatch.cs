using System.Text.Json.Nodes;

namespace Mesh.KubeApi.Patching;

/// <summary>RFC 7396: objects merge, null removes, everything else replaces.</summary>
internal static class MergePatch
{
    public static JsonNode? Apply(JsonNode? target, JsonNode? patch)
    {
        if (patch is not JsonObject changes)
            return patch?.DeepClone();
        var result = target as JsonObject ?? [];
        foreach (var (name, value) in changes)
        {
            if (value is null)
            {
                result.Remove(name);
                continue;
            }
            var old = result[name];
            result.Remove(name);
            result[name] = Apply(value is JsonObject ? old : null, value);
        }
        return result;
    }
}
