using System.Collections.Concurrent;
using System.Net;
using System.Security.Cryptography.X509Certificates;
using Mesh.ClusterMesh.Door.Access;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Connections.Features;

namespace Mesh.ClusterMesh.Door.Serving;

/// <summary>A stream that must hear when its reader's grants change.</summary>
internal interface IGrantListener
{
    void GrantsChanged();
}

/// <summary>
/// One TLS connection: who is at the other end, what it may read at present, and what it has used of its allowance. Leases granted
/// here live and die with it.
/// </summary>
internal sealed class DoorConnection
{
    private readonly ConnectionContext _connection;
    private readonly ConcurrentDictionary<IGrantListener, byte> _listeners = new();
    private readonly Allowance _requests;
    private readonly Allowance _resets;
    private volatile ReaderAccess _access = ReaderAccess.None;

    public DoorConnection(ConnectionContext connection, X509Certificate2 certificate, DoorLimits limits, TimeProvider time)
    {
        _connection = connection;
        Certificate = certificate;
        User = UserTable.UserOf(certificate);
        Address = (connection.RemoteEndPoint as IPEndPoint)?.Address ?? IPAddress.None;
        Leases = new SessionLeases(limits.LeasesPerConnection, time);
        _requests = new Allowance(limits.RequestsPerSecond, limits.RequestsPerSecond * 2, time);
        _resets = new Allowance(limits.ResetsPerSecond, limits.ResetsPerSecond * 10, time);
    }

    public X509Certificate2 Certificate { get; }

    /// <summary>The certificate's CN, null when it names nobody.</summary>
    public string? User { get; }

    public IPAddress Address { get; }

    public SessionLeases Leases { get; }

    /// <summary>What the user may read now. Replaced when the users file changes.</summary>
    public ReaderAccess Access => _access;

    public Grants Grants => _access.Grants;

    public static DoorConnection Of(IConnectionItemsFeature feature) => (DoorConnection)feature.Items[typeof(DoorConnection)]!;

    public void Set(ReaderAccess access)
    {
        if (_access.IsSame(access))
            return;
        _access = access;
        foreach (var listener in _listeners.Keys)
            listener.GrantsChanged();
    }

    public void Add(IGrantListener listener) => _listeners[listener] = 0;

    public void Remove(IGrantListener listener) => _listeners.TryRemove(listener, out _);

    /// <summary>Delays a request above the rate. The delay is this connection's own; nobody else waits.</summary>
    public async ValueTask AdmitAsync(DoorCounters counters, CancellationToken cancellation)
    {
        var delay = _requests.Take();
        if (delay <= TimeSpan.Zero)
            return;
        counters.Delayed.Increment();
        await Task.Delay(delay, cancellation);
    }

    /// <summary>Counts a request that the client reset. True when there were so many that the connection was cut.</summary>
    public bool PunishReset()
    {
        if (_resets.Take() <= TimeSpan.Zero)
            return false;
        Abort("too many requests were reset");
        return true;
    }

    public void Abort(string reason) => _connection.Abort(new ConnectionAbortedException(reason));
}

/// <summary>A token bucket: a rate and a burst. Taking from an empty one says how long to wait.</summary>
internal sealed class Allowance(int perSecond, int burst, TimeProvider time)
{
    private readonly Lock _gate = new();
    private double _tokens = burst;
    private long _at = time.GetTimestamp();

    public TimeSpan Take()
    {
        lock (_gate)
        {
            var now = time.GetTimestamp();
            _tokens = Math.Min(burst, _tokens + (time.GetElapsedTime(_at, now).TotalSeconds * perSecond));
            _at = now;
            _tokens--;
            return _tokens >= 0 ? TimeSpan.Zero : TimeSpan.FromSeconds(-_tokens / perSecond);
        }
    }
}
