using System.Diagnostics;
using Mesh.Lab.Native;
using Mesh.Lab.Plan;

namespace Mesh.Lab.Processes;

/// <summary>
/// Keeps its share of the lab's processes running. It holds a descriptor per process and sleeps until one becomes readable,
/// which is when that process has ended; it may be killed itself at any moment, because all it knows is in the plan and the pid
/// files: its successor adopts what runs and starts what does not.
/// </summary>
public sealed class Keeper(LabPlan plan, string name, TimeProvider time)
{
    private static readonly TimeSpan BackoffMin = TimeSpan.FromMilliseconds(50);
    private static readonly TimeSpan BackoffMax = TimeSpan.FromSeconds(5);

    /// <summary>A process that lived this long is started again at once.</summary>
    private static readonly TimeSpan Healthy = TimeSpan.FromSeconds(10);

    /// <summary>How often logs are looked at, and how late a lab that goes down is noticed.</summary>
    private const int TickMilliseconds = 500;

    private readonly List<Charge> _charges = [.. plan.Processes.Where(p => p.Keeper == name).Select(p => new Charge(p))];
    private readonly string _mesh = plan.Processes.First(p => p.Name == name).Program;

    public int Run()
    {
        Log($"watching {_charges.Count} processes of lab {plan.Name}");
        var lastLogCheck = time.GetTimestamp();
        while (Directory.Exists(plan.Root) && !File.Exists(plan.StoppingFile))
        {
            foreach (var charge in _charges)
                Tend(charge);
            Sleep();
            if (time.GetElapsedTime(lastLogCheck) > TimeSpan.FromSeconds(5))
            {
                lastLogCheck = time.GetTimestamp();
                foreach (var charge in _charges)
                    LogFile.Trim(plan.LogFile(charge.Spec.Name));
            }
        }
        Log("the lab is going down");
        return 0;
    }

    private void Tend(Charge charge)
    {
        if (charge.Descriptor >= 0 && charge.Reference!.IsRunning)
            return;
        if (charge.Descriptor >= 0)
            Ended(charge);
        if (Adopt(charge) || charge.Child is { HasExited: false } || time.GetUtcNow() < charge.NotBefore)
            return;
        charge.StartedAt = time.GetUtcNow();
        charge.Failures++;
        charge.NotBefore = charge.StartedAt + Backoff(charge);
        charge.Child?.Dispose();
        try
        {
            // The child is the process itself once it has become it; kept to be collected when it ends.
            charge.Child = Spawn.Start(plan, charge.Spec, _mesh);
        }
        catch (System.ComponentModel.Win32Exception e)
        {
            charge.Child = null;
            Log($"{charge.Spec.Name} cannot be started, trying again: {e.Message}");
        }
    }

    private bool Adopt(Charge charge)
    {
        charge.Reference = ProcessReference.FromPidFile(plan.PidFile(charge.Spec.Name));
        charge.Descriptor = charge.Reference?.OpenDescriptor() ?? -1;
        if (charge.Descriptor < 0)
            return false;
        Log($"{charge.Spec.Name} runs as process {charge.Reference!.Pid}");
        return true;
    }

    private void Ended(Charge charge)
    {
        Libc.Close(charge.Descriptor);
        charge.Descriptor = -1;
        var code = charge.Child is { } child && child.WaitForExit(0) ? $"with code {child.ExitCode}" : "";
        charge.Child?.Dispose();
        charge.Child = null;
        var lived = time.GetUtcNow() - charge.StartedAt;
        // The first end after a healthy life costs no wait.
        if (lived > Healthy)
            charge.Failures = 0;
        charge.NotBefore = charge.Failures == 0 ? default : time.GetUtcNow() + Backoff(charge);
        Log($"{charge.Spec.Name}, process {charge.Reference!.Pid}, ended {code}: starting it again");
    }

    private static TimeSpan Backoff(Charge charge)
    {
        var delay = BackoffMin * Math.Pow(2, Math.Min(charge.Failures, 10));
        return delay < BackoffMax ? delay : BackoffMax;
    }

    private void Sleep()
    {
        var watched = _charges.Where(c => c.Descriptor >= 0)
            .Select(c => new Libc.PollFd { Fd = c.Descriptor, Events = Libc.POLLIN }).ToArray();
        // Whatever is not running yet is looked for again soon: its pid file appears within milliseconds.
        Libc.Poll(watched, watched.Length < _charges.Count ? 10 : TickMilliseconds);
    }

    private void Log(string message) => Console.Error.WriteLine($"{time.GetUtcNow():HH:mm:ss.fff} {name}: {message}");

    private sealed class Charge(ProcessSpec spec)
    {
        public ProcessSpec Spec { get; } = spec;

        public ProcessReference? Reference { get; set; }

        /// <summary>Of the running process; -1 while it does not run.</summary>
        public int Descriptor { get; set; } = -1;

        public Process? Child { get; set; }

        public DateTimeOffset StartedAt { get; set; }

        public DateTimeOffset NotBefore { get; set; }

        /// <summary>Starts since it last lived long.</summary>
        public int Failures { get; set; }
    }
}
