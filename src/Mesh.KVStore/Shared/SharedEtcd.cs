using System.Runtime.CompilerServices;

namespace Mesh.KVStore;

/// <summary>One server as several readers share it: the store, and the watches that serve all of them.</summary>
internal sealed class SharedEtcd(EtcdKVStore store, Func<string, string?> wider) : IAsyncDisposable
{
    private readonly Lock _lock = new();
    private readonly Dictionary<string, SharedWatch> _watches = new(StringComparer.Ordinal);
    private readonly HashSet<string> _denied = new(StringComparer.Ordinal);
    private int _readers;

    public EtcdKVStore Store => store;

    /// <summary>Stores that are open now.</summary>
    public int Readers
    {
        get => Volatile.Read(ref _readers);
        set => Volatile.Write(ref _readers, value);
    }

    /// <summary>As <see cref="IKVStore.ListWatchAsync"/>.</summary>
    /// <param name="watches">Has the watch that serves in it, shared or its own.</param>
    public async IAsyncEnumerable<WatchBatch> ListWatchAsync(
        string prefix, SharedWatches watches, [EnumeratorCancellation] CancellationToken cancellation)
    {
        // A single reader is better off with exactly what it asked for.
        if (Readers > 1 && WatchOf(prefix) is { } shared)
        {
            using var reading = watches.Begin(prefix, shared);
            await using var batches = shared.ReadAsync(prefix, reading, cancellation).GetAsyncEnumerator(cancellation);
            while (true)
            {
                try
                {
                    if (!await batches.MoveNextAsync().ConfigureAwait(false))
                        yield break;
                }
                catch (KVStoreException e) when (e.PermissionDenied)
                {
                    // Not all of it: maybe each its own.
                    Deny(shared);
                    break;
                }
                yield return batches.Current;
            }
        }
        using var own = watches.BeginOwn(prefix);
        await foreach (var batch in store.ListWatchAsync(prefix, cancellation).ConfigureAwait(false))
            yield return batch;
    }

    public async ValueTask DisposeAsync()
    {
        SharedWatch[] watches;
        lock (_lock)
            watches = [.. _watches.Values];
        foreach (var watch in watches)
            await watch.DisposeAsync().ConfigureAwait(false);
        await store.DisposeAsync().ConfigureAwait(false);
    }

    private SharedWatch? WatchOf(string prefix)
    {
        if (wider(prefix) is not { } wide)
            return null;
        lock (_lock)
        {
            if (_denied.Contains(wide))
                return null;
            // One that has ended holds nothing any more.
            if (!_watches.TryGetValue(wide, out var watch) || watch.HasEnded)
                _watches[wide] = watch = new SharedWatch(store, wide);
            return watch;
        }
    }

    private void Deny(SharedWatch watch)
    {
        lock (_lock)
            _denied.Add(watch.Status.Prefix);
    }
}

/// <summary>What one reader has open of a shared server.</summary>
internal sealed class SharedReader(SharedEtcd server, Func<ValueTask> leave) : IKVStore
{
    private readonly SharedWatches _watches = new();
    private int _left;

    public KVStoreStatus Status => server.Store.StatusWith(_watches.StatusBeside(server.Store.Status.Watches));

    public KVStoreHealth Health => server.Store.Health;

    public Task<KeyValue?> GetAsync(string key, CancellationToken cancellation) => server.Store.GetAsync(key, cancellation);

    public Task<(IReadOnlyList<KeyValue> Items, long Revision)> ListAsync(string prefix, CancellationToken cancellation) =>
        server.Store.ListAsync(prefix, cancellation);

    public Task<long> CountAsync(string prefix, CancellationToken cancellation) => server.Store.CountAsync(prefix, cancellation);

    public IAsyncEnumerable<WatchBatch> ListWatchAsync(string prefix, CancellationToken cancellation) =>
        server.ListWatchAsync(prefix, _watches, cancellation);

    public Task<long> WriteAsync(IReadOnlyList<WriteOperation> operations, CancellationToken cancellation) =>
        server.Store.WriteAsync(operations, cancellation);

    public Task DeletePrefixAsync(string prefix, CancellationToken cancellation) => server.Store.DeletePrefixAsync(prefix, cancellation);

    public Task<KVLease> CreateLeaseAsync(TimeSpan ttl, CancellationToken cancellation) => server.Store.CreateLeaseAsync(ttl, cancellation);

    public Task<KVLease?> AdoptLeaseAsync(long id, TimeSpan ttl, CancellationToken cancellation) =>
        server.Store.AdoptLeaseAsync(id, ttl, cancellation);

    public ValueTask DisposeAsync() => Interlocked.Exchange(ref _left, 1) == 0 ? leave() : ValueTask.CompletedTask;
}
