namespace Mesh.KVStore;

/// <summary>
/// Leases for many keys: at most <see cref="KeysPerLease"/> keys share one, because etcd deletes the keys of a lost lease in one
/// transaction. <see cref="Epoch"/> grows whenever any of them was lost and granted anew.
/// </summary>
public sealed class LeasePool : IAsyncDisposable
{
    public const int KeysPerLease = 1000;

    private readonly IKVStore _store;
    private readonly TimeSpan _ttl;
    private readonly CancellationTokenSource _stop = new();
    private readonly SemaphoreSlim _granting = new(1);
    private readonly Lock _lock = new();
    private readonly List<Slot> _slots = [];
    private TaskCompletionSource _changed = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private long _epoch;
    private int _disposed;

    /// <param name="ttl">How long keys outlive their writer: 15 minutes in Cilium, 25 seconds to 24 hours allowed there.</param>
    public LeasePool(IKVStore store, TimeSpan ttl)
    {
        _store = store;
        _ttl = ttl;
    }

    /// <summary>Losses so far.</summary>
    public long Epoch => Volatile.Read(ref _epoch);

    /// <summary>A lease with room for one more key; the caller gives the room back with <see cref="Release"/>.</summary>
    public async Task<KVLease> AcquireAsync(CancellationToken cancellation)
    {
        if (Take() is { } lease)
            return lease;
        await _granting.WaitAsync(cancellation).ConfigureAwait(false);
        try
        {
            if (Take() is { } granted)
                return granted;
            var fresh = await _store.CreateLeaseAsync(_ttl, cancellation).ConfigureAwait(false);
            lock (_lock)
                _slots.Add(new Slot(fresh) { Keys = 1, Watch = WatchAsync(fresh) });
            return fresh;
        }
        finally
        {
            _granting.Release();
        }
    }

    /// <summary>Takes over a predecessor's lease, with this many keys on it that we want to keep; null when it is gone. The keys
    /// then need not be written again.</summary>
    public async Task<KVLease?> AdoptAsync(long id, int keys, CancellationToken cancellation)
    {
        await _granting.WaitAsync(cancellation).ConfigureAwait(false);
        try
        {
            lock (_lock)
            {
                if (_slots.Find(s => s.Lease.Id == id) is { } known)
                {
                    known.Keys += keys;
                    return known.Lease;
                }
            }
            var lease = await _store.AdoptLeaseAsync(id, _ttl, cancellation).ConfigureAwait(false);
            if (lease is null)
                return null;
            lock (_lock)
                _slots.Add(new Slot(lease) { Keys = keys, Watch = WatchAsync(lease) });
            return lease;
        }
        finally
        {
            _granting.Release();
        }
    }

    public void Release(KVLease lease)
    {
        lock (_lock)
        {
            foreach (var slot in _slots)
            {
                if (slot.Lease == lease)
                    slot.Keys--;
            }
        }
    }

    /// <summary>Completes once <see cref="Epoch"/> is above the one the caller has seen; returns the new one.</summary>
    public async Task<long> WaitForEpochChangeAsync(long seen, CancellationToken cancellation)
    {
        while (true)
        {
            Task changed;
            lock (_lock)
            {
                if (_epoch > seen)
                    return _epoch;
                changed = _changed.Task;
            }
            await changed.WaitAsync(cancellation).ConfigureAwait(false);
        }
    }

    /// <summary>Stops keeping the leases alive; their keys stay until the TTL is over.</summary>
    public async ValueTask DisposeAsync()
    {
        if (Interlocked.Exchange(ref _disposed, 1) != 0)
            return;
        await _stop.CancelAsync().ConfigureAwait(false);
        Slot[] slots;
        lock (_lock)
            slots = [.. _slots];
        foreach (var slot in slots)
        {
            await slot.Watch.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            await slot.Lease.DisposeAsync().ConfigureAwait(false);
        }
        _stop.Dispose();
        _granting.Dispose();
    }

    private KVLease? Take()
    {
        lock (_lock)
        {
            var slot = _slots.Find(s => s.Keys < KeysPerLease);
            if (slot is null)
                return null;
            slot.Keys++;
            return slot.Lease;
        }
    }

    private async Task WatchAsync(KVLease lease)
    {
        for (var seen = lease.Epoch; ;)
        {
            seen = await lease.WaitForEpochChangeAsync(seen, _stop.Token).ConfigureAwait(false);
            TaskCompletionSource changed;
            lock (_lock)
            {
                _epoch++;
                changed = _changed;
                _changed = new(TaskCreationOptions.RunContinuationsAsynchronously);
            }
            changed.SetResult();
        }
    }

    private sealed class Slot(KVLease lease)
    {
        public KVLease Lease { get; } = lease;

        public int Keys { get; set; }

        public required Task Watch { get; init; }
    }
}
