namespace Mesh.Datapath.Maps;

/// <summary>struct node, value of nodes.</summary>
public struct NodeValue
{
    public MeshAddress TunnelEndpoint;

    /// <summary>MESH_FAMILY_* of the underlay; None = free slot.</summary>
    public byte Family;

    public NodeState State;
    public ushort ClusterId;

    /// <summary>Monotonic clock when a packet of the node last came out of the tunnel; written by the programs.</summary>
    public uint LastSeenMs;

    /// <summary>Of the outer frame; counts only with an <see cref="InterfaceIndex"/>.</summary>
    public MacAddress NextHopMac;
    public MacAddress SourceMac;

    /// <summary>Device that outer frames leave by; 0 = not resolved.</summary>
    public uint InterfaceIndex;
    public NodeFlags Flags;
    public uint Pad;
}

/// <summary>NODE_*.</summary>
[Flags]
public enum NodeFlags : uint
{
    None = 0,

    /// <summary>Answers clients of other nodes itself, told the virtual address in the packet.</summary>
    TakesDsr = 0x01,
}

/// <summary>struct node_index, value of tunnel_senders (key: <see cref="EndpointKey"/> with the underlay address).</summary>
public struct NodeIndexValue
{
    public uint Index;
}

/// <summary>enum node_state.</summary>
public enum NodeState : byte
{
    Up = 0,

    /// <summary>Taken out: packets to it are dropped.</summary>
    Down = 1,

    /// <summary>Proved silent: not chosen, but what is sent there by name still goes there.</summary>
    Silent = 2,
}
