using System.Runtime.InteropServices;
using System.Text;
using Mesh.Bpf.Native;
using Microsoft.Win32.SafeHandles;

namespace Mesh.Bpf;

/// <summary>Owns one descriptor of a map, program or link. The kernel object lives as long as a descriptor, a pin or a user does.</summary>
public sealed class BpfFd : SafeHandleMinusOneIsInvalid
{
    public BpfFd()
        : base(ownsHandle: true)
    {
    }

    internal BpfFd(int fd)
        : base(ownsHandle: true) => SetHandle(fd);

    /// <summary>The raw number. Valid only while this object is alive and not disposed.</summary>
    public int Number => (int)handle;

    protected override bool ReleaseHandle() => Syscalls.Close((int)handle) == 0;

    /// <summary>Opens a pinned object.</summary>
    /// <exception cref="BpfException">Nothing is pinned there (ENOENT), or no permission.</exception>
    public static BpfFd OpenPinned(string path, bool readOnly = false) =>
        TryOpenPinned(path, out var error, readOnly) ?? throw new BpfException(error, $"open pin {path}");

    /// <summary>Null when nothing is pinned at <paramref name="path"/>.</summary>
    public static BpfFd? TryOpenPinned(string path, bool readOnly = false)
    {
        var fd = TryOpenPinned(path, out var error, readOnly);
        return fd is not null || error == Syscalls.ENOENT ? fd : throw new BpfException(error, $"open pin {path}");
    }

    private static unsafe BpfFd? TryOpenPinned(string path, out int error, bool readOnly)
    {
        fixed (byte* bytes = Encoding.UTF8.GetBytes(path + "\0"))
        {
            var attribute = new Syscalls.ObjectAttribute { Path = (ulong)bytes, FileFlags = readOnly ? Syscalls.ReadOnlyFlag : 0 };
            var result = Syscalls.Bpf(BpfCommand.ObjectGet, ref attribute);
            error = result < 0 ? -result : 0;
            return result < 0 ? null : new BpfFd(result);
        }
    }

    /// <summary>Pins this object; the directory must exist and be on a bpffs. Replaces nothing.</summary>
    public unsafe void Pin(string path)
    {
        fixed (byte* bytes = Encoding.UTF8.GetBytes(path + "\0"))
        {
            var attribute = new Syscalls.ObjectAttribute { Path = (ulong)bytes, Fd = (uint)Number };
            BpfException.ThrowIfNegative(Syscalls.Bpf(BpfCommand.ObjectPin, ref attribute), $"pin {path}");
        }
        GC.KeepAlive(this);
    }

    /// <summary>Opens a directory, to attach to it as a cgroup.</summary>
    internal static BpfFd OpenDirectory(string path)
    {
        const int directory = 0x10000;
        const int closeOnExec = 0x80000;
        // O_DIRECTORY differs between architectures; arm64 uses 0x4000.
        var flags = RuntimeInformation.ProcessArchitecture == Architecture.Arm64 ? 0x4000 : directory;
        var fd = Syscalls.Open(path, flags | closeOnExec, 0);
        return fd >= 0 ? new BpfFd(fd) : throw new BpfException(Marshal.GetLastPInvokeError(), $"open directory {path}");
    }

    internal unsafe int GetInfo<TInfo>(ref TInfo info)
        where TInfo : unmanaged
    {
        fixed (TInfo* pointer = &info)
        {
            var attribute = new Syscalls.InfoAttribute { Fd = (uint)Number, Length = (uint)sizeof(TInfo), Info = (ulong)pointer };
            var result = Syscalls.Bpf(BpfCommand.ObjectInfo, ref attribute);
            GC.KeepAlive(this);
            return result;
        }
    }
}
