using System.Runtime.InteropServices;
using Mesh.Bpf.Native;

namespace Mesh.Bpf;

/// <summary>Maps without an object file: pinned ones, and new ones for tests, benchmarks and the RCU barrier.</summary>
public static unsafe class BpfMaps
{
    /// <exception cref="BpfException">Nothing is pinned there, or its sizes are not those of the types.</exception>
    public static BpfMap<TKey, TValue> OpenPinned<TKey, TValue>(string path, bool readOnly = false)
        where TKey : unmanaged
        where TValue : unmanaged
        => new(Path.GetFileName(path), BpfFd.OpenPinned(path, readOnly));

    /// <exception cref="BpfException">Nothing is pinned there, or it is no memory-mappable array of this type.</exception>
    public static MmapArray<TValue> OpenPinnedArray<TValue>(string path, bool readOnly = false)
        where TValue : unmanaged
        // The descriptor is writable either way: the kernel maps no shared memory from a read-only one.
        => new(Path.GetFileName(path), BpfFd.OpenPinned(path), readOnly);

    /// <summary>Every element of one map into another with the same key and value and at least its room. Elements that come or go
    /// meanwhile may be missed.</summary>
    /// <exception cref="BpfException">No room, or no memory.</exception>
    public static void Copy(BpfFd from, BpfFd to, string name)
    {
        var info = MapInfo.Of(from, name);
        if ((info.Flags & MapInfo.Of(to, name).Flags & MapInfo.FlagMmapable) != 0)
        {
            CopyMemory(from, to, name, (nuint)(info.ValueSize + 7 & ~7u) * info.MaxEntries);
            return;
        }
        var size = info.IsPerCpu ? (info.ValueSize + 7 & ~7u) * (uint)PossibleCpus.Count : info.ValueSize;
        var isArray = info.Type is MapInfo.TypeArray or MapInfo.TypePerCpuArray;
        byte[] key = new byte[info.KeySize], next = new byte[info.KeySize], value = new byte[size];
        fixed (byte* keyPointer = key)
        fixed (byte* nextPointer = next)
        fixed (byte* valuePointer = value)
        {
            // A walk over keys begins anew when its key is taken away: it is bounded.
            for (uint walked = 0; walked < info.MaxEntries; walked++)
            {
                if (isArray)
                    *(uint*)nextPointer = walked;
                else if (!Do(BpfCommand.MapGetNextKey, from, walked == 0 ? null : keyPointer, nextPointer))
                    return;
                next.CopyTo(key, 0);
                // Those of a new array are zero.
                if (Do(BpfCommand.MapLookup, from, keyPointer, valuePointer) && (!isArray || value.AsSpan().ContainsAnyExcept((byte)0)))
                    Do(BpfCommand.MapUpdate, to, keyPointer, valuePointer);
            }
        }

        bool Do(BpfCommand command, BpfFd map, byte* at, byte* place)
        {
            var attribute = new Syscalls.ElementAttribute { MapFd = (uint)map.Number, Key = (ulong)at, ValueOrNext = (ulong)place };
            var result = Syscalls.Bpf(command, ref attribute);
            return result != -Syscalls.ENOENT && BpfException.ThrowIfNegative(result, $"copy map {name}") >= 0;
        }
    }

    private static void CopyMemory(BpfFd from, BpfFd to, string name, nuint bytes)
    {
        var page = (nuint)Environment.SystemPageSize;
        var mapped = (bytes + page - 1) / page * page;
        var source = Map(from, Syscalls.ProtRead);
        try
        {
            var target = Map(to, Syscalls.ProtRead | Syscalls.ProtWrite);
            NativeMemory.Copy((void*)source, (void*)target, bytes);
            Syscalls.MemoryUnmap(target, mapped);
        }
        finally
        {
            Syscalls.MemoryUnmap(source, mapped);
        }

        nint Map(BpfFd map, int protection)
        {
            var address = Syscalls.MemoryMap(0, mapped, protection, Syscalls.MapShared, map.Number, 0);
            return address != -1 ? address : throw new BpfException(Marshal.GetLastPInvokeError(), $"copy map {name}: mmap");
        }
    }

    /// <param name="type">enum bpf_map_type.</param>
    /// <param name="flags">BPF_F_*; an LPM trie needs BPF_F_NO_PREALLOC (1).</param>
    public static BpfFd Create(
        string name, uint type, uint keySize, uint valueSize, uint maxEntries, uint flags = 0, BpfFd? innerMap = null)
    {
        var attribute = new Syscalls.MapCreateAttribute
        {
            Type = type,
            KeySize = keySize,
            ValueSize = valueSize,
            MaxEntries = maxEntries,
            Flags = flags,
            InnerMapFd = (uint)(innerMap?.Number ?? 0),
        };
        for (var i = 0; i < Math.Min(name.Length, 15); i++)
            attribute.Name[i] = (byte)name[i];
        return new BpfFd(BpfException.ThrowIfNegative(Syscalls.Bpf(BpfCommand.MapCreate, ref attribute), $"create map {name}"));
    }
}
