using System.Net;
using System.Security.Cryptography.X509Certificates;
using Grpc.Core;
using Mesh.ClusterMesh.Door.Access;
using Mesh.ClusterMesh.Door.Cache;
using Mesh.ClusterMesh.Door.Serving;
using Mesh.ClusterMesh.Door.Upstream;

namespace Mesh.ClusterMesh.Door;

/// <summary>
/// The only door to a cluster's state: an etcd v3 server for readers, out of memory, in front of the cluster's real etcd. Other
/// clusters' agents and our own read here; nobody writes. The port opens when the whole key space is in memory and the self-test has
/// proved the refusals, and stays open when etcd goes away: readers then keep what they have. Beside that state, or instead of it,
/// it serves a cache of other clusters that a relay in this process writes (<see cref="MirrorView"/>).
/// </summary>
public sealed class ClusterDoor : IAsyncDisposable
{
    private static readonly TimeSpan ReviewInterval = TimeSpan.FromSeconds(1);

    private readonly DoorOptions _options;
    private readonly TimeProvider _time;
    private readonly Action<string> _log;
    private readonly DoorCounters _counters = new();
    private readonly StateSource? _state;
    private readonly MirrorView? _mirror;
    private readonly DoorViews _views;
    private readonly UserTable _users;
    private readonly TlsMaterial _tls;
    private readonly DoorConnections _connections;
    private readonly DoorRequests _requests;
    private readonly ConnectionBurst _burst = new(() => GC.GetTotalMemory(forceFullCollection: false), ConnectionBurst.Compact);
    private readonly CancellationTokenSource _stop = new();
    private int _disposed;
    private Task _running = Task.CompletedTask;
    private DoorListener? _listener;

    /// <param name="etcd">A channel to the cluster's etcd with a certificate that may read all of it; must not limit the size of
    /// messages it receives, should ping, and stays the caller's.</param>
    /// <param name="log">Takes one line per change of state.</param>
    /// <exception cref="ArgumentException">The options cannot work; the message says which.</exception>
    /// <exception cref="InvalidDataException">A file named in them cannot be used.</exception>
    public ClusterDoor(DoorOptions options, CallInvoker etcd, TimeProvider time, Action<string> log)
        : this(options, etcd, null, time, log)
    {
    }

    /// <param name="etcd">Null for a door without the state view.</param>
    /// <param name="cache">What a relay mirrors here, for readers of the role local; null for a door without it. Stays the
    /// caller's, who disposes of it after the door.</param>
    /// <inheritdoc cref="ClusterDoor(DoorOptions, CallInvoker, TimeProvider, Action{string})"/>
    public ClusterDoor(DoorOptions options, CallInvoker? etcd, MirrorView? cache, TimeProvider time, Action<string> log)
        : this(options, etcd, cache, time, log, Roles.Cilium(options.ClusterName))
    {
    }

    internal ClusterDoor(DoorOptions options, CallInvoker? etcd, MirrorView? cache, TimeProvider time, Action<string> log, Roles roles)
    {
        if (options.Validate() is { } fault)
            throw new ArgumentException(fault, nameof(options));
        if (etcd is null && cache is null)
            throw new ArgumentException("a door needs an etcd or a cache to serve", nameof(cache));
        (_options, _time, _log, _mirror) = (options, time, log, cache);
        _state = etcd is null ? null : new StateSource(options, etcd, time, log);
        _views = new DoorViews(_state?.View, cache is null ? null : new DoorView(cache.Cache, null, cache.EtcdStatus));
        _users = new UserTable(options, roles, log);
        _tls = new TlsMaterial(options, time, log);
        _connections = new DoorConnections(_users, _views, _tls, options.Limits, _counters, time);
        _requests = new DoorRequests(new RangeService(options.Limits, _counters), options.Limits, _counters, time);
    }

    /// <summary>Where readers connect, once open.</summary>
    public IPEndPoint? Address => _listener?.Address;

    public DoorStatus Status => DoorStatus.Of(_state?.Follower.Status ?? UpstreamStatus.None, _state?.Cache, _connections.Count, _counters,
        [.. _users.Errors, .. _tls.Errors, .. _state?.Lineage.Errors ?? [], .. _mirror?.Problems ?? []], _tls.ServerNotAfter, Address) with
    {
        Cache = _mirror?.Status,
        AuthorityNotAfter = _tls.AuthorityNotAfter,
        CertificateExpiry = _tls.Expiry,
    };

    /// <summary>Ends when the door is disposed; earlier only by a defect, which it then carries.</summary>
    public Task Completion => _running;

    internal DoorCounters Counters => _counters;

    internal WatchCache Cache => _state!.Cache;

    internal EtcdFollower Follower => _state!.Follower;

    /// <summary>Reads etcd, proves the refusals, opens the port. Waits for etcd as long as it takes; a cache is ready as it is.</summary>
    /// <exception cref="DoorShutException">The self-test failed or the port cannot be had; the door is not open.</exception>
    public async Task OpenAsync(CancellationToken cancellation)
    {
        _running = Task.WhenAll(_state?.Follower.RunAsync(_stop.Token) ?? Task.CompletedTask, ReviewAsync(_stop.Token));
        if (_state is not null)
            await await Task.WhenAny(_state.Cache.WaitForAsync(0, cancellation), _running);
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
        var connections = new DoorConnections(_users, _views, tls, _options.Limits, counters, _time);
        await using var listener = await DoorListener.OpenAsync(
            new IPEndPoint(IPAddress.Loopback, 0), tls, connections, _requests, _options.Limits, cancellation);
        return await new SelfTest(listener, tls.Server, _options.ClusterName, authority)
            .RunAsync(!_options.RefuseSharedRemote && _state is not null, _state is not null && _mirror is not null, cancellation);
    }

    private async Task ReviewAsync(CancellationToken cancellation)
    {
        using var timer = new PeriodicTimer(ReviewInterval, _time);
        var nudged = _time.GetTimestamp();
        while (!cancellation.IsCancellationRequested)
        {
            _connections.Review();
            _burst.Look(_connections.Count);
            if (_state is not null)
                await _state.ReviewAsync(cancellation);
            if (_time.GetElapsedTime(nudged) > _options.Limits.ProgressInterval / 10)
            {
                _state?.Cache.Nudge();
                _mirror?.Cache.Nudge();
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
}
