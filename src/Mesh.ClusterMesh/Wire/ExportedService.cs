namespace Mesh.ClusterMesh.Wire;

/// <summary>cilium/state/serviceexports/v1/CLUSTER/NAMESPACE/NAME: that a cluster gives a service to all others, and what it looks like there.
/// Its backends travel in the record of the derived service. STABLE.</summary>
public sealed record ExportedService
{
    public required string Cluster { get; init; }

    public required string Namespace { get; init; }

    public required string Name { get; init; }

    /// <summary>When the export was made, in whole seconds: where clusters disagree the oldest is right.</summary>
    public required DateTimeOffset Created { get; init; }

    public IReadOnlyList<ExportedPort> Ports { get; init; } = [];

    /// <summary>Names stand for the backends themselves, and there is no address for all.</summary>
    public bool Headless { get; init; }

    /// <summary>A client stays with its backend.</summary>
    public bool ClientIPAffinity { get; init; }

    /// <summary>Seconds; null when not said.</summary>
    public uint? AffinityTimeout { get; init; }

    public IReadOnlyDictionary<string, string> Labels { get; init; } = Nothing;

    public IReadOnlyDictionary<string, string> Annotations { get; init; } = Nothing;

    /// <summary>IPv4, IPv6, the first preferred; empty when the peer is older than 1.19 and does not say.</summary>
    public IReadOnlyList<string> IpFamilies { get; init; } = [];

    /// <summary>Cluster or Local; null when not said.</summary>
    public string? InternalTrafficPolicy { get; init; }

    /// <summary>PreferClose, PreferSameZone or PreferSameNode; null when not said.</summary>
    public string? TrafficDistribution { get; init; }

    private static readonly Dictionary<string, string> Nothing = [];
}

/// <param name="Name">"" for the only one.</param>
/// <param name="Protocol">TCP, UDP or SCTP.</param>
public readonly record struct ExportedPort(string Name, string Protocol, ushort Port, string? AppProtocol = null);
