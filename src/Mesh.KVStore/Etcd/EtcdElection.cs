using System.Text;
using Etcdserverpb;
using Google.Protobuf;
using Grpc.Core;

namespace Mesh.KVStore;

/// <summary>
/// What makes a write safe: etcd itself compares, in the transaction that writes, whether the election's key is still as its winner
/// left it. A winner that was paused, or cut off from a lease that others saw end, writes nothing any more, whatever it believes.
/// </summary>
/// <param name="Key">The election's key.</param>
/// <param name="ModRevision">Revision of the winner's own write of it.</param>
public sealed record WriteFence(string Key, long ModRevision)
{
    internal Compare Compare() => new()
    {
        Key = ByteString.CopyFromUtf8(Key),
        Target = Etcdserverpb.Compare.Types.CompareTarget.Mod,
        Result = Etcdserverpb.Compare.Types.CompareResult.Equal,
        ModRevision = ModRevision,
    };
}

/// <summary>
/// One of several processes is the one that writes: whoever makes the key, on a lease that ends soon after its owner does. The key
/// alone proves nothing (a lease is a matter of clocks); winners write through the <see cref="WriteFence"/> that they are given.
/// </summary>
public sealed class EtcdElection : IAsyncDisposable
{
    private readonly EtcdKVStore _store;
    private readonly string _key;
    private readonly string _candidate;
    private readonly TimeSpan _ttl;
    private readonly Action<string> _log;
    private KVLease? _lease;
    private volatile string? _holder;

    /// <param name="store">Stays the caller's.</param>
    /// <param name="candidate">Unique among those that run; one that comes back under its own name need not wait for its lease.</param>
    /// <param name="ttl">How long others wait after a winner died. Whole seconds, at least 1.</param>
    public EtcdElection(EtcdKVStore store, string key, string candidate, TimeSpan ttl, Action<string> log) =>
        (_store, _key, _candidate, _ttl, _log) = (store, key, candidate, ttl, log);

    /// <summary>Who won, as far as we know; null before the first answer.</summary>
    public string? Holder => _holder;

    /// <summary>Returns when we are the one, however long that takes.</summary>
    public async Task<WriteFence> CampaignAsync(CancellationToken cancellation)
    {
        var backoff = _store.Client.NewBackoff();
        string? told = null;
        while (true)
        {
            try
            {
                _lease ??= await _store.CreateLeaseAsync(_ttl, cancellation).ConfigureAwait(false);
                if (await TryWinAsync(_lease, cancellation).ConfigureAwait(false) is { } fence)
                {
                    _holder = _candidate;
                    return fence;
                }
                if (told != _holder)
                    _log($"standing by: {_holder} writes");
                told = _holder;
                await WaitForChangeAsync(0, cancellation).ConfigureAwait(false);
                backoff.Reset();
            }
            catch (KVStoreException e)
            {
                if (told != e.Message)
                    _log($"election: {e.Message}");
                told = e.Message;
                if (e.InnerException is RpcException rpc && EtcdCause.IsLeaseNotFound(rpc))
                    _lease?.ReportLost(_lease.Id);
                await backoff.WaitAsync(cancellation).ConfigureAwait(false);
            }
        }
    }

    /// <summary>Returns, with the reason, when the fence has fallen. While etcd does not answer it stands, for then nobody writes.</summary>
    public async Task<string> WaitForLossAsync(WriteFence fence, CancellationToken cancellation)
    {
        while (true)
        {
            try
            {
                return await WaitForChangeAsync(fence.ModRevision, cancellation).ConfigureAwait(false) is { } other
                    ? $"{other} writes now"
                    : "our lease has ended";
            }
            catch (KVStoreException e)
            {
                _log($"election: {e.Message}");
                await Task.Delay(_ttl, _store.Client.Time, cancellation).ConfigureAwait(false);
            }
        }
    }

    /// <summary>Lets the next one win at once. What was written stays.</summary>
    /// <exception cref="KVStoreException">etcd did not answer: the next one waits for the lease to end.</exception>
    public async Task ResignAsync(WriteFence fence, CancellationToken cancellation)
    {
        var request = new TxnRequest
        {
            Compare = { fence.Compare() },
            Success = { new RequestOp { RequestDeleteRange = new DeleteRangeRequest { Key = ByteString.CopyFromUtf8(_key) } } },
        };
        await CallAsync("resign", request, cancellation).ConfigureAwait(false);
    }

    public async ValueTask DisposeAsync()
    {
        if (_lease is not null)
            await _lease.DisposeAsync().ConfigureAwait(false);
    }

    private async Task<WriteFence?> TryWinAsync(KVLease lease, CancellationToken cancellation)
    {
        var key = ByteString.CopyFromUtf8(_key);
        var leaseId = lease.Id;
        var put = new RequestOp
        {
            RequestPut = new PutRequest { Key = key, Value = ByteString.CopyFromUtf8(_candidate), Lease = leaseId },
        };
        var get = new RequestOp { RequestRange = new RangeRequest { Key = key } };
        var absent = new TxnRequest { Compare = { new WriteFence(_key, 0).Compare() }, Success = { put }, Failure = { get } };
        var answer = await CallAsync("campaign", absent, cancellation).ConfigureAwait(false);
        if (answer.Succeeded)
            return new WriteFence(_key, answer.Header.Revision);
        if (answer.Responses[0].ResponseRange.Kvs is not [var held])
            return null;
        _holder = held.Value.ToStringUtf8();
        // A win whose answer was lost.
        if (held.Lease == leaseId)
            return new WriteFence(_key, held.ModRevision);
        if (_holder != _candidate)
            return null;
        // Our own former life, which can write nothing any more from now on.
        var ours = new TxnRequest { Compare = { new WriteFence(_key, held.ModRevision).Compare() }, Success = { put } };
        answer = await CallAsync("campaign", ours, cancellation).ConfigureAwait(false);
        return answer.Succeeded ? new WriteFence(_key, answer.Header.Revision) : null;
    }

    private Task<TxnResponse> CallAsync(string what, TxnRequest request, CancellationToken cancellation) =>
        _store.Client.CallAsync($"{what} for {_key}", _store.Client.Options.CallDeadline,
            (endpoint, options) => endpoint.KV.TxnAsync(request, options), cancellation);

    /// <summary>Follows the key until it is gone or, when it stood at a revision, until it is another's.</summary>
    /// <param name="standing">Revision at which the key is as it should be; 0 for any.</param>
    /// <returns>Who holds it now; null for nobody.</returns>
    private async Task<string?> WaitForChangeAsync(long standing, CancellationToken cancellation)
    {
        KeyValue? held = null;
        var listing = true;
        await foreach (var batch in _store.ListWatchAsync(_key, cancellation).ConfigureAwait(false))
        {
            if (batch.Kind == WatchBatchKind.ListStart)
                (held, listing) = (null, true);
            foreach (var item in batch.Events)
            {
                if (item.Key == _key)
                    held = batch.Kind == WatchBatchKind.Put ? item : null;
            }
            listing &= batch.Kind != WatchBatchKind.ListEnd;
            if (listing)
                continue;
            if (held is not { } now)
                return null;
            if (standing != 0 && now.ModRevision != standing)
                return Encoding.UTF8.GetString(now.Value.Span);
        }
        throw new OperationCanceledException(cancellation);
    }
}
