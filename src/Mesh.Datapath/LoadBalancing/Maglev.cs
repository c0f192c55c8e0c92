using System.Runtime.InteropServices;
using Mesh.Datapath.Maps;

namespace Mesh.Datapath.LoadBalancing;

/// <summary>
/// The consistent-hashing table of one segment (Eisenbud et al., NSDI 2016): every backend walks its own permutation of the
/// entries and the backends take turns claiming their next free one. A function of the backends' addresses alone, so every node
/// and every restart computes the same table, and a changed backend moves little besides its own share.
/// </summary>
internal static class Maglev
{
    /// <summary>Entries per backend at the least: shares then differ by a few percent.</summary>
    internal const int EntriesPerBackend = 25;

    // Few sizes, far apart: a service that grows by one backend keeps its size, and so most of its mapping.
    private static readonly ushort[] TableSizes = [251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521];

    /// <summary>Most backends a segment can have: each needs an entry of its own.</summary>
    internal static int BackendsMax => TableSizes[^1];

    /// <summary>Beyond 2620 backends the largest table is used and shares grow less even.</summary>
    internal static ushort TableSize(int backends)
    {
        foreach (var size in TableSizes)
            if (size >= backends * EntriesPerBackend)
                return size;
        return TableSizes[^1];
    }

    /// <summary>Fills <paramref name="table"/> (its length is the table size, a prime) with backend indexes.</summary>
    internal static void Fill(ReadOnlySpan<LbBackend> backends, Span<ushort> table)
    {
        if (backends.Length == 1)
        {
            table.Clear();
            return;
        }
        const ushort free = ushort.MaxValue;
        table.Fill(free);
        var size = (uint)table.Length;
        var next = new uint[backends.Length];
        var step = new uint[backends.Length];
        for (var i = 0; i < backends.Length; i++)
        {
            var hash = Hash(backends[i]);
            next[i] = (uint)(hash >> 32) % size;
            step[i] = (uint)hash % (size - 1) + 1;
        }
        for (var filled = 0; filled < table.Length;)
        {
            for (var i = 0; i < backends.Length && filled < table.Length; i++, filled++)
            {
                var at = next[i];
                while (table[(int)at] != free)
                    at = Advance(at, step[i], size);
                table[(int)at] = (ushort)i;
                next[i] = Advance(at, step[i], size);
            }
        }
    }

    private static uint Advance(uint at, uint step, uint size) => at + step >= size ? at + step - size : at + step;

    /// <summary>By address, port and protocol only: not by state, node or cluster, which may change while the backend stays.</summary>
    private static ulong Hash(LbBackend backend)
    {
        var address = MemoryMarshal.Cast<MeshAddress, ulong>(MemoryMarshal.CreateSpan(ref backend.Address, 1));
        var hash = Mix(0x9e3779b97f4a7c15 ^ address[0]);
        hash = Mix(hash ^ address[1]);
        return Mix(hash ^ ((ulong)backend.Port.Host << 16 | (ulong)backend.Protocol << 8 | backend.Family));
    }

    /// <summary>The 64-bit finaliser of MurmurHash3.</summary>
    private static ulong Mix(ulong value)
    {
        value ^= value >> 33;
        value *= 0xff51afd7ed558ccd;
        value ^= value >> 33;
        value *= 0xc4ceb9fe1a85ec53;
        return value ^ value >> 33;
    }
}
