using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Mesh.Datapath.Maps;

namespace Mesh.Datapath.LoadBalancing;

/// <summary>
/// The memory-mapped half of load balancing: service words, arena, backends, and who owns which part of them. Writes only where no
/// program can look, until the word's release store; what the old word reached goes to the grace period.
/// One writer at a time; allocators may be refilled by the grace period from another thread.
/// </summary>
internal sealed class ServiceStore
{
    private readonly LbMaps _maps;
    private readonly GracePeriod _grace;
    private readonly RangeAllocator _ids;
    private readonly RangeAllocator _blocks;
    private readonly RangeAllocator _slots;

    /// <summary>How many segments of published headers use the backends and table that begin at a slot.</summary>
    private readonly Dictionary<uint, (int Count, LbSegment First)> _uses = [];

    internal ServiceStore(LbMaps maps, GracePeriod grace)
    {
        _maps = maps;
        _grace = grace;
        _ids = new RangeAllocator("lb_services", 1, maps.Services.Info.MaxEntries);
        _blocks = new RangeAllocator("lb_arena", 1, maps.Arena.Info.MaxEntries);
        _slots = new RangeAllocator("lb_backends", 1, maps.Backends.Info.MaxEntries,
            (start, length) =>
            {
                maps.Backends.Write(start, length).Clear();
                maps.Health.Write(start, length).Clear();
            });
    }

    /// <summary>Called before each store that a program could ever see, with what it is about: where a test crashes us.</summary>
    internal Action<string>? Failpoint { get; set; }

    internal RangeAllocator Ids => _ids;

    internal RangeAllocator Blocks => _blocks;

    internal RangeAllocator Slots => _slots;

    internal void BeforeStore(string what) => Failpoint?.Invoke(what);

    internal uint AllocateId() => Allocate(_ids, 1);

    /// <summary>An id whose word was never published.</summary>
    internal void ReleaseId(uint id) => _ids.Free(id, 1);

    /// <summary>Marks as taken what the service's word reaches. False (and nothing taken) when it is damaged or overlaps another.</summary>
    internal bool TryAdopt(uint id)
    {
        if (id == 0 || id >= _maps.Services.Info.MaxEntries || !_ids.TryReserve(id, 1))
            return false;
        var taken = new List<(RangeAllocator Owner, uint Start, uint Length)> { (_ids, id, 1) };
        var word = _maps.Services.Observe(id);
        if ((word.Flags & LbServiceFlags.Present) != 0 && IsSound(word))
        {
            var wanted = Reached(word);
            while (taken.Count <= wanted.Count && wanted[taken.Count - 1] is var run && run.Owner.TryReserve(run.Start, run.Length))
                taken.Add(run);
            if (taken.Count > wanted.Count)
            {
                Use(Segments(word));
                return true;
            }
        }
        // Free() wipes backend slots; here nothing may be written, and none of these has been ours. The id stays taken: the hash
        // map still leads to it, and another service must not be found there.
        foreach (var (owner, start, length) in taken.Skip(1))
            owner.Unreserve(start, length);
        return false;
    }

    /// <summary>Undoes <see cref="TryAdopt"/>, except that the id stays taken.</summary>
    internal void Disown(uint id)
    {
        var word = _maps.Services.Observe(id);
        if (word.Block > 0)
            _blocks.Unreserve(word.Block, HeaderBlocks(word.Segments));
        foreach (var segment in Segments(word))
            if (Unuse(segment))
            {
                _slots.Unreserve(segment.BackendBase, segment.Backends);
                _blocks.Unreserve(segment.Table / LbLimits.BlockBytes, segment.TableBlocks);
            }
    }

    /// <summary>Stores the state of one backend in place: a search by halves in each segment of its cluster, and one store. False (and
    /// nothing written) when the service has no such backend.</summary>
    internal bool TrySetState(uint id, OneStateChanged change)
    {
        var word = _maps.Services.Observe(id);
        var found = false;
        for (var i = 0; i < word.Segments; i++)
        {
            var segment = SegmentOf(word, i);
            if (segment.ClusterId != change.ClusterId || Search(segment, change) is not { } slot)
                continue;
            found = true;
            if (_maps.Backends[slot].State == change.State)
                continue;
            BeforeStore($"state of backend {slot}");
            Volatile.Write(ref _maps.Backends.Write(slot).State, change.State);
        }
        return found;
    }

    private uint? Search(LbSegment segment, OneStateChanged wanted)
    {
        var backends = BackendsOf(segment);
        var (low, high) = (0, backends.Length);
        while (low < high)
        {
            var middle = (low + high) / 2;
            var order = backends[middle].Address.CompareTo(wanted.Address);
            if (order == 0)
                order = backends[middle].Port.Host.CompareTo(wanted.Port.Host);
            if (order == 0)
                return segment.BackendBase + (uint)middle;
            (low, high) = order < 0 ? (middle + 1, high) : (low, middle);
        }
        return null;
    }

    /// <summary>True when the kernel now holds the plan without a new commit: it did already, or one backend's state was all
    /// that differed and has been stored.</summary>
    internal bool TryUpdateInPlace(uint id, SegmentPlan plan)
    {
        var word = _maps.Services.Observe(id);
        if (word.Flags != plan.Flags || word.Segments != plan.Segments.Count || !SameInfo(InfoOf(word), plan.Info))
            return false;
        (uint Slot, byte State)? changed = null;
        for (var i = 0; i < plan.Segments.Count; i++)
        {
            var planned = plan.Segments[i];
            var segment = SegmentOf(word, i);
            if (segment.Tier != planned.Tier || segment.ClusterId != planned.ClusterId || segment.Weight != planned.Weight
                || segment.Backends != planned.Backends.Length)
                return false;
            var present = BackendsOf(segment);
            if (planned.Bytes.SequenceEqual(MemoryMarshal.AsBytes(present)))
                continue;
            for (var k = 0; k < present.Length; k++)
            {
                var (kernel, wanted) = (present[k], planned.Backends[k]);
                if (kernel.State == wanted.State && SameBytes(kernel, wanted))
                    continue;
                kernel.State = wanted.State;
                var change = (segment.BackendBase + (uint)k, wanted.State);
                // Segments that share their backends tell the same change again.
                if ((changed is not null && changed != change) || !SameBytes(kernel, wanted))
                    return false;
                changed = change;
            }
        }
        if (changed is { } only)
        {
            BeforeStore($"state of backend {only.Slot}");
            Volatile.Write(ref _maps.Backends.Write(only.Slot).State, only.State);
        }
        return true;
    }

    /// <summary>Writes the plan beside what is there and shows it by one store. Segments that have not changed keep their place.</summary>
    /// <param name="isNew">What the word holds is not ours: left by a crash before its frontend was added.</param>
    /// <param name="siblings">Services that may have the same segments, to be shared.</param>
    internal void Commit(uint id, SegmentPlan plan, bool isNew, IReadOnlyCollection<uint>? siblings = null)
    {
        var before = _maps.Services.Observe(id);
        var old = isNew || (before.Flags & LbServiceFlags.Present) == 0 ? [] : Segments(before);
        var related = siblings is null ? [] : siblings.Where(other => other != id).SelectMany(other => Segments(_maps.Services.Observe(other))).ToArray();
        var fresh = new List<(RangeAllocator Owner, uint Start, uint Length)>();
        var segments = new LbSegment[plan.Segments.Count];
        uint header = 0;
        try
        {
            for (var i = 0; i < segments.Length; i++)
                segments[i] = Find(old, plan.Segments[i]) ?? Find(related, plan.Segments[i])
                    ?? Find(segments.AsSpan(0, i), plan.Segments[i]) ?? Write(plan.Segments[i], fresh, Ancestor(old, plan.Segments[i]));
            if (segments.Length > 0 || !SameInfo(plan.Info, default))
                header = WriteHeader(plan.Info, segments, fresh);
        }
        catch (DatapathException)
        {
            // No word ever pointed there, so nobody has to be waited for.
            foreach (var (owner, start, length) in fresh)
                owner.Free(start, length);
            throw;
        }
        BeforeStore($"commit service {id}");
        _maps.Services.Publish(id, new LbService
        {
            Block = header,
            Segments = (byte)segments.Length,
            Flags = plan.Flags,
            Generation = (ushort)(before.Generation + 1),
        });
        Use(segments);
        if (!isNew)
            Retire(before, old);
    }

    /// <summary>For a service that is in no hash map any more.</summary>
    internal void Remove(uint id)
    {
        var before = _maps.Services.Observe(id);
        BeforeStore($"clear service {id}");
        _maps.Services.Publish(id, new LbService { Generation = before.Generation });
        if ((before.Flags & LbServiceFlags.Present) != 0)
            Retire(before, Segments(before));
        _grace.Retire(_ids, id, 1);
    }

    /// <summary>Clears words that no frontend leads to, left by a crash between commit and hash map. What they reach is free.</summary>
    internal int ClearStale(IReadOnlySet<uint> live)
    {
        var cleared = 0;
        for (uint id = 1; id < _maps.Services.Info.MaxEntries; id++)
        {
            if ((_maps.Services.Observe(id).Flags & LbServiceFlags.Present) == 0 || live.Contains(id))
                continue;
            _maps.Services.Publish(id, default);
            cleared++;
        }
        return cleared;
    }

    internal LbSegment[] Segments(LbService word)
    {
        var segments = new LbSegment[word.Segments];
        for (var i = 0; i < segments.Length; i++)
            segments[i] = SegmentOf(word, i);
        return segments;
    }

    /// <summary>All zero for a service without a header.</summary>
    internal LbServiceInfo InfoOf(LbService word) =>
        word.Block == 0 ? default : Unsafe.As<LbBlock, LbServiceInfo>(ref _maps.Arena[word.Block]);

    internal LbServiceInfo InfoOf(uint id) => InfoOf(_maps.Services.Observe(id));

    private LbSegment SegmentOf(LbService word, int index) =>
        _maps.Arena[word.Block + (uint)((index + 1) / LbLimits.SlotsPerBlock)][(index + 1) % LbLimits.SlotsPerBlock];

    private Span<LbBackend> BackendsOf(LbSegment segment) => _maps.Backends.Span.Slice((int)segment.BackendBase, segment.Backends);

    private static uint HeaderBlocks(int segments) => (uint)segments / LbLimits.SlotsPerBlock + 1;

    /// <summary>Everything the word leads to lies within the maps.</summary>
    private bool IsSound(LbService word)
    {
        if (word.Segments == 0 && word.Block == 0)
            return true;
        if (word.Segments > LbLimits.SegmentsMax || word.Block == 0
            || (ulong)word.Block + HeaderBlocks(word.Segments) > _maps.Arena.Info.MaxEntries)
            return false;
        return Segments(word).All(segment => segment.Backends > 0 && segment.BackendBase > 0
            && (ulong)segment.BackendBase + segment.Backends <= _maps.Backends.Info.MaxEntries
            && segment.Table > 0 && segment.Table % LbLimits.BlockBytes == 0
            && segment.Table / LbLimits.BlockBytes + (ulong)segment.TableBlocks <= _maps.Arena.Info.MaxEntries);
    }

    /// <summary>What the word leads to and nobody has yet; backends and a table that several segments share are one run each.</summary>
    private List<(RangeAllocator Owner, uint Start, uint Length)> Reached(LbService word)
    {
        var runs = new List<(RangeAllocator, uint, uint)>();
        if (word.Block > 0)
            runs.Add((_blocks, word.Block, HeaderBlocks(word.Segments)));
        foreach (var segment in Segments(word).DistinctBy(segment => (segment.BackendBase, segment.Backends, segment.Table, segment.TableBlocks)))
        {
            if (_uses.TryGetValue(segment.BackendBase, out var use) && SameRuns(use.First, segment))
                continue;
            runs.Add((_slots, segment.BackendBase, segment.Backends));
            runs.Add((_blocks, segment.Table / LbLimits.BlockBytes, segment.TableBlocks));
        }
        return runs;
    }

    private void Use(LbSegment[] segments)
    {
        foreach (var segment in segments)
        {
            ref var use = ref CollectionsMarshal.GetValueRefOrAddDefault(_uses, segment.BackendBase, out _);
            use = (use.Count + 1, segment);
        }
    }

    /// <summary>True for the last use.</summary>
    private bool Unuse(LbSegment segment)
    {
        ref var use = ref CollectionsMarshal.GetValueRefOrNullRef(_uses, segment.BackendBase);
        return --use.Count == 0 && _uses.Remove(segment.BackendBase);
    }

    private static bool SameRuns(LbSegment left, LbSegment right) =>
        (left.BackendBase, left.Backends, left.Table, left.TableBlocks) == (right.BackendBase, right.Backends, right.Table, right.TableBlocks);

    /// <summary>Gives up a header and, where no other uses them, the backends and tables of its segments.</summary>
    private void Retire(LbService word, LbSegment[] old)
    {
        if (word.Block > 0)
            _grace.Retire(_blocks, word.Block, HeaderBlocks(word.Segments));
        foreach (var segment in old)
        {
            if (!Unuse(segment))
                continue;
            _grace.Retire(_slots, segment.BackendBase, segment.Backends);
            _grace.Retire(_blocks, segment.Table / LbLimits.BlockBytes, segment.TableBlocks);
        }
    }

    /// <summary>A segment with these backends, whatever its tier and weight.</summary>
    private LbSegment? Find(ReadOnlySpan<LbSegment> present, PlannedSegment planned)
    {
        foreach (var segment in present)
            if (segment.ClusterId == planned.ClusterId && segment.Backends == planned.Backends.Length
                && planned.Bytes.SequenceEqual(MemoryMarshal.AsBytes(BackendsOf(segment))))
                return segment with { Tier = planned.Tier, Weight = planned.Weight };
        return null;
    }

    /// <summary>The segment that only loses backends, or changes their states, on its way to the plan, and where those that stay go: its
    /// table is kept but for the entries of those that leave.</summary>
    private (LbSegment Segment, int[] Places)? Ancestor(LbSegment[] old, PlannedSegment planned)
    {
        foreach (var segment in old)
            if (segment.ClusterId == planned.ClusterId && segment.Backends >= planned.Backends.Length
                && Maglev.MayKeep(segment.TableSize, planned.Backends.Length) && PlacesOf(BackendsOf(segment), planned.Backends) is { } places)
                return (segment, places);
        return null;
    }

    /// <summary>Index of each present backend among those wanted, or -1; null when one is wanted that is not present. Both are sorted.</summary>
    private static int[]? PlacesOf(ReadOnlySpan<LbBackend> present, ReadOnlySpan<LbBackend> wanted)
    {
        var places = new int[present.Length];
        var next = 0;
        for (var i = 0; i < present.Length; i++)
            places[i] = next < wanted.Length && IsSame(present[i], wanted[next]) ? next++ : -1;
        return next == wanted.Length ? places : null;
    }

    private static bool IsSame(in LbBackend left, in LbBackend right) =>
        (left.Address, left.Port, left.Protocol, left.Family) == (right.Address, right.Port, right.Protocol, right.Family);

    private LbSegment Write(PlannedSegment planned, List<(RangeAllocator Owner, uint Start, uint Length)> fresh,
        (LbSegment Segment, int[] Places)? ancestor)
    {
        var count = planned.Backends.Length;
        var segment = new LbSegment
        {
            Backends = (ushort)count,
            TableSize = ancestor?.Segment.TableSize ?? Maglev.TableSize(count),
            ClusterId = planned.ClusterId,
            Tier = planned.Tier,
            Weight = planned.Weight,
            Flags = count > byte.MaxValue ? LbSegmentFlags.Wide : LbSegmentFlags.None,
        };
        segment.BackendBase = Allocate(_slots, (uint)count);
        fresh.Add((_slots, segment.BackendBase, (uint)count));
        var block = Allocate(_blocks, segment.TableBlocks);
        fresh.Add((_blocks, block, segment.TableBlocks));
        segment.Table = block * LbLimits.BlockBytes;

        BeforeStore($"backends at {segment.BackendBase}");
        planned.Backends.CopyTo(_maps.Backends.Write(segment.BackendBase, (uint)count));
        BeforeStore($"table at block {block}");
        var table = new ushort[segment.TableSize];
        if (ancestor is { } from)
            Maglev.Repaint(ReadTable(from.Segment), from.Places, count, table);
        else
            Maglev.Fill(planned.Backends, table);
        WriteTable(segment, table);
        return segment;
    }

    private ushort[] ReadTable(LbSegment segment)
    {
        var place = _maps.Arena.Bytes.Slice((int)segment.Table, segment.TableBytes);
        if ((segment.Flags & LbSegmentFlags.Wide) != 0)
            return MemoryMarshal.Cast<byte, ushort>(place).ToArray();
        var table = new ushort[place.Length];
        for (var i = 0; i < table.Length; i++)
            table[i] = place[i];
        return table;
    }

    private void WriteTable(LbSegment segment, ReadOnlySpan<ushort> table)
    {
        var place = MemoryMarshal.AsBytes(_maps.Arena.Write(segment.Table / LbLimits.BlockBytes, segment.TableBlocks))[..segment.TableBytes];
        if ((segment.Flags & LbSegmentFlags.Wide) != 0)
        {
            MemoryMarshal.AsBytes(table).CopyTo(place);
            return;
        }
        for (var i = 0; i < table.Length; i++)
            place[i] = (byte)table[i];
    }

    private uint WriteHeader(LbServiceInfo info, LbSegment[] segments, List<(RangeAllocator Owner, uint Start, uint Length)> fresh)
    {
        var length = HeaderBlocks(segments.Length);
        var header = Allocate(_blocks, length);
        fresh.Add((_blocks, header, length));
        BeforeStore($"header at block {header}");
        var place = MemoryMarshal.Cast<LbBlock, LbSegment>(_maps.Arena.Write(header, length));
        place.Clear();
        place[0] = Unsafe.BitCast<LbServiceInfo, LbSegment>(info);
        segments.CopyTo(place[1..]);
        return header;
    }

    private uint Allocate(RangeAllocator allocator, uint length)
    {
        if (allocator.TryAllocate(length) is { } start)
            return start;
        // Perhaps enough is only waiting for its grace period.
        _grace.Collect();
        return allocator.TryAllocate(length)
            ?? throw new DatapathException(
                $"map {allocator.Map} is full: {allocator.Used} of {allocator.Capacity} in use, {length} more in a row wanted")
            {
                FullMap = allocator.Map,
            };
    }

    private static bool SameInfo(LbServiceInfo left, LbServiceInfo right) =>
        MemoryMarshal.AsBytes(new ReadOnlySpan<LbServiceInfo>(in left)).SequenceEqual(MemoryMarshal.AsBytes(new ReadOnlySpan<LbServiceInfo>(in right)));

    private static bool SameBytes(LbBackend left, LbBackend right) => BytesOf(in left).SequenceEqual(BytesOf(in right));

    private static ReadOnlySpan<byte> BytesOf(in LbBackend backend) => MemoryMarshal.AsBytes(new ReadOnlySpan<LbBackend>(in backend));
}
