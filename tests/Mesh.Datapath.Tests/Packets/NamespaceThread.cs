using System.Collections.Concurrent;
using System.Diagnostics;
using System.Runtime.InteropServices;

namespace Mesh.Datapath.Tests.Packets;

/// <summary>
/// A thread in a network namespace of its own, which has no name and is gone with the thread: what runs here, and what it starts,
/// cannot touch the machine's devices.
/// </summary>
internal sealed partial class NamespaceThread : IDisposable
{
    private const int NewNetworkNamespace = 0x40000000;

    private readonly BlockingCollection<Action> _work = [];
    private readonly Thread _thread;

    public NamespaceThread()
    {
        _thread = new Thread(() =>
        {
            foreach (var action in _work.GetConsumingEnumerable())
                action();
        })
        { IsBackground = true, Name = "test network namespace" };
        _thread.Start();
        Run(() =>
        {
            if (Unshare(NewNetworkNamespace) != 0)
                throw new InvalidOperationException($"unshare: {Marshal.GetLastPInvokeErrorMessage()}: these tests need root");
            return 0;
        });
    }

    /// <summary>The thread's number, by which `ip link set … netns` can name its namespace.</summary>
    public int Id => Run(GetThreadId);

    public T Run<T>(Func<T> function)
    {
        var done = new TaskCompletionSource<T>(TaskCreationOptions.RunContinuationsAsynchronously);
        _work.Add(() =>
        {
            try
            {
                done.SetResult(function());
            }
#pragma warning disable CA1031 // handed to the caller, whatever it is
            catch (Exception exception)
            {
                done.SetException(exception);
            }
#pragma warning restore CA1031
        });
        return done.Task.GetAwaiter().GetResult();
    }

    /// <summary>Runs a command in the namespace and returns what it printed.</summary>
    public string Shell(string command) => Run(() =>
    {
        var start = new ProcessStartInfo("/bin/sh", ["-ec", command]) { RedirectStandardOutput = true, RedirectStandardError = true };
        using var process = Process.Start(start)!;
        var errors = process.StandardError.ReadToEndAsync();
        var output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return process.ExitCode == 0
            ? output
            : throw new InvalidOperationException($"{command}: exit code {process.ExitCode}: {errors.GetAwaiter().GetResult()}");
    });

    public void Dispose()
    {
        _work.CompleteAdding();
        _thread.Join();
        _work.Dispose();
    }

    [LibraryImport("libc", EntryPoint = "gettid")]
    private static partial int GetThreadId();

    [LibraryImport("libc", EntryPoint = "unshare", SetLastError = true)]
    private static partial int Unshare(int flags);
}
