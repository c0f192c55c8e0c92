namespace Mesh.KVStore.Tests;

/// <summary>Acknowledges writes that it then does not hold: what an etcd is that crashed before its disk did what it said.</summary>
internal sealed class ForgetfulStore(InMemoryKVStore store) : IKVStore
{
    private int _forget;

    /// <summary>So many writes are forgotten from now on.</summary>
    public int Forget
    {
        get => Volatile.Read(ref _forget);
        set => Volatile.Write(ref _forget, value);
    }

    public KVStoreStatus Status => store.Status;

    public Task<KeyValue?> GetAsync(string key, CancellationToken cancellation) => store.GetAsync(key, cancellation);

    public Task<(IReadOnlyList<KeyValue> Items, long Revision)> ListAsync(string prefix, CancellationToken cancellation) =>
        store.ListAsync(prefix, cancellation);

    public Task<long> CountAsync(string prefix, CancellationToken cancellation) => store.CountAsync(prefix, cancellation);

    public IAsyncEnumerable<WatchBatch> ListWatchAsync(string prefix, CancellationToken cancellation) =>
        store.ListWatchAsync(prefix, cancellation);

    public Task<long> WriteAsync(IReadOnlyList<WriteOperation> operations, CancellationToken cancellation) =>
        Interlocked.Decrement(ref _forget) >= 0 ? Task.FromResult(store.Revision + 1) : Remember(operations, cancellation);

    public Task DeletePrefixAsync(string prefix, CancellationToken cancellation) => store.DeletePrefixAsync(prefix, cancellation);

    public Task<KVLease> CreateLeaseAsync(TimeSpan ttl, CancellationToken cancellation) => store.CreateLeaseAsync(ttl, cancellation);

    public Task<KVLease?> AdoptLeaseAsync(long id, TimeSpan ttl, CancellationToken cancellation) =>
        store.AdoptLeaseAsync(id, ttl, cancellation);

    public ValueTask DisposeAsync() => store.DisposeAsync();

    private Task<long> Remember(IReadOnlyList<WriteOperation> operations, CancellationToken cancellation)
    {
        Interlocked.Exchange(ref _forget, 0);
        return store.WriteAsync(operations, cancellation);
    }
}
