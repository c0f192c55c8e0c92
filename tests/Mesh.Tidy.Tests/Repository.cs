using System.Runtime.CompilerServices;

namespace Mesh.Tidy.Tests;

/// <summary>The checked-out tree that these tests read: the code about the code.</summary>
internal static class Repository
{
    public static string Root { get; } = FindRoot();

    public static IEnumerable<string> Files(string pattern, params string[] folders) =>
        from folder in folders.Length == 0 ? ["src", "clustermesh", "tests", "bpf", "deploy"] : folders
        let path = Path.Combine(Root, folder)
        where Directory.Exists(path)
        from file in Directory.EnumerateFiles(path, pattern, SearchOption.AllDirectories)
        where !file.Contains("/obj/", StringComparison.Ordinal) && !file.Contains("/bin/", StringComparison.Ordinal)
        select file;

    public static string Relative(string file) => Path.GetRelativePath(Root, file);

    private static string FindRoot([CallerFilePath] string here = "")
    {
        var folder = Path.GetDirectoryName(here)!;
        while (!File.Exists(Path.Combine(folder, "Mesh.sln")))
            folder = Path.GetDirectoryName(folder) ?? throw new InvalidOperationException($"no Mesh.sln above {here}");
        return folder;
    }
}
