using System.ComponentModel;
using System.Runtime.InteropServices;

namespace Mesh.Lab.Native;

/// <summary>The Linux calls that the lab needs and .NET does not offer. A failure is an exception that names the call and its object.</summary>
internal static partial class Libc
{
    public const int CLONE_NEWNET = 0x40000000;
    public const ulong MS_BIND = 4096;
    public const ulong MS_NOSUID = 2;
    public const ulong MS_NODEV = 4;
    public const ulong MS_NOEXEC = 8;
    public const int MNT_DETACH = 2;
    public const int SIGKILL = 9;
    public const int SIGPIPE = 13;
    public const int LOCK_EX = 2;
    public const int LOCK_NB = 4;
    public const int O_RDWR = 2;
    public const int O_WRONLY = 1;
    public const int O_CREAT = 0x40;
    public const int O_APPEND = 0x400;
    public const int O_CLOEXEC = 0x80000;
    public const int ENOENT = 2;
    public const int ESRCH = 3;
    public const int EBUSY = 16;
    public const int EINVAL = 22;
    public const short POLLIN = 1;

    private const long SYS_pidfd_send_signal = 424;
    private const long SYS_pidfd_open = 434;

    [StructLayout(LayoutKind.Sequential)]
    public struct PollFd
    {
        public int Fd;
        public short Events;
        public short Revents;
    }

    [LibraryImport("libc", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int open(string path, int flags, int mode);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int close(int fd);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int dup2(int from, int to);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int setns(int fd, int nstype);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int unshare(int flags);

    [LibraryImport("libc", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int mount(string? source, string target, string? type, ulong flags, string? data);

    [LibraryImport("libc", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int umount2(string target, int flags);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int flock(int fd, int operation);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int poll(Span<PollFd> fds, ulong count, int timeoutMilliseconds);

    [LibraryImport("libc", SetLastError = true)]
    private static partial long syscall(long number, long a, long b, long c, long d);

    [LibraryImport("libc")]
    private static partial int setsid();

    [LibraryImport("libc")]
    public static partial uint geteuid();

    [LibraryImport("libc")]
    private static partial nint signal(int number, nint handler);

    [LibraryImport("libc")]
    private static unsafe partial int sigprocmask(int how, void* set, void* old);

    [LibraryImport("libc", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static unsafe partial int execve(string path, byte** argv, byte** envp);

    public static int Open(string path, int flags, int mode = 0x1a4)
    {
        var fd = open(path, flags, mode);
        return fd >= 0 ? fd : throw Failed("open", path);
    }

    public static void Close(int fd) => close(fd);

    public static void Duplicate(int from, int to)
    {
        if (dup2(from, to) < 0)
            throw Failed("dup2", $"{from} to {to}");
    }

    /// <summary>Moves the calling thread into the network namespace; never call it on a pool thread.</summary>
    public static void EnterNetworkNamespace(string path)
    {
        var fd = Open(path, O_CLOEXEC);
        try
        {
            if (setns(fd, CLONE_NEWNET) < 0)
                throw Failed("setns", path);
        }
        finally
        {
            close(fd);
        }
    }

    /// <summary>Gives the calling thread a new, empty network namespace; never call it on a pool thread.</summary>
    public static void UnshareNetwork()
    {
        if (unshare(CLONE_NEWNET) < 0)
            throw Failed("unshare", "network namespace");
    }

    public static void Mount(string source, string target, string? type, ulong flags)
    {
        if (mount(source, target, type, flags, null) < 0)
            throw Failed("mount", target);
    }

    /// <summary>False when nothing is mounted there.</summary>
    public static bool Unmount(string target)
    {
        if (umount2(target, MNT_DETACH) == 0)
            return true;
        return Marshal.GetLastPInvokeError() is EINVAL or ENOENT ? false : throw Failed("umount", target);
    }

    /// <summary>Takes the advisory lock of an open file; false when <paramref name="wait"/> is false and someone else holds it.</summary>
    public static bool Lock(int fd, bool wait) => flock(fd, wait ? LOCK_EX : LOCK_EX | LOCK_NB) == 0;

    /// <summary>Waits until a descriptor is readable or the time is over. Interrupted waits just end early.</summary>
    public static void Poll(Span<PollFd> fds, int timeoutMilliseconds) => poll(fds, (ulong)fds.Length, timeoutMilliseconds);

    /// <summary>A descriptor that names this very process, however often its number is reused; -1 when it is gone.</summary>
    public static int OpenPid(int pid)
    {
        var fd = syscall(SYS_pidfd_open, pid, 0, 0, 0);
        if (fd < 0 && Marshal.GetLastPInvokeError() != ESRCH)
            throw Failed("pidfd_open", $"process {pid}");
        return (int)fd;
    }

    public static void SignalPid(int pidFd, int signalNumber)
    {
        if (syscall(SYS_pidfd_send_signal, pidFd, signalNumber, 0, 0) < 0 && Marshal.GetLastPInvokeError() != ESRCH)
            throw Failed("pidfd_send_signal", $"signal {signalNumber}");
    }

    /// <summary>Leaves the controlling terminal, so that Ctrl-C there does not reach this process.</summary>
    public static void LeaveTerminal() => _ = setsid();

    /// <summary>Replaces this process. Returns only by an exception.</summary>
    public static unsafe void Execute(string path, IReadOnlyList<string> arguments, IEnumerable<string> environment)
    {
        // .NET ignores SIGPIPE, and a child inherits what is ignored or blocked: a shell pipeline would never end.
        signal(SIGPIPE, 0);
        var none = stackalloc byte[128];
        new Span<byte>(none, 128).Clear();
        _ = sigprocmask(2, none, null);
        execve(path, Strings(arguments), Strings([.. environment]));
        throw Failed("execve", path);
    }

    /// <summary>A null-terminated array of C strings; never freed, because the process is about to be replaced.</summary>
    private static unsafe byte** Strings(IReadOnlyList<string> items)
    {
        var array = (byte**)NativeMemory.AllocZeroed((nuint)items.Count + 1, (nuint)sizeof(byte*));
        for (var i = 0; i < items.Count; i++)
            array[i] = (byte*)Marshal.StringToCoTaskMemUTF8(items[i]);
        return array;
    }

    private static Win32Exception Failed(string call, string what)
    {
        var errno = Marshal.GetLastPInvokeError();
        return new Win32Exception(errno, $"{call} {what}: {Marshal.GetPInvokeErrorMessage(errno)}");
    }
}
