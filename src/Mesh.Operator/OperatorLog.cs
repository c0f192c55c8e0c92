using System.Collections.Concurrent;
using System.Globalization;

namespace Mesh.Operator;

/// <summary>One line a change on stderr, and the problems that stand.</summary>
internal sealed class OperatorLog(TextWriter output, TimeProvider time)
{
    private readonly ConcurrentDictionary<string, string> _problems = new();

    /// <summary>What is wrong now, by the thing it concerns.</summary>
    public IReadOnlyDictionary<string, string> Problems => _problems;

    public void Line(string text)
    {
        lock (output)
            output.WriteLine($"{time.GetUtcNow().ToString("HH:mm:ss.fff", CultureInfo.InvariantCulture)} {text}");
    }

    /// <summary>Told once, until it is another or mended.</summary>
    public void Problem(string where, string message)
    {
        if (_problems.TryGetValue(where, out var old) && old == message)
            return;
        _problems[where] = message;
        Line($"problem: {where}: {message}");
    }

    public void Mended(string where)
    {
        if (_problems.TryRemove(where, out _))
            Line($"mended: {where}");
    }
}
