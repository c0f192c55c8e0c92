namespace Mesh.ClusterMesh.Door.Cache;

/// <summary>Whose answers these are: the fields of a response header besides the revision.</summary>
/// <param name="ClusterId">What the door advertises; changes whenever revisions begin anew (see Lineage).</param>
internal sealed record HeaderIds(ulong ClusterId, ulong MemberId, ulong RaftTerm);

/// <summary>Everything an answer is made of, taken at one instant.</summary>
internal readonly record struct CacheView(History History, HeaderIds Ids);

/// <summary>Somebody who follows the newest revision. Called on the follower's task: must not block.</summary>
internal interface IRevisionListener
{
    /// <summary>The revision changed a key of a range that the listener watches.</summary>
    void Concerned(long revision);

    /// <summary>Another history was published: what it holds was not told revision by revision.</summary>
    void Replaced();

    /// <summary>Time has passed.</summary>
    void Nudged();
}

/// <summary>
/// The cluster's etcd in memory: the current history and whom to wake when it grows. The revision readers see never decreases under
/// one cluster ID: a new history is published only when it has reached at least the revision of the old one, or together with another ID.
/// </summary>
internal sealed class WatchCache
{
    private sealed record State(History History, HeaderIds Ids);

    private readonly Lock _gate = new();
    private readonly List<(long Revision, TaskCompletionSource Reached)> _waiters = [];
    private State? _state;
    private readonly HashSet<IRevisionListener> _listeners = [];
    private readonly WatchIndex _index = new();
    private long _announced;

    /// <summary>Every revision up to here has been told to all whom it concerns, but for those of a history that was published whole.</summary>
    public long Announced => Volatile.Read(ref _announced);

    /// <summary>False until the first history is published: nothing can be answered before.</summary>
    public bool IsReady => Volatile.Read(ref _state) is not null;

    public CacheView View => Volatile.Read(ref _state) is { } state
        ? new CacheView(state.History, state.Ids)
        : throw new InvalidOperationException("the cache has no history yet");

    public void Publish(History history, HeaderIds ids)
    {
        var old = _state;
        if (old is not null && old.Ids.ClusterId == ids.ClusterId && history.Head.Revision < old.History.Head.Revision)
            throw new InvalidOperationException(
                $"revision would fall from {old.History.Head.Revision} to {history.Head.Revision} under cluster ID {ids.ClusterId:x}");
        Volatile.Write(ref _state, new State(history, ids));
        lock (_gate)
        {
            // Revisions may begin anew: what was told of the former history says nothing of this one.
            Volatile.Write(ref _announced, 0);
            foreach (var listener in _listeners)
                listener.Replaced();
        }
        Wake(history.Head.Revision);
    }

    /// <summary>Another member answers now, or another term began; the history goes on.</summary>
    public void Rename(HeaderIds ids)
    {
        if (_state is { } state && state.Ids != ids)
            Volatile.Write(ref _state, state with { Ids = ids });
    }

    /// <summary>Tells all whom it concerns about revisions that were just appended to the published history.</summary>
    public void Announce(params ReadOnlySpan<RevisionEntry> entries)
    {
        lock (_gate)
        {
            foreach (var entry in entries)
            {
                foreach (var change in entry.Events)
                    _index.Tell(change.Version.Key, entry.Revision);
            }
            Volatile.Write(ref _announced, entries[^1].Revision);
        }
        Wake(entries[^1].Revision);
    }

    /// <summary>Makes every listener look at the clock.</summary>
    public void Nudge()
    {
        lock (_gate)
        {
            foreach (var listener in _listeners)
                listener.Nudged();
        }
    }

    /// <summary>From now on the listener hears of revisions that change a key of the range.</summary>
    public void Add(IRevisionListener listener, KeyRange range)
    {
        lock (_gate)
            _index.Add(listener, range);
    }

    /// <param name="range">The very object that was added.</param>
    public void Remove(IRevisionListener listener, KeyRange range)
    {
        lock (_gate)
            _index.Remove(listener, range);
    }

    public void Add(IRevisionListener listener)
    {
        lock (_gate)
            _listeners.Add(listener);
    }

    public void Remove(IRevisionListener listener)
    {
        lock (_gate)
            _listeners.Remove(listener);
    }

    /// <summary>Completes when the published history holds the revision.</summary>
    public async Task WaitForAsync(long revision, CancellationToken cancellation)
    {
        TaskCompletionSource reached;
        lock (_gate)
        {
            if (_state is { } state && state.History.Head.Revision >= revision)
                return;
            reached = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            _waiters.Add((revision, reached));
        }
        try
        {
            await reached.Task.WaitAsync(cancellation);
        }
        finally
        {
            lock (_gate)
                _waiters.RemoveAll(waiter => waiter.Reached == reached);
        }
    }

    private void Wake(long revision)
    {
        lock (_gate)
        {
            foreach (var waiter in _waiters)
            {
                if (waiter.Revision <= revision)
                    waiter.Reached.TrySetResult();
            }
        }
    }
}
