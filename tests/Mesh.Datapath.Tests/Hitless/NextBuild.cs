using Mesh.Datapath.Loader;
using Mesh.Datapath.Tests.Kernel;

namespace Mesh.Datapath.Tests.Hitless;

/// <summary>The datapath as another build has it: the same sources, compiled with other maps. Deleted with the object.</summary>
public sealed class NextBuild : IDisposable
{
    /// <summary>More services, an ipcache and a policy of other types, and less memory of flows: something to copy, to fill, to keep.</summary>
    private static readonly (string File, string From, string To)[] s_changes =
    [
        ("include/mesh/lb.h", "#define LB_SERVICES_MAX\t\t65536", "#define LB_SERVICES_MAX\t\t131072"),
        ("include/mesh/conntrack.h", "#define CONNTRACK_MAX\t131072", "#define CONNTRACK_MAX\t65536"),
        ("lib/ipcache.h", "__type(value, struct ipcache_value)", "__type(value, struct ipcache_value[1])"),
        ("lib/policy.h", "__type(value, struct policy_row)", "__type(value, struct policy_row[1])"),
        ("lib/endpoint.h", "__type(value, struct endpoint)", "__type(value, struct endpoint[1])"),
    ];

    private readonly DirectoryInfo _directory = Directory.CreateTempSubdirectory("mesh-next-");

    public NextBuild()
    {
        Command.Run("cp", "-r", Path.Combine(Root(), "bpf"), _directory.FullName);
        foreach (var (name, from, to) in s_changes)
        {
            var file = Path.Combine(_directory.FullName, "bpf", name);
            var text = File.ReadAllText(file);
            Assert.Contains(from, text);
            File.WriteAllText(file, text.Replace(from, to, StringComparison.Ordinal));
        }
        // The objects of the agent, not those of tests.
        Command.Run("make", "-C", Path.Combine(_directory.FullName, "bpf"), $"OUT={_directory.FullName}/out", "TEST_SOURCES=", "all");
    }

    internal LayoutVariant Variant => new() { Objects = $"{_directory.FullName}/out" };

    public void Dispose() => _directory.Delete(recursive: true);

    private static string Root()
    {
        var directory = AppContext.BaseDirectory;
        while (!File.Exists(Path.Combine(directory, "Mesh.sln")))
            directory = Path.GetDirectoryName(directory) ?? throw new DirectoryNotFoundException($"no Mesh.sln above {AppContext.BaseDirectory}");
        return directory;
    }
}
