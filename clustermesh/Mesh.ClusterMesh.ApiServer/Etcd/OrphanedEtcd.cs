using System.Globalization;

namespace Mesh.ClusterMesh.ApiServer.Etcd;

/// <summary>An etcd that outlived its supervisor, if only for a moment: it holds the data directory's lock and its port, and the next
/// one would wait for both in vain. Paths say little, containers that see each other's processes all have the same: it is ours when it
/// sees in its directory what we have just written into ours.</summary>
internal static class OrphanedEtcd
{
    private const string OwnerFile = "owner";

    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(3);

    /// <summary>Ends every etcd that works on the directory and returns when it is gone. Only to be called by the one who owns it.</summary>
    /// <exception cref="IOException">It does not end, or the directory cannot be written.</exception>
    public static void End(string dataDirectory, Action<string> log)
    {
        var owner = Guid.NewGuid().ToString("N");
        File.WriteAllText(Path.Combine(dataDirectory, OwnerFile), owner);
        foreach (var pid in Find(dataDirectory, owner))
        {
            log($"etcd: process {pid} of a former API server still holds {dataDirectory}: ending it");
            if (!Signal(pid, EtcdSupervisor.SigTerm) && !Signal(pid, EtcdSupervisor.SigKill))
                throw new IOException($"an etcd (process {pid}) holds {dataDirectory} and does not end: end it, then start again");
        }
    }

    private static bool Signal(int pid, int signal)
    {
        _ = EtcdSupervisor.Kill(pid, signal);
        return SpinWait.SpinUntil(() => !IsAlive(pid), Patience);
    }

    private static IEnumerable<int> Find(string dataDirectory, string owner)
    {
        foreach (var entry in Directory.EnumerateDirectories("/proc"))
        {
            if (!int.TryParse(Path.GetFileName(entry), NumberStyles.None, CultureInfo.InvariantCulture, out var pid) || !IsAlive(pid))
                continue;
            var arguments = Read(Path.Combine(entry, "cmdline")).Split('\0');
            var at = Array.IndexOf(arguments, "--data-dir");
            if (Path.GetFileName(arguments[0]) == "etcd" && at > 0 && at + 1 < arguments.Length && arguments[at + 1] == dataDirectory
                && Read($"{entry}/root{Path.Combine(dataDirectory, OwnerFile)}") == owner)
                yield return pid;
        }
    }

    /// <summary>A zombie waits only for its parent to notice, and holds nothing.</summary>
    private static bool IsAlive(int pid)
    {
        var stat = Read($"/proc/{pid.ToString(CultureInfo.InvariantCulture)}/stat");
        var state = stat.LastIndexOf(')') + 2;
        return state > 1 && state < stat.Length && stat[state] is not ('Z' or 'X');
    }

    private static string Read(string path)
    {
        try
        {
            return File.ReadAllText(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // The process ended while we looked.
            return "";
        }
    }
}
