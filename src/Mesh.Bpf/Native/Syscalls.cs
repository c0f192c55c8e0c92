using System.Runtime.InteropServices;

namespace Mesh.Bpf.Native;

/// <summary>bpf(2), mmap(2) and descriptor calls. The bpf attribute unions are laid out as in linux/bpf.h.</summary>
internal static unsafe partial class Syscalls
{
    internal const int EPERM = 1;
    internal const int ENOENT = 2;
    internal const int E2BIG = 7;
    internal const int EBADF = 9;
    internal const int EAGAIN = 11;
    internal const int EEXIST = 17;
    internal const int ENODEV = 19;
    internal const int EINVAL = 22;
    internal const int ENOSPC = 28;

    internal const int ProtRead = 1;
    internal const int ProtWrite = 2;
    internal const int MapShared = 1;

    /// <summary>Read-only descriptor of a pinned map (BPF_F_RDONLY).</summary>
    internal const uint ReadOnlyFlag = 1 << 3;

    private const int FcntlDuplicateCloseOnExec = 1030;

    private static readonly nint BpfNumber = RuntimeInformation.ProcessArchitecture switch
    {
        Architecture.X64 => 321,
        Architecture.Arm64 => 280,
        var other => throw new PlatformNotSupportedException($"bpf(2) has no known number on {other}"),
    };

    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true)]
    private static partial nint Syscall(nint number, nint command, nint attribute, nint size);

    [LibraryImport("libc", EntryPoint = "mmap", SetLastError = true)]
    internal static partial nint MemoryMap(nint address, nuint length, int protection, int flags, int fd, nint offset);

    [LibraryImport("libc", EntryPoint = "munmap", SetLastError = true)]
    internal static partial int MemoryUnmap(nint address, nuint length);

    [LibraryImport("libc", EntryPoint = "close", SetLastError = true)]
    internal static partial int Close(int fd);

    [LibraryImport("libc", EntryPoint = "read", SetLastError = true)]
    internal static partial nint Read(int fd, byte* buffer, nuint size);

    [LibraryImport("libc", EntryPoint = "fcntl", SetLastError = true)]
    private static partial int Fcntl(int fd, int command, int argument);

    [LibraryImport("libc", EntryPoint = "open", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int Open(string path, int flags, int mode);

    [LibraryImport("libc", EntryPoint = "vsnprintf")]
    internal static partial int VsnPrintf(byte* buffer, nuint size, byte* format, nint arguments);

    /// <summary>The result of bpf(2): zero, a descriptor, or -errno.</summary>
    internal static int Bpf<TAttribute>(BpfCommand command, ref TAttribute attribute)
        where TAttribute : unmanaged
    {
        fixed (TAttribute* pointer = &attribute)
        {
            var result = (int)Syscall(BpfNumber, (nint)command, (nint)pointer, sizeof(TAttribute));
            return result < 0 ? -Marshal.GetLastPInvokeError() : result;
        }
    }

    internal static BpfFd Duplicate(int fd, string what)
    {
        var copy = Fcntl(fd, FcntlDuplicateCloseOnExec, 3);
        return copy >= 0 ? new BpfFd(copy) : throw new BpfException(Marshal.GetLastPInvokeError(), what);
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct ElementAttribute
    {
        internal uint MapFd;
        internal uint Pad;
        internal ulong Key;
        internal ulong ValueOrNext;
        internal ulong Flags;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct BatchAttribute
    {
        internal ulong InBatch;
        internal ulong OutBatch;
        internal ulong Keys;
        internal ulong Values;
        internal uint Count;
        internal uint MapFd;
        internal ulong ElementFlags;
        internal ulong Flags;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct MapCreateAttribute
    {
        internal uint Type;
        internal uint KeySize;
        internal uint ValueSize;
        internal uint MaxEntries;
        internal uint Flags;
        internal uint InnerMapFd;
        internal uint NumaNode;
        internal fixed byte Name[16];
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct ObjectAttribute
    {
        internal ulong Path;
        internal uint Fd;
        internal uint FileFlags;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct InfoAttribute
    {
        internal uint Fd;
        internal uint Length;
        internal ulong Info;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct LinkCreateAttribute
    {
        internal uint ProgramFd;
        internal uint Target;
        internal uint AttachType;
        internal uint Flags;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct IteratorCreateAttribute
    {
        internal uint LinkFd;
        internal uint Flags;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct LinkUpdateAttribute
    {
        internal uint LinkFd;
        internal uint NewProgramFd;
        internal uint Flags;
        internal uint OldProgramFd;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct LinkDetachAttribute
    {
        internal uint LinkFd;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct ProgramLoadAttribute
    {
        internal uint Type;
        internal uint InstructionCount;
        internal ulong Instructions;
        internal ulong License;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct MapInfoRecord
    {
        internal uint Type;
        internal uint Id;
        internal uint KeySize;
        internal uint ValueSize;
        internal uint MaxEntries;
        internal uint Flags;
        internal fixed byte Name[16];
    }

    /// <summary>struct bpf_prog_info, as far as it is read.</summary>
    [StructLayout(LayoutKind.Explicit, Size = 232)]
    internal struct ProgramInfoRecord
    {
        [FieldOffset(4)]
        internal uint Id;

        [FieldOffset(20)]
        internal uint TranslatedBytes;

        [FieldOffset(216)]
        internal uint VerifiedInstructions;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct LinkInfoRecord
    {
        internal uint Type;
        internal uint Id;
        internal uint ProgramId;
        internal uint Padding;
        internal uint First;
        internal uint Second;
        internal ulong Third;
        internal ulong Fourth;
    }
}

internal enum BpfCommand
{
    MapCreate = 0,
    MapLookup = 1,
    MapUpdate = 2,
    MapDelete = 3,
    MapGetNextKey = 4,
    ProgramLoad = 5,
    ObjectPin = 6,
    ObjectGet = 7,
    ObjectInfo = 15,
    MapLookupBatch = 24,
    MapUpdateBatch = 26,
    MapDeleteBatch = 27,
    LinkCreate = 28,
    LinkUpdate = 29,
    IteratorCreate = 33,
    LinkDetach = 34,
}
