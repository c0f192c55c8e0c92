using System.Globalization;

namespace Mesh.Benchmarks.Surroundings;

/// <summary>Sizes given as NAME=NUMBER beside the names of benchmarks; a benchmark says which it knows.</summary>
internal sealed class Settings
{
    private readonly Dictionary<string, int> _given = new(StringComparer.Ordinal);

    /// <summary>Null when the text is a setting of that form; otherwise what is wrong with it.</summary>
    public string? Take(string text)
    {
        var at = text.IndexOf('=', StringComparison.Ordinal);
        if (!int.TryParse(text.AsSpan(at + 1), NumberStyles.None, CultureInfo.InvariantCulture, out var value) || value < 1)
            return $"{text}: a size is a whole number from 1 on, like watchers=1000";
        _given[text[..at]] = value;
        return null;
    }

    /// <summary>What none of the benchmarks to be run knows.</summary>
    public IEnumerable<string> Unknown(IEnumerable<string> known) => _given.Keys.Except(known);

    public int Of(string name, int byDefault) => _given.GetValueOrDefault(name, byDefault);
}
