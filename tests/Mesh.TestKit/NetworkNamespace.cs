using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace Mesh.TestKit;

/// <summary>A network namespace of our own, deleted with everything in it. What must happen inside runs on a thread of its own,
/// which dies there: a pool thread that changed its namespace would carry it into other tests.</summary>
public sealed partial class NetworkNamespace : IDisposable
{
    private const int NewNet = 0x40000000;
    private const string Prefix = "meshtest-";
    private static int s_count;

    /// <summary>What killed test processes have left.</summary>
    static NetworkNamespace()
    {
        foreach (var path in Directory.Exists("/run/netns") ? Directory.EnumerateFiles("/run/netns", Prefix + "*") : [])
        {
            var name = Path.GetFileName(path);
            // Another test program may be at the same.
            if (!Directory.Exists($"/proc/{name[Prefix.Length..].Split('-')[0]}"))
                ChildThread.Run("sh", "-c", "ip netns del \"$1\" 2>/dev/null || true", "sh", name);
        }
    }

    public NetworkNamespace()
    {
        Name = $"{Prefix}{Environment.ProcessId}-{Interlocked.Increment(ref s_count)}";
        ChildThread.Run("ip", "netns", "add", Name);
    }

    private NetworkNamespace(string name) => Name = name;

    /// <summary>One that another process has made, and deletes.</summary>
    public static NetworkNamespace Existing(string name) => new(name);

    public string Name { get; }

    public TResult Run<TResult>(Func<TResult> work)
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

    public void Run(Action work) => Run(() =>
    {
        work();
        return true;
    });

    /// <summary>Output of a command inside.</summary>
    public string Shell(params string[] command) => ChildThread.Run("nsenter", [$"--net=/run/netns/{Name}", .. command]);

    public void Dispose() => ChildThread.Run("ip", "netns", "del", Name);

    [LibraryImport("libc", EntryPoint = "setns", SetLastError = true)]
    private static partial int SetNamespace(SafeFileHandle file, int kind);
}
