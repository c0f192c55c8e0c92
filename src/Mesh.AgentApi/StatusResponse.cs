using System.Text.Json.Serialization;

namespace Mesh.AgentApi;

/// <summary>
/// GET /v1/healthz, in the shape that `cilium-dbg status` and `cilium clustermesh status` read. Only what this agent really knows
/// is filled in: a subsystem that it does not have is absent, which every client prints as disabled.
/// Never list a controller named cilium-health-ep (clients then ask for a health socket), and never send a kubernetes object
/// together with kube-proxy-replacement unless all of the latter's features are present (verbose clients dereference them).
/// </summary>
public sealed record StatusResponse
{
    [JsonPropertyName("cilium")] public Status? Cilium { get; init; }

    [JsonPropertyName("cluster")] public ClusterStatus? Cluster { get; init; }

    [JsonPropertyName("cluster-mesh")] public ClusterMeshStatus? ClusterMesh { get; init; }

    [JsonPropertyName("encryption")] public EncryptionStatus? Encryption { get; init; }

    [JsonPropertyName("hubble")] public Status? Hubble { get; init; }

    [JsonPropertyName("identity-range")] public IdentityRange? IdentityRange { get; init; }

    [JsonPropertyName("ipam")] public IpamStatus? Ipam { get; init; }

    [JsonPropertyName("kvstore")] public Status? Kvstore { get; init; }

    [JsonPropertyName("masquerading")] public MasqueradingStatus? Masquerading { get; init; }

    /// <summary>Ours: what Cilium's format has no room for. Other clients ignore it.</summary>
    [JsonPropertyName("mesh")] public MeshStatus? Mesh { get; init; }
}

/// <summary>How a subsystem does.</summary>
public sealed record Status
{
    /// <summary>Ok, Warning, Failure or Disabled.</summary>
    [JsonPropertyName("state")] public string State { get; init; } = StatusState.Ok;

    [JsonPropertyName("msg")] public string? Msg { get; init; }
}

public static class StatusState
{
    public const string Ok = "Ok";
    public const string Warning = "Warning";
    public const string Failure = "Failure";
    public const string Disabled = "Disabled";
}

public sealed record ClusterStatus
{
    /// <summary>Null here: the nodes are listed by GET /v1/cluster/nodes.</summary>
    [JsonPropertyName("nodes")]
    [JsonIgnore(Condition = JsonIgnoreCondition.Never)]
    public IReadOnlyList<NodeElement>? Nodes { get; init; }

    /// <summary>cluster/node.</summary>
    [JsonPropertyName("self")] public string? Self { get; init; }
}

/// <summary>Whose packets leave the mesh with the node's address.</summary>
public sealed record MasqueradingStatus
{
    [JsonPropertyName("enabled")] public bool Enabled { get; init; }

    [JsonPropertyName("enabledProtocols")] public MasqueradedProtocols EnabledProtocols { get; init; } = new();

    /// <summary>"iptables": Cilium's word for the kernel's netfilter, whoever writes the rules.</summary>
    [JsonPropertyName("mode")] public string? Mode { get; init; }

    /// <summary>Destinations that see pods' own addresses.</summary>
    [JsonPropertyName("snat-exclusion-cidr-v4")] public string? ExcludedIPv4 { get; init; }

    /// <summary>As <see cref="ExcludedIPv4"/>.</summary>
    [JsonPropertyName("snat-exclusion-cidr-v6")] public string? ExcludedIPv6 { get; init; }
}

public sealed record MasqueradedProtocols
{
    [JsonPropertyName("ipv4")] public bool IPv4 { get; init; }

    [JsonPropertyName("ipv6")] public bool IPv6 { get; init; }
}

public sealed record EncryptionStatus
{
    [JsonPropertyName("mode")] public string Mode { get; init; } = "Disabled";
}

/// <summary>Identities that this cluster may number.</summary>
public sealed record IdentityRange
{
    [JsonPropertyName("max-identity")] public long MaxIdentity { get; init; }

    [JsonPropertyName("min-identity")] public long MinIdentity { get; init; }
}
