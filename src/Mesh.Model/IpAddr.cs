using System.Buffers.Binary;
using System.Net;
using System.Net.Sockets;

namespace Mesh.Model;

/// <summary>
/// An IPv4 or IPv6 address as a 24-byte value: no heap object per address, because a mesh holds hundreds of thousands.
/// Text follows Go's net.IP, which every Cilium peer uses: RFC 5952 on output, an IPv4-mapped address is the IPv4 address,
/// and on input no zones, no leading zeros in IPv4 octets, no shortened IPv4.
/// </summary>
public readonly record struct IpAddr : IComparable<IpAddr>
{
    /// <summary>Numeric value; IPv4 addresses use the low 32 bits.</summary>
    public UInt128 Value { get; }

    /// <summary>True for an IPv6 address.</summary>
    public bool IsV6 { get; }

    private IpAddr(UInt128 value, bool isV6)
    {
        Value = value;
        IsV6 = isV6;
    }

    /// <summary>Length of the address in bits: 32 or 128.</summary>
    public int Bits => IsV6 ? 128 : 32;

    /// <summary>True for 0.0.0.0 and ::, which no endpoint, backend or node can own.</summary>
    public bool IsUnspecified => Value == 0;

    public static IpAddr V4(uint hostOrder) => new(hostOrder, isV6: false);

    public static IpAddr V6(UInt128 value) => new(value, isV6: true);

    /// <summary>From 4 or 16 bytes in network order. A 16-byte IPv4-mapped address becomes IPv4.</summary>
    /// <exception cref="ArgumentException">Any other length.</exception>
    public static IpAddr FromBytes(ReadOnlySpan<byte> networkOrder)
    {
        switch (networkOrder.Length)
        {
            case 4:
                return V4(BinaryPrimitives.ReadUInt32BigEndian(networkOrder));
            case 16:
                var value = BinaryPrimitives.ReadUInt128BigEndian(networkOrder);
                return value >> 32 == 0xffff ? V4((uint)value) : V6(value);
            default:
                throw new ArgumentException($"an IP address has 4 or 16 bytes, not {networkOrder.Length}", nameof(networkOrder));
        }
    }

    /// <summary>Writes the address as 16 bytes in network order, the shape of every address field of our BPF maps:
    /// an IPv4 address takes the first four bytes, the rest is zero.</summary>
    public void WriteKernelBytes(Span<byte> destination16)
    {
        destination16[..16].Clear();
        if (IsV6)
            BinaryPrimitives.WriteUInt128BigEndian(destination16, Value);
        else
            BinaryPrimitives.WriteUInt32BigEndian(destination16, (uint)Value);
    }

    /// <summary>The 4 or 16 bytes in network order.</summary>
    public byte[] ToBytes()
    {
        var bytes = new byte[IsV6 ? 16 : 4];
        if (IsV6)
            BinaryPrimitives.WriteUInt128BigEndian(bytes, Value);
        else
            BinaryPrimitives.WriteUInt32BigEndian(bytes, (uint)Value);
        return bytes;
    }

    public IPAddress ToIPAddress() => new(ToBytes());

    public static IpAddr From(IPAddress address)
    {
        Span<byte> bytes = stackalloc byte[16];
        address.TryWriteBytes(bytes, out var written);
        return FromBytes(bytes[..written]);
    }

    public static IpAddr Parse(string text) =>
        TryParse(text, out var address) ? address : throw new FormatException($"'{text}' is not an IP address");

    public static bool TryParse(ReadOnlySpan<char> text, out IpAddr address)
    {
        address = default;
        if (text.IsEmpty || text.Length > 45)
            return false;
        if (!text.Contains(':'))
            return TryParseV4(text, out address);
        if (text.Contains('%') || text[0] == '[' || !IPAddress.TryParse(text, out var parsed) || parsed.AddressFamily != AddressFamily.InterNetworkV6)
            return false;
        address = From(parsed);
        return true;
    }

    private static bool TryParseV4(ReadOnlySpan<char> text, out IpAddr address)
    {
        address = default;
        uint value = 0;
        var octets = 0;
        foreach (var range in text.Split('.'))
        {
            var part = text[range];
            if (++octets > 4 || part.Length is 0 or > 3 || (part.Length > 1 && part[0] == '0'))
                return false;
            uint octet = 0;
            foreach (var c in part)
            {
                if (!char.IsAsciiDigit(c))
                    return false;
                octet = octet * 10 + (uint)(c - '0');
            }
            if (octet > 255)
                return false;
            value = value << 8 | octet;
        }
        if (octets != 4)
            return false;
        address = V4(value);
        return true;
    }

    public override string ToString() => ToIPAddress().ToString();

    /// <summary>IPv4 before IPv6, then by number.</summary>
    public int CompareTo(IpAddr other) => IsV6 != other.IsV6 ? (IsV6 ? 1 : -1) : Value.CompareTo(other.Value);

    public static bool operator <(IpAddr left, IpAddr right) => left.CompareTo(right) < 0;

    public static bool operator >(IpAddr left, IpAddr right) => left.CompareTo(right) > 0;

    public static bool operator <=(IpAddr left, IpAddr right) => left.CompareTo(right) <= 0;

    public static bool operator >=(IpAddr left, IpAddr right) => left.CompareTo(right) >= 0;
}
