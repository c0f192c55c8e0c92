using System.Buffers.Binary;
using System.Net;

namespace Mesh.Model;

/// <summary>
/// An IPv4 or IPv6 address as a 24-byte value: no heap object per address, because a mesh holds hundreds of thousands.
/// Text follows Go's net.IP, which every Cilium peer uses: RFC 5952 on output, an IPv4-mapped address is the IPv4 address,
/// and on input no zones, no leading zeros in IPv4 octets, no shortened IPv4. (System.Net.IPAddress differs from it in both
/// directions: it reads more, and it prints ::a.b.c.d where Go prints hexadecimal groups.)
/// </summary>
public readonly record struct IpAddr : IComparable<IpAddr>
{
    private const int LongestText = 45;

    // Two words instead of one UInt128, whose 16-byte alignment would make each address 32 bytes and each prefix 48.
    private readonly ulong _high;
    private readonly ulong _low;

    /// <summary>Numeric value; IPv4 addresses use the low 32 bits.</summary>
    public UInt128 Value => new(_high, _low);

    /// <summary>True for an IPv6 address.</summary>
    public bool IsV6 { get; }

    private IpAddr(UInt128 value, bool isV6)
    {
        _high = (ulong)(value >> 64);
        _low = (ulong)value;
        IsV6 = isV6;
    }

    /// <summary>Length of the address in bits: 32 or 128.</summary>
    public int Bits => IsV6 ? 128 : 32;

    /// <summary>True for 0.0.0.0 and ::, which no endpoint, backend or node can own.</summary>
    public bool IsUnspecified => (_high | _low) == 0;

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
            BinaryPrimitives.WriteUInt32BigEndian(destination16, (uint)_low);
    }

    /// <summary>The 4 or 16 bytes in network order.</summary>
    public byte[] ToBytes()
    {
        var bytes = new byte[IsV6 ? 16 : 4];
        if (IsV6)
            BinaryPrimitives.WriteUInt128BigEndian(bytes, Value);
        else
            BinaryPrimitives.WriteUInt32BigEndian(bytes, (uint)_low);
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
        if (text.IsEmpty || text.Length > LongestText)
            return false;
        if (text.Contains(':'))
            return TryParseV6(text, out address);
        if (!TryParseV4(text, out var value))
            return false;
        address = V4(value);
        return true;
    }

    private static bool TryParseV4(ReadOnlySpan<char> text, out uint value)
    {
        value = 0;
        var octets = 0;
        var octet = 0;
        var digits = 0;
        for (var i = 0; i <= text.Length; i++)
        {
            if (i == text.Length || text[i] == '.')
            {
                if (digits == 0 || ++octets > 4)
                    return false;
                value = value << 8 | (uint)octet;
                octet = digits = 0;
                continue;
            }
            if (!char.IsAsciiDigit(text[i]) || (digits > 0 && octet == 0))
                return false;
            octet = octet * 10 + (text[i] - '0');
            digits++;
            if (octet > 255)
                return false;
        }
        return octets == 4;
    }

    private static bool TryParseV6(ReadOnlySpan<char> text, out IpAddr address)
    {
        address = default;
        Span<byte> bytes = stackalloc byte[16];
        bytes.Clear();
        var written = 0;
        var ellipsis = -1; // where "::" stands, in bytes from the front
        if (text.StartsWith("::"))
        {
            ellipsis = 0;
            text = text[2..];
        }
        while (written < 16 && !text.IsEmpty)
        {
            var digits = 0;
            var group = 0;
            while (digits < text.Length && char.IsAsciiHexDigit(text[digits]))
            {
                if (digits == 4)
                    return false;
                group = group << 4 | HexValue(text[digits++]);
            }
            if (digits == 0)
                return false;
            if (digits < text.Length && text[digits] == '.')
            {
                if ((ellipsis < 0 && written != 12) || written > 12 || !TryParseV4(text, out var embedded))
                    return false;
                BinaryPrimitives.WriteUInt32BigEndian(bytes[written..], embedded);
                written += 4;
                text = default;
                break;
            }
            BinaryPrimitives.WriteUInt16BigEndian(bytes[written..], (ushort)group);
            written += 2;
            text = text[digits..];
            if (text.IsEmpty)
                break;
            if (text[0] != ':' || text.Length == 1)
                return false;
            text = text[1..];
            if (text[0] != ':')
                continue;
            if (ellipsis >= 0)
                return false;
            ellipsis = written;
            text = text[1..];
        }
        if (!text.IsEmpty || (written == 16) == (ellipsis >= 0))
            return false;
        if (ellipsis >= 0)
        {
            var tail = written - ellipsis;
            bytes[ellipsis..written].CopyTo(bytes[(16 - tail)..]);
            bytes[ellipsis..(16 - tail)].Clear();
        }
        address = FromBytes(bytes);
        return true;
    }

    private static int HexValue(char digit) => digit <= '9' ? digit - '0' : (digit | 0x20) - 'a' + 10;

    public override string ToString()
    {
        Span<char> text = stackalloc char[LongestText];
        return new string(text[..Format(text)]);
    }

    /// <summary>Writes the text form into at least 45 characters and returns its length.</summary>
    public int Format(Span<char> destination)
    {
        var length = 0;
        if (!IsV6)
        {
            for (var shift = 24; shift >= 0; shift -= 8)
            {
                ((byte)(_low >> shift)).TryFormat(destination[length..], out var digits);
                length += digits;
                if (shift > 0)
                    destination[length++] = '.';
            }
            return length;
        }
        var (zerosAt, zeros) = LongestZeroRun();
        for (var group = 0; group < 8; group++)
        {
            if (group == zerosAt)
            {
                destination[length++] = ':';
                destination[length++] = ':';
                group += zeros - 1;
                continue;
            }
            if (group > 0 && group != zerosAt + zeros)
                destination[length++] = ':';
            Group(group).TryFormat(destination[length..], out var digits, "x");
            length += digits;
        }
        return length;
    }

    private ushort Group(int index) => (ushort)((index < 4 ? _high : _low) >> 48 - index % 4 * 16);

    // RFC 5952 §4.2: the longest run of at least two zero groups, the first of equals. (-9, 0) when there is none.
    private (int Start, int Length) LongestZeroRun()
    {
        var best = (Start: -9, Length: 0);
        for (var group = 0; group < 8; group++)
        {
            var end = group;
            while (end < 8 && Group(end) == 0)
                end++;
            if (end - group >= 2 && end - group > best.Length)
                best = (group, end - group);
            group = end;
        }
        return best;
    }

    /// <summary>IPv4 before IPv6, then by number.</summary>
    public int CompareTo(IpAddr other) => IsV6 != other.IsV6 ? (IsV6 ? 1 : -1) : Value.CompareTo(other.Value);

    public static bool operator <(IpAddr left, IpAddr right) => left.CompareTo(right) < 0;

    public static bool operator >(IpAddr left, IpAddr right) => left.CompareTo(right) > 0;

    public static bool operator <=(IpAddr left, IpAddr right) => left.CompareTo(right) <= 0;

    public static bool operator >=(IpAddr left, IpAddr right) => left.CompareTo(right) >= 0;
}
