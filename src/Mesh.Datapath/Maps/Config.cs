namespace Mesh.Datapath.Maps;

/// <summary>struct node_config: the one constant of every program, set before it is loaded.</summary>
public struct NodeConfig
{
    public uint ClusterId;
    public uint TunnelInterface;
    public uint HostInterface;
    public uint IdentityClusterShift;
    public uint UnderlayFamily;

    /// <summary>Largest inner IP packet that fits the tunnel, in bytes.</summary>
    public uint PodMtu;
    public MacAddress GatewayMac;

    /// <summary>UDP port of the tunnel; host order, like all ports here.</summary>
    public ushort TunnelPort;
    public NodeConfigFlags Flags;

    /// <summary>Device with the underlay address; 0 = unknown.</summary>
    public uint UplinkInterface;

    /// <summary>This node's tunnel endpoint, of <see cref="UnderlayFamily"/>.</summary>
    public MeshAddress Underlay;

    /// <summary>CiliumInternalIPs, the source of what is taken into the tunnel from outside; zero = none.</summary>
    public MeshAddress Gateway6;

    /// <summary>Addresses of this node on the underlay; zero = none.</summary>
    public MeshAddress Direct6;
    public BigEndianUInt32 Gateway4;
    public BigEndianUInt32 Direct4;

    /// <summary>Source ports of what is taken in: both ends included, none of those that the stack hands out.</summary>
    public ushort NatPortMin;
    public ushort NatPortMax;

    /// <summary>Outer source ports: SourcePortMin ≤ port &lt; SourcePortMax.</summary>
    public ushort SourcePortMin;
    public ushort SourcePortMax;

    /// <summary>Range of NodePorts; 0 and 0 = none.</summary>
    public ushort NodePortFirst;
    public ushort NodePortLast;
    /// <summary>Frames on the uplink to another address are not ours; zero = do not ask.</summary>
    public MacAddress UplinkMac;
    public ushort Pad;
}

/// <summary>CONFIG_*.</summary>
[Flags]
public enum NodeConfigFlags : uint
{
    None = 0,

    /// <summary>Our programs write and remove VXLAN headers; the device is the fallback.</summary>
    BuiltHeaders = 0x01,

    /// <summary>XDP sends frames back out of a device by redirecting them there.</summary>
    SendByRedirect = 0x02,

    /// <summary>The stack masquerades pods' IPv4 packets.</summary>
    MasqueradesIPv4 = 0x04,

    /// <summary>The stack masquerades pods' IPv6 packets.</summary>
    MasqueradesIPv6 = 0x08,
}

/// <summary>struct agent_state, the one value of agent_state.</summary>
public struct AgentStateValue
{
    /// <summary>MESH_ABI_VERSION &lt;&lt; 32 | checksum of the struct layouts.</summary>
    public ulong Abi;

    /// <summary>Monotonic clock of the agent's last turn, in milliseconds.</summary>
    public ulong HeartbeatMs;

    /// <summary>Agent starts since the maps were made.</summary>
    public ulong Generation;

    /// <summary>1: every node that may send has been in tunnel_senders, so that unknown ones are refused.</summary>
    public ulong SendersKnown;
}
