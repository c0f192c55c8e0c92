using Mesh.Install.Values;

namespace Mesh.Cli.Commands.Observe;

/// <summary>Names of pods that somebody may have meant: those which have what was typed in them, the same name in another namespace, and
/// those that are a slip of the finger away.</summary>
internal static class NearWords
{
    private const int Most = 5;
    private const int Slips = 2;

    /// <param name="name">NAME or NAMESPACE/NAME.</param>
    /// <param name="pods">NAMESPACE/NAME each.</param>
    /// <returns>Nearest first, five at most.</returns>
    public static IReadOnlyList<string> Of(string name, IEnumerable<string> pods)
    {
        var wanted = Short(name);
        return [.. pods.Select(pod => (Pod: pod, Distance: NearestWord.Distance(wanted, Short(pod))))
            .Where(one => one.Distance <= Math.Min(Slips, wanted.Length / 2)
                || wanted.Length > 2 && Short(one.Pod).Contains(wanted, StringComparison.OrdinalIgnoreCase))
            .OrderBy(one => one.Distance).ThenBy(one => one.Pod, StringComparer.Ordinal).Take(Most).Select(one => one.Pod)];
    }

    private static string Short(string name) => name[(name.LastIndexOf('/') + 1)..];
}
