namespace Mesh.Model;

/// <summary>An address range, always stored masked: two texts of one range are one value. 24 bytes, like an address.</summary>
public readonly record struct IpPrefix : IComparable<IpPrefix>
{
    // The address in parts, so that the length shares the word of the family flag.
    private readonly ulong _high;
    private readonly ulong _low;
    private readonly bool _isV6;

    /// <summary>First address of the range.</summary>
    public IpAddr Address => _isV6 ? IpAddr.V6(new UInt128(_high, _low)) : IpAddr.V4((uint)_low);

    /// <summary>Leading bits that count: 0 to 32, or 0 to 128.</summary>
    public byte Length { get; }

    public IpPrefix(IpAddr address, int length)
    {
        if (length < 0 || length > address.Bits)
            throw new ArgumentOutOfRangeException(nameof(length), length, $"a prefix of {address} has 0 to {address.Bits} bits");
        var mask = length == 0 ? 0 : UInt128.MaxValue << address.Bits - length;
        var masked = address.Value & mask;
        (_high, _low, _isV6) = ((ulong)(masked >> 64), (ulong)masked, address.IsV6);
        Length = (byte)length;
    }

    /// <summary>The /32 or /128 of one address.</summary>
    public static IpPrefix Host(IpAddr address) => new(address, address.Bits);

    /// <summary>True when the range is a single address.</summary>
    public bool IsHost => Length == Address.Bits;

    public bool Contains(IpAddr address) => address.IsV6 == Address.IsV6 && new IpPrefix(address, Length).Address == Address;

    public bool Overlaps(IpPrefix other) => Length <= other.Length ? Contains(other.Address) : other.Contains(Address);

    /// <summary>Accepts "10.1.0.0/24", or a bare address as its host prefix. Bits below the mask are cleared.</summary>
    public static bool TryParse(ReadOnlySpan<char> text, out IpPrefix prefix)
    {
        prefix = default;
        var slash = text.IndexOf('/');
        if (!IpAddr.TryParse(slash < 0 ? text : text[..slash], out var address))
            return false;
        var length = address.Bits;
        if (slash >= 0)
        {
            var digits = text[(slash + 1)..];
            if (digits.Length is 0 or > 3 || (digits.Length > 1 && digits[0] == '0') || digits.ContainsAnyExceptInRange('0', '9'))
                return false;
            length = int.Parse(digits, System.Globalization.CultureInfo.InvariantCulture);
        }
        if (length > address.Bits)
            return false;
        prefix = new IpPrefix(address, length);
        return true;
    }

    public static IpPrefix Parse(string text) =>
        TryParse(text, out var prefix) ? prefix : throw new FormatException($"'{text}' is not an address range such as 10.1.0.0/24");

    /// <summary>Always with its length: 10.1.0.9/32.</summary>
    public override string ToString() => $"{Address}/{Length}";

    public int CompareTo(IpPrefix other)
    {
        var byAddress = Address.CompareTo(other.Address);
        return byAddress != 0 ? byAddress : Length.CompareTo(other.Length);
    }

    public static bool operator <(IpPrefix left, IpPrefix right) => left.CompareTo(right) < 0;

    public static bool operator >(IpPrefix left, IpPrefix right) => left.CompareTo(right) > 0;

    public static bool operator <=(IpPrefix left, IpPrefix right) => left.CompareTo(right) <= 0;

    public static bool operator >=(IpPrefix left, IpPrefix right) => left.CompareTo(right) >= 0;
}
