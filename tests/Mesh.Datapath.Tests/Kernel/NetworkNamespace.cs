using System.Diagnostics;
using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace Mesh.Datapath.Tests.Kernel;

/// <summary>A network namespace of our own, deleted with everything in it. What must happen inside runs on a thread of its own,
/// which dies there: a pool thread that changed its namespace would carry it into other tests.</summary>
internal sealed partial class NetworkNamespace : IDisposable
{
    private const int NewNet = 0x40000000;
    private static int s_count;

    internal NetworkNamespace()
    {
        Name = $"datapath-{Environment.ProcessId}-{Interlocked.Increment(ref s_count)}";
        Command.Run("ip", "netns", "add", Name);
    }

    internal string Name { get; }

    internal TResult Run<TResult>(Func<TResult> work)
    {
        TResult result = default!;
        ExceptionDispatchInfo? failure = null;
        var thread = new Thread(() =>
        {
            try
            {
                using var file = File.OpenHandle($"/run/netns/{Name}");
                if (SetNamespace(file, NewNet) != 0)
                    throw new InvalidOperationException($"setns {Name}: {Marshal.GetLastPInvokeErrorMessage()}");
                result = work();
            }
            catch (Exception exception)
            {
                failure = ExceptionDispatchInfo.Capture(exception);
            }
        });
        thread.Start();
        thread.Join();
        failure?.Throw();
        return result;
    }

    internal void Run(Action work) => Run(() =>
    {
        work();
        return true;
    });

    /// <summary>Output of a command inside.</summary>
    internal string Shell(params string[] command) => Command.Run("nsenter", [$"--net=/run/netns/{Name}", .. command]);

    public void Dispose() => Command.Run("ip", "netns", "del", Name);

    [LibraryImport("libc", EntryPoint = "setns", SetLastError = true)]
    private static partial int SetNamespace(SafeFileHandle file, int kind);
}

internal static class Command
{
    /// <summary>Standard output; a non-zero exit is an exception with what was said.</summary>
    internal static string Run(string program, params string[] arguments)
    {
        var start = new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true };
        using var process = Process.Start(start)!;
        var errors = process.StandardError.ReadToEndAsync();
        var output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return process.ExitCode == 0
            ? output
            : throw new InvalidOperationException($"{program} {string.Join(' ', arguments)}: exit {process.ExitCode}: {errors.Result}");
    }
}
