namespace Mesh.ClusterMesh.Wire;

/// <summary>cilium/state/ip/v1/default/IP or IP/LENGTH. STABLE.</summary>
public sealed record IpIdentityPair
{
    public string IP { get; init; } = "";

    /// <summary>Base64 of the mask bytes; null for a single host.</summary>
    public string? Mask { get; init; }

    /// <summary>Underlay address of the hosting node, "" when unknown.</summary>
    public string HostIP { get; init; } = "";

    public uint ID { get; init; }

    public byte Key { get; init; }

    public string Metadata { get; init; } = "";

    public string? K8sNamespace { get; init; }

    public string? K8sPodName { get; init; }

    public string? K8sServiceAccount { get; init; }

    public IReadOnlyList<WireNamedPort>? NamedPorts { get; init; }
}

public sealed record WireNamedPort
{
    public string Name { get; init; } = "";

    public ushort Port { get; init; }

    public string Protocol { get; init; } = "";
}
