using System.Collections;
using System.Diagnostics;
using Mesh.Lab.Native;
using Mesh.Lab.Plan;

namespace Mesh.Lab.Processes;

/// <summary>
/// The step between a keeper and the process it wants: `mesh lab spawn` records itself in the pid file, enters namespace and
/// cgroup, and becomes the program by execve, which keeps process number and start time. So the pid file is true from before
/// the program's first instruction, and a keeper that dies in between leaves nothing unrecorded.
/// </summary>
public static class Spawn
{
    /// <summary>Starts a process of the plan; the returned object is only needed to collect it when it ends.</summary>
    public static Process Start(LabPlan plan, ProcessSpec spec, string meshProgram)
    {
        var start = new ProcessStartInfo(meshProgram, ["lab", "spawn", "--root", plan.Root, spec.Name]) { WorkingDirectory = "/" };
        return Process.Start(start)!;
    }

    /// <summary>Becomes the process. Returns only when there is nothing to start: it runs already, or the lab goes down.</summary>
    public static int Become(LabPlan plan, string name)
    {
        var spec = plan.Processes.FirstOrDefault(p => p.Name == name)
            ?? throw new LabException($"lab {plan.Name} has no process '{name}'");
        // Closed by the execve: held just long enough that two keepers cannot start the same process twice.
        var gate = Libc.Open($"{plan.Root}/run/{name}.lock", Libc.O_RDWR | Libc.O_CREAT | Libc.O_CLOEXEC, 0x180);
        Libc.Lock(gate, wait: true);
        if (File.Exists(plan.StoppingFile) || ProcessReference.FromPidFile(plan.PidFile(name)) is not null)
            return 0;
        ProcessReference.Self.WritePidFile(plan.PidFile(name));
        Libc.LeaveTerminal();
        ControlGroup.Join(spec.Cgroup);
        var log = Libc.Open(plan.LogFile(name), Libc.O_WRONLY | Libc.O_CREAT | Libc.O_APPEND | Libc.O_CLOEXEC, 0x180);
        Libc.Duplicate(Libc.Open("/dev/null", Libc.O_CLOEXEC), 0);
        Libc.Duplicate(log, 1);
        Libc.Duplicate(log, 2);
        if (spec.Namespace is { } ns)
            Libc.EnterNetworkNamespace(NetworkNamespace.PathOf(ns));
        Libc.Execute(spec.Program, [spec.Program, .. spec.Arguments], CurrentEnvironment());
        return 1;
    }

    internal static IEnumerable<string> CurrentEnvironment()
    {
        foreach (DictionaryEntry variable in Environment.GetEnvironmentVariables())
            yield return $"{variable.Key}={variable.Value}";
    }
}
