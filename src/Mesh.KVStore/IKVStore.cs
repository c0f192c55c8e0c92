namespace Mesh.KVStore;

/// <summary>A key as the store holds it. Keys are UTF-8 text; a key that is not is reported as rejected, never returned.</summary>
public readonly record struct KeyValue(string Key, ReadOnlyMemory<byte> Value, long CreateRevision, long ModRevision, long Lease);

/// <summary>
/// The part of etcd the mesh uses. Two real implementations: EtcdKVStore and InMemoryKVStore.
/// Failures are <see cref="KVStoreException"/>; cancellation is OperationCanceledException.
/// </summary>
public interface IKVStore : IAsyncDisposable
{
    /// <summary>Null when the key is absent.</summary>
    Task<KeyValue?> GetAsync(string key, CancellationToken cancellation);

    /// <summary>All keys below the prefix at one revision, in key order.</summary>
    Task<(IReadOnlyList<KeyValue> Items, long Revision)> ListAsync(string prefix, CancellationToken cancellation);

    /// <summary>
    /// Lists the prefix, then follows it for ever. First ListStart, Put batches, ListEnd; then Put/Delete batches as they happen.
    /// Whenever continuity is lost (compaction, another etcd behind the address) it begins again at ListStart, and whatever the
    /// reader had and was not listed before the next ListEnd is gone. A mere disconnection is silent: it resumes where it was.
    /// Ends only by cancellation or with a <see cref="KVStoreException"/> that retrying cannot mend (permission denied).
    /// </summary>
    IAsyncEnumerable<WatchBatch> ListWatchAsync(string prefix, CancellationToken cancellation);

    /// <summary>Applies the operations in order. Many keys share one transaction; a key appears at most once per call.
    /// All operations of the call are durable when it returns.</summary>
    Task WriteAsync(IReadOnlyList<WriteOperation> operations, CancellationToken cancellation);

    /// <summary>Deletes every key below the prefix.</summary>
    Task DeletePrefixAsync(string prefix, CancellationToken cancellation);

    /// <summary>What `status` prints: whether the store answers, and its cluster ID.</summary>
    KVStoreStatus Status { get; }
}

/// <param name="Value">Null deletes the key.</param>
/// <param name="Lease">The lease the key lives on, or null for a key that outlives its writer.</param>
public readonly record struct WriteOperation(string Key, ReadOnlyMemory<byte>? Value, KVLease? Lease = null);

public enum WatchBatchKind
{
    ListStart,
    Put,
    Delete,
    ListEnd,
}

/// <summary>Events of one kind, in order. Events is empty for ListStart and ListEnd; a deleted key has an empty value.</summary>
/// <param name="Revision">Store revision the batch brings the reader to.</param>
public readonly record struct WatchBatch(WatchBatchKind Kind, IReadOnlyList<KeyValue> Events, long Revision);

/// <param name="Connected">The last call or stream succeeded.</param>
/// <param name="ClusterId">etcd's own cluster ID from the response header; 0 until the first answer.</param>
/// <param name="Error">Why it is not connected; null when it is.</param>
public sealed record KVStoreStatus(bool Connected, ulong ClusterId, string Endpoint, string? Error);

/// <summary>An operation that failed for good after its retries. The message names the endpoint and the cause.</summary>
public sealed class KVStoreException : Exception
{
    public KVStoreException(string message, bool permissionDenied = false, Exception? inner = null)
        : base(message, inner) => PermissionDenied = permissionDenied;

    /// <summary>The store knows us but does not let us: retrying is of no use until somebody grants it.</summary>
    public bool PermissionDenied { get; }
}
