namespace Mesh.ClusterMesh.Wire;

/// <summary>cilium/state/services/v1/CLUSTER/NAMESPACE/NAME. STABLE: every peer of every version reads these bytes.</summary>
public sealed record ClusterService
{
    public string Cluster { get; init; } = "";

    public string Namespace { get; init; } = "";

    public string Name { get; init; } = "";

    /// <summary>Virtual IP → port name → port. Validated, not used, by consumers.</summary>
    public IReadOnlyDictionary<string, IReadOnlyDictionary<string, WirePort>>? Frontends { get; init; }

    /// <summary>Backend IP → port name → target port. The unnamed port has the name "".</summary>
    public IReadOnlyDictionary<string, IReadOnlyDictionary<string, WirePort>>? Backends { get; init; }

    public IReadOnlyDictionary<string, string>? Hostnames { get; init; }

    public IReadOnlyDictionary<string, WireZone>? Zones { get; init; }

    public IReadOnlyDictionary<string, string>? Labels { get; init; }

    public IReadOnlyDictionary<string, string>? Selector { get; init; }

    public bool IncludeExternal { get; init; }

    /// <summary>False is a deletion.</summary>
    public bool Shared { get; init; }

    public uint ClusterId { get; init; }

    /// <summary>Backend IP → <see cref="Terminating"/>, for backends that are going away but still serve: they keep the flows they have and
    /// get no new ones while another lives. Ours; peers that do not know it send such a backend flows as any other.</summary>
    public IReadOnlyDictionary<string, string>? Conditions { get; init; }

    public const string Terminating = "terminating";

    /// <summary>Of an address that is no backend now: it is there, and may become one. Readers count them to know a cluster's health.</summary>
    public const string NotReady = "not-ready";

    public bool IsTerminating(string backend) =>
        Conditions is { } conditions && conditions.TryGetValue(backend, out var condition) && condition == Terminating;
}

public sealed record WirePort
{
    public string Protocol { get; init; } = "";

    public ushort Port { get; init; }
}

public sealed record WireZone
{
    public string? Zone { get; init; }

    public IReadOnlyList<WireForZone>? ForZones { get; init; }
}

public sealed record WireForZone
{
    public string? Name { get; init; }
}
