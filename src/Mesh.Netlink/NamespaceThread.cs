using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace Mesh.Netlink;

/// <summary>
/// Work inside another network namespace. A thread belongs to one namespace, so the work is done by a thread of its own that ends with it:
/// a pool thread that changed its namespace would carry it elsewhere.
/// </summary>
public static partial class NamespaceThread
{
    private const int NewNet = 0x40000000;

    /// <summary>"net:[4026531840]": the namespace of the calling thread, a name for as long as somebody holds it.</summary>
    public static string Current => new FileInfo("/proc/thread-self/ns/net").LinkTarget ?? "";

    /// <summary>Runs the work inside the namespace, and hands on its result or its exception.</summary>
    /// <param name="space">An open file of the namespace.</param>
    /// <param name="name">For messages.</param>
    /// <exception cref="NetlinkException">The file is no network namespace, or this process may not enter it.</exception>
    public static T Run<T>(SafeFileHandle space, string name, Func<T> work)
    {
        T result = default!;
        ExceptionDispatchInfo? failure = null;
        var thread = new Thread(() =>
        {
            try
            {
                if (SetNamespace(space, NewNet) != 0)
                {
                    var error = Marshal.GetLastPInvokeError();
                    throw new NetlinkException($"{name} cannot be entered as a network namespace: {Marshal.GetPInvokeErrorMessage(error)}", error);
                }
                result = work();
            }
            catch (Exception e)
            {
                failure = ExceptionDispatchInfo.Capture(e);
            }
        })
        { IsBackground = true };
        thread.Start();
        thread.Join();
        failure?.Throw();
        return result;
    }

    [LibraryImport("libc", EntryPoint = "setns", SetLastError = true)]
    private static partial int SetNamespace(SafeFileHandle file, int kind);
}
