namespace Mesh.StateDB;

/// <summary>A changed row; <see cref="Row"/> is null for a deleted one.</summary>
public readonly record struct Change<TKey, TRow>(TKey Key, TRow? Row, long Revision)
    where TRow : class;

/// <summary>
/// What has changed in a table since it was last asked, at most one change per key: a slow reader gets the newest row and never
/// holds up a writer. Its size is bounded by the number of distinct keys changed meanwhile.
/// </summary>
public sealed class ChangeFeed<TKey, TRow> : IDisposable
    where TKey : notnull
    where TRow : class
{
    private readonly Lock _lock = new();
    private readonly Action<ChangeFeed<TKey, TRow>> _unsubscribe;
    private readonly SemaphoreSlim _ready = new(0, 1);
    private Dictionary<TKey, Change<TKey, TRow>> _changes = [];

    internal ChangeFeed(Action<ChangeFeed<TKey, TRow>> unsubscribe) => _unsubscribe = unsubscribe;

    /// <summary>Waits until something has changed or the timeout is over. False on timeout.</summary>
    public Task<bool> WaitAsync(TimeSpan timeout, CancellationToken cancellation) => _ready.WaitAsync(timeout, cancellation);

    /// <summary>Takes all changes noted so far; empty when there are none.</summary>
    public IReadOnlyCollection<Change<TKey, TRow>> Take()
    {
        lock (_lock)
        {
            if (_changes.Count == 0)
                return [];
            var taken = _changes;
            _changes = [];
            return taken.Values;
        }
    }

    public void Dispose()
    {
        _unsubscribe(this);
        _ready.Dispose();
    }

    internal void Note(TKey key, TRow? row, long revision)
    {
        lock (_lock)
            _changes[key] = new Change<TKey, TRow>(key, row, revision);
    }

    internal void Signal()
    {
        try
        {
            if (_ready.CurrentCount == 0)
                _ready.Release();
        }
        catch (SemaphoreFullException)
        {
            // Already signalled: the reader has not looked yet, which is all that the signal says.
        }
        catch (ObjectDisposedException)
        {
            // The reader left between the commit and the signal.
        }
    }
}
