namespace Mesh.Datapath.Maps;

/// <summary>enum nat_direction.</summary>
public enum NatDirection : byte
{
    /// <summary>Client → virtual address.</summary>
    Forward = 0,

    /// <summary>Backend → whoever it takes for the client.</summary>
    Reverse = 1,
}

/// <summary>enum nat_way: where the packets of a flow from outside go.</summary>
public enum NatWay : byte
{
    Local = 0,
    Tunnel = 1,
    Direct = 2,
    Dsr = 3,
}

/// <summary>NAT_*: what has been seen of a TCP connection.</summary>
[Flags]
public enum NatState : byte
{
    None = 0,
    Answered = 0x01,
    ClientFin = 0x02,
    BackendFin = 0x04,
    Reset = 0x08,
}

/// <summary>struct nat4_key, key of nat4.</summary>
public struct Nat4Key
{
    public BigEndianUInt32 Source;
    public BigEndianUInt32 Destination;
    public BigEndianUInt16 SourcePort;
    public BigEndianUInt16 DestinationPort;
    public byte Protocol;
    public NatDirection Direction;
    public ushort Pad;
}

/// <summary>struct nat6_key, key of nat6.</summary>
public struct Nat6Key
{
    public MeshAddress Source;
    public MeshAddress Destination;
    public BigEndianUInt16 SourcePort;
    public BigEndianUInt16 DestinationPort;
    public byte Protocol;
    public NatDirection Direction;
    public ushort Pad;
}

/// <summary>struct nat_value, value of nat4 and nat6.</summary>
public struct NatValue
{
    /// <summary>Forward: the backend; reverse: the client.</summary>
    public MeshAddress Address;

    /// <summary>Reverse: what the client talks to.</summary>
    public MeshAddress VirtualAddress;
    public BigEndianUInt16 Port;
    public BigEndianUInt16 VirtualPort;

    /// <summary>Forward: that the backend sees.</summary>
    public BigEndianUInt16 SourcePort;
    public NatWay Way;
    public NatState State;
    public uint Node;
    public uint Backend;

    /// <summary>Monotonic clock in units of 2^30 ns.</summary>
    public uint LastSeen;

    /// <summary>Forward: index into lb_services; 0 = not noted.</summary>
    public uint Service;
    public NatPad Pad;
}

[System.Runtime.CompilerServices.InlineArray(2)]
public struct NatPad
{
    private uint _first;
}
