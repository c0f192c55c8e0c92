using System.Net;
using Mesh.Agent.Cni;
using Mesh.ControlPlane;
using Mesh.Datapath;
using Mesh.Datapath.Masquerade;
using Mesh.Datapath.Uplinks;
using Mesh.Kubernetes;
using Mesh.Model;

namespace Mesh.Agent;

/// <summary>What the agent was asked to be; every value has been checked.</summary>
public sealed record AgentOptions
{
    public required ClusterIdentity Cluster { get; init; }

    public required IdentityNumbering Numbering { get; init; }

    /// <summary>Name of the CiliumNode object that describes this node.</summary>
    public required string NodeName { get; init; }

    /// <summary>Where this cluster's objects are.</summary>
    public required SourceAddress Source { get; init; }

    /// <summary>With an API server: the pod ranges are those of the Node object (ipam: kubernetes), not what the operator gives.</summary>
    public bool PodRangesFromNode { get; init; }

    /// <summary>Directory of the peers' etcd client files; null = no peers.</summary>
    public string? ClusterMeshConfig { get; init; }

    /// <summary>The services of a peer that was not reached for so long are withdrawn until it is; zero keeps them for ever.</summary>
    public TimeSpan ClusterMeshCacheTtl { get; init; }

    /// <summary>Directory on a bpffs.</summary>
    public required string BpfRoot { get; init; }

    /// <summary>cgroup2 directory for the socket hooks; null = services are translated at tc only.</summary>
    public string? CgroupRoot { get; init; }

    /// <summary>procfs whose sys/net may be written.</summary>
    public string Procfs { get; init; } = "/proc";

    public required string SocketPath { get; init; }

    /// <summary>Registered endpoints are kept here over restarts.</summary>
    public required string StateDirectory { get; init; }

    /// <summary>What the container runtime is told.</summary>
    public CniOptions Cni { get; init; } = new();

    public ushort TunnelPort { get; init; } = 8472;

    /// <summary>Ports on which every node may answer for a service.</summary>
    public (ushort First, ushort Last) NodePorts { get; init; } = (30000, 32767);

    /// <summary>Devices that clients outside come in by, where their load balancer runs, and who writes tunnel headers.</summary>
    public UplinkOptions Uplink { get; init; } = new();

    /// <summary>Whose packets leave the mesh with the node's address.</summary>
    public MasqueradeOptions Masquerade { get; init; } = new();

    /// <summary>Single addresses of each family that the kernel's ipcache can hold.</summary>
    public uint IPCacheMapMax { get; init; } = DatapathOptions.IPCacheMapMaxDefault;

    /// <summary>A policy's selector that names no cluster means this one.</summary>
    public bool PolicyDefaultLocalCluster { get; init; } = true;

    /// <summary>What policies deny is counted, and passes.</summary>
    public bool PolicyAuditMode { get; init; }

    /// <summary>Where /metrics is served; null = nowhere.</summary>
    public IPEndPoint? PrometheusAddress { get; init; }
}
