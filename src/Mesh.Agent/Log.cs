using System.Globalization;

namespace Mesh.Agent;

/// <summary>One line per state change, on stderr.</summary>
internal static class Log
{
    public static void Line(string text) => Console.Error.WriteLine(
        $"{TimeProvider.System.GetUtcNow().ToString("yyyy-MM-dd'T'HH:mm:ss.fff'Z'", CultureInfo.InvariantCulture)} {text}");
}
