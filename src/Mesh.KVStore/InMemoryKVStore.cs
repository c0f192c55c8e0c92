using System.Runtime.CompilerServices;

namespace Mesh.KVStore;

/// <summary>
/// The contract of <see cref="IKVStore"/> in memory: revisions, history, list-and-watch, leases, and the faults of a real store at
/// the flick of a switch. Real code, held to the same tests as EtcdKVStore; several readers and writers may share it.
/// </summary>
public sealed class InMemoryKVStore : IKVStore
{
    /// <summary>How many keys one Put batch of a list holds.</summary>
    private const int PageSize = 500;

    private readonly Lock _lock = new();
    private readonly SortedDictionary<string, KeyValue> _items = new(StringComparer.Ordinal);
    private readonly List<Change> _history = [];
    private readonly HashSet<InMemoryLease> _leases = [];
    private TaskCompletionSource _changed = NewSignal();
    private ulong _clusterId = 1;
    private long _revision = 1;
    private long _compacted;
    private long _nextLease = 1000;
    private bool _disconnected;
    private string? _denied;
    private int _failWrites;
    private long _relists;
    private long _resumptions;

    private readonly record struct Change(bool Deleted, KeyValue Item);

    public KVStoreStatus Status
    {
        get
        {
            lock (_lock)
            {
                return new(!_disconnected, _clusterId, "memory", _disconnected ? "disconnected" : null)
                {
                    Relists = _relists,
                    Resumptions = _resumptions,
                };
            }
        }
    }

    /// <summary>Transactions applied so far: what a test of conflation or of "written only when changed" counts.</summary>
    public long Revision
    {
        get
        {
            lock (_lock)
                return _revision;
        }
    }

    public Task<KeyValue?> GetAsync(string key, CancellationToken cancellation) =>
        Answer<KeyValue?>(key, () => _items.TryGetValue(key, out var item) ? item : null, cancellation);

    public Task<(IReadOnlyList<KeyValue> Items, long Revision)> ListAsync(string prefix, CancellationToken cancellation) =>
        Answer<(IReadOnlyList<KeyValue>, long)>(prefix, () => (Below(prefix), _revision), cancellation);

    public Task<long> CountAsync(string prefix, CancellationToken cancellation) =>
        Answer(prefix, () => (long)Below(prefix).Count, cancellation);

    public async IAsyncEnumerable<WatchBatch> ListWatchAsync(
        string prefix, [EnumeratorCancellation] CancellationToken cancellation)
    {
        for (var first = true; ; first = false)
        {
            yield return new WatchBatch(WatchBatchKind.ListStart, [], 0);
            var (items, next, cluster) = await StartAsync(prefix, first, cancellation).ConfigureAwait(false);
            foreach (var page in items.Chunk(PageSize))
                yield return new WatchBatch(WatchBatchKind.Put, page, next - 1);
            yield return new WatchBatch(WatchBatchKind.ListEnd, [], next - 1);
            while (true)
            {
                var (batches, reached) = await FollowAsync(prefix, next, cluster, cancellation).ConfigureAwait(false);
                if (batches is null)
                    break;
                next = reached;
                foreach (var batch in batches)
                    yield return batch;
            }
        }
    }

    public Task<long> WriteAsync(IReadOnlyList<WriteOperation> operations, CancellationToken cancellation) =>
        Answer(operations.Count > 0 ? operations[0].Key : "", () =>
        {
            if (_failWrites > 0)
            {
                _failWrites--;
                throw new KVStoreException($"memory: write {operations[0].Key}: made to fail");
            }
            foreach (var operation in operations)
            {
                if (operation.Value is { Length: > WriteLimits.MaxValueBytes } value)
                {
                    throw new KVStoreException($"the value of {operation.Key} has {value.Length} bytes: nothing was written")
                    {
                        Refused = true,
                    };
                }
            }
            return operations.Count == 0 ? 0 : Apply(operations);
        }, cancellation);

    public Task DeletePrefixAsync(string prefix, CancellationToken cancellation) =>
        Answer(prefix, () => Apply([.. Below(prefix).Select(item => new WriteOperation(item.Key, null))]), cancellation);

    public Task<KVLease> CreateLeaseAsync(TimeSpan ttl, CancellationToken cancellation) =>
        Answer<KVLease>("", () =>
        {
            var lease = new InMemoryLease(this, ttl);
            lease.Grant(_nextLease++);
            _leases.Add(lease);
            return lease;
        }, cancellation);

    public Task<KVLease?> AdoptLeaseAsync(long id, TimeSpan ttl, CancellationToken cancellation) =>
        Answer<KVLease?>("", () => _leases.FirstOrDefault(l => l.Id == id && l.Ttl == ttl), cancellation);

    /// <summary>Every call fails and every watch hangs until <see cref="Connect"/>; then the watches resume.</summary>
    public void Disconnect()
    {
        lock (_lock)
            _disconnected = true;
        Wake();
    }

    public void Connect()
    {
        lock (_lock)
        {
            _disconnected = false;
            _resumptions++;
        }
        Wake();
    }

    /// <summary>Forgets the history: a watch that has not read up to here (because it is disconnected) lists again.</summary>
    public void Compact()
    {
        lock (_lock)
        {
            _history.Clear();
            _compacted = _revision;
        }
        Wake();
    }

    /// <summary>The store comes back empty, as another cluster, with the leases gone.</summary>
    public void Wipe()
    {
        lock (_lock)
        {
            _items.Clear();
            _history.Clear();
            _clusterId++;
            _revision = 1;
            _compacted = 0;
            foreach (var lease in _leases)
                lease.Grant(_nextLease++);
        }
        Wake();
    }

    /// <summary>All leases expire at once: their keys vanish, their owners get new ones.</summary>
    public void ExpireLeases()
    {
        lock (_lock)
        {
            foreach (var lease in _leases)
            {
                Apply(KeysOf(lease.Id));
                lease.Grant(_nextLease++);
            }
        }
        Wake();
    }

    /// <summary>Calls about keys below this prefix are refused; null allows all.</summary>
    public void Deny(string? prefix)
    {
        lock (_lock)
            _denied = prefix;
        Wake();
    }

    /// <summary>The next so many calls of WriteAsync fail.</summary>
    public void FailWrites(int count)
    {
        lock (_lock)
            _failWrites = count;
    }

    public ValueTask DisposeAsync() => ValueTask.CompletedTask;

    internal void Revoke(InMemoryLease lease)
    {
        lock (_lock)
        {
            if (_leases.Remove(lease))
                Apply(KeysOf(lease.Id));
        }
    }

    private Task<T> Answer<T>(string key, Func<T> act, CancellationToken cancellation)
    {
        if (cancellation.IsCancellationRequested)
            return Task.FromCanceled<T>(cancellation);
        try
        {
            lock (_lock)
            {
                if (_disconnected)
                    throw new KVStoreException("memory: disconnected");
                ThrowIfDenied_NeedsLock(key);
                return Task.FromResult(act());
            }
        }
        catch (KVStoreException e)
        {
            return Task.FromException<T>(e);
        }
    }

    private async Task<(IReadOnlyList<KeyValue> Items, long Next, ulong Cluster)> StartAsync(
        string prefix, bool first, CancellationToken cancellation)
    {
        while (true)
        {
            Task changed;
            lock (_lock)
            {
                ThrowIfDenied_NeedsLock(prefix);
                if (!_disconnected)
                {
                    if (!first)
                        _relists++;
                    return (Below(prefix), _revision + 1, _clusterId);
                }
                changed = _changed.Task;
            }
            await changed.WaitAsync(cancellation).ConfigureAwait(false);
        }
    }

    /// <summary>The changes from a revision on, once there are any; null when the reader must list again.</summary>
    private async Task<(List<WatchBatch>? Batches, long Next)> FollowAsync(
        string prefix, long next, ulong cluster, CancellationToken cancellation)
    {
        while (true)
        {
            cancellation.ThrowIfCancellationRequested();
            Task changed;
            lock (_lock)
            {
                ThrowIfDenied_NeedsLock(prefix);
                if (!_disconnected)
                {
                    if (cluster != _clusterId || next <= _compacted || next > _revision + 1)
                        return (null, 0);
                    if (Since_NeedsLock(prefix, next) is { Count: > 0 } batches)
                        return (batches, _revision + 1);
                    next = _revision + 1;
                }
                changed = _changed.Task;
            }
            await changed.WaitAsync(cancellation).ConfigureAwait(false);
        }
    }

    private List<WatchBatch> Since_NeedsLock(string prefix, long next)
    {
        var batches = new List<WatchBatch>();
        var from = _history.FindIndex(c => c.Item.ModRevision >= next);
        var run = new List<KeyValue>();
        for (var i = from < 0 ? _history.Count : from; i < _history.Count; i++)
        {
            var change = _history[i];
            if (!change.Item.Key.StartsWith(prefix, StringComparison.Ordinal))
                continue;
            var kind = change.Deleted ? WatchBatchKind.Delete : WatchBatchKind.Put;
            if (batches.Count == 0 || batches[^1].Kind != kind)
            {
                run = [];
                batches.Add(new WatchBatch(kind, run, 0));
            }
            run.Add(change.Item);
            batches[^1] = batches[^1] with { Revision = change.Item.ModRevision };
        }
        return batches;
    }

    private long Apply(IReadOnlyList<WriteOperation> operations)
    {
        lock (_lock)
        {
            var revision = _revision + 1;
            var before = _history.Count;
            foreach (var operation in operations)
            {
                var known = _items.TryGetValue(operation.Key, out var old);
                if (operation.Value is { } value)
                {
                    // A copy: the writer may use its buffer again.
                    var item = new KeyValue(operation.Key, value.ToArray(), known ? old.CreateRevision : revision, revision,
                        operation.Lease?.Id ?? 0);
                    _items[operation.Key] = item;
                    _history.Add(new Change(false, item));
                }
                else if (known)
                {
                    _items.Remove(operation.Key);
                    _history.Add(new Change(true, new KeyValue(operation.Key, default, 0, revision, 0)));
                }
            }
            if (_history.Count > before)
                _revision = revision;
        }
        Wake();
        return Revision;
    }

    private List<WriteOperation> KeysOf(long lease) =>
        [.. _items.Values.Where(item => item.Lease == lease).Select(item => new WriteOperation(item.Key, null))];

    private List<KeyValue> Below(string prefix) =>
        [.. _items.Values.Where(item => item.Key.StartsWith(prefix, StringComparison.Ordinal))];

    private void ThrowIfDenied_NeedsLock(string key)
    {
        if (_denied is not null && key.StartsWith(_denied, StringComparison.Ordinal))
            throw new KVStoreException($"memory: {key}: permission denied", permissionDenied: true);
    }

    private void Wake()
    {
        TaskCompletionSource changed;
        lock (_lock)
        {
            changed = _changed;
            _changed = NewSignal();
        }
        changed.TrySetResult();
    }

    private static TaskCompletionSource NewSignal() => new(TaskCreationOptions.RunContinuationsAsynchronously);

    internal sealed class InMemoryLease(InMemoryKVStore store, TimeSpan ttl) : KVLease
    {
        public override TimeSpan Ttl => ttl;

        public override string? Error => null;

        public void Grant(long id) => Granted(id);

        /// <summary>The store itself grants anew in the moment it loses one: there is nothing to ask.</summary>
        public override void ReportLost(long id)
        {
        }

        public override Task RevokeAsync()
        {
            store.Revoke(this);
            return Task.CompletedTask;
        }

        public override ValueTask DisposeAsync() => ValueTask.CompletedTask;
    }
}
