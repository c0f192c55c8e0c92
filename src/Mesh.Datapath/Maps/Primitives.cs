using System.Buffers.Binary;
using System.Globalization;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Mesh.Model;

namespace Mesh.Datapath.Maps;

/// <summary>A __be16: stored as the kernel sees it, so that a port can never be compared with one in host order.</summary>
public readonly record struct BigEndianUInt16
{
    private readonly ushort _network;

    private BigEndianUInt16(ushort network) => _network = network;

    public ushort Host => BitConverter.IsLittleEndian ? BinaryPrimitives.ReverseEndianness(_network) : _network;

    public static BigEndianUInt16 FromHost(ushort value) =>
        new(BitConverter.IsLittleEndian ? BinaryPrimitives.ReverseEndianness(value) : value);
}

/// <summary>A __be32: an IPv4 address as the kernel sees it.</summary>
public readonly record struct BigEndianUInt32
{
    private readonly uint _network;

    private BigEndianUInt32(uint network) => _network = network;

    public uint Host => BitConverter.IsLittleEndian ? BinaryPrimitives.ReverseEndianness(_network) : _network;

    public static BigEndianUInt32 FromHost(uint value) =>
        new(BitConverter.IsLittleEndian ? BinaryPrimitives.ReverseEndianness(value) : value);
}

/// <summary>struct mesh_addr, also used for the __u8[16] of IPv6 keys. IPv4 takes the first four bytes, the rest is zero.</summary>
public struct MeshAddress : IEquatable<MeshAddress>
{
    private uint _w0, _w1, _w2, _w3;

    public static MeshAddress From(IpAddr address)
    {
        Span<byte> bytes = stackalloc byte[16];
        address.WriteKernelBytes(bytes);
        return Unsafe.ReadUnaligned<MeshAddress>(ref bytes[0]);
    }

    /// <summary>The address; null for family <see cref="Family.None"/>.</summary>
    public readonly IpAddr? ToIpAddr(byte family)
    {
        Span<byte> bytes = stackalloc byte[16];
        Unsafe.WriteUnaligned(ref bytes[0], this);
        return family switch
        {
            Family.IPv4 => IpAddr.V4(BinaryPrimitives.ReadUInt32BigEndian(bytes)),
            // Not FromBytes: a mapped address in the kernel is a mistake that must stay visible.
            Family.IPv6 => IpAddr.V6(BinaryPrimitives.ReadUInt128BigEndian(bytes)),
            _ => null,
        };
    }

    /// <summary>By the bytes, as the programs search them: of one family the order of the addresses.</summary>
    public readonly int CompareTo(MeshAddress other) =>
        MemoryMarshal.AsBytes(new ReadOnlySpan<MeshAddress>(in this)).SequenceCompareTo(MemoryMarshal.AsBytes(new ReadOnlySpan<MeshAddress>(in other)));

    public readonly bool Equals(MeshAddress other) => _w0 == other._w0 && _w1 == other._w1 && _w2 == other._w2 && _w3 == other._w3;

    public override readonly bool Equals(object? obj) => obj is MeshAddress other && Equals(other);

    public override readonly int GetHashCode() => HashCode.Combine(_w0, _w1, _w2, _w3);

    public static bool operator ==(MeshAddress left, MeshAddress right) => left.Equals(right);

    public static bool operator !=(MeshAddress left, MeshAddress right) => !left.Equals(right);
}

/// <summary>MESH_FAMILY_*.</summary>
public static class Family
{
    public const byte None = 0;
    public const byte IPv4 = 4;
    public const byte IPv6 = 6;

    public static byte Of(IpAddr address) => address.IsV6 ? IPv6 : IPv4;
}

/// <summary>Six bytes of an Ethernet address, in wire order.</summary>
[InlineArray(6)]
public struct MacAddress
{
    private byte _first;

    /// <param name="value">Low 48 bits, first byte highest, as in the endpoint rows.</param>
    public static MacAddress From(ulong value)
    {
        var mac = new MacAddress();
        for (var i = 0; i < 6; i++)
            mac[i] = (byte)(value >> 8 * (5 - i));
        return mac;
    }

    public static MacAddress From(ReadOnlySpan<byte> sixBytes)
    {
        var mac = new MacAddress();
        sixBytes[..6].CopyTo(mac);
        return mac;
    }

    public readonly ulong Value
    {
        get
        {
            ulong value = 0;
            for (var i = 0; i < 6; i++)
                value = value << 8 | this[i];
            return value;
        }
    }

    /// <summary>02:00:00:00:00:01.</summary>
    public override readonly string ToString()
    {
        ReadOnlySpan<byte> bytes = this;
        return string.Create(CultureInfo.InvariantCulture,
            $"{bytes[0]:x2}:{bytes[1]:x2}:{bytes[2]:x2}:{bytes[3]:x2}:{bytes[4]:x2}:{bytes[5]:x2}");
    }
}
