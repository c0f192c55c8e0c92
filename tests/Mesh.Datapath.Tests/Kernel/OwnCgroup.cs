using System.Globalization;

namespace Mesh.Datapath.Tests.Kernel;

/// <summary>A cgroup that this process joins for as long as the object lives. One at a time: tests with one share a collection.</summary>
internal sealed class OwnCgroup : IDisposable
{
    private const int LeaveAttempts = 10_000;
    private readonly string _home;

    internal OwnCgroup(string name)
    {
        var mount = File.ReadLines("/proc/mounts").Select(line => line.Split(' ')).First(fields => fields[2] == "cgroup2")[1];
        _home = mount + File.ReadLines("/proc/self/cgroup").First(line => line.StartsWith("0::", StringComparison.Ordinal))[3..];
        Path = $"{mount}/{name}-{Environment.ProcessId}";
        Directory.CreateDirectory(Path);
        File.WriteAllText($"{Path}/cgroup.procs", Environment.ProcessId.ToString(CultureInfo.InvariantCulture));
    }

    internal string Path { get; }

    /// <summary>Other tests of this process start children meanwhile, which are born where it is: all of them leave.</summary>
    public void Dispose()
    {
        for (var attempt = 0; ; attempt++)
        {
            foreach (var pid in File.ReadAllLines($"{Path}/cgroup.procs"))
            {
                try
                {
                    File.WriteAllText($"{_home}/cgroup.procs", pid);
                }
                catch (IOException) when (attempt < LeaveAttempts)
                {
                    // It ended between the look and the move.
                }
            }
            try
            {
                Directory.Delete(Path);
                return;
            }
            catch (IOException) when (attempt < LeaveAttempts)
            {
                // A process that has ended but was not waited for yet keeps its cgroup for a moment.
                Thread.Yield();
            }
        }
    }
}
