using System.Runtime.CompilerServices;
using Mesh.ClusterMesh.Imports;
using Mesh.ClusterMesh.Remote;
using Mesh.KVStore;
using Mesh.Model;
using Xunit;

namespace Mesh.ClusterMesh.Tests.Remote;

/// <summary>A RemoteCluster that runs until the test disposes of it.</summary>
internal sealed class Following : IAsyncDisposable
{
    private readonly CancellationTokenSource _stop = new();
    private readonly Task _run;

    public static RemoteClusterOptions Options { get; } = new()
    {
        LocalCluster = "local",
        LocalClusterId = 1,
        Numbering = IdentityNumbering.Max255,
        ReconnectBackoff = TimeSpan.FromMilliseconds(10),
        ReconnectBackoffMax = TimeSpan.FromMilliseconds(50),
        ConfigRefresh = TimeSpan.FromMilliseconds(50),
        DefaultImports = ImportPolicy.Default with
        {
            Breaker = new() { Settle = TimeSpan.FromMilliseconds(100), ConfirmAfter = TimeSpan.FromMilliseconds(300) },
        },
    };

    public Following(
        string cluster,
        Func<IKVStore> open,
        RecordingSink sink,
        ClusterIdReservations? reservations = null,
        RemoteClusterOptions? options = null,
        TimeProvider? time = null)
    {
        Cluster = new RemoteCluster(
            cluster, options ?? Options, reservations ?? new ClusterIdReservations(), sink, time ?? TimeProvider.System, new Random(1));
        _run = Cluster.RunAsync(open, _stop.Token);
    }

    public RemoteCluster Cluster { get; }

    public async Task StopAsync()
    {
        await _stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => _run);
    }

    public async ValueTask DisposeAsync()
    {
        if (!_run.IsCompleted)
            await StopAsync();
        _stop.Dispose();
    }
}

/// <summary>A connection of its own to a store that outlives it.</summary>
internal sealed class Borrowed(IKVStore store, bool oneByOne = false) : IKVStore
{
    private int _batches;

    /// <summary>Batches given to watchers so far.</summary>
    public int Batches => Volatile.Read(ref _batches);

    public KVStoreStatus Status => store.Status;

    public Task<KeyValue?> GetAsync(string key, CancellationToken cancellation) => store.GetAsync(key, cancellation);

    public Task<(IReadOnlyList<KeyValue> Items, long Revision)> ListAsync(string prefix, CancellationToken cancellation) =>
        store.ListAsync(prefix, cancellation);

    public Task<long> CountAsync(string prefix, CancellationToken cancellation) => store.CountAsync(prefix, cancellation);

    public async IAsyncEnumerable<WatchBatch> ListWatchAsync(string prefix, [EnumeratorCancellation] CancellationToken cancellation)
    {
        await foreach (var batch in store.ListWatchAsync(prefix, cancellation))
        {
            IEnumerable<WatchBatch> parts = oneByOne && batch.Events.Count > 1
                ? batch.Events.Select(item => batch with { Events = [item] })
                : [batch];
            foreach (var part in parts)
            {
                Interlocked.Increment(ref _batches);
                yield return part;
            }
        }
    }

    public Task<long> WriteAsync(IReadOnlyList<WriteOperation> operations, CancellationToken cancellation) =>
        store.WriteAsync(operations, cancellation);

    public Task DeletePrefixAsync(string prefix, CancellationToken cancellation) => store.DeletePrefixAsync(prefix, cancellation);

    public Task<KVLease> CreateLeaseAsync(TimeSpan ttl, CancellationToken cancellation) => store.CreateLeaseAsync(ttl, cancellation);

    public Task<KVLease?> AdoptLeaseAsync(long id, TimeSpan ttl, CancellationToken cancellation) =>
        store.AdoptLeaseAsync(id, ttl, cancellation);

    public ValueTask DisposeAsync() => ValueTask.CompletedTask;
}
