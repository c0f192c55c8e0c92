namespace Mesh.Datapath.LoadBalancing;

/// <summary>
/// Hands out runs of consecutive numbers (arena blocks, backend slots, service ids, node indexes): the smallest free run that
/// fits, lowest first, neighbours joined again when freed. It knows nothing of readers: who frees must first have waited for them.
/// Thread-safe.
/// </summary>
internal sealed class RangeAllocator
{
    private readonly Lock _lock = new();
    private readonly SortedSet<(uint Length, uint Start)> _byLength = [];
    private readonly SortedSet<(uint Start, uint Length)> _byStart = [];
    private readonly Action<uint, uint>? _clear;
    private uint _free;

    /// <param name="first">Lowest number given out.</param>
    /// <param name="end">One past the highest.</param>
    /// <param name="clear">Called for a run (start, length) that is about to become free, to wipe what it names.</param>
    internal RangeAllocator(string map, uint first, uint end, Action<uint, uint>? clear = null)
    {
        Map = map;
        Capacity = end - first;
        _clear = clear;
        Insert(first, end - first);
    }

    /// <summary>Map whose elements these are, for messages.</summary>
    internal string Map { get; }

    internal uint Capacity { get; }

    /// <summary>Numbers given out, those waiting for a grace period included.</summary>
    internal uint Used
    {
        get
        {
            lock (_lock)
                return Capacity - _free;
        }
    }

    /// <summary>Null when no free run is long enough.</summary>
    internal uint? TryAllocate(uint length)
    {
        ArgumentOutOfRangeException.ThrowIfZero(length);
        lock (_lock)
        {
            var fitting = _byLength.GetViewBetween((length, 0), (uint.MaxValue, uint.MaxValue)).Min;
            if (fitting.Length == 0)
                return null;
            Take(fitting.Start, fitting.Length);
            if (fitting.Length > length)
                Insert(fitting.Start + length, fitting.Length - length);
            return fitting.Start;
        }
    }

    /// <summary>Takes a given run out of the free ones, when adopting what the kernel holds. False when part of it is taken.</summary>
    internal bool TryReserve(uint start, uint length)
    {
        if (length == 0 || start > uint.MaxValue - length)
            return false;
        lock (_lock)
        {
            var run = _byStart.GetViewBetween((0, 0), (start, uint.MaxValue)).Max;
            if (run.Length == 0 || run.Start + run.Length < start + length)
                return false;
            Take(run.Start, run.Length);
            if (run.Start < start)
                Insert(run.Start, start - run.Start);
            if (run.Start + run.Length > start + length)
                Insert(start + length, run.Start + run.Length - start - length);
            return true;
        }
    }

    /// <summary>Wipes and frees.</summary>
    internal void Free(uint start, uint length)
    {
        lock (_lock)
        {
            _clear?.Invoke(start, length);
            Join(start, length);
        }
    }

    /// <summary>Undoes <see cref="TryReserve"/>: frees without wiping.</summary>
    internal void Unreserve(uint start, uint length)
    {
        lock (_lock)
            Join(start, length);
    }

    private void Join(uint start, uint length)
    {
        var before = _byStart.GetViewBetween((0, 0), (start, uint.MaxValue)).Max;
        var after = _byStart.GetViewBetween((start, 0), (uint.MaxValue, uint.MaxValue)).Min;
        if ((before.Length > 0 && before.Start + before.Length > start) || (after.Length > 0 && after.Start < start + length))
            throw new InvalidOperationException($"map {Map}: {start}+{length} is freed, but part of it is free already");
        if (before.Length > 0 && before.Start + before.Length == start)
        {
            Take(before.Start, before.Length);
            (start, length) = (before.Start, length + before.Length);
        }
        if (after.Length > 0 && after.Start == start + length)
        {
            Take(after.Start, after.Length);
            length += after.Length;
        }
        Insert(start, length);
    }

    private void Insert(uint start, uint length)
    {
        if (length == 0)
            return;
        _byLength.Add((length, start));
        _byStart.Add((start, length));
        _free += length;
    }

    private void Take(uint start, uint length)
    {
        _byLength.Remove((length, start));
        _byStart.Remove((start, length));
        _free -= length;
    }
}
