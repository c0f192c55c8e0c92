namespace Mesh.Kubernetes.Objects;

/// <summary>Anything with Kubernetes' metadata.</summary>
public interface IKubeObject
{
    ObjectMeta Metadata { get; }
}

public sealed record ObjectMeta
{
    public string? Name { get; init; }

    /// <summary>With no name: the server makes one that begins so.</summary>
    public string? GenerateName { get; init; }

    public string? Namespace { get; init; }

    public IReadOnlyDictionary<string, string>? Labels { get; init; }

    public IReadOnlyDictionary<string, string>? Annotations { get; init; }

    /// <summary>The server's; another object of the same name has another.</summary>
    public string? Uid { get; init; }

    /// <summary>The server's; opaque, equal or not. In an update: the version that may be replaced.</summary>
    public string? ResourceVersion { get; init; }

    public long? Generation { get; init; }

    /// <summary>The server's, in seconds.</summary>
    public DateTimeOffset? CreationTimestamp { get; init; }

    /// <summary>Set: it is on its way out, and waits for its finalizers.</summary>
    public DateTimeOffset? DeletionTimestamp { get; init; }

    public IReadOnlyList<string>? Finalizers { get; init; }

    public IReadOnlyList<OwnerReference>? OwnerReferences { get; init; }
}

/// <summary>An object that goes when its owner goes.</summary>
public sealed record OwnerReference
{
    public required string ApiVersion { get; init; }

    public required string Kind { get; init; }

    public required string Name { get; init; }

    public required string Uid { get; init; }

    public bool? Controller { get; init; }

    public bool? BlockOwnerDeletion { get; init; }
}
