using System.Numerics;
using System.Runtime.CompilerServices;
using Mesh.Bpf.Native;

namespace Mesh.Bpf;

/// <summary>
/// A hash, LRU, LPM or array map with typed keys and values. One call is one system call of about 1.3 µs; the batch calls cost a
/// third of that per element. Safe for several threads, as the kernel's maps are.
/// Keys and values must hold no implicit padding: hash maps compare every byte.
/// </summary>
public sealed unsafe class BpfMap<TKey, TValue> : IDisposable
    where TKey : unmanaged
    where TValue : unmanaged
{
    /// <summary>Elements per batch call: more gains nothing, and holds the CPU longer.</summary>
    public const int BatchSize = 1024;

    /// <summary>Takes over <paramref name="fd"/>, also when it throws.</summary>
    /// <exception cref="BpfException">A size differs from the kernel's: the object and this program are not of one build.</exception>
    public BpfMap(string name, BpfFd fd)
    {
        Name = name;
        Fd = fd;
        try
        {
            Info = MapInfo.Of(fd, name);
            if (Info.KeySize != sizeof(TKey) || Info.ValueSize != sizeof(TValue))
                throw new BpfException(Syscalls.EINVAL, $"map {name} has keys of {Info.KeySize} and values of {Info.ValueSize} bytes, but "
                    + $"{typeof(TKey).Name} has {sizeof(TKey)} and {typeof(TValue).Name} has {sizeof(TValue)}");
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

    public bool TryGet(TKey key, out TValue value)
    {
        Unsafe.SkipInit(out value);
        fixed (TValue* pointer = &value)
        {
            var attribute = Element(&key, pointer);
            if (Found(Syscalls.Bpf(BpfCommand.MapLookup, ref attribute), "lookup"))
                return true;
        }
        value = default;
        return false;
    }

    /// <summary>The values of all possible CPUs of a per-CPU map; null when the key is absent.</summary>
    public TValue[]? GetPerCpu(TKey key)
    {
        if (!Info.IsPerCpu)
            throw new InvalidOperationException($"map {Name} is not per CPU");
        var stride = (sizeof(TValue) + 7) & ~7;
        var buffer = new byte[stride * PossibleCpus.Count];
        fixed (byte* pointer = buffer)
        {
            var attribute = Element(&key, pointer);
            if (!Found(Syscalls.Bpf(BpfCommand.MapLookup, ref attribute), "lookup"))
                return null;
            var values = new TValue[PossibleCpus.Count];
            for (var cpu = 0; cpu < values.Length; cpu++)
                values[cpu] = *(TValue*)(pointer + cpu * stride);
            return values;
        }
    }

    /// <summary>Inserts or replaces.</summary>
    /// <exception cref="BpfMapFullException">No room.</exception>
    public void Set(TKey key, TValue value)
    {
        WriteFailpoint.At(Name);
        var attribute = Element(&key, &value);
        var result = Syscalls.Bpf(BpfCommand.MapUpdate, ref attribute);
        GC.KeepAlive(this);
        if (result < 0)
            throw Failure(-result, "update");
    }

    /// <summary>False when the key was absent.</summary>
    public bool Remove(TKey key)
    {
        WriteFailpoint.At(Name);
        var attribute = Element(&key, null);
        return Found(Syscalls.Bpf(BpfCommand.MapDelete, ref attribute), "delete");
    }

    /// <summary>Inserts or replaces all; elements refused are given to <paramref name="fail"/> by index with the cause, the others
    /// are in the map when this returns.</summary>
    /// <returns>How many were written.</returns>
    public int SetBatch(ReadOnlySpan<TKey> keys, ReadOnlySpan<TValue> values, Action<int, BpfException> fail)
    {
        if (keys.Length != values.Length)
            throw new ArgumentException($"{keys.Length} keys for {values.Length} values");
        var written = 0;
        BpfException? refused = null;
        for (var next = 0; next < keys.Length;)
        {
            WriteFailpoint.At(Name);
            var count = (uint)Math.Min(AtOnce, keys.Length - next);
            var wanted = count;
            int result;
            fixed (TKey* keyPointer = keys[next..])
            fixed (TValue* valuePointer = values[next..])
                result = Batch(BpfCommand.MapUpdateBatch, keyPointer, valuePointer, ref count);
            if (result < 0 && count >= wanted)
                throw Failure(-result, "batch update");
            written += (int)count;
            next += (int)count;
            if (result >= 0)
                continue;
            // A full map says the same to thousands.
            if (refused?.Errno != -result)
                refused = Failure(-result, "update");
            fail(next++, refused);
        }
        return written;
    }

    /// <summary>Removes all; absent keys are no error.</summary>
    /// <returns>How many were present.</returns>
    public int RemoveBatch(ReadOnlySpan<TKey> keys)
    {
        var removed = 0;
        for (var next = 0; next < keys.Length;)
        {
            WriteFailpoint.At(Name);
            var count = (uint)Math.Min(AtOnce, keys.Length - next);
            var wanted = count;
            int result;
            fixed (TKey* keyPointer = keys[next..])
                result = Batch(BpfCommand.MapDeleteBatch, keyPointer, null, ref count);
            if (result < 0 && (result != -Syscalls.ENOENT || count >= wanted))
                throw Failure(-result, "batch delete");
            removed += (int)count;
            next += (int)count + (result < 0 ? 1 : 0);
        }
        return removed;
    }

    /// <summary>All entries. Entries written or deleted meanwhile may or may not be seen; none is seen twice in a hash map.</summary>
    public List<KeyValuePair<TKey, TValue>> Dump()
    {
        if (Info.IsPerCpu)
            throw new InvalidOperationException($"map {Name} is per CPU: ask for one key at a time");
        var entries = new List<KeyValuePair<TKey, TValue>>();
        byte[]? cursor = null;
        do
            cursor = DumpFrom(cursor, entries);
        while (cursor is not null);
        return entries;
    }

    /// <summary>Adds the entries of one batch.</summary>
    /// <param name="cursor">Where the last call stopped; null = from the beginning.</param>
    /// <returns>Where this one stopped; null at the end.</returns>
    internal byte[]? DumpFrom(byte[]? cursor, List<KeyValuePair<TKey, TValue>> entries)
    {
        // One hash bucket may hold more than a batch: nothing is lost then, we ask again with more room.
        for (var chunk = BatchSize; ; chunk = (int)Math.Min(BitOperations.RoundUpToPowerOf2((uint)chunk + 1), 1u << 24))
        {
            var keys = new TKey[chunk];
            var values = new TValue[chunk];
            // Opaque to us: four bytes for hash maps, a key for the others.
            var next = new byte[Math.Max(16, sizeof(TKey))];
            uint count;
            int result;
            fixed (byte* cursorPointer = cursor, nextPointer = next)
            fixed (TKey* keyPointer = keys)
            fixed (TValue* valuePointer = values)
            {
                var attribute = new Syscalls.BatchAttribute
                {
                    InBatch = (ulong)cursorPointer,
                    OutBatch = (ulong)nextPointer,
                    Keys = (ulong)keyPointer,
                    Values = (ulong)valuePointer,
                    Count = (uint)chunk,
                    MapFd = (uint)Fd.Number,
                };
                result = Syscalls.Bpf(BpfCommand.MapLookupBatch, ref attribute);
                count = attribute.Count;
            }
            GC.KeepAlive(this);
            if (result == -Syscalls.ENOSPC)
                continue;
            if (result < 0 && result != -Syscalls.ENOENT)
                throw Failure(-result, "dump");
            for (var i = 0; i < count; i++)
                entries.Add(KeyValuePair.Create(keys[i], values[i]));
            return result < 0 ? null : next;
        }
    }

    public void Dispose() => Fd.Dispose();

    private static int AtOnce => WriteFailpoint.Before is null ? BatchSize : 1;

    private Syscalls.ElementAttribute Element(void* key, void* value) =>
        new() { MapFd = (uint)Fd.Number, Key = (ulong)key, ValueOrNext = (ulong)value };

    private int Batch(BpfCommand command, void* keys, void* values, ref uint count)
    {
        var attribute = new Syscalls.BatchAttribute
        {
            Keys = (ulong)keys,
            Values = (ulong)values,
            Count = count,
            MapFd = (uint)Fd.Number,
        };
        var result = Syscalls.Bpf(command, ref attribute);
        GC.KeepAlive(this);
        // After a failure the number done; unchanged when the whole call was refused.
        count = attribute.Count;
        return result;
    }

    private bool Found(int result, string operation)
    {
        GC.KeepAlive(this);
        return result >= 0 || (result == -Syscalls.ENOENT ? false : throw Failure(-result, operation));
    }

    private BpfException Failure(int errno, string operation) => errno switch
    {
        Syscalls.E2BIG => new BpfMapFullException(Name, Info.MaxEntries),
        // An LPM trie says ENOSPC where hash maps say E2BIG.
        Syscalls.ENOSPC when Info.Type == MapInfo.TypeLpmTrie => new BpfMapFullException(Name, Info.MaxEntries),
        _ => new BpfException(errno, $"map {Name}: {operation}"),
    };
}

/// <summary>CPUs the kernel keeps per-CPU values for: more than are online, perhaps.</summary>
public static class PossibleCpus
{
    public static readonly int Count = Libbpf.NumPossibleCpus();
}
