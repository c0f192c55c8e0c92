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
    public ushort Pad;
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
}
