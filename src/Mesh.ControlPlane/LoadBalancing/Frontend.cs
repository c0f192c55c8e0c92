using Mesh.ControlPlane.LoadBalancing.Choice;
using Mesh.Model;

namespace Mesh.ControlPlane.LoadBalancing;

/// <summary>Numbered as enum lb_kind.</summary>
public enum ServiceType
{
    ClusterIP,
    NodePort,
    LoadBalancer,
    ExternalIPs,
}

/// <summary>
/// A virtual address of a service, with the backends that may answer for it. One row is one entry of the kernel's service map
/// and is committed there by one store, so whatever must change together stands in one row.
/// </summary>
/// <param name="Address">Virtual IP, port and protocol; the key of the row. 0.0.0.0 or :: = the port on every node (NodePort).</param>
/// <param name="Service">The local Service object it comes from.</param>
/// <param name="PortName">Name of the service port; "" for an unnamed one.</param>
/// <param name="Affinity">As annotated on the local Service.</param>
/// <param name="Backends">Already merged from all clusters and selected; sorted by tier, cluster, address. Empty is a valid
/// service: connections are refused at once, not left to time out.</param>
public sealed record Frontend(
    L3n4Addr Address,
    ServiceName Service,
    string PortName,
    ServiceType Type,
    ServiceAffinity Affinity,
    EquatableArray<Backend> Backends)
{
    /// <summary>Clients outside the cluster are given backends of this node only (externalTrafficPolicy: Local).</summary>
    public bool ExternalLocal { get; init; }

    /// <summary>Pods and hosts of the cluster are (internalTrafficPolicy: Local).</summary>
    public bool InternalLocal { get; init; }

    /// <summary>TCP port at which this node says whether it has backends of the service; 0 = none.</summary>
    public ushort HealthCheckNodePort { get; init; }

    /// <summary>A client keeps its backend until it has been silent for so many seconds (sessionAffinity: ClientIP); 0 = none.</summary>
    public uint AffinitySeconds { get; init; }

    /// <summary>Clients outside the cluster that may use it, sorted; empty = all (loadBalancerSourceRanges).</summary>
    public EquatableArray<IpPrefix> SourceRanges { get; init; }

    /// <summary>How packets from outside get to their backend and back.</summary>
    public ForwardingMode Forwarding { get; init; }

    public BackendAlgorithm Algorithm { get; init; }

    /// <summary>Weights of the groups of backends; empty = every group weighs as many as it has backends.</summary>
    public EquatableArray<Share> Shares { get; init; }

    /// <summary>The two kinds of clients may be given different backends.</summary>
    public bool HasTwoScopes => ExternalLocal != InternalLocal;
}

/// <summary>Numbered as enum lb_forwarding.</summary>
public enum ForwardingMode : byte
{
    /// <summary>The answer comes back through the node that took the packet in.</summary>
    Snat = 0,

    /// <summary>The backend's node answers the client itself.</summary>
    Dsr = 1,
}

/// <summary>Numbered as enum lb_algorithm.</summary>
public enum BackendAlgorithm : byte
{
    Maglev = 0,
    Random = 1,
}

/// <summary>How a backend may be used; numbered as in bpf/include/mesh/lb.h.</summary>
public enum BackendState : byte
{
    Active = 0,
    Draining = 1,
    Dead = 2,
    Maintenance = 3,
}

/// <summary>One address behind a frontend.</summary>
/// <param name="Address">Address the packets are translated to.</param>
/// <param name="ClusterId">Cluster the backend lives in; equals the local cluster's ID for local ones.</param>
/// <param name="Cluster">Its name.</param>
/// <param name="NodeName">Node, when known; "" for remote backends, whose record does not carry it.</param>
/// <param name="Zone">Topology zone, "" when unknown.</param>
/// <param name="Tier">0 is used first; a higher tier only when no lower one has a live backend. Affinity "local" puts remote
/// backends into tier 1, "remote" the local ones, "none" all into tier 0.</param>
public readonly record struct Backend(
    L3n4Addr Address,
    uint ClusterId,
    string Cluster,
    string NodeName,
    string Zone,
    BackendState State,
    byte Tier)
{
    /// <summary>It runs on this node.</summary>
    public bool IsHere { get; init; }

    /// <summary>Of the two groups that a zone preference makes of a cluster: true = this node's zone; null = not divided.</summary>
    public bool? InZone { get; init; }
}
