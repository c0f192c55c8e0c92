using Mesh.Lab.Native;
using Mesh.Lab.Plan;

namespace Mesh.Lab;

/// <summary>Finds labs by name; a lab is its directory with a readable plan.</summary>
public static class LabStore
{
    /// <summary>Null when there is no lab of that name.</summary>
    /// <exception cref="LabException">The name is not simple, or the plan cannot be read.</exception>
    public static LabPlan? Find(string name) => Read($"{LabSpec.RootOf(name)}/lab.json");

    /// <exception cref="LabException">There is no such lab; says which there are.</exception>
    public static LabPlan Get(string name)
    {
        if (Find(name) is { } plan)
            return plan;
        var names = Names();
        throw new LabException(names.Count == 0
            ? $"there is no lab '{name}': run `mesh lab up{(name == LabSpec.DefaultName ? "" : $" --name {name}")}`"
            : $"there is no lab '{name}', only {string.Join(", ", names)}: choose with --name");
    }

    /// <summary>Plan of the lab whose root directory this is: what a lab's own processes are started with.</summary>
    public static LabPlan AtRoot(string root) => Read($"{root}/lab.json") ?? throw new LabException($"{root} holds no lab");

    /// <summary>Who is not root sees that there is a lab, and is told on asking that it takes root to read it.</summary>
    public static IReadOnlyList<string> Names() => Directory.Exists(LabSpec.LabsRoot)
        ? [.. Directory.EnumerateDirectories(LabSpec.LabsRoot).Select(d => Path.GetFileName(d)!)
            .Where(n => Libc.geteuid() != 0 || File.Exists($"{LabSpec.LabsRoot}/{n}/lab.json")).Order(StringComparer.Ordinal)]
        : [];

    public static void RequireRoot()
    {
        if (Libc.geteuid() != 0)
            throw new LabException("a lab needs namespaces and BPF, so it needs root: run it again with sudo");
    }

    private static LabPlan? Read(string path)
    {
        string json;
        try
        {
            json = File.ReadAllText(path);
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            return null;
        }
        catch (UnauthorizedAccessException)
        {
            throw new LabException($"{path} may only be read by root: run it again with sudo");
        }
        try
        {
            return LabPlan.FromJson(json);
        }
        catch (System.Text.Json.JsonException e)
        {
            throw new LabException($"{path} is not a lab's state ({e.Message}): was it written by another version?");
        }
    }
}
