using Mesh.Datapath.Masquerade;
using Mesh.Datapath.Uplinks;
using Mesh.Model;

namespace Mesh.Datapath;

/// <summary>What the datapath of one node is asked to be. The process runs in the node's network namespace.</summary>
public sealed record DatapathOptions
{
    /// <summary>Directory on a bpffs; pins go to its v2 folder.</summary>
    public required string BpfRoot { get; init; }

    /// <summary>cgroup2 directory whose sockets are load-balanced; null = none, services are translated packet by packet.</summary>
    public string? CgroupPath { get; init; }

    /// <summary>procfs whose sys/net may be written.</summary>
    public string Procfs { get; init; } = "/proc";

    /// <summary>0 for a cluster outside a mesh.</summary>
    public required uint ClusterId { get; init; }

    public required IdentityNumbering IdentityNumbering { get; init; }

    /// <summary>Name of this node; for messages.</summary>
    public required string NodeName { get; init; }

    /// <summary>Every packet of a pod is judged: a pod whose word in the policies table is missing lets nothing pass.</summary>
    public bool EnforcePolicy { get; init; }

    /// <summary>This node's tunnel endpoint; its family is the underlay's.</summary>
    public required IpAddr UnderlayAddress { get; init; }

    /// <summary>The node's CiliumInternalIPs, at most one of each family: the gateways of its pods, carried by mesh_host.</summary>
    public required IReadOnlyList<IpAddr> GatewayAddresses { get; init; }

    /// <summary>UDP port of the VXLAN tunnel; the same on every node of the mesh.</summary>
    public ushort TunnelPort { get; init; } = 8472;

    /// <summary>Single addresses that ipcache4 and ipcache6 each can hold. Maps pinned with another size are exchanged at the start for
    /// new ones with the same entries.</summary>
    public uint IPCacheMapMax { get; init; } = IPCacheMapMaxDefault;

    /// <summary>What the compiled programs declare (IPCACHE_MAX).</summary>
    public const uint IPCacheMapMaxDefault = 1_048_576;

    /// <summary>Ports on which every node of the cluster may answer for a service, as the cluster hands them out.</summary>
    public (ushort First, ushort Last) NodePorts { get; init; } = (30000, 32767);

    /// <summary>Bytes; null = that of the device with the underlay address.</summary>
    public uint? UnderlayMtu { get; init; }

    public UplinkOptions Uplink { get; init; } = new();

    /// <summary>What is masqueraded beside us: packets from outside to pods then go through the stack, which must see both directions.</summary>
    public MasqueradeOptions Masquerade { get; init; } = new();

    /// <summary>For tests: start as a build with another layout would.</summary>
    internal Loader.LayoutVariant? Variant { get; init; }
}
