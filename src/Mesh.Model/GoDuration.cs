using System.Globalization;

namespace Mesh.Model;

/// <summary>Durations as flags and configuration give them, in Go's way: 0s, 15s, 10m, 1h30m.</summary>
public static class GoDuration
{
    /// <summary>The longest that is taken: no timer of ours runs longer.</summary>
    public static readonly TimeSpan Longest = TimeSpan.FromHours(1000);

    /// <summary>Whole numbers of h, m, s and ms, one after the other; null when the text is no such duration, or one over <see cref="Longest"/>.</summary>
    public static TimeSpan? Parse(string text)
    {
        var sum = TimeSpan.Zero;
        var rest = text.AsSpan();
        while (rest.Length > 0)
        {
            var digits = rest.IndexOfAnyExceptInRange('0', '9');
            if (digits <= 0 || !int.TryParse(rest[..digits], NumberStyles.None, CultureInfo.InvariantCulture, out var count))
                return null;
            var unit = rest[digits..].StartsWith("ms") ? "ms" : rest[digits..(digits + 1)].ToString();
            TimeSpan? one = unit switch
            {
                "ms" => TimeSpan.FromMilliseconds(1),
                "s" => TimeSpan.FromSeconds(1),
                "m" => TimeSpan.FromMinutes(1),
                "h" => TimeSpan.FromHours(1),
                _ => null,
            };
            if (one is null || one.Value.TotalHours * count > Longest.TotalHours)
                return null;
            sum += one.Value * count;
            rest = rest[(digits + unit.Length)..];
        }
        return text.Length == 0 || sum > Longest ? null : sum;
    }
}
