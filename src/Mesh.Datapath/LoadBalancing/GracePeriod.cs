using Mesh.Bpf;

namespace Mesh.Datapath.LoadBalancing;

/// <summary>
/// What has been unpublished but may still be under a running program's eyes. <see cref="Collect"/> waits once (8 to 10 ms) for all
/// of it and then gives it back to its allocators. It is called about once a second off the hot path, and by whoever finds an
/// allocator empty. Thread-safe.
/// </summary>
internal sealed class GracePeriod : IDisposable
{
    private readonly Lock _lock = new();
    private readonly RcuBarrier _barrier = new();
    private List<(RangeAllocator Owner, uint Start, uint Length)> _retired = [];

    /// <summary>Runs waiting.</summary>
    internal int Pending
    {
        get
        {
            lock (_lock)
                return _retired.Count;
        }
    }

    /// <summary>To be called after the store that made the run unreachable.</summary>
    internal void Retire(RangeAllocator owner, uint start, uint length)
    {
        lock (_lock)
            _retired.Add((owner, start, length));
    }

    /// <summary>Frees everything retired before the call.</summary>
    /// <returns>How many runs were freed.</returns>
    internal int Collect()
    {
        List<(RangeAllocator Owner, uint Start, uint Length)> collected;
        lock (_lock)
        {
            if (_retired.Count == 0)
                return 0;
            collected = _retired;
            _retired = [];
        }
        try
        {
            _barrier.Wait();
        }
        catch
        {
            lock (_lock)
                _retired.AddRange(collected);
            throw;
        }
        foreach (var (owner, start, length) in collected)
            owner.Free(start, length);
        return collected.Count;
    }

    public void Dispose() => _barrier.Dispose();
}
