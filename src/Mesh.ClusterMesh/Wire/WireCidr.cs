using System.Numerics;
using Mesh.ClusterMesh.Wire.Json;
using Mesh.Model;

namespace Mesh.ClusterMesh.Wire;

/// <summary>A Go net.IPNet: the address as text, the mask as base64 of its 4 or 16 bytes.</summary>
public sealed record WireCidr
{
    public string IP { get; init; } = "";

    public string Mask { get; init; } = "";

    public static WireCidr From(IpPrefix prefix) =>
        new() { IP = prefix.Address.ToString(), Mask = WireMask.Encode(prefix.Length, prefix.Address.IsV6) };

    /// <summary>False for anything that is not an address with a contiguous mask of its own family.</summary>
    public bool TryToPrefix(out IpPrefix prefix)
    {
        prefix = default;
        if (!IpAddr.TryParse(IP, out var address) || !WireMask.TryDecode(Mask, address.IsV6, out var length))
            return false;
        prefix = new IpPrefix(address, length);
        return true;
    }
}

/// <summary>A Go net.IPMask on the wire: base64 of 4 or 16 bytes.</summary>
public static class WireMask
{
    public static string Encode(int length, bool isV6)
    {
        Span<byte> mask = stackalloc byte[isV6 ? 16 : 4];
        mask.Clear();
        for (var bit = 0; bit < length; bit++)
            mask[bit / 8] |= (byte)(0x80 >> bit % 8);
        return Convert.ToBase64String(mask);
    }

    /// <summary>The number of leading ones; false for a mask with holes or of the other family's size.</summary>
    public static bool TryDecode(string text, bool isV6, out int length)
    {
        length = 0;
        Span<byte> mask = stackalloc byte[18];
        if (text.Length > 24 || !Convert.TryFromBase64String(text, mask, out var written) || written != (isV6 ? 16 : 4))
            return false;
        foreach (var octet in mask[..written])
        {
            var ones = BitOperations.LeadingZeroCount((uint)(byte)~octet) - 24;
            if (BitOperations.PopCount(octet) != ones || (ones > 0 && length % 8 != 0))
                return false;
            length += ones;
        }
        return CountsAllBytes(mask[..written], length);
    }

    // 255.0.255.0: each byte is fine by itself, and the sum 16 is a multiple of 8, but the ones do not lead.
    private static bool CountsAllBytes(ReadOnlySpan<byte> mask, int length) =>
        !mask[..(length / 8)].ContainsAnyExcept((byte)0xff) && !mask[((length + 7) / 8)..].ContainsAnyExcept((byte)0);

    /// <summary>The canonical address text of a producer.</summary>
    /// <exception cref="ArgumentException">Neither "" nor an address: the producer would publish what every peer rejects.</exception>
    internal static string CanonicalIp(string field, string text)
    {
        if (text.Length == 0)
            return "";
        return IpAddr.TryParse(text, out var address)
            ? address.ToString()
            : throw new ArgumentException($"{field} {Quoted.Text(text)} is not an IP address");
    }
}
