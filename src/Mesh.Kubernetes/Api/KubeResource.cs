using System.Text.Json.Nodes;
using System.Text.Json.Serialization.Metadata;

namespace Mesh.Kubernetes.Api;

/// <summary>A resource of the API: where its objects are, and what they call themselves.</summary>
/// <param name="Group">"" for the core group.</param>
/// <param name="Plural">As in paths: "endpointslices".</param>
public record KubeResource(string Group, string Version, string Plural, string Kind, bool Namespaced)
{
    /// <summary>As objects write it: "v1" or "cilium.io/v2".</summary>
    public string ApiVersion => Group.Length == 0 ? Version : $"{Group}/{Version}";

    /// <summary>The same resource with its objects as they came, for whoever has no model of them or must keep every field.</summary>
    public KubeResource<JsonObject> Raw => new(Group, Version, Plural, Kind, Namespaced, KubeJson.Default.JsonObject);

    /// <summary>As people and RBAC name it: "ciliumnodes.cilium.io".</summary>
    public sealed override string ToString() => Group.Length == 0 ? Plural : $"{Plural}.{Group}";

    /// <param name="ns">Null for the objects of all namespaces, or for a resource without.</param>
    /// <param name="name">Null for the collection.</param>
    internal string PathOf(string? ns, string? name = null, string? subresource = null)
    {
        var root = Group.Length == 0 ? $"/api/{Version}" : $"/apis/{Group}/{Version}";
        var place = Namespaced && !string.IsNullOrEmpty(ns) ? $"/namespaces/{Uri.EscapeDataString(ns)}" : "";
        return $"{root}{place}/{Plural}{(name is null ? "" : $"/{Uri.EscapeDataString(name)}")}{(subresource is null ? "" : $"/{subresource}")}";
    }
}

/// <summary>A resource together with the model of its objects. The model may be slim: what it leaves out is lost by an update, so change
/// objects of others by patch or apply.</summary>
public sealed record KubeResource<T>(string Group, string Version, string Plural, string Kind, bool Namespaced, JsonTypeInfo<T> Type)
    : KubeResource(Group, Version, Plural, Kind, Namespaced)
    where T : class;

/// <summary>Identity of an object within its resource.</summary>
/// <param name="Namespace">"" for objects of the whole cluster.</param>
public readonly record struct ObjectName(string Namespace, string Name)
{
    public override string ToString() => Namespace.Length == 0 ? Name : $"{Namespace}/{Name}";
}
