using System.Security.Cryptography;
using Etcdserverpb;
using Grpc.Core;
using Mesh.ClusterMesh.Door.Protocol;

namespace Mesh.ClusterMesh.Door.Serving;

/// <summary>
/// The leases of one connection, in memory. Readers up to 1.16 take one as a session and keep it alive; nothing can be attached to it
/// here, and another connection's leases are not found.
/// </summary>
internal sealed class SessionLeases(int countMax, TimeProvider time)
{
    /// <summary>etcd's largest, in seconds.</summary>
    private const long TtlMax = 9_000_000_000;

    private sealed record SessionLease(long Ttl, DateTimeOffset End);

    private readonly Lock _gate = new();
    private readonly Dictionary<long, SessionLease> _leases = [];

    public (long Id, long Ttl) Grant(long id, long ttl)
    {
        if (ttl > TtlMax)
            throw EtcdFault.LeaseTtlTooLarge();
        lock (_gate)
        {
            Expire();
            if (_leases.Count >= countMax)
                throw EtcdFault.TooManyRequests();
            if (id == 0)
                id = BitConverter.ToInt64(RandomNumberGenerator.GetBytes(8)) & long.MaxValue | 1;
            ttl = Math.Max(1, ttl);
            return _leases.TryAdd(id, new SessionLease(ttl, End(ttl))) ? (id, ttl) : throw EtcdFault.LeaseExists();
        }
    }

    /// <summary>The TTL in seconds; 0 when there is no such lease, as etcd answers a keep-alive.</summary>
    public long KeepAlive(long id)
    {
        lock (_gate)
        {
            Expire();
            if (!_leases.TryGetValue(id, out var lease))
                return 0;
            _leases[id] = lease with { End = End(lease.Ttl) };
            return lease.Ttl;
        }
    }

    public void Revoke(long id)
    {
        lock (_gate)
        {
            Expire();
            if (!_leases.Remove(id))
                throw EtcdFault.LeaseNotFound();
        }
    }

    private DateTimeOffset End(long ttl) => time.GetUtcNow().AddSeconds(Math.Min(ttl, TimeSpan.FromDays(3650).TotalSeconds));

    private void Expire()
    {
        var now = time.GetUtcNow();
        foreach (var (id, lease) in _leases)
        {
            if (lease.End <= now)
                _leases.Remove(id);
        }
    }
}

/// <summary>The Lease RPCs that old readers call, for their own session only.</summary>
internal static class LeaseService
{
    public static async Task GrantAsync(GrpcCall call, DoorConnection connection)
    {
        var request = await call.ReadOnlyAsync(LeaseGrantRequest.Parser);
        var (id, ttl) = connection.Leases.Grant(request.ID, request.TTL);
        await call.StartAsync();
        call.Write(new LeaseGrantResponse { Header = Header(connection), ID = id, TTL = ttl });
        call.Finish(StatusCode.OK);
    }

    public static async Task RevokeAsync(GrpcCall call, DoorConnection connection)
    {
        var request = await call.ReadOnlyAsync(LeaseRevokeRequest.Parser);
        connection.Leases.Revoke(request.ID);
        await call.StartAsync();
        call.Write(new LeaseRevokeResponse { Header = Header(connection) });
        call.Finish(StatusCode.OK);
    }

    public static async Task KeepAliveAsync(GrpcCall call, DoorConnection connection, DoorCounters counters)
    {
        await call.StartAsync();
        await call.Output.FlushAsync(call.Aborted);
        while (await call.ReadAsync(LeaseKeepAliveRequest.Parser) is { } request)
        {
            await connection.AdmitAsync(counters, call.Aborted);
            call.Write(new LeaseKeepAliveResponse
            {
                Header = Header(connection),
                ID = request.ID,
                TTL = connection.Leases.KeepAlive(request.ID),
            });
            await call.Output.FlushAsync(call.Aborted);
        }
        call.Finish(StatusCode.OK);
    }

    private static ResponseHeader Header(DoorConnection connection)
    {
        if (connection.Access is not { View.Cache: { } cache, Grants.IsNone: false })
            throw EtcdFault.PermissionDenied();
        if (!cache.IsReady)
            throw EtcdFault.NoLeader();
        var view = cache.View;
        return ResponseHeaderBytes.Message(view.Ids, view.History.Head.Revision);
    }
}
