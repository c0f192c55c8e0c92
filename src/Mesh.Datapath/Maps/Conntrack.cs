using Mesh.Model;

namespace Mesh.Datapath.Maps;

/// <summary>struct conntrack4_key, key of conntrack4: one direction of a translated flow.</summary>
public struct Conntrack4Key : IConntrackKey
{
    public BigEndianUInt32 Source;
    public BigEndianUInt32 Destination;
    public BigEndianUInt16 SourcePort;
    public BigEndianUInt16 DestinationPort;
    public byte Protocol;
    public ConntrackDirection Direction;
    public ushort Pad;

    readonly byte IConntrackKey.Protocol => Protocol;

    public readonly ConntrackFlow ToFlow() => new(
        IpAddr.V4(Source.Host), SourcePort.Host, IpAddr.V4(Destination.Host), DestinationPort.Host, (L4Protocol)Protocol, Direction);
}

/// <summary>struct conntrack6_key, key of conntrack6.</summary>
public struct Conntrack6Key : IConntrackKey
{
    public MeshAddress Source;
    public MeshAddress Destination;
    public BigEndianUInt16 SourcePort;
    public BigEndianUInt16 DestinationPort;
    public byte Protocol;
    public ConntrackDirection Direction;
    public ushort Pad;

    readonly byte IConntrackKey.Protocol => Protocol;

    public readonly ConntrackFlow ToFlow() => new(Source.ToIpAddr(Family.IPv6)!.Value, SourcePort.Host,
        Destination.ToIpAddr(Family.IPv6)!.Value, DestinationPort.Host, (L4Protocol)Protocol, Direction);
}

/// <summary>What both keys have.</summary>
public interface IConntrackKey
{
    byte Protocol { get; }

    ConntrackFlow ToFlow();
}

/// <summary>A key in words.</summary>
public readonly record struct ConntrackFlow(
    IpAddr Source, ushort SourcePort, IpAddr Destination, ushort DestinationPort, L4Protocol Protocol, ConntrackDirection Direction);

/// <summary>enum conntrack_direction.</summary>
public enum ConntrackDirection : byte
{
    /// <summary>Client to virtual address; the value is the backend.</summary>
    Forward = 0,

    /// <summary>Backend to client; the value is the virtual address.</summary>
    Reverse = 1,
}

/// <summary>struct conntrack_value, value of both maps.</summary>
public struct ConntrackValue
{
    /// <summary>What the packet's address becomes.</summary>
    public MeshAddress Address;
    public BigEndianUInt16 Port;
    public ConntrackFlags Flags;
    public byte Pad;

    /// <summary>Slot in lb_backends, a hint; forward entries only.</summary>
    public uint Backend;

    /// <summary>Index into lb_services.</summary>
    public uint Service;

    /// <summary>Seconds of the monotonic clock.</summary>
    public uint LastSeen;

    /// <summary>Seconds of silence after which the entry no longer counts, as lib/conntrack.h reckons.</summary>
    public readonly uint TimeoutSeconds(byte protocol)
    {
        const ConntrackFlags both = ConntrackFlags.ClientFin | ConntrackFlags.ServerFin;
        if ((Flags & ConntrackFlags.Reset) != 0)
            return 10;
        if ((Flags & both) == both)
            return 60;
        if ((Flags & ConntrackFlags.Established) == 0)
            return 60;
        if (protocol != (byte)L4Protocol.TCP)
            return 180;
        return (Flags & both) != 0 ? 3600u : 21600u;
    }
}

/// <summary>CONNTRACK_*: how far the conversation is.</summary>
[Flags]
public enum ConntrackFlags : byte
{
    /// <summary>Opening: nothing but the first packet was seen.</summary>
    None = 0,
    Established = 0x01,
    ClientFin = 0x02,
    ServerFin = 0x04,
    Reset = 0x08,

    /// <summary>The client is its own backend.</summary>
    Hairpin = 0x10,

    /// <summary>TCP: the backend has said something that is no reset.</summary>
    Answered = 0x20,
}
