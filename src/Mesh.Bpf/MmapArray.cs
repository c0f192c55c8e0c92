using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Mesh.Bpf.Native;

namespace Mesh.Bpf;

/// <summary>
/// An array map (BPF_F_MMAPABLE) mapped into our memory: a store here is seen by BPF programs without a system call. Plain stores
/// have no order for them; <see cref="Publish"/> orders everything stored before it. One writer at a time.
/// A span taken from it must not be used after Dispose.
/// </summary>
public sealed unsafe class MmapArray<TValue> : IDisposable
    where TValue : unmanaged
{
    private readonly nuint _bytes;
    private TValue* _start;

    /// <summary>Takes over <paramref name="fd"/>, also when it throws.</summary>
    /// <exception cref="BpfException">Not mappable, another value size, or one that is no multiple of 8 (the kernel's stride).</exception>
    public MmapArray(string name, BpfFd fd, bool readOnly = false)
    {
        Name = name;
        Fd = fd;
        try
        {
            Info = MapInfo.Of(fd, name);
            if (Info.Type != MapInfo.TypeArray || (Info.Flags & MapInfo.FlagMmapable) == 0)
                throw new BpfException(Syscalls.EINVAL, $"map {name} is not a memory-mappable array");
            if (Info.ValueSize != sizeof(TValue) || sizeof(TValue) % 8 != 0)
                throw new BpfException(Syscalls.EINVAL,
                    $"map {name} has values of {Info.ValueSize} bytes, but {typeof(TValue).Name} has {sizeof(TValue)} "
                    + "(both must be the same multiple of 8)");
            var page = (nuint)Environment.SystemPageSize;
            _bytes = ((nuint)sizeof(TValue) * Info.MaxEntries + page - 1) / page * page;
            var protection = Syscalls.ProtRead | (readOnly ? 0 : Syscalls.ProtWrite);
            var address = Syscalls.MemoryMap(0, _bytes, protection, Syscalls.MapShared, fd.Number, 0);
            if (address == -1)
                throw new BpfException(Marshal.GetLastPInvokeError(), $"map {name}: mmap");
            _start = (TValue*)address;
        }
        catch
        {
            fd.Dispose();
            throw;
        }
    }

    public string Name { get; }

    public BpfFd Fd { get; }

    public MapInfo Info { get; }

    /// <summary>The whole array. Elements are live: programs may read (or write) them at any time.</summary>
    public Span<TValue> Span => new(Start, (int)Info.MaxEntries);

    /// <summary>The array as bytes.</summary>
    public Span<byte> Bytes => MemoryMarshal.AsBytes(Span);

    /// <summary>One element, bounds checked.</summary>
    public ref TValue this[uint index] => ref index < Info.MaxEntries
        ? ref Start[index]
        : ref Unsafe.AsRef<TValue>((void*)ThrowOutside(index));

    /// <summary>One element to be stored into, bounds checked.</summary>
    public ref TValue Write(uint index)
    {
        WriteFailpoint.At(Name);
        return ref this[index];
    }

    /// <summary>Elements in a row to be stored into.</summary>
    public Span<TValue> Write(uint start, uint length)
    {
        WriteFailpoint.At(Name);
        return Span.Slice((int)start, (int)length);
    }

    /// <summary>Stores an 8-byte element at once, after everything stored before: a release store, and so a commit.</summary>
    public void Publish(uint index, TValue value)
    {
        if (sizeof(TValue) != 8)
            throw new InvalidOperationException($"map {Name}: only elements of 8 bytes can be published in one store");
        Volatile.Write(ref Unsafe.As<TValue, ulong>(ref Write(index)), Unsafe.As<TValue, ulong>(ref value));
    }

    /// <summary>Reads an 8-byte element in one load that nothing read later can overtake.</summary>
    public TValue Observe(uint index)
    {
        if (sizeof(TValue) != 8)
            throw new InvalidOperationException($"map {Name}: only elements of 8 bytes can be read in one load");
        var word = Volatile.Read(ref Unsafe.As<TValue, ulong>(ref this[index]));
        return Unsafe.As<ulong, TValue>(ref word);
    }

    public void Dispose()
    {
        if (_start is null)
            return;
        Syscalls.MemoryUnmap((nint)_start, _bytes);
        _start = null;
        Fd.Dispose();
    }

    private TValue* Start
    {
        get
        {
            ObjectDisposedException.ThrowIf(_start is null, this);
            return _start;
        }
    }

    private nint ThrowOutside(uint index) =>
        throw new ArgumentOutOfRangeException(nameof(index), index, $"map {Name} has {Info.MaxEntries} elements");
}
