using System.Globalization;

namespace Mesh.Agent.Endpoints;

/// <summary>Link-layer addresses as text (aa:bb:cc:dd:ee:ff) and as rows hold them: 48 bits, first byte highest.</summary>
internal static class MacText
{
    public static bool TryParse(string? text, out ulong mac)
    {
        mac = 0;
        var parts = (text ?? "").Split(':');
        if (parts.Length != 6)
            return false;
        foreach (var part in parts)
        {
            if (part.Length != 2 || !byte.TryParse(part, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out var octet))
                return false;
            mac = mac << 8 | octet;
        }
        // A group address receives for many and sends for nobody.
        return mac != 0 && (mac >> 40 & 1) == 0;
    }

    public static string Format(ulong mac) =>
        string.Join(':', Enumerable.Range(0, 6).Select(i => (mac >> 40 - 8 * i & 0xff).ToString("x2", CultureInfo.InvariantCulture)));
}
