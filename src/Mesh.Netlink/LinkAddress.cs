using System.Globalization;

namespace Mesh.Netlink;

/// <summary>A link-layer address: 48 bits, first byte highest; text as aa:bb:cc:dd:ee:ff.</summary>
public readonly record struct LinkAddress(ulong Value)
{
    /// <summary>A unicast address of the range that everybody may use, from 46 bits of the source.</summary>
    public static LinkAddress Local(Random random)
    {
        const ulong local = 0x02UL << 40, group = 0x01UL << 40, all = 0xffff_ffff_ffffUL;
        return new LinkAddress((ulong)random.NextInt64() & all & ~group | local);
    }

    public static bool TryParse(string? text, out LinkAddress address)
    {
        address = default;
        var parts = (text ?? "").Split(':');
        if (parts.Length != 6)
            return false;
        ulong value = 0;
        foreach (var part in parts)
        {
            if (part.Length != 2 || !byte.TryParse(part, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out var octet))
                return false;
            value = value << 8 | octet;
        }
        address = new LinkAddress(value);
        return true;
    }

    /// <summary>The six bytes of a netlink attribute; zero for any other length.</summary>
    public static LinkAddress From(ReadOnlySpan<byte> bytes)
    {
        if (bytes.Length != 6)
            return default;
        ulong value = 0;
        foreach (var octet in bytes)
            value = value << 8 | octet;
        return new LinkAddress(value);
    }

    public byte[] ToBytes()
    {
        var bytes = new byte[6];
        for (var i = 0; i < bytes.Length; i++)
            bytes[i] = (byte)(Value >> 40 - 8 * i);
        return bytes;
    }

    public override string ToString() => string.Join(':', ToBytes().Select(octet => octet.ToString("x2", CultureInfo.InvariantCulture)));
}
