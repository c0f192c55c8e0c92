namespace Mesh.Lab.Native;

/// <summary>
/// The lab's part of the cgroup2 tree: one directory per process kind, node and pod. Socket load-balancing hooks attach to a
/// node's directory; and because every process of a lab is in its tree, the kernel itself knows what `lab down` must end.
/// </summary>
public static class ControlGroup
{
    /// <summary>Where cgroup2 is mounted: /sys/fs/cgroup, or /sys/fs/cgroup/unified on a hybrid system.</summary>
    /// <exception cref="LabException">It is not mounted.</exception>
    public static string FindRoot()
    {
        foreach (var line in File.ReadLines("/proc/mounts"))
        {
            var fields = line.Split(' ');
            if (fields.Length > 2 && fields[2] == "cgroup2")
                return fields[1];
        }
        throw new LabException("no cgroup2 file system is mounted: mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified");
    }

    /// <summary>Moves the calling process.</summary>
    public static void Join(string path) => File.WriteAllText($"{path}/cgroup.procs", "0");

    public static void Move(int pid, string path) =>
        File.WriteAllText($"{path}/cgroup.procs", pid.ToString(System.Globalization.CultureInfo.InvariantCulture));

    /// <summary>Kills every process of the tree and waits until none runs.</summary>
    public static async Task KillAllAsync(string path, TimeSpan deadline, CancellationToken cancel)
    {
        if (!Directory.Exists(path))
            return;
        var end = DateTime.UtcNow + deadline;
        while (true)
        {
            var pids = Processes(path);
            if (pids.Count == 0)
                return;
            if (DateTime.UtcNow > end)
                throw new LabException($"processes {string.Join(", ", pids)} in {path} do not end: look at /proc/PID/stack");
            // One write kills the tree atomically (Linux 5.14); before that, one by one.
            if (File.Exists($"{path}/cgroup.kill"))
                File.WriteAllText($"{path}/cgroup.kill", "1");
            else
                foreach (var pid in pids)
                    ProcessReference.TryOpen(pid)?.Kill();
            await Task.Delay(10, cancel);
        }
    }

    /// <summary>Removes the tree, deepest first. Does nothing when there is none.</summary>
    public static async Task RemoveAsync(string path, TimeSpan deadline, CancellationToken cancel)
    {
        var end = DateTime.UtcNow + deadline;
        while (Directory.Exists(path))
        {
            try
            {
                RemoveTree(path);
                return;
            }
            catch (IOException) when (DateTime.UtcNow < end)
            {
                // The kernel still lets go of the last process; or one that was on its way in has just arrived.
                await Task.Delay(10, cancel);
                await KillAllAsync(path, deadline, cancel);
            }
        }
    }

    /// <summary>Numbers of all processes of the tree; those that have ended and not been collected yet do not count.</summary>
    public static IReadOnlyList<int> Processes(string path)
    {
        var pids = new List<int>();
        foreach (var directory in Directory.EnumerateDirectories(path, "*", SearchOption.AllDirectories).Append(path))
        {
            foreach (var line in File.ReadLines($"{directory}/cgroup.procs"))
            {
                var pid = int.Parse(line, System.Globalization.CultureInfo.InvariantCulture);
                // A zombie that its parent has not collected yet is over.
                if (ProcessReference.TryOpen(pid) is not null)
                    pids.Add(pid);
            }
        }
        return pids;
    }

    private static void RemoveTree(string path)
    {
        foreach (var child in Directory.EnumerateDirectories(path))
            RemoveTree(child);
        // Not recursive: the files of a cgroup cannot be deleted, its directory can.
        if (NativeDirectory.Remove(path) is { } error)
            throw new IOException($"{path}: {error}");
    }
}
