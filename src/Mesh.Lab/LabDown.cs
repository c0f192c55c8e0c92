using Mesh.Lab.Native;
using Mesh.Lab.Plan;

namespace Mesh.Lab;

/// <summary>
/// Takes a lab away, however much of it exists: processes, namespaces, pins and their file system, cgroups, files. Each step
/// does nothing when its thing is gone already, so that it can be run again after any interruption.
/// </summary>
public static class LabDown
{
    private static readonly TimeSpan Deadline = TimeSpan.FromSeconds(10);

    /// <summary>False when there was nothing of that name.</summary>
    /// <exception cref="LabException">The name is not simple.</exception>
    public static async Task<bool> RunAsync(string name, CancellationToken cancel)
    {
        if (LabStore.Find(name) is { } plan)
        {
            await RunAsync(plan, cancel);
            return true;
        }
        // Killed before it had written its plan, so before it had made anything else.
        var root = LabSpec.RootOf(name);
        if (!Directory.Exists(root))
            return false;
        Directory.Delete(root, recursive: true);
        RemoveParents();
        return true;
    }

    public static async Task RunAsync(LabPlan plan, CancellationToken cancel)
    {
        LabStore.RequireRoot();
        if (!Directory.Exists(plan.Root))
            return;
        await File.WriteAllTextAsync(plan.StoppingFile, "", cancel);
        // Recorded processes first, for the moment between a fork and its joining the cgroup; then whatever the cgroup holds.
        foreach (var process in plan.Processes)
            ProcessReference.FromPidFile(plan.PidFile(process.Name))?.Kill();
        await ControlGroup.KillAllAsync(plan.Cgroup, Deadline, cancel);
        foreach (var ns in plan.Pods.Select(p => p.Namespace).Concat(plan.Nodes.Select(n => n.Namespace))
            .Concat(plan.Clusters.Select(c => c.Namespace)).Append(plan.WanNamespace))
            NetworkNamespace.Delete(ns);
        // The pins go with the file system's last mount, and with them maps, links and programs.
        while (Libc.Unmount(plan.Bpffs))
        {
        }
        await ControlGroup.RemoveAsync(plan.Cgroup, Deadline, cancel);
        // The plan goes last: until then the lab can still be found and taken down.
        foreach (var entry in Directory.EnumerateFileSystemEntries(plan.Root).Where(e => e != plan.StateFile))
            Remove(entry);
        Remove(plan.StateFile);
        NativeDirectory.Remove(plan.Root);
        RemoveParents();
    }

    /// <summary>The directory of labs goes with the last of them.</summary>
    private static void RemoveParents()
    {
        NativeDirectory.Remove(LabSpec.LabsRoot);
        NativeDirectory.Remove(Path.GetDirectoryName(LabSpec.LabsRoot)!);
    }

    private static void Remove(string path)
    {
        if (Directory.Exists(path))
            Directory.Delete(path, recursive: true);
        else
            File.Delete(path);
    }
}
