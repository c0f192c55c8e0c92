using Mesh.Lab.Native;

namespace Mesh.Lab.Processes;

/// <summary>Finds programs, and turns this process into one.</summary>
public static class Execution
{
    private const string DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

    /// <param name="name">A path, or a name that is looked for in PATH.</param>
    /// <exception cref="LabException">It is in none of them; says where was looked.</exception>
    public static string Find(string name)
    {
        if (name.Contains('/'))
            return File.Exists(name) ? name : throw new LabException($"{name}: there is no such program");
        var path = Environment.GetEnvironmentVariable("PATH") is { Length: > 0 } given ? given : DefaultPath;
        return path.Split(':').Select(directory => $"{directory}/{name}").FirstOrDefault(File.Exists)
            ?? throw new LabException($"{name}: not found in PATH ({path})");
    }

    /// <summary>One of Mesh's own programs: beside this one, as they are installed, else in PATH.</summary>
    /// <exception cref="LabException">It is in neither.</exception>
    public static string FindSibling(string name) =>
        Path.Combine(Path.GetDirectoryName(Environment.ProcessPath) ?? "/", name) is var sibling && File.Exists(sibling) ? sibling : Find(name);

    /// <summary>Replaces this process; the environment stays. Returns only by an exception.</summary>
    public static void Become(string program, IReadOnlyList<string> command) => Libc.Execute(program, command, Spawn.CurrentEnvironment());
}
