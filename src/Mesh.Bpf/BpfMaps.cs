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
