using System.Runtime.InteropServices;

namespace Mesh.Install.Preflight;

/// <summary>The few calls of the kernel about mounts that .NET has no name for.</summary>
internal static partial class HostFiles
{
    public const long BpfMagic = 0xcafe4a11;
    public const long Cgroup2Magic = 0x63677270;

    private const int NewMounts = 0x00020000;
    private const ulong Recursive = 0x4000;
    private const ulong Private = 1 << 18;
    private const ulong NoSuid = 2;
    private const ulong NoDev = 4;
    private const ulong NoExec = 8;
    private const int EBUSY = 16;

    /// <summary>A path of the node as we see it.</summary>
    public static string Below(string root, string path) => root == "/" ? path : root.TrimEnd('/') + path;

    /// <returns>Type of the file system that a path is on; null when there is no such path.</returns>
    public static long? TypeOf(string path)
    {
        // struct statfs is 120 bytes on 64-bit Linux; f_type is its first word.
        Span<byte> buffer = stackalloc byte[256];
        return StatFs(path, ref MemoryMarshal.GetReference(buffer)) == 0 ? MemoryMarshal.Read<long>(buffer) & 0xffffffff : null;
    }

    /// <summary>Mounts the BPF file system where it is not mounted.</summary>
    /// <returns>False when it was.</returns>
    /// <exception cref="InstallException">The kernel refused; the message says what to do.</exception>
    public static bool MountBpf(string path)
    {
        if (TypeOf(path) == BpfMagic)
            return false;
        try
        {
            Directory.CreateDirectory(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new InstallException($"the BPF file system could not be mounted at {path}: the directory cannot be made ({e.Message})", e);
        }
        if (Mount("bpf", path, "bpf", NoSuid | NoDev | NoExec, "mode=0700") == 0 || Marshal.GetLastPInvokeError() == EBUSY && TypeOf(path) == BpfMagic)
            return true;
        throw new InstallException($"the BPF file system could not be mounted at {path}: {ErrorText(Marshal.GetLastPInvokeError())}");
    }

    /// <summary>Does something on a thread with mounts of its own: what is mounted there is seen by nobody, and gone afterwards.</summary>
    public static void WithOwnMounts(Action action)
    {
        Exception? failed = null;
        var thread = new Thread(() =>
        {
            try
            {
                if (Unshare(NewMounts) != 0)
                    throw new InstallException($"no mounts of its own: {ErrorText(Marshal.GetLastPInvokeError())}");
                if (Mount("none", "/", null, Recursive | Private, null) != 0)
                    throw new InstallException($"mounts could not be made private: {ErrorText(Marshal.GetLastPInvokeError())}");
                action();
            }
            catch (Exception e)
            {
                failed = e;
            }
        });
        thread.Start();
        thread.Join();
        if (failed is not null)
            throw new InstallException(failed.Message, failed);
    }

    /// <summary>Takes a mount away at once, though it may be in use.</summary>
    public static void Detach(string path)
    {
        const int lazily = 2;
        if (Unmount(path, lazily) != 0 && TypeOf(path) == BpfMagic)
            throw new InstallException($"{path} could not be unmounted: {ErrorText(Marshal.GetLastPInvokeError())}");
    }

    public static string ErrorText(int errno) => errno switch
    {
        1 => "the kernel does not permit it (EPERM): the container lacks privileges, or a security module forbids it",
        13 => "permission denied (EACCES): a security module such as AppArmor or SELinux forbids it",
        19 => "this kernel has no BPF file system (ENODEV): CONFIG_BPF_SYSCALL is off",
        _ => $"{Marshal.GetPInvokeErrorMessage(errno)} (errno {errno})",
    };

    [LibraryImport("libc", EntryPoint = "statfs", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int StatFs(string path, ref byte buffer);

    [LibraryImport("libc", EntryPoint = "mount", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Mount(string source, string target, string? type, ulong flags, string? data);

    [LibraryImport("libc", EntryPoint = "umount2", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Unmount(string target, int flags);

    [LibraryImport("libc", EntryPoint = "unshare", SetLastError = true)]
    private static partial int Unshare(int flags);
}
