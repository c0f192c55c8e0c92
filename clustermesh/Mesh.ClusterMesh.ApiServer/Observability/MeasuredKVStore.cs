using Mesh.KVStore;

namespace Mesh.ClusterMesh.ApiServer.Observability;

/// <summary>A store whose calls are timed for the metrics page; otherwise the store itself, which it owns.</summary>
internal sealed class MeasuredKVStore(IKVStore store, ServerMetrics metrics, TimeProvider time) : IKVStore
{
    public KVStoreStatus Status => store.Status;

    public Task<KeyValue?> GetAsync(string key, CancellationToken cancellation) =>
        Timed("Get", "read", key, () => store.GetAsync(key, cancellation));

    public Task<(IReadOnlyList<KeyValue> Items, long Revision)> ListAsync(string prefix, CancellationToken cancellation) =>
        Timed("ListPrefix", "read", prefix, () => store.ListAsync(prefix, cancellation));

    public Task<long> CountAsync(string prefix, CancellationToken cancellation) =>
        Timed("ListPrefix", "read", prefix, () => store.CountAsync(prefix, cancellation));

    public IAsyncEnumerable<WatchBatch> ListWatchAsync(string prefix, CancellationToken cancellation) =>
        store.ListWatchAsync(prefix, cancellation);

    /// <summary>One observation per call, whatever the number of keys; the first key names the scope.</summary>
    public Task<long> WriteAsync(IReadOnlyList<WriteOperation> operations, CancellationToken cancellation) => operations.Count == 0
        ? store.WriteAsync(operations, cancellation)
        : Timed(operations[0].Value is null ? "Delete" : "Update", operations[0].Value is null ? "delete" : "set", operations[0].Key,
            () => store.WriteAsync(operations, cancellation));

    public Task DeletePrefixAsync(string prefix, CancellationToken cancellation) =>
        Timed("DeletePrefix", "delete", prefix, async () =>
        {
            await store.DeletePrefixAsync(prefix, cancellation);
            return true;
        });

    public Task<KVLease> CreateLeaseAsync(TimeSpan ttl, CancellationToken cancellation) => store.CreateLeaseAsync(ttl, cancellation);

    public Task<KVLease?> AdoptLeaseAsync(long id, TimeSpan ttl, CancellationToken cancellation) =>
        store.AdoptLeaseAsync(id, ttl, cancellation);

    public ValueTask DisposeAsync() => store.DisposeAsync();

    private async Task<T> Timed<T>(string action, string kind, string key, Func<Task<T>> call)
    {
        var began = time.GetTimestamp();
        var outcome = "fail";
        try
        {
            var result = await call();
            outcome = "success";
            return result;
        }
        finally
        {
            metrics.Observe(action, kind, outcome, Scope(key), time.GetElapsedTime(began));
        }
    }

    /// <summary>The label that dashboards know: third and fourth segment of a long key (nodes/v1), the first 12 characters of others.</summary>
    internal static string Scope(string key)
    {
        var segments = key.Split('/');
        return segments.Length >= 5 ? $"{segments[2]}/{segments[3]}" : key.Length > 12 ? key[..12] : key;
    }
}
