using System.Globalization;
using System.Text;

namespace Mesh.ClusterMesh.Wire.Json;

/// <summary>Text of a peer on its way into a status line or a log: at most 80 characters, nothing that moves a cursor.</summary>
internal static class Quoted
{
    private const int Longest = 80;

    public static string Text(ReadOnlySpan<byte> utf8) => Text(Encoding.UTF8.GetString(utf8[..Math.Min(utf8.Length, 4 * Longest)]));

    public static string Text(string text)
    {
        var shown = new StringBuilder("'", Longest + 8);
        foreach (var c in text.AsSpan(0, Math.Min(text.Length, Longest)))
            shown.Append(IsPrintable(c) ? c : '?');
        return shown.Append(text.Length > Longest ? "…'" : "'").ToString();
    }

    // Format characters turn text around (U+202E) or hide in it.
    private static bool IsPrintable(char c) =>
        !char.IsControl(c) && !char.IsSurrogate(c) && char.GetUnicodeCategory(c) != UnicodeCategory.Format;
}
