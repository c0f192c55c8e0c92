namespace Mesh.KVStore;

/// <summary>A key as the store holds it. Keys are UTF-8 text; a key that is not is counted as rejected, never returned.</summary>
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

    /// <summary>How many keys are below the prefix now; much cheaper than listing them.</summary>
    Task<long> CountAsync(string prefix, CancellationToken cancellation);

    /// <summary>
    /// Lists the prefix, then follows it for ever. First ListStart, Put batches, ListEnd; then Put/Delete batches as they happen.
    /// Whenever continuity is lost (compaction, another etcd behind the address) it begins again at ListStart, and whatever the
    /// reader had and was not listed before the next ListEnd is gone. A second ListStart before a ListEnd discards the unfinished
    /// list. A mere disconnection is silent: it resumes where it was.
    /// Ends only by cancellation or with a <see cref="KVStoreException"/> that retrying cannot mend (permission denied).
    /// </summary>
    IAsyncEnumerable<WatchBatch> ListWatchAsync(string prefix, CancellationToken cancellation);

    /// <summary>
    /// Writes and deletes; a key appears at most once per call. All operations are durable when it returns. Many keys share one
    /// transaction and several transactions are in flight, so different keys of one large call may become visible in any order;
    /// a call within <see cref="WriteLimits"/> is one transaction: all or nothing, at one revision.
    /// </summary>
    /// <returns>The highest revision the call made; 0 when there was nothing to do.</returns>
    Task<long> WriteAsync(IReadOnlyList<WriteOperation> operations, CancellationToken cancellation);

    /// <summary>Deletes every key below the prefix.</summary>
    Task DeletePrefixAsync(string prefix, CancellationToken cancellation);

    /// <summary>Grants a lease and keeps it alive until it or the store is disposed.</summary>
    /// <param name="ttl">Whole seconds, at least one: how long the keys outlive a writer that died.</param>
    Task<KVLease> CreateLeaseAsync(TimeSpan ttl, CancellationToken cancellation);

    /// <summary>Takes over a lease that a predecessor left behind, and keeps it alive; null when it does not exist any more.</summary>
    Task<KVLease?> AdoptLeaseAsync(long id, TimeSpan ttl, CancellationToken cancellation);

    /// <summary>What `status` prints: whether the store answers, and its cluster ID.</summary>
    KVStoreStatus Status { get; }

    /// <summary>The part of <see cref="Status"/> that is asked for all the time.</summary>
    KVStoreHealth Health
    {
        get
        {
            var status = Status;
            return new(status.Connected, status.ClusterId, status.Error, status.ProofAge) { Tls = status.Tls };
        }
    }
}

/// <summary>See the fields of the same names of <see cref="KVStoreStatus"/>.</summary>
public readonly record struct KVStoreHealth(bool Connected, ulong ClusterId, string? Error, TimeSpan? ProofAge)
{
    /// <summary>The same object as long as nothing changed.</summary>
    public TlsStatus? Tls { get; init; }
}

/// <summary>What fits into one transaction. etcd's own bounds are 128 operations (--max-txn-ops) and 1.5 MiB
/// (--max-request-bytes).</summary>
public static class WriteLimits
{
    public const int MaxOperations = 128;

    /// <summary>Bytes of keys and values of one transaction; the rest of the 1.5 MiB is left to protobuf framing.</summary>
    public const int MaxBytes = 1024 * 1024;

    /// <summary>The longest value that can be written at all.</summary>
    public const int MaxValueBytes = 1536 * 1024 - 4096;
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
public readonly record struct WatchBatch(WatchBatchKind Kind, IReadOnlyList<KeyValue> Events, long Revision)
{
    /// <summary>Of ListEnd: the list comes from another history than what was read before, whatever the revisions say: the store was
    /// wiped, put back or exchanged.</summary>
    public bool OtherHistory { get; init; }

    /// <summary>Of the first keys of a long list: how many it will have, by the word of the store. 0 when that is not known.</summary>
    public long Expected { get; init; }
}

/// <param name="Connected">The last call or stream succeeded.</param>
/// <param name="ClusterId">etcd's own cluster ID from the response header; 0 until the first answer.</param>
/// <param name="Error">Why it is not connected; null when it is.</param>
public sealed record KVStoreStatus(bool Connected, ulong ClusterId, string Endpoint, string? Error)
{
    /// <summary>Keys skipped because they are not UTF-8.</summary>
    public long RejectedKeys { get; init; }

    /// <summary>Watches that went on after a disconnection without listing again.</summary>
    public long Resumptions { get; init; }

    /// <summary>Watches that had to begin again at ListStart.</summary>
    public long Relists { get; init; }

    /// <summary>Why the last relist was needed; null when there was none.</summary>
    public string? LastRelistReason { get; init; }

    /// <summary>Finished comparisons of a watch with the store; see EtcdOptions.AuditInterval.</summary>
    public long Audits { get; init; }

    /// <summary>The certificates in use; null without TLS.</summary>
    public TlsStatus? Tls { get; init; }

    /// <summary>Audits that found something lost, and made the watch list again.</summary>
    public long Repairs { get; init; }

    /// <summary>What kind of thing <see cref="Error"/> is, or what the store itself complains of while it answers.</summary>
    public StoreFault Fault { get; init; }

    /// <summary>It is a door of ours and not an etcd.</summary>
    public bool IsDoor { get; init; }

    /// <summary>Time since the store last gave a sign of life through its consensus; null when nobody asked yet, or when it needs no
    /// asking (in memory).</summary>
    public TimeSpan? ProofAge { get; init; }

    /// <summary>Why the last question for a sign of life went unanswered; null when it was answered.</summary>
    public string? ProofProblem { get; init; }

    /// <summary>What the store says is wrong with itself, in its own words.</summary>
    public string? Alarm { get; init; }

    /// <summary>How far the store's clock is ahead of ours, within a second; null when it does not tell the time.</summary>
    public TimeSpan? ClockSkew { get; init; }

    /// <summary>The watches that run.</summary>
    public IReadOnlyList<WatchStatus> Watches { get; init; } = [];
}

/// <summary>An operation that failed for good after its retries. The message names the endpoint and the cause.</summary>
public sealed class KVStoreException : Exception
{
    public KVStoreException(string message, bool permissionDenied = false, Exception? inner = null)
        : base(message, inner)
    {
        PermissionDenied = permissionDenied;
        Fault = permissionDenied ? StoreFault.AccessDenied : StoreFault.Other;
    }

    /// <summary>The store knows us but does not let us: retrying is of no use until somebody grants it.</summary>
    public bool PermissionDenied { get; }

    /// <summary>The store answered that this very request is impossible (a value too large): the same request fails again.</summary>
    public bool Refused { get; init; }

    /// <summary>Nothing was written, because the fence of the store has fallen: somebody else was elected.</summary>
    public bool Fenced { get; init; }

    public StoreFault Fault { get; init; }
}
