using System.Buffers.Binary;
using System.Runtime.InteropServices;

namespace Mesh.Datapath.Loader;

/// <summary>The inode of a cgroup directory, which is the cgroup's id in a link's info.</summary>
internal static unsafe partial class CgroupInode
{
    private const int AtFdCwd = -100;
    private const uint StatxInode = 0x100;
    private const int InodeOffset = 32;

    /// <exception cref="DatapathException">No such directory.</exception>
    internal static ulong Of(string path)
    {
        Span<byte> record = stackalloc byte[256];
        fixed (byte* pointer = record)
            if (Statx(AtFdCwd, path, 0, StatxInode, pointer) != 0)
                throw new DatapathException($"cgroup {path}: {Marshal.GetPInvokeErrorMessage(Marshal.GetLastPInvokeError())}");
        return BinaryPrimitives.ReadUInt64LittleEndian(record[InodeOffset..]);
    }

    [LibraryImport("libc", EntryPoint = "statx", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Statx(int directory, string path, int flags, uint mask, byte* buffer);
}
