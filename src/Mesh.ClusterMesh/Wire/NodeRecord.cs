namespace Mesh.ClusterMesh.Wire;

/// <summary>cilium/state/nodes/v1/CLUSTER/NODE. STABLE. Names are PascalCase and nothing is ever left out.</summary>
public sealed record NodeRecord
{
    public string Name { get; init; } = "";

    public string Cluster { get; init; } = "";

    public IReadOnlyList<WireNodeAddress>? IPAddresses { get; init; }

    public WireCidr? IPv4AllocCIDR { get; init; }

    public IReadOnlyList<WireCidr>? IPv4SecondaryAllocCIDRs { get; init; }

    public WireCidr? IPv6AllocCIDR { get; init; }

    public IReadOnlyList<WireCidr>? IPv6SecondaryAllocCIDRs { get; init; }

    public string IPv4HealthIP { get; init; } = "";

    public string IPv6HealthIP { get; init; } = "";

    public string IPv4IngressIP { get; init; } = "";

    public string IPv6IngressIP { get; init; } = "";

    public uint ClusterID { get; init; }

    public string Source { get; init; } = "custom-resource";

    public byte EncryptionKey { get; init; }

    public IReadOnlyDictionary<string, string>? Labels { get; init; }

    public IReadOnlyDictionary<string, string>? Annotations { get; init; }

    public uint NodeIdentity { get; init; }

    public string WireguardPubKey { get; init; } = "";

    public string BootID { get; init; } = "";
}

public sealed record WireNodeAddress
{
    public string Type { get; init; } = "";

    public string IP { get; init; } = "";
}

