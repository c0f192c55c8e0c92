using System.Runtime.CompilerServices;

namespace Mesh.Datapath.Maps;

/// <summary>struct observing: until when somebody watches.</summary>
public struct ObservingValue
{
    /// <summary>CLOCK_MONOTONIC in nanoseconds; 0 = nobody watches.</summary>
    public ulong UntilNs;

    /// <summary>Events for which the ring had no room.</summary>
    public ulong Lost;

    /// <summary>Process that reads the ring.</summary>
    public uint Watcher;
    public uint Pad;
}

/// <summary>struct event_flow: what a flow is told under.</summary>
public struct EventFlowValue
{
    public MeshAddress Source;
    public MeshAddress Destination;
    public BigEndianUInt16 SourcePort;
    public BigEndianUInt16 DestinationPort;

    /// <summary>Of the sender, as the tunnel says; 0 = its address tells it.</summary>
    public uint Identity;

    /// <summary>enum drop_reason.</summary>
    public ushort Reason;

    /// <summary>None = no IP packet.</summary>
    public byte Family;
    public byte Protocol;
    public byte Direction;
    public EventPad Pad;
}

/// <summary>struct event: a record of the ring.</summary>
public struct EventValue
{
    public EventFlowValue Flow;

    /// <summary>CLOCK_MONOTONIC.</summary>
    public ulong TimeNs;

    /// <summary>Of this flow since it was last told, this one included.</summary>
    public ulong Packets;

    /// <summary>Bytes of this frame.</summary>
    public uint Length;
    public uint Interface;
    public byte TcpFlags;
    public EventPad Pad;
}

[InlineArray(7)]
public struct EventPad
{
    private byte _first;
}
