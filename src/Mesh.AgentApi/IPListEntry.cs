using System.Text.Json.Serialization;

namespace Mesh.AgentApi;

/// <summary>An item of GET /v1/ip: an address range and who it is.</summary>
public sealed record IPListEntry
{
    [JsonPropertyName("cidr")]
    [JsonIgnore(Condition = JsonIgnoreCondition.Never)]
    public string Cidr { get; init; } = "";

    [JsonPropertyName("encryptKey")] public long EncryptKey { get; init; }

    /// <summary>Underlay address of the node; absent for an address of this node or outside the mesh.</summary>
    [JsonPropertyName("hostIP")] public string? HostIP { get; init; }

    [JsonPropertyName("identity")]
    [JsonIgnore(Condition = JsonIgnoreCondition.Never)]
    public long Identity { get; init; }

    [JsonPropertyName("metadata")] public IPListEntryMetadata? Metadata { get; init; }
}

public sealed record IPListEntryMetadata
{
    /// <summary>Pod.</summary>
    [JsonPropertyName("name")] public string? Name { get; init; }

    [JsonPropertyName("namespace")] public string? Namespace { get; init; }

    /// <summary>local, k8s, custom-resource or clustermesh.</summary>
    [JsonPropertyName("source")] public string? Source { get; init; }
}

/// <summary>An item of GET /v1/identity.</summary>
public sealed record Identity
{
    [JsonPropertyName("id")] public long Id { get; init; }

    /// <summary>source:key=value each.</summary>
    [JsonPropertyName("labels")] public IReadOnlyList<string>? Labels { get; init; }

    [JsonPropertyName("labelsSHA256")] public string? LabelsSHA256 { get; init; }
}
