using System.Text.Json.Nodes;
using Mesh.KubeApi.Api;
using Mesh.KubeApi.Objects;
using Mesh.KubeApi.Store;

namespace Mesh.KubeApi.Patching;

/// <summary>Who wrote which field.</summary>
internal static class FieldOwners
{
    /// <summary>Equal but for the times at which fields were written: such a write changes nothing.</summary>
    public static bool SameButTime(JsonObject old, JsonObject node) => Json.Same(old, node);

    public static void Written(ResourceType type, TypeRegistry types, string version, JsonObject? old, JsonObject node, Writes.Writer writer, DateTimeOffset now)
    {
    }

    public static void Applied(ResourceType type, TypeRegistry types, string version, JsonObject node, JsonObject intent, Writes.Writer writer,
        DateTimeOffset now)
    {
    }

    public static JsonObject Apply(ResourceType type, TypeRegistry types, string version, JsonObject old, JsonObject intent, Writes.Writer writer, bool force,
        DateTimeOffset now) => throw KubeApiException.UnsupportedMediaType("application/merge-patch+json");
}
