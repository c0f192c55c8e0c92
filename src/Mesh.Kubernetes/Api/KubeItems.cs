using System.Runtime.InteropServices;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization.Metadata;
using Mesh.Kubernetes.Objects;

namespace Mesh.Kubernetes.Api;

/// <summary>One object of an answer. Who it is comes from its metadata alone, so that an absurd field loses nothing but the object.</summary>
/// <param name="Object">Null when the model cannot take it; <paramref name="Fault"/> then says why.</param>
/// <param name="Fault">Field and what it must be; null for a sound object.</param>
public readonly record struct KubeItem<T>(ObjectName Name, string ResourceVersion, T? Object, string? Fault)
    where T : class;

/// <summary>A page of a list.</summary>
/// <param name="ResourceVersion">Of the whole list: a watch goes on from here.</param>
/// <param name="Continue">Null on the last page.</param>
public sealed record KubeList<T>(IReadOnlyList<KubeItem<T>> Items, string ResourceVersion, string? Continue)
    where T : class;

public enum KubeEventType
{
    Added,
    Modified,
    Deleted,

    /// <summary>Nothing happened; the watch has come this far.</summary>
    Bookmark,
}

public readonly record struct KubeEvent<T>(KubeEventType Type, KubeItem<T> Item)
    where T : class;

/// <summary>Which objects of a list or watch.</summary>
public sealed record KubeSelection
{
    public static readonly KubeSelection All = new();

    public string? LabelSelector { get; init; }

    public string? FieldSelector { get; init; }

    /// <summary>Objects to a page.</summary>
    public int PageSize { get; init; } = 500;
}

/// <summary>How a change is made.</summary>
public sealed record KubeWrite
{
    public static readonly KubeWrite Plain = new();

    /// <summary>Who owns the fields that are written; apply needs one.</summary>
    public string? FieldManager { get; init; }

    /// <summary>Apply: take fields from other managers. Without, their fields are a <see cref="KubeFault.Conflict"/>.</summary>
    public bool Force { get; init; }

    /// <summary>The server checks everything and stores nothing.</summary>
    public bool DryRun { get; init; }

    /// <summary>"status" to write that part of the object alone; null for the object.</summary>
    public string? Subresource { get; init; }
}

/// <summary>How a delete is made.</summary>
public sealed record KubeDelete
{
    public static readonly KubeDelete Plain = new();

    /// <summary>Background, Foreground or Orphan; null for the resource's default.</summary>
    public string? Propagation { get; init; }

    public int? GracePeriodSeconds { get; init; }

    /// <summary>Delete this object alone and none that came after it under its name: otherwise <see cref="KubeFault.Conflict"/>.</summary>
    public string? Uid { get; init; }

    public string? ResourceVersion { get; init; }

    public bool DryRun { get; init; }
}

/// <summary>A change to an object that others change as well.</summary>
/// <param name="ContentType">Which kind of patch.</param>
public sealed record KubePatch(string ContentType, JsonNode Body)
{
    /// <summary>RFC 7386: null removes, lists are replaced.</summary>
    public static KubePatch Merge(JsonNode body) => new("application/merge-patch+json", body);

    /// <summary>RFC 6902: a list of operations, each of which must be possible.</summary>
    public static KubePatch Json(JsonArray operations) => new("application/json-patch+json", operations);

    /// <summary>Merge that knows the keys of built-in lists; not for custom resources.</summary>
    public static KubePatch Strategic(JsonNode body) => new("application/strategic-merge-patch+json", body);

    /// <summary>Server-side apply: the body is all that the field manager wants.</summary>
    public static KubePatch Apply(JsonNode body) => new("application/apply-patch+yaml", body);
}

/// <summary>JSON of objects into items.</summary>
internal static class ItemReading
{
    public static KubeItem<T> Item<T>(JsonElement element, JsonTypeInfo<T> type)
        where T : class
    {
        if (element.ValueKind != JsonValueKind.Object || !element.TryGetProperty("metadata", out var metadata)
            || metadata.ValueKind != JsonValueKind.Object)
            return new KubeItem<T>(default, "", null, "has no metadata");
        var name = new ObjectName(Text(metadata, "namespace"), Text(metadata, "name"));
        var version = Text(metadata, "resourceVersion");
        if (name.Name.Length == 0)
            return new KubeItem<T>(name, version, null, "metadata.name is missing");
        try
        {
            return new KubeItem<T>(name, version, JsonSerializer.Deserialize(JsonMarshal.GetRawUtf8Value(element), type), null);
        }
        catch (JsonException e)
        {
            return new KubeItem<T>(name, version, null, JsonFaults.Describe(e));
        }
    }

    public static string Text(JsonElement element, string name) =>
        element.TryGetProperty(name, out var value) && value.ValueKind == JsonValueKind.String ? value.GetString()! : "";
}
