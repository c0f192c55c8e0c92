using System.Runtime.InteropServices;
using Mesh.Datapath.Maps;

namespace Mesh.Datapath.LoadBalancing;

/// <summary>
/// The consistent-hashing table of one segment (Eisenbud et al., NSDI 2016): every backend walks its own permutation of the
/// entries and the backends take turns claiming their next free one. A function of the backends' addresses alone, so every node
/// computes the same table for a service that it meets. When backends leave, the table is not computed anew but repainted: only what was
/// theirs changes hands, so that no flow of another backend moves. Nodes that have seen the same departures since the last arrival still
/// have the same table.
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

    /// <summary>How much larger than a new one a table may be that is kept when backends leave: two sizes.</summary>
    private const int KeptGrowth = 5;

    /// <summary>May the table be kept for fewer backends than it was made for?</summary>
    internal static bool MayKeep(int tableSize, int backends) => tableSize >= backends && tableSize < KeptGrowth * TableSize(backends);

    /// <summary>
    /// Gives the entries of backends that have left to those that remain, one by one to whoever has fewest; nobody else's changes. As
    /// shares differed by one entry at the most, so they do again.
    /// </summary>
    /// <param name="before">The table as it is.</param>
    /// <param name="places">Of each backend of before: its index among those that remain, or -1.</param>
    /// <param name="remaining">At least 1.</param>
    /// <param name="after">As long as <paramref name="before"/>.</param>
    internal static void Repaint(ReadOnlySpan<ushort> before, ReadOnlySpan<int> places, int remaining, Span<ushort> after)
    {
        var shares = new int[remaining];
        var free = new List<int>();
        for (var i = 0; i < before.Length; i++)
        {
            var place = before[i] < places.Length ? places[before[i]] : -1;
            if (place < 0)
            {
                free.Add(i);
                continue;
            }
            after[i] = (ushort)place;
            shares[place]++;
        }
        var poorest = new PriorityQueue<int, (int Share, int Index)>(remaining);
        for (var i = 0; i < remaining; i++)
            poorest.Enqueue(i, (shares[i], i));
        foreach (var entry in free)
        {
            var heir = poorest.Peek();
            after[entry] = (ushort)heir;
            poorest.DequeueEnqueue(heir, (++shares[heir], heir));
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
