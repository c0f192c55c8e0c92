using System.Text.Json.Nodes;
using Mesh.KubeApi.Objects;

namespace Mesh.KubeApi.Store;

/// <summary>One version that a resource is served in. Versions of one resource hold the same object; only apiVersion differs.</summary>
internal sealed record ServedVersion(string Name)
{
    /// <summary>What a CRD says its objects look like; null for built-in kinds, which are held to <see cref="Defaults"/> only.</summary>
    public StructuralSchema? Schema { get; init; }

    public JsonArray? PrinterColumns { get; init; }

    /// <summary>A scale subresource of a CRD: paths of its replicas.</summary>
    public JsonObject? Scale { get; init; }

    public bool Status { get; init; }
}

/// <summary>A kind of object: its names, where it lives and what may be done with it.</summary>
internal sealed record ResourceType(string Group, string Plural, string Kind)
{
    public IReadOnlyList<ServedVersion> Versions { get; init; } = [new("v1")];

    public string Singular { get; init; } = Kind.ToLowerInvariant();

    public string ListKind { get; init; } = $"{Kind}List";

    public bool Namespaced { get; init; } = true;

    public IReadOnlyList<string> ShortNames { get; init; } = [];

    public IReadOnlyList<string> Categories { get; init; } = [];

    /// <summary>Other subresources than status: scale, log, exec, …</summary>
    public IReadOnlyList<string> Subresources { get; init; } = [];

    /// <summary>metadata.generation counts changes of what is not metadata and status.</summary>
    public bool Generation { get; init; }

    /// <summary>Only POST: reviews and the like.</summary>
    public bool CreateOnly { get; init; }

    /// <summary>Comes from a CustomResourceDefinition.</summary>
    public bool Custom { get; init; }

    /// <summary>Kinds whose lists leave apiVersion and kind out of the items: all built-in ones.</summary>
    public bool BareItems => !Custom;

    /// <summary>Where its objects are kept, the same for all versions.</summary>
    public string Key { get; } = $"{Group}/{Plural}";

    public string ApiVersion(string version) => Group == "" ? version : $"{Group}/{version}";

    public ServedVersion Served(string version) => Versions.First(one => one.Name == version);

    public bool HasStatus(string version) => Custom ? Served(version).Status : Versions[0].Status;

    // The key decides; two tables of one resource never live at once.
    public bool Equals(ResourceType? other) => other is not null && other.Key == Key && ReferenceEquals(this, other);

    public override int GetHashCode() => Key.GetHashCode(StringComparison.Ordinal);
}
