using System.Runtime.CompilerServices;
using Mesh.Model;

namespace Mesh.Datapath.Maps;

/// <summary>Sizes fixed by bpf/include/mesh/lb.h.</summary>
public static class LbLimits
{
    public const int BlockBytes = 64;

    /// <summary>Slots of 32 bytes in a header: slot 0 is the info, slot 1 + i is segment i.</summary>
    public const int SlotsPerBlock = 2;
    public const int SegmentsMax = 64;

    /// <summary>So that the weights of all segments add up in 32 bits.</summary>
    public const uint WeightMax = 0x2000000;
    public const int ClusterWords = 8;
    public const int Clusters = ClusterWords * 64;
}

/// <summary>struct lb4_key, key of lb4_services. Address 0 = the port on every node of the cluster.</summary>
public struct Lb4Key
{
    public BigEndianUInt32 Address;
    public BigEndianUInt16 Port;
    public byte Protocol;
    public byte Pad;

    public static Lb4Key From(L3n4Addr frontend) => new()
    {
        Address = BigEndianUInt32.FromHost((uint)frontend.Address.Value),
        Port = BigEndianUInt16.FromHost(frontend.Port),
        Protocol = (byte)frontend.Protocol,
    };

    public readonly L3n4Addr ToL3n4Addr() => new(IpAddr.V4(Address.Host), Port.Host, (L4Protocol)Protocol);
}

/// <summary>struct lb6_key, key of lb6_services.</summary>
public struct Lb6Key
{
    public MeshAddress Address;
    public BigEndianUInt16 Port;
    public byte Protocol;
    public byte Pad;

    public static Lb6Key From(L3n4Addr frontend) => new()
    {
        Address = MeshAddress.From(frontend.Address),
        Port = BigEndianUInt16.FromHost(frontend.Port),
        Protocol = (byte)frontend.Protocol,
    };

    public readonly L3n4Addr ToL3n4Addr() => new(Address.ToIpAddr(Family.IPv6)!.Value, Port.Host, (L4Protocol)Protocol);
}

/// <summary>struct lb_service_id, value of lb4_services and lb6_services: indexes into lb_services.</summary>
public struct LbServiceId : IEquatable<LbServiceId>
{
    /// <summary>For clients outside the cluster, and for all when <see cref="InternalId"/> is 0.</summary>
    public uint Id;

    /// <summary>For pods and hosts of the cluster.</summary>
    public uint InternalId;

    public readonly bool Equals(LbServiceId other) => Id == other.Id && InternalId == other.InternalId;

    public override readonly bool Equals(object? obj) => obj is LbServiceId other && Equals(other);

    public override readonly int GetHashCode() => HashCode.Combine(Id, InternalId);

    public static bool operator ==(LbServiceId left, LbServiceId right) => left.Equals(right);

    public static bool operator !=(LbServiceId left, LbServiceId right) => !left.Equals(right);
}

/// <summary>struct lb_service: the commit word, always stored whole by one release store.</summary>
public struct LbService
{
    public uint Block;
    public byte Segments;
    public LbServiceFlags Flags;
    public ushort Generation;
}

[Flags]
public enum LbServiceFlags : byte
{
    None = 0,
    Present = 0x01,
    AffinityLocal = 0x02,
    AffinityRemote = 0x04,

    /// <summary>New flows choose by chance: <see cref="LbServiceInfo.Algorithm"/>.</summary>
    Random = 0x08,

    /// <summary><see cref="LbServiceInfo.AffinitySeconds"/> counts.</summary>
    SessionAffinity = 0x10,

    /// <summary><see cref="LbServiceInfo.SourceRanges"/> counts.</summary>
    SourceRanges = 0x20,
}

/// <summary>enum lb_scope: who asks.</summary>
public enum LbScope : byte
{
    /// <summary>From outside the cluster.</summary>
    External = 0,

    /// <summary>Pods and hosts of the cluster.</summary>
    Internal = 1,
}

/// <summary>struct lb_service_info: slot 0 of a header, what holds for the service as a whole.</summary>
public struct LbServiceInfo
{
    /// <summary>A client keeps its backend until it has been silent for so long; 0 = none.</summary>
    public uint AffinitySeconds;

    /// <summary>Key of its ranges in lb4_source_ranges and lb6_source_ranges; 0 = every source.</summary>
    public uint SourceRanges;

    /// <summary>enum lb_forwarding: 0 SNAT, 1 DSR.</summary>
    public byte Forwarding;

    /// <summary>enum lb_algorithm: 0 Maglev, 1 random.</summary>
    public byte Algorithm;

    /// <summary>enum lb_kind, numbered as <see cref="Mesh.ControlPlane.LoadBalancing.ServiceType"/>.</summary>
    public byte Kind;
    public LbInfoFlags Flags;
    public LbInfoPad Pad;
}

[Flags]
public enum LbInfoFlags : byte
{
    None = 0,

    /// <summary>Every backend is on this node: the traffic policy of the scope is Local.</summary>
    LocalOnly = 0x01,
}

[InlineArray(5)]
public struct LbInfoPad
{
    private uint _first;
}

[InlineArray(3)]
public struct LbSegmentPad
{
    private uint _first;
}

/// <summary>struct lb_segment: one cluster's backends of one tier of one service.</summary>
public struct LbSegment
{
    public uint BackendBase;

    /// <summary>Byte offset from the start of the arena.</summary>
    public uint Table;
    public ushort Backends;
    public ushort TableSize;
    public ushort ClusterId;
    public byte Tier;
    public LbSegmentFlags Flags;

    /// <summary>Share of the tier's flows; 0 = as many as backends.</summary>
    public uint Weight;
    public LbSegmentPad Pad;

    public readonly uint EffectiveWeight => Weight == 0 ? Backends : Weight;

    public readonly int TableBytes => TableSize * ((Flags & LbSegmentFlags.Wide) != 0 ? 2 : 1);

    public readonly uint TableBlocks => (uint)(TableBytes + LbLimits.BlockBytes - 1) / LbLimits.BlockBytes;
}

[Flags]
public enum LbSegmentFlags : byte
{
    None = 0,
    Wide = 0x01,
}

/// <summary>struct lb_block: 64 bytes of header or table. Slot 0 of a header's first block is an <see cref="LbServiceInfo"/>.</summary>
[InlineArray(LbLimits.SlotsPerBlock)]
public struct LbBlock
{
    private LbSegment _first;
}

[Flags]
public enum LbBackendFlags : byte
{
    None = 0,

    /// <summary>It runs on this node.</summary>
    Here = 0x01,
}

/// <summary>struct lb_backend. State is stored alone to take one backend out.</summary>
public struct LbBackend
{
    public MeshAddress Address;
    public BigEndianUInt16 Port;
    public byte Protocol;
    public byte State;
    public ushort ClusterId;

    /// <summary>MESH_FAMILY_*; None = free slot.</summary>
    public byte Family;
    public LbBackendFlags Flags;

    /// <summary>Index into nodes; 0 = unknown.</summary>
    public uint Node;
    public uint Pad;

    public readonly L3n4Addr? ToL3n4Addr() =>
        Address.ToIpAddr(Family) is { } address ? new L3n4Addr(address, Port.Host, (L4Protocol)Protocol) : null;
}

/// <summary>struct lb4_range_key, key of lb4_source_ranges. The value is a 1.</summary>
public struct Lb4RangeKey
{
    /// <summary>Bits before the address: the id, always matched whole.</summary>
    public const int StaticBits = 32;

    public uint PrefixLength;

    /// <summary><see cref="LbServiceInfo.SourceRanges"/>.</summary>
    public uint Id;
    public BigEndianUInt32 Address;

    public static Lb4RangeKey From(uint id, IpPrefix range) => new()
    {
        PrefixLength = (uint)range.Length + StaticBits,
        Id = id,
        Address = BigEndianUInt32.FromHost((uint)range.Address.Value),
    };

    public readonly IpPrefix ToPrefix() => new(IpAddr.V4(Address.Host), (int)PrefixLength - StaticBits);
}

/// <summary>struct lb6_range_key, key of lb6_source_ranges.</summary>
public struct Lb6RangeKey
{
    public uint PrefixLength;
    public uint Id;
    public MeshAddress Address;

    public static Lb6RangeKey From(uint id, IpPrefix range) => new()
    {
        PrefixLength = (uint)range.Length + Lb4RangeKey.StaticBits,
        Id = id,
        Address = MeshAddress.From(range.Address),
    };

    public readonly IpPrefix ToPrefix() => new(Address.ToIpAddr(Family.IPv6)!.Value, (int)PrefixLength - Lb4RangeKey.StaticBits);
}

/// <summary>struct lb_node_address, key of lb_node_addresses: an address of a node of this cluster.</summary>
public struct LbNodeAddress
{
    public MeshAddress Address;
    public byte Family;
    public byte Pad0;
    public byte Pad1;
    public byte Pad2;

    public static LbNodeAddress From(IpAddr address) => new() { Address = MeshAddress.From(address), Family = Maps.Family.Of(address) };

    public readonly IpAddr? ToIpAddr() => Address.ToIpAddr(Family);
}

/// <summary>enum lb_node_place, value of lb_node_addresses.</summary>
public enum LbNodePlace : uint
{
    Here = 1,
    Elsewhere = 2,
}

/// <summary>struct lb_affinity_key, key of lb_affinity.</summary>
public struct LbAffinityKey
{
    /// <summary>The client's address; of a socket the cookie of its network namespace.</summary>
    public MeshAddress Client;

    /// <summary>Index into lb_services.</summary>
    public uint Service;

    /// <summary>None = a cookie.</summary>
    public byte Family;
    public byte Pad0;
    public byte Pad1;
    public byte Pad2;
}

/// <summary>struct lb_datagram_backend, key of lb_datagram_backends; its value is the backend's slot.</summary>
public struct LbDatagramBackend
{
    public MeshAddress Address;
    public BigEndianUInt16 Port;
    public byte Family;
    public byte Pad;

    public static LbDatagramBackend From(Model.IpAddr address, ushort port) => new()
    {
        Address = MeshAddress.From(address),
        Port = BigEndianUInt16.FromHost(port),
        Family = Maps.Family.Of(address),
    };
}

/// <summary>struct lb_affinity, value of lb_affinity.</summary>
public struct LbAffinity
{
    public MeshAddress Address;
    public BigEndianUInt16 Port;
    public ushort Pad;

    /// <summary>Seconds of the monotonic clock.</summary>
    public uint LastUsed;
}
