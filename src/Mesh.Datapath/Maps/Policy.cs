namespace Mesh.Datapath.Maps;

/// <summary>Sizes and words fixed by bpf/include/mesh/policy.h.</summary>
public static class PolicyLimits
{
    /// <summary>In place of a set's number: nobody has said yet what holds, and nothing passes.</summary>
    public const uint Undecided = 0;

    /// <summary>In place of a set's number: everything passes.</summary>
    public const uint Unenforced = 1;

    /// <summary>In place of a set's number: everything passes, and flows are remembered.</summary>
    public const uint Learning = 2;
    public const uint FirstSet = 3;
    public const uint SetMask = 0x7fffffff;

    /// <summary>What the set denies is counted, and passes.</summary>
    public const uint Audit = 0x80000000;
    public const uint VerdictAllow = 0x80000000;
    public const uint VerdictRule = 0x00ffffff;
    public const int RangesPerRow = 4096;
}

/// <summary>struct policy_endpoint: the commit word of an endpoint, always stored whole.</summary>
public struct PolicyEndpointValue
{
    public uint Ingress;
    public uint Egress;
}

/// <summary>struct policy_key, key of policy_rows.</summary>
public readonly record struct PolicyRowKey(uint Set, uint Identity);

/// <summary>struct policy_row, value of policy_rows.</summary>
public struct PolicyRowValue
{
    /// <summary>Without ranges the verdict, otherwise the first of its ranges.</summary>
    public uint Answer;
    public uint Ranges;
}

/// <summary>struct policy_range, value of policy_ranges.</summary>
public struct PolicyRangeValue
{
    /// <summary>Protocol &lt;&lt; 16 | port.</summary>
    public uint Start;
    public uint Verdict;
}

/// <summary>struct policy_counter, value of policy_counters (per CPU).</summary>
public struct PolicyCounterValue
{
    public ulong Packets;
    public ulong Bytes;
}

/// <summary>struct policy_flow_key, key of policy_flows.</summary>
public struct PolicyFlowKey
{
    public MeshAddress Source;
    public MeshAddress Destination;
    public BigEndianUInt16 SourcePort;
    public BigEndianUInt16 DestinationPort;
    public byte Protocol;

    /// <summary>0 into the endpoint, 1 out of it.</summary>
    public byte Direction;
    public byte Family;
    public byte Pad;
}

/// <summary>struct policy_flow, value of policy_flows.</summary>
public struct PolicyFlowValue
{
    /// <summary>Seconds of the monotonic clock.</summary>
    public uint LastSeen;
    public byte Flags;
    public byte Pad0;
    public byte Pad1;
    public byte Pad2;
}
