using Etcdserverpb;
using Google.Protobuf;
using Grpc.Core;

namespace Mesh.KVStore;

/// <summary>
/// etcd as the mesh uses it, over etcd's generated gRPC stubs: lists paged at one revision, watches that lose nothing, leases that
/// come back, transactions of many keys. No rate limiter: batches are what keeps etcd's load down.
/// </summary>
public sealed class EtcdKVStore : IKVStore
{
    /// <summary>Transactions of one call in flight at a time; etcd merges them into few disk syncs.</summary>
    private const int TransactionsInFlight = 8;

    private readonly EtcdClient _client;
    private readonly WriteFence? _fence;
    private readonly EtcdCounters _counters;
    private readonly EtcdAudits _audits;
    private readonly Lock _lock = new();
    private readonly HashSet<EtcdLease> _leases = [];
    private readonly CancellationTokenSource _stop = new();
    private EtcdLiveness? _liveness;
    private Task _proving = Task.CompletedTask;

    /// <exception cref="ArgumentException">The options are impossible; the message names each fault.</exception>
    public EtcdKVStore(EtcdOptions options, TimeProvider? time = null, Random? random = null)
    {
        _client = new EtcdClient(options, time ?? TimeProvider.System, random ?? new Random());
        _counters = new EtcdCounters();
        _audits = new EtcdAudits(_client, _stop.Token);
    }

    private EtcdKVStore(EtcdKVStore of, WriteFence fence) =>
        (_client, _counters, _audits, _fence) = (of._client, of._counters, of._audits, fence);

    internal EtcdClient Client => _client;

    /// <summary>The same store over the same connections, whose writes happen only while the fence stands. Disposing it ends its
    /// leases' keepalives and leaves this store as it is.</summary>
    public EtcdKVStore Behind(WriteFence fence) => new(this, fence);

    public KVStoreStatus Status => StatusWith(_counters.Watches);

    public KVStoreHealth Health => _client.Health with { ProofAge = Volatile.Read(ref _liveness)?.ProofAge };

    /// <summary>For a reader that shares the store: with its own watches.</summary>
    internal KVStoreStatus StatusWith(IReadOnlyList<WatchStatus> watches)
    {
        var status = _counters.AddTo(_client.Status) with { Watches = watches };
        return Volatile.Read(ref _liveness) is { } liveness ? liveness.AddTo(status) : status;
    }

    public async Task<KeyValue?> GetAsync(string key, CancellationToken cancellation)
    {
        var answer = await _client.RangeAsync($"get {key}", new RangeRequest { Key = ByteString.CopyFromUtf8(key) },
            _client.Options.CallDeadline, cancellation).ConfigureAwait(false);
        _client.Observed(answer.Header);
        return answer.Kvs is [var item]
            ? new KeyValue(key, item.Value.Memory, item.CreateRevision, item.ModRevision, item.Lease)
            : null;
    }

    public async Task<(IReadOnlyList<KeyValue> Items, long Revision)> ListAsync(string prefix, CancellationToken cancellation)
    {
        while (true)
        {
            var items = new List<KeyValue>();
            var watch = new EtcdPrefixWatch(_client, _counters, _audits, prefix, _client.Options.RetryAttempts);
            await foreach (var page in watch.ListAsync(cancellation).ConfigureAwait(false))
            {
                if (page.Kind == WatchBatchKind.Put)
                    items.AddRange(page.Events);
                if (page.Kind == WatchBatchKind.ListEnd)
                    return (items, page.Revision);
            }
        }
    }

    public async Task<long> CountAsync(string prefix, CancellationToken cancellation)
    {
        var range = PrefixRange.Of(prefix);
        var answer = await _client.RangeAsync($"count {prefix}",
            new RangeRequest { Key = range.Key, RangeEnd = range.End, CountOnly = true },
            _client.Options.CallDeadline, cancellation).ConfigureAwait(false);
        _client.Observed(answer.Header);
        return answer.Count;
    }

    public IAsyncEnumerable<WatchBatch> ListWatchAsync(string prefix, CancellationToken cancellation)
    {
        KeepProving(prefix);
        return new EtcdPrefixWatch(_client, _counters, _audits, prefix, int.MaxValue).RunAsync(cancellation);
    }

    /// <summary>One list at one revision, as a watch begins with it; without its end when that revision was compacted meanwhile.</summary>
    /// <param name="inLine">Told when it begins and ends to wait for the lists of others.</param>
    internal IAsyncEnumerable<WatchBatch> ListOnceAsync(string prefix, Action<bool> inLine, CancellationToken cancellation) =>
        new EtcdPrefixWatch(_client, _counters, _audits, prefix, int.MaxValue) { InLine = inLine }.ListAsync(cancellation);

    /// <summary>A watch whose lists have names without values.</summary>
    internal EtcdPrefixWatch NamesWatch(string prefix)
    {
        KeepProving(prefix);
        return new EtcdPrefixWatch(_client, _counters, _audits, prefix, int.MaxValue, namesOnly: true);
    }

    /// <summary>From the first watch on, somebody relies on the store being alive.</summary>
    private void KeepProving(string key)
    {
        lock (_lock)
        {
            if (_liveness is not null || _stop.IsCancellationRequested || key.Length == 0)
                return;
            Volatile.Write(ref _liveness, new EtcdLiveness(_client, key));
            _audits.Liveness = _liveness;
            _proving = _liveness.RunAsync(_stop.Token);
        }
    }

    public async Task<long> WriteAsync(IReadOnlyList<WriteOperation> operations, CancellationToken cancellation)
    {
        var revision = 0L;
        var inFlight = new List<Task<long>>(TransactionsInFlight);
        try
        {
            foreach (var transaction in Cut(operations))
            {
                if (inFlight.Count == TransactionsInFlight)
                {
                    var done = await Task.WhenAny(inFlight).ConfigureAwait(false);
                    inFlight.Remove(done);
                    revision = Math.Max(revision, await done.ConfigureAwait(false));
                }
                inFlight.Add(CommitAsync(transaction, cancellation));
            }
        }
        finally
        {
            await ((Task)Task.WhenAll(inFlight)).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
        foreach (var done in inFlight)
            revision = Math.Max(revision, await done.ConfigureAwait(false));
        return revision;
    }

    public async Task DeletePrefixAsync(string prefix, CancellationToken cancellation)
    {
        var range = PrefixRange.Of(prefix);
        var request = new TxnRequest
        {
            Success = { new RequestOp { RequestDeleteRange = new DeleteRangeRequest { Key = range.Key, RangeEnd = range.End } } },
        };
        await TransactAsync($"delete {prefix}", request, _client.Options.ListDeadline, cancellation).ConfigureAwait(false);
    }

    public async Task<KVLease> CreateLeaseAsync(TimeSpan ttl, CancellationToken cancellation)
    {
        var lease = await EtcdLease.CreateAsync(_client, ttl, Forget, cancellation).ConfigureAwait(false);
        lock (_lock)
            _leases.Add(lease);
        return lease;
    }

    public async Task<KVLease?> AdoptLeaseAsync(long id, TimeSpan ttl, CancellationToken cancellation)
    {
        var lease = await EtcdLease.AdoptAsync(_client, id, ttl, Forget, cancellation).ConfigureAwait(false);
        lock (_lock)
        {
            if (lease is not null)
                _leases.Add(lease);
        }
        return lease;
    }

    public async ValueTask DisposeAsync()
    {
        if (_stop.IsCancellationRequested)
            return;
        EtcdLease[] leases;
        lock (_lock)
            leases = [.. _leases];
        foreach (var lease in leases)
            await lease.DisposeAsync().ConfigureAwait(false);
        await _stop.CancelAsync().ConfigureAwait(false);
        // Ends by the cancellation; whatever went wrong before is in the status.
        await _proving.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        _stop.Dispose();
        if (_fence is null)
            _client.Dispose();
    }

    private void Forget(EtcdLease lease)
    {
        lock (_lock)
            _leases.Remove(lease);
    }

    private static IEnumerable<ArraySegment<WriteOperation>> Cut(IReadOnlyList<WriteOperation> operations)
    {
        var all = operations as WriteOperation[] ?? [.. operations];
        var start = 0;
        var bytes = 0;
        for (var i = 0; i < all.Length; i++)
        {
            var size = all[i].Key.Length + (all[i].Value?.Length ?? 0);
            if (all[i].Value is { Length: > WriteLimits.MaxValueBytes } value)
            {
                throw new KVStoreException($"the value of {all[i].Key} has {value.Length} bytes; " +
                    $"etcd takes up to {WriteLimits.MaxValueBytes}: nothing was written")
                { Refused = true };
            }
            if (i > start && (i - start == WriteLimits.MaxOperations || bytes + size > WriteLimits.MaxBytes))
            {
                yield return new ArraySegment<WriteOperation>(all, start, i - start);
                start = i;
                bytes = 0;
            }
            bytes += size;
        }
        if (start < all.Length)
            yield return new ArraySegment<WriteOperation>(all, start, all.Length - start);
    }

    private async Task<long> CommitAsync(ArraySegment<WriteOperation> operations, CancellationToken cancellation)
    {
        var what = operations.Count == 1 ? $"write {operations[0].Key}" : $"write {operations.Count} keys from {operations[0].Key} on";
        for (var attempt = 0; ; attempt++)
        {
            var request = new TxnRequest();
            var leases = new Dictionary<KVLease, (long Id, long Epoch)>();
            foreach (var operation in operations)
                request.Success.Add(ToRequest(operation, leases));
            try
            {
                return await TransactAsync(what, request, _client.Options.CallDeadline, cancellation).ConfigureAwait(false);
            }
            catch (KVStoreException e) when (attempt < 3 && e.InnerException is RpcException rpc && EtcdCause.IsLeaseNotFound(rpc))
            {
                await RenewAsync(leases, cancellation).ConfigureAwait(false);
            }
        }
    }

    /// <summary>All of it or, behind a fence that has fallen, nothing.</summary>
    private async Task<long> TransactAsync(string what, TxnRequest request, TimeSpan deadline, CancellationToken cancellation)
    {
        if (_fence is { } fence)
            request.Compare.Add(fence.Compare());
        var answer = await _client.CallAsync(what, deadline, (endpoint, options) => endpoint.KV.TxnAsync(request, options), cancellation)
            .ConfigureAwait(false);
        _client.Observed(answer.Header);
        return answer.Succeeded ? answer.Header.Revision
            : throw new KVStoreException($"etcd {_client.Current.Address}: {what}: somebody else writes now") { Fenced = true };
    }

    /// <summary>A lease of the transaction is gone: have its owner ask the server at once, and wait for a change.</summary>
    private async Task RenewAsync(Dictionary<KVLease, (long Id, long Epoch)> leases, CancellationToken cancellation)
    {
        using var patience = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        patience.CancelAfter(_client.Options.CallDeadline);
        var changes = leases.Select(async l =>
        {
            l.Key.ReportLost(l.Value.Id);
            await l.Key.WaitForEpochChangeAsync(l.Value.Epoch, patience.Token).ConfigureAwait(false);
        }).ToArray();
        await Task.WhenAny(changes).ConfigureAwait(false);
        await patience.CancelAsync().ConfigureAwait(false);
        await Task.WhenAll(changes).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        cancellation.ThrowIfCancellationRequested();
    }

    private static RequestOp ToRequest(WriteOperation operation, Dictionary<KVLease, (long Id, long Epoch)> leases)
    {
        var key = ByteString.CopyFromUtf8(operation.Key);
        if (operation.Value is not { } value)
            return new RequestOp { RequestDeleteRange = new DeleteRangeRequest { Key = key } };
        var put = new PutRequest { Key = key, Value = UnsafeByteOperations.UnsafeWrap(value) };
        if (operation.Lease is { } lease)
        {
            // One reading of the lease for the whole transaction.
            if (!leases.TryGetValue(lease, out var grant))
                leases[lease] = grant = (lease.Id, lease.Epoch);
            put.Lease = grant.Id;
        }
        return new RequestOp { RequestPut = put };
    }
}
