namespace Mesh.Kubernetes;

/// <summary>
/// A directory with one file per flag, as a mounted ConfigMap makes it: the file's name is the flag without its dashes, its text the value.
/// What the command line says wins. Names that the program does not know belong to other programs of the same map: they are told once
/// and passed over.
/// </summary>
public static class FlagFiles
{
    public const string Flag = "--config-dir";

    /// <summary>The arguments, with those of the directory that --config-dir names in front of them.</summary>
    /// <param name="command">Words that stay in front: the program's command, if it has any.</param>
    /// <param name="known">The program's flags, dashes included.</param>
    /// <exception cref="IOException">There is no such directory, or it cannot be read; the message says so and the mend.</exception>
    public static string[] Expand(string[] args, int command, IReadOnlySet<string> known, Action<string> log)
    {
        if (DirectoryOf(args) is not { } directory)
            return args;
        var added = new List<string>();
        var foreign = new List<string>();
        foreach (var (name, value) in Read(directory))
        {
            var flag = "--" + name;
            if (flag == Flag || !known.Contains(flag))
                foreign.Add(name);
            else if (!args.Any(arg => arg == flag || arg.StartsWith(flag + "=", StringComparison.Ordinal)))
                added.Add($"{flag}={value}");
        }
        if (foreign.Count > 0)
            log($"{Flag} {directory}: not ours, passed over: {string.Join(' ', foreign)}");
        return [.. args.Take(command), .. added, .. args.Skip(command)];
    }

    private static string? DirectoryOf(string[] args)
    {
        for (var i = 0; i < args.Length; i++)
        {
            if (args[i].StartsWith(Flag + "=", StringComparison.Ordinal))
                return args[i][(Flag.Length + 1)..] is { Length: > 0 } given ? given : null;
            if (args[i] == Flag && i + 1 < args.Length)
                return args[i + 1].Length == 0 ? null : args[i + 1];
        }
        return null;
    }

    private static IEnumerable<(string Name, string Value)> Read(string directory)
    {
        if (!Directory.Exists(directory))
            throw new IOException($"{Flag} '{directory}': no such directory: mount the ConfigMap there, or leave the flag out");
        // Names with dots in front are the mount's own: ..data and the directory of its time.
        foreach (var file in Directory.EnumerateFiles(directory).Order(StringComparer.Ordinal))
        {
            var name = Path.GetFileName(file);
            if (!name.StartsWith('.'))
                yield return (name, File.ReadAllText(file).TrimEnd('\n', '\r'));
        }
    }
}
