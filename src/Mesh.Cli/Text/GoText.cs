using System.Globalization;
using System.Text;

namespace Mesh.Cli.Text;

/// <summary>Durations as Go writes and reads them: 1m30s, 500ms.</summary>
internal static class GoText
{
    /// <summary>Whole seconds: 58s, 1m3s, 2h0m5s.</summary>
    public static string Duration(TimeSpan duration)
    {
        var seconds = (long)Math.Round(Math.Max(0, duration.TotalSeconds));
        return seconds switch
        {
            < 60 => $"{seconds}s",
            < 3600 => $"{seconds / 60}m{seconds % 60}s",
            _ => $"{seconds / 3600}h{seconds / 60 % 60}m{seconds % 60}s",
        };
    }

    /// <summary>What a certificate may last, and much more than any wait.</summary>
    private const double LongestHours = 1e6;

    /// <summary>Null unless the text is a sequence of numbers with the units h, m, s, ms, of no more than a century.</summary>
    public static TimeSpan? ParseDuration(string text)
    {
        var total = TimeSpan.Zero;
        var number = new StringBuilder();
        if (text.Length == 0)
            return null;
        for (var i = 0; i < text.Length; i++)
        {
            if (char.IsAsciiDigit(text[i]) || text[i] == '.')
            {
                number.Append(text[i]);
                continue;
            }
            var unit = text[i] == 'm' && i + 1 < text.Length && text[i + 1] == 's' ? "ms" : text[i].ToString();
            i += unit.Length - 1;
            if (!double.TryParse(number.ToString(), CultureInfo.InvariantCulture, out var value))
                return null;
            number.Clear();
            TimeSpan? one = unit switch
            {
                "h" => TimeSpan.FromHours(1),
                "m" => TimeSpan.FromMinutes(1),
                "s" => TimeSpan.FromSeconds(1),
                "ms" => TimeSpan.FromMilliseconds(1),
                _ => null,
            };
            if (one is null || one.Value.TotalHours * value + total.TotalHours > LongestHours)
                return null;
            total += one.Value * value;
        }
        return number.Length == 0 ? total : null;
    }

    /// <summary>never, or 3m2s ago.</summary>
    public static string Ago(DateTimeOffset when, DateTimeOffset now) => when.Year <= 1 ? "never" : $"{Duration(now - when)} ago";
}
