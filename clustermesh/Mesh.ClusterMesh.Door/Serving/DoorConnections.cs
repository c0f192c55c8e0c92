using System.Collections.Concurrent;
using System.Net;
using System.Security.Cryptography.X509Certificates;
using Mesh.ClusterMesh.Door.Access;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Http.Features;

namespace Mesh.ClusterMesh.Door.Serving;

/// <summary>
/// All connections of a listener: who may connect, and who may stay. Grants are looked at again when a file changed, certificates
/// when the bundle changed, when they were revoked, or when their time is over.
/// </summary>
internal sealed class DoorConnections(
    UserTable users, DoorViews views, TlsMaterial tls, DoorLimits limits, DoorCounters counters, TimeProvider time)
{
    private readonly ConcurrentDictionary<DoorConnection, byte> _open = new();
    private readonly ConcurrentDictionary<IPAddress, int> _byAddress = new();
    private int _count;
    private long _usersSeen;
    private long _trustSeen = tls.TrustVersion;

    public int Count => Volatile.Read(ref _count);

    /// <summary>Kestrel's connection middleware, behind TLS.</summary>
    public ConnectionDelegate Wrap(ConnectionDelegate next) => async context =>
    {
        if (context.Features.Get<ITlsConnectionFeature>()?.ClientCertificate is not { } certificate
            || users.IsRevoked(certificate) || !TryEnter(context, certificate, out var connection))
        {
            counters.ConnectionsRefused.Increment();
            context.Abort(new ConnectionAbortedException("refused"));
            return;
        }
        counters.Connections.Increment();
        try
        {
            context.Items[typeof(DoorConnection)] = connection;
            // A peer that joined a moment ago is in the file already, if not yet here.
            if (connection!.User is { } user && users.RoleOf(user) is null)
                users.Refresh();
            Judge(connection!, trustChanged: false);
            await next(context);
        }
        finally
        {
            Leave(connection!);
        }
    };

    /// <summary>Looks again at everybody; called every second or so.</summary>
    public void Review()
    {
        users.Refresh();
        tls.Refresh();
        var usersChanged = Interlocked.Exchange(ref _usersSeen, users.Version) != users.Version;
        var trustChanged = Interlocked.Exchange(ref _trustSeen, tls.TrustVersion) != tls.TrustVersion;
        var now = time.GetUtcNow();
        foreach (var connection in _open.Keys)
        {
            if (usersChanged || trustChanged || connection.Certificate.NotAfter.ToUniversalTime() <= now.UtcDateTime)
                Judge(connection, trustChanged);
        }
    }

    private void Judge(DoorConnection connection, bool trustChanged)
    {
        connection.Set(AccessOf(connection.User));
        var expired = connection.Certificate.NotAfter.ToUniversalTime() <= time.GetUtcNow().UtcDateTime;
        if (!expired && !users.IsRevoked(connection.Certificate) && (!trustChanged || tls.Trusts(connection.Certificate)))
            return;
        counters.StreamsCut.Increment();
        connection.Abort(expired ? "the client certificate has expired" : "the client certificate is no longer trusted");
    }

    private ReaderAccess AccessOf(string? user) =>
        user is not null && users.RoleOf(user) is { } role && views.Of(role) is { } view
            ? new ReaderAccess(users.GrantsOf(role), view)
            : ReaderAccess.None;

    private bool TryEnter(ConnectionContext context, X509Certificate2 certificate, out DoorConnection? connection)
    {
        connection = new DoorConnection(context, certificate, limits, time);
        if (Interlocked.Increment(ref _count) > limits.Connections)
        {
            Interlocked.Decrement(ref _count);
            return false;
        }
        if (_byAddress.AddOrUpdate(connection.Address, 1, static (_, count) => count + 1) > limits.ConnectionsPerAddress)
        {
            Leave(connection);
            return false;
        }
        _open[connection] = 0;
        return true;
    }

    private void Leave(DoorConnection connection)
    {
        _open.TryRemove(connection, out _);
        Interlocked.Decrement(ref _count);
        if (_byAddress.AddOrUpdate(connection.Address, 0, static (_, count) => count - 1) == 0)
            _byAddress.TryRemove(new KeyValuePair<IPAddress, int>(connection.Address, 0));
    }
}
