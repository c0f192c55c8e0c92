using System.Runtime.InteropServices;
using Mesh.Bpf.Native;

namespace Mesh.Bpf;

/// <summary>What the kernel says about a map.</summary>
/// <param name="Type">enum bpf_map_type.</param>
/// <param name="Name">At most 15 characters.</param>
public sealed record MapInfo(uint Type, uint Id, uint KeySize, uint ValueSize, uint MaxEntries, uint Flags, string Name)
{
    public const uint TypeHash = 1;
    public const uint TypeArray = 2;
    public const uint TypePerCpuHash = 5;
    public const uint TypePerCpuArray = 6;
    public const uint TypeLruHash = 9;
    public const uint TypeLpmTrie = 11;
    public const uint TypeArrayOfMaps = 12;
    public const uint TypeRingBuffer = 27;

    /// <summary>BPF_F_MMAPABLE.</summary>
    public const uint FlagMmapable = 1 << 10;

    /// <summary>Values exist once per possible CPU.</summary>
    public bool IsPerCpu => Type is TypePerCpuHash or TypePerCpuArray or 10 or 21;

    public static unsafe MapInfo Of(BpfFd fd, string name)
    {
        var record = new Syscalls.MapInfoRecord();
        BpfException.ThrowIfNegative(fd.GetInfo(ref record), $"map {name}: info");
        return new MapInfo(record.Type, record.Id, record.KeySize, record.ValueSize, record.MaxEntries, record.Flags,
            Marshal.PtrToStringUTF8((nint)record.Name) ?? "");
    }

    /// <summary>Bytes of kernel memory charged to the map, from the descriptor's fdinfo; 0 when the kernel does not say.</summary>
    public static long MemoryOf(BpfFd fd)
    {
        foreach (var line in File.ReadLines($"/proc/self/fdinfo/{fd.Number}"))
            if (line.StartsWith("memlock:", StringComparison.Ordinal) && long.TryParse(line.AsSpan(8).Trim(), out var bytes))
                return bytes;
        return 0;
    }
}
