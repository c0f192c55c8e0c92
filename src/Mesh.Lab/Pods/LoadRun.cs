using System.Diagnostics;
using Mesh.Lab.Plan;

namespace Mesh.Lab.Pods;

/// <summary>
/// Real connections from inside a pod: a process of its own, in the pod's network namespace and cgroup, whose JSON lines arrive here
/// while it runs.
/// </summary>
public sealed class LoadRun : IAsyncDisposable
{
    private readonly Process _process;
    private readonly Task _reading;
    private readonly List<LoadResult> _results = [];

    private LoadRun(Process process)
    {
        _process = process;
        _reading = ReadAsync();
    }

    /// <param name="place">A pod, CLUSTER/NODE/POD.</param>
    /// <param name="arguments">Of `mesh lab load`.</param>
    public static LoadRun Start(LabPlan plan, string place, params IReadOnlyList<string> arguments)
    {
        var mesh = plan.Processes[0].Program;
        string[] command = ["lab", "exec", "--name", plan.Name, place, "--", mesh, "lab", "load", .. arguments];
        var process = Process.Start(new ProcessStartInfo(mesh, command)
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
        })!;
        return new LoadRun(process);
    }

    /// <summary>The answers so far, in the order of their completion.</summary>
    public IReadOnlyList<LoadResult> Snapshot()
    {
        lock (_results)
            return [.. _results];
    }

    /// <summary>Lets open requests end, then gives all results.</summary>
    public async Task<IReadOnlyList<LoadResult>> StopAsync(CancellationToken cancel)
    {
        if (!_process.HasExited)
            _process.StandardInput.Close();
        return await EndAsync(cancel);
    }

    /// <summary>Waits for a run that ends by itself.</summary>
    public async Task<IReadOnlyList<LoadResult>> EndAsync(CancellationToken cancel)
    {
        await _reading.WaitAsync(cancel);
        await _process.WaitForExitAsync(cancel);
        return _process.ExitCode == 0 ? Snapshot() : throw new LabException($"the load generator ended with code {_process.ExitCode}");
    }

    public async ValueTask DisposeAsync()
    {
        if (!_process.HasExited)
            _process.Kill();
        await _reading;
        _process.Dispose();
    }

    private async Task ReadAsync()
    {
        while (await _process.StandardOutput.ReadLineAsync() is { } line)
        {
            if (LoadResult.Parse(line) is not { } result)
                continue;
            lock (_results)
                _results.Add(result);
        }
    }
}
