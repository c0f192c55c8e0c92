using System.Net;
using System.Security.Cryptography.X509Certificates;
using Etcdserverpb;
using Grpc.Core;
using Mesh.ClusterMesh.Door.Access;
using Mesh.ClusterMesh.Door.Cache;
using Mesh.ClusterMesh.Door.Protocol;
using Mesh.ClusterMesh.Door.Serving;
using Mesh.ClusterMesh.Door.Upstream;

namespace Mesh.ClusterMesh.Door;

/// <summary>
/// The only door to a cluster's state: an etcd v3 server for readers, out of memory, in front of the cluster's real etcd. Other
/// clusters' agents and our own read here; nobody writes. The port opens when the whole key space is in memory and the self-test has
/// proved the refusals, and stays open when etcd goes away: readers then keep what they have.
/// </summary>
public sealed class ClusterDoor : IAsyncDisposable
{
    private static readonly TimeSpan ReviewInterval = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan ConfirmTimeout = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan StatusInterval = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan StatusTimeout = TimeSpan.FromSeconds(1);
    private const string LineageFile = "door-lineage.json";

    private readonly DoorOptions _options;
    private readonly TimeProvider _time;
    private readonly Action<string> _log;
    private readonly Maintenance.MaintenanceClient _maintenance;
    private readonly WatchCache _cache = new();
    private readonly DoorCounters _counters = new();
    private readonly Lineage _lineage;
    private readonly EtcdFollower _follower;
    private readonly UserTable _users;
    private readonly TlsMaterial _tls;
    private readonly DoorConnections _connections;
    private readonly DoorRequests _requests;
    private readonly CancellationTokenSource _stop = new();
    private StatusResponse _etcdStatus = new();
    private long _statusAsked;
    private int _disposed;
    private Task _running = Task.CompletedTask;
    private DoorListener? _listener;

    /// <param name="etcd">A channel to the cluster's etcd with a certificate that may read all of it; must not limit the size of
    /// messages it receives, should ping, and stays the caller's.</param>
    /// <param name="log">Takes one line per change of state.</param>
    /// <exception cref="ArgumentException">The options cannot work; the message says which.</exception>
    /// <exception cref="InvalidDataException">A file named in them cannot be used.</exception>
    public ClusterDoor(DoorOptions options, CallInvoker etcd, TimeProvider time, Action<string> log)
        : this(options, etcd, time, log, Roles.Cilium(options.ClusterName))
    {
    }

    internal ClusterDoor(DoorOptions options, CallInvoker etcd, TimeProvider time, Action<string> log, Roles roles)
    {
        if (options.Validate() is { } fault)
            throw new ArgumentException(fault, nameof(options));
        (_options, _time, _log) = (options, time, log);
        _maintenance = new Maintenance.MaintenanceClient(etcd);
        _lineage = new Lineage(options.StateDir is { } dir ? Path.Combine(dir, LineageFile) : null);
        _follower = new EtcdFollower(etcd, _cache, _lineage, options.Limits, time, log);
        _users = new UserTable(options, roles, log);
        _tls = new TlsMaterial(options, time, log);
        _connections = new DoorConnections(_users, _tls, options.Limits, _counters, time);
        _requests = Requests();
    }

    /// <summary>Where readers connect, once open.</summary>
    public IPEndPoint? Address => _listener?.Address;

    public DoorStatus Status => DoorStatus.Of(_follower.Status, _cache, _connections.Count, _counters,
        [.. _users.Errors, .. _tls.Errors, .. _lineage.Errors], _tls.ServerNotAfter, Address);

    /// <summary>Ends when the door is disposed; earlier only by a defect, which it then carries.</summary>
    public Task Completion => _running;

    internal DoorCounters Counters => _counters;

    internal WatchCache Cache => _cache;

    internal EtcdFollower Follower => _follower;

    /// <summary>Reads etcd, proves the refusals, opens the port. Waits for etcd as long as it takes.</summary>
    /// <exception cref="DoorShutException">The self-test failed or the port cannot be had; the door is not open.</exception>
    public async Task OpenAsync(CancellationToken cancellation)
    {
        _running = Task.WhenAll(_follower.RunAsync(_stop.Token), ReviewAsync(_stop.Token));
        await await Task.WhenAny(_cache.WaitForAsync(0, cancellation), _running);
        if (await TestAsync(cancellation) is { } fault)
            throw new DoorShutException($"self-test: {fault}: the port stays shut");
        try
        {
            _listener = await DoorListener.OpenAsync(_options.Listen, _tls, _connections, _requests, _options.Limits, cancellation);
        }
        catch (IOException e)
        {
            throw new DoorShutException($"cannot listen on {_options.Listen}: {e.Message}", e);
        }
        _log($"door: open on {_listener.Address}");
    }

    public async ValueTask DisposeAsync()
    {
        if (Interlocked.Exchange(ref _disposed, 1) != 0)
            return;
        await _stop.CancelAsync();
        if (_listener is not null)
            await _listener.DisposeAsync();
        await _running.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        _stop.Dispose();
    }

    private async Task<string?> TestAsync(CancellationToken cancellation)
    {
        using var authority = SelfTest.NewAuthority();
        using var certificate = X509Certificate2.CreateFromPem(authority.CertificatePem);
        var tls = _tls.Trusting(certificate);
        var counters = new DoorCounters();
        var connections = new DoorConnections(_users, tls, _options.Limits, counters, _time);
        await using var listener = await DoorListener.OpenAsync(
            new IPEndPoint(IPAddress.Loopback, 0), tls, connections, _requests, _options.Limits, cancellation);
        return await new SelfTest(listener, tls.Server, _options.ClusterName, authority).RunAsync(!_options.RefuseSharedRemote, cancellation);
    }

    private DoorRequests Requests()
    {
        var confirmation = _options.ConfirmReads ? new ReadConfirmation(_follower.ConfirmedRevisionAsync, _cache, ConfirmTimeout) : null;
        var ranges = new RangeService(_cache, confirmation, _options.Limits, _counters);
        return new DoorRequests(_cache, ranges, new LeaseService(_cache), EtcdStatus, _options.Limits, _counters, _time);
    }

    /// <summary>What Maintenance.Status answers: etcd's own words of a few seconds ago under this door's header.</summary>
    private StatusResponse EtcdStatus()
    {
        var view = _cache.View;
        var status = Volatile.Read(ref _etcdStatus).Clone();
        status.Header = ResponseHeaderBytes.Message(view.Ids, view.History.Head.Revision);
        if (_follower.Status is { Connected: false } upstream)
            status.Errors.Add($"the door does not follow its etcd since {upstream.Since:u}: {upstream.Error}");
        return status;
    }

    private async Task ReviewAsync(CancellationToken cancellation)
    {
        using var timer = new PeriodicTimer(ReviewInterval, _time);
        var nudged = _time.GetTimestamp();
        while (!cancellation.IsCancellationRequested)
        {
            _connections.Review();
            if (_cache.IsReady)
                Note();
            await AskStatusAsync(cancellation);
            if (_time.GetElapsedTime(nudged) > _options.Limits.ProgressInterval / 10)
            {
                _cache.Nudge();
                nudged = _time.GetTimestamp();
            }
            try
            {
                await timer.WaitForNextTickAsync(cancellation);
            }
            catch (OperationCanceledException)
            {
                return;
            }
        }
    }

    /// <summary>Writes down how far readers may have come.</summary>
    private void Note()
    {
        var view = _cache.View;
        _lineage.Advance(view.History.Head, view.Ids.ClusterId);
    }

    private async Task AskStatusAsync(CancellationToken cancellation)
    {
        if (_time.GetElapsedTime(_statusAsked) < StatusInterval)
            return;
        _statusAsked = _time.GetTimestamp();
        try
        {
            var deadline = _time.GetUtcNow().UtcDateTime + StatusTimeout;
            Volatile.Write(ref _etcdStatus, await _maintenance.StatusAsync(new StatusRequest(), deadline: deadline, cancellationToken: cancellation));
        }
        catch (RpcException)
        {
            // The follower notices the same and says so; the last answer stays.
        }
    }
}
