using Etcdserverpb;
using Grpc.Core;

namespace Mesh.KVStore;

/// <summary>
/// An etcd lease with the loop that keeps it alive: one keepalive each third of the TTL, each with a deadline of its own. The server
/// alone decides that a lease is lost, by answering TTL 0; while it does not answer, nothing is known and the loop keeps asking.
/// </summary>
internal sealed class EtcdLease : KVLease
{
    private readonly EtcdClient _client;
    private readonly CancellationTokenSource _stop = new();
    private readonly SemaphoreSlim _askNow = new(0);
    private readonly Action<EtcdLease> _closed;
    private Task _loop = Task.CompletedTask;
    private volatile string? _error;
    private int _disposed;

    private EtcdLease(EtcdClient client, TimeSpan ttl, Action<EtcdLease> closed)
    {
        _client = client;
        Ttl = ttl;
        _closed = closed;
    }

    public override TimeSpan Ttl { get; }

    public override string? Error => _error;

    public static async Task<EtcdLease> CreateAsync(
        EtcdClient client, TimeSpan ttl, Action<EtcdLease> closed, CancellationToken cancellation)
    {
        if (ttl < TimeSpan.FromSeconds(1))
            throw new ArgumentOutOfRangeException(nameof(ttl), ttl, "etcd counts leases in whole seconds: at least one");
        var lease = new EtcdLease(client, ttl, closed);
        lease.Granted(await lease.GrantAsync(cancellation).ConfigureAwait(false));
        lease._loop = Task.Run(() => lease.KeepAliveAsync(lease._stop.Token), CancellationToken.None);
        return lease;
    }

    /// <summary>Takes over a lease of a predecessor, if it still exists and was granted for the same time.</summary>
    public static async Task<EtcdLease?> AdoptAsync(
        EtcdClient client, long id, TimeSpan ttl, Action<EtcdLease> closed, CancellationToken cancellation)
    {
        var found = await client.CallAsync($"ask for lease {id:x}", client.Options.CallDeadline,
            (endpoint, options) => endpoint.Lease.LeaseTimeToLiveAsync(new LeaseTimeToLiveRequest { ID = id }, options),
            cancellation).ConfigureAwait(false);
        if (found.TTL <= 0 || found.GrantedTTL != (long)ttl.TotalSeconds)
            return null;
        var lease = new EtcdLease(client, ttl, closed);
        lease.Granted(id);
        // The first keepalive is due now: how much of the TTL is left is not known to be more than a moment.
        lease._askNow.Release();
        lease._loop = Task.Run(() => lease.KeepAliveAsync(lease._stop.Token), CancellationToken.None);
        return lease;
    }

    public override void ReportLost(long id)
    {
        if (id == Id && Volatile.Read(ref _disposed) == 0 && _askNow.CurrentCount == 0)
        {
            _askNow.Release();
        }
    }

    public override async Task RevokeAsync()
    {
        await DisposeAsync().ConfigureAwait(false);
        try
        {
            await _client.CallAsync("revoke a lease", _client.Options.CallDeadline,
                (endpoint, options) => endpoint.Lease.LeaseRevokeAsync(new LeaseRevokeRequest { ID = Id }, options),
                CancellationToken.None).ConfigureAwait(false);
        }
        catch (KVStoreException e) when (e.InnerException is RpcException rpc && EtcdCause.IsLeaseNotFound(rpc))
        {
            // Expired already: what was wanted is so.
        }
    }

    public override async ValueTask DisposeAsync()
    {
        if (Interlocked.Exchange(ref _disposed, 1) != 0)
            return;
        _closed(this);
        await _stop.CancelAsync().ConfigureAwait(false);
        await _loop.ConfigureAwait(false);
        _stop.Dispose();
    }

    private async Task<long> GrantAsync(CancellationToken cancellation)
    {
        // A grant repeated after a lost answer leaves an unused lease behind, which expires.
        var granted = await _client.CallAsync("grant a lease", _client.Options.CallDeadline,
            (endpoint, options) => endpoint.Lease.LeaseGrantAsync(new LeaseGrantRequest { TTL = (long)Ttl.TotalSeconds }, options),
            cancellation).ConfigureAwait(false);
        return granted.ID;
    }

    private async Task KeepAliveAsync(CancellationToken cancellation)
    {
        var backoff = _client.NewBackoff();
        var interval = Ttl / 3;
        var wait = interval;
        while (!cancellation.IsCancellationRequested)
        {
            try
            {
                await _askNow.WaitAsync(wait, cancellation).ConfigureAwait(false);
                // Several writers may have reported the same loss: one question answers them all.
                while (_askNow.Wait(0, cancellation))
                    continue;
                if (await AskAsync(cancellation).ConfigureAwait(false) <= 0)
                    Granted(await GrantAsync(cancellation).ConfigureAwait(false));
                _error = null;
                backoff.Reset();
                wait = interval;
            }
            catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
            {
                return;
            }
            catch (Exception e)
            {
                if (cancellation.IsCancellationRequested)
                    return;
                _error = EtcdCause.Text(e);
                wait = backoff.Next();
            }
        }
    }

    /// <summary>Asks once to prolong the lease.</summary>
    /// <returns>Seconds it still has; 0 when the server does not know it.</returns>
    private async Task<long> AskAsync(CancellationToken cancellation)
    {
        var endpoint = _client.Current;
        var patience = TimeSpan.FromSeconds(Math.Clamp(Ttl.TotalSeconds / 3, 1, 5));
        try
        {
            var headers = await _client.HeadersAsync(endpoint, cancellation).ConfigureAwait(false);
            var options = new CallOptions(headers, _client.Time.GetUtcNow().UtcDateTime + patience, cancellation);
            using var stream = endpoint.Lease.LeaseKeepAlive(options);
            await stream.RequestStream.WriteAsync(new LeaseKeepAliveRequest { ID = Id }, cancellation).ConfigureAwait(false);
            if (!await stream.ResponseStream.MoveNext(cancellation).ConfigureAwait(false))
                throw new IOException("the keepalive stream ended without an answer");
            _client.Succeeded();
            return stream.ResponseStream.Current.TTL;
        }
        catch (Exception e) when (e is not OperationCanceledException && !cancellation.IsCancellationRequested)
        {
            _client.Failed(endpoint, e);
            throw;
        }
    }
}
