using Mesh.Model;

namespace Mesh.ControlPlane.LoadBalancing;

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
/// <param name="Address">Virtual IP, port and protocol; the key of the row.</param>
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
    EquatableArray<Backend> Backends);

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
    byte Tier);
