using System.Collections.Concurrent;
using System.Diagnostics;

namespace Mesh.TestKit;

/// <summary>
/// Starts the tests' children so that none outlives the tests, whatever kills those: each has the kernel's parent-death signal. That
/// signal follows the thread that forked, and one of the thread pool may end at any time: all are started by one thread that lives as
/// long as the process.
/// </summary>
public static class ChildThread
{
    private static readonly BlockingCollection<(ProcessStartInfo Info, TaskCompletionSource<Process> Started)> Requests = [];

    static ChildThread() => new Thread(Run) { IsBackground = true, Name = "children" }.Start();

    /// <summary>Starts the program with SIGKILL as its parent-death signal; its process ID is the child's own.</summary>
    public static Process Start(string program, params string[] arguments) => Start(new ProcessStartInfo(program, arguments));

    /// <param name="info">With its arguments as a list; left as it is.</param>
    public static Process Start(ProcessStartInfo info)
    {
        if (info.Arguments.Length > 0)
            throw new ArgumentException($"{info.FileName}: arguments as a list, not as one line", nameof(info));
        // setpriv becomes the program: nothing stands between the two.
        var bound = new ProcessStartInfo("setpriv", ["--pdeathsig", "KILL", "--", info.FileName, .. info.ArgumentList])
        {
            RedirectStandardInput = info.RedirectStandardInput,
            RedirectStandardOutput = info.RedirectStandardOutput,
            RedirectStandardError = info.RedirectStandardError,
            WorkingDirectory = info.WorkingDirectory,
        };
        foreach (var (name, value) in info.Environment)
            bound.Environment[name] = value;
        var started = new TaskCompletionSource<Process>(TaskCreationOptions.RunContinuationsAsynchronously);
        Requests.Add((bound, started));
        return started.Task.GetAwaiter().GetResult();
    }

    /// <summary>Runs a program to its end, in the namespaces that the test program began in, and returns what it printed.</summary>
    /// <exception cref="InvalidOperationException">Its exit code was not zero; with what it said.</exception>
    public static string Run(string program, params string[] arguments)
    {
        using var process = Start(new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true });
        var errors = process.StandardError.ReadToEndAsync();
        var output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return process.ExitCode == 0
            ? output
            : throw new InvalidOperationException($"{program} {string.Join(' ', arguments)}: exit {process.ExitCode}: {errors.Result}");
    }

    private static void Run()
    {
        foreach (var (info, started) in Requests.GetConsumingEnumerable())
        {
            try
            {
                started.SetResult(Process.Start(info)!);
            }
            catch (Exception e)
            {
                started.SetException(e);
            }
        }
    }
}
