namespace Mesh.KVStore;

/// <summary>
/// A lease kept alive by its owner. When it is lost it is granted anew under another ID and <see cref="Epoch"/> grows:
/// keys written under the old one are gone, and whoever owns them writes them again. Owners await
/// <see cref="WaitForEpochChangeAsync"/>; any number may.
/// </summary>
public abstract class KVLease : IAsyncDisposable
{
    private readonly Lock _lock = new();
    private TaskCompletionSource _changed = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private long _id;
    private long _epoch;

    /// <summary>etcd's lease ID at present; 0 before the first grant.</summary>
    public long Id => Volatile.Read(ref _id);

    /// <summary>Grows by one with each grant; 1 for the first.</summary>
    public long Epoch => Volatile.Read(ref _epoch);

    /// <summary>How long the keys outlive a writer that died.</summary>
    public abstract TimeSpan Ttl { get; }

    /// <summary>Why the lease could not be kept alive at the last attempt; null when it could.</summary>
    public abstract string? Error { get; }

    /// <summary>Completes once <see cref="Epoch"/> is above the one the caller has seen.</summary>
    /// <returns>The new epoch.</returns>
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

    /// <summary>A writer learnt from the store that the lease with this ID does not exist: do not wait for the next keepalive.</summary>
    public abstract void ReportLost(long id);

    /// <summary>Ends the lease at once: its keys vanish. Disposes it.</summary>
    public abstract Task RevokeAsync();

    /// <summary>Stops keeping the lease alive: its keys stay until the TTL is over, so that a successor can take them over.</summary>
    public abstract ValueTask DisposeAsync();

    /// <summary>Publishes a new grant and wakes whoever waits for it.</summary>
    protected void Granted(long id)
    {
        TaskCompletionSource changed;
        lock (_lock)
        {
            _id = id;
            _epoch++;
            changed = _changed;
            _changed = new(TaskCreationOptions.RunContinuationsAsynchronously);
        }
        changed.SetResult();
    }
}
