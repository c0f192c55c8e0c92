using System.Text.Json.Serialization;

namespace Mesh.ClusterMesh.Wire;

/// <summary>cilium/state/services/v1/CLUSTER/NAMESPACE/NAME. STABLE: every peer of every version reads these bytes.</summary>
public sealed record ClusterService
{
    [JsonPropertyName("cluster")] public string Cluster { get; init; } = "";

    [JsonPropertyName("namespace")] public string Namespace { get; init; } = "";

    [JsonPropertyName("name")] public string Name { get; init; } = "";

    /// <summary>Virtual IP → port name → port. Validated, not used, by consumers.</summary>
    [JsonPropertyName("frontends")] public IReadOnlyDictionary<string, IReadOnlyDictionary<string, WirePort>>? Frontends { get; init; }

    /// <summary>Backend IP → port name → target port. The unnamed port has the name "".</summary>
    [JsonPropertyName("backends")] public IReadOnlyDictionary<string, IReadOnlyDictionary<string, WirePort>>? Backends { get; init; }

    [JsonPropertyName("hostnames")] public IReadOnlyDictionary<string, string>? Hostnames { get; init; }

    [JsonPropertyName("zones")] public IReadOnlyDictionary<string, WireZone>? Zones { get; init; }

    [JsonPropertyName("labels")] public IReadOnlyDictionary<string, string>? Labels { get; init; }

    [JsonPropertyName("selector")] public IReadOnlyDictionary<string, string>? Selector { get; init; }

    [JsonPropertyName("includeExternal")] public bool IncludeExternal { get; init; }

    /// <summary>False is a deletion.</summary>
    [JsonPropertyName("shared")] public bool Shared { get; init; }

    [JsonPropertyName("clusterID")] public uint ClusterId { get; init; }
}

public sealed record WirePort
{
    [JsonPropertyName("Protocol")] public string Protocol { get; init; } = "";

    [JsonPropertyName("Port")] public ushort Port { get; init; }
}

public sealed record WireZone
{
    [JsonPropertyName("zone")] public string? Zone { get; init; }

    [JsonPropertyName("forZones")] public IReadOnlyList<WireForZone>? ForZones { get; init; }
}

public sealed record WireForZone
{
    [JsonPropertyName("name")] public string? Name { get; init; }
}
