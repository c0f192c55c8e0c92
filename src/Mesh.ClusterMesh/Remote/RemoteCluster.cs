using Mesh.ClusterMesh.Imports;
using Mesh.ClusterMesh.Wire;
using Mesh.KVStore;

namespace Mesh.ClusterMesh.Remote;

/// <summary>
/// One peer, from its first connection to its removal: connect → read and validate cluster-config → wait for canaries → list and
/// watch → hand changes to the sink. Whatever goes wrong ends the connection, becomes the status, and leads to the next attempt;
/// records are withdrawn only when the peer says so, when a complete list lacks them, when its ID changes, or on
/// <see cref="Drain"/>. RunAsync and Drain are called by one owner, one at a time.
/// </summary>
public sealed class RemoteCluster
{
    internal const string WaitingForConnection = "Waiting for initial connection to be established";
    private const string ConnectedText =
        "etcd: 1/1 connected, leases=0, lock leases=0, has-quorum=true: endpoint status checks are disabled";

    private const string NotConnected = "not able to connect to any etcd endpoints";
    private static readonly TimeSpan StatusInterval = TimeSpan.FromSeconds(1);

    /// <summary>What changes with time alone, the days that certificates have left, is looked at this often.</summary>
    private const int TicksPerLook = 60;

    private readonly RemoteClusterOptions _options;
    private readonly ClusterIdReservations _reservations;
    private readonly IRemoteClusterSink _sink;
    private readonly TimeProvider _time;
    private readonly Random _random;
    private readonly RemoteRecords _records;
    private readonly Pins _pins;
    private ImportPolicy _policy;
    private string? _importsProblem;
    private volatile RemoteConnection? _connection;
    private TimeSpan _throttledBefore;

    private volatile IKVStore? _store;
    private ClusterConfig? _config;
    private uint _clusterId;
    private bool _wasConnected;

    /// <summary>TimeProvider timestamp of the first failure since the cluster-config was read last; null while there is none.</summary>
    private long? _lostAt;
    private bool _expired;
    private int _failures;
    private DateTimeOffset? _lastFailure;
    private DateTimeOffset? _lastConnected;
    private string? _problem;
    private volatile PeerFault _fault;
    private volatile string? _lastReconnection;
    private volatile Func<RemoteResource, string>? _prefixes;
    private readonly HeartbeatClock _heartbeat = new();
    private volatile RemoteClusterStatus _status;
    private readonly Ticker _ticker;
    private volatile string? _publishedError;
    private volatile TlsStatus? _publishedTls;
    private volatile bool _publishedConnected;
    private int _ticks;

    /// <param name="name">The cluster's name, valid by <see cref="Model.ClusterName"/>.</param>
    /// <param name="reservations">Shared by all peers of this process.</param>
    public RemoteCluster(
        string name,
        RemoteClusterOptions options,
        ClusterIdReservations reservations,
        IRemoteClusterSink sink,
        TimeProvider time,
        Random random)
        : this(name, options, reservations, new Pins(), NewTicker(time), sink, time, random)
    {
    }

    /// <param name="pins">The ranges of all peers of this process.</param>
    /// <param name="ticker">Shared by all peers of this process.</param>
    internal RemoteCluster(
        string name,
        RemoteClusterOptions options,
        ClusterIdReservations reservations,
        Pins pins,
        Ticker ticker,
        IRemoteClusterSink sink,
        TimeProvider time,
        Random random)
    {
        Name = name;
        _pins = pins;
        _ticker = ticker;
        _policy = options.DefaultImports;
        _options = options;
        _reservations = reservations;
        _sink = sink;
        _time = time;
        _random = random;
        _records = new RemoteRecords(time);
        _status = new RemoteClusterStatus { Name = name, Status = WaitingForConnection };
    }

    public string Name { get; }

    internal static Ticker NewTicker(TimeProvider time) => new(StatusInterval, time);

    /// <summary>With the health of this very moment. Readable from any thread.</summary>
    public RemoteClusterStatus Status
    {
        get
        {
            var connection = _connection;
            var trouble = connection?.SourceTrouble;
            var status = PeerTruth.Of(
                _status, _fault, _lastReconnection, _store?.Status, _prefixes, _heartbeat.Skew, trouble, connection?.Unsigned);
            if (status.Connected)
                return trouble is null ? status : status with { ConnectedUntil = trouble.Since };
            return status.ConnectedUntil is null && status.Health?.ProofAge is { } age
                ? status with { ConnectedUntil = _time.GetUtcNow() - age } : status;
        }
    }

    /// <summary>Records of the peer that were refused and still stand there. From any thread.</summary>
    public IReadOnlyList<QuarantinedRecord> Quarantined => _records.Quarantine.Records;

    /// <summary>Refusals by reason since the start. From any thread.</summary>
    public IReadOnlyDictionary<RefusalReason, long> Refused => _records.Quarantine.Refused;

    /// <summary>How long changes of the peer had to wait because they came faster than its quota. From any thread.</summary>
    public TimeSpan Throttled => _throttledBefore + (_connection?.Throttled ?? TimeSpan.Zero);

    /// <summary>What the peer may publish, from its next connection on. Not while RunAsync runs.</summary>
    /// <param name="problem">Why it is not what the peer's file says now.</param>
    public void Use(ImportPolicy policy, string? problem)
    {
        _policy = policy;
        _importsProblem = problem;
    }

    /// <summary>Believes at once whatever the breaker holds: somebody has looked and means it. From any thread.</summary>
    public void ReleaseHeld() => _records.ReleaseHeld();

    /// <summary>Keeps the cluster connected until cancelled, and never ends otherwise. Nothing is withdrawn at the end.</summary>
    /// <param name="open">Makes a store for one connection; it is disposed with the connection.</param>
    /// <exception cref="OperationCanceledException">The only way out.</exception>
    public async Task RunAsync(Func<IKVStore> open, CancellationToken cancellation)
    {
        var failuresInARow = 0;
        Publish();
        while (true)
        {
            cancellation.ThrowIfCancellationRequested();
            ExpireIfDue();
            var wait = TimeSpan.Zero;
            try
            {
                await ConnectAsync(open, () => failuresInARow = 0, cancellation);
            }
            catch (Exception e)
            {
                // A failure in the moment of the end is no failure any more.
                cancellation.ThrowIfCancellationRequested();
                if (e is RemoteConnectionException { Planned: true } or OperationCanceledException || UntilExpiry == TimeSpan.Zero)
                    continue;
                _lostAt ??= _time.GetTimestamp();
                _failures++;
                _lastFailure = _time.GetUtcNow();
                _problem = e is StoreNotOpenedException or RemoteConnectionException ? e.Message : $"{NotConnected}: {e.Message}";
                if (!_wasConnected && e is not RemoteConnectionException)
                    _problem = $"{WaitingForConnection}: {e.Message}";
                _fault = FaultOf(e);
                _lastReconnection = _problem;
                wait = e is StoreNotOpenedException ? _options.OpenRetry : Backoff(++failuresInARow);
            }
            Publish();
            await Task.Delay(UntilExpiry is var expiry && expiry != Timeout.InfiniteTimeSpan && expiry < wait ? expiry : wait, _time, cancellation);
        }
    }

    /// <summary>Until the services of the peer are too old to be kept; infinite when they are kept for ever, or gone already.</summary>
    private TimeSpan UntilExpiry => _options.CacheTtl <= TimeSpan.Zero || _expired || _lostAt is not { } lost ? Timeout.InfiniteTimeSpan
        : _options.CacheTtl - _time.GetElapsedTime(lost) is var left && left > TimeSpan.Zero ? left : TimeSpan.Zero;

    /// <summary>Who cannot be reached for so long is not sent any traffic: as Cilium does it, its services go and nothing else.</summary>
    private void ExpireIfDue()
    {
        if (UntilExpiry != TimeSpan.Zero)
            return;
        _expired = true;
        var changes = new RemoteChanges(Name, _clusterId);
        _records.ForgetServices(changes);
        if (!changes.IsEmpty)
            _sink.Apply(changes);
        Publish();
    }

    /// <summary>The peer was removed from the configuration: the sink forgets it and its ID is free. Not while RunAsync runs.</summary>
    public void Drain()
    {
        _sink.Drain(Name, _clusterId);
        _records.Clear();
        _reservations.Forget(Name);
        _clusterId = 0;
        _wasConnected = false;
        (_lostAt, _expired) = (null, false);
    }

    private async Task ConnectAsync(Func<IKVStore> open, Action connected, CancellationToken cancellation)
    {
        IKVStore store;
        try
        {
            store = open();
        }
        catch (Exception e)
        {
            throw new StoreNotOpenedException(e.Message, e);
        }
        await using (store)
        {
            _store = store;
            try
            {
                using var expiring = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
                using var expiry = new CancellationTokenSource(UntilExpiry, _time);
                using var either = expiry.Token.Register(expiring.Cancel);
                var config = await FetchConfigAsync(store, expiring.Token);
                (_lostAt, _expired) = (null, false);
                try
                {
                    Adopt(config);
                }
                catch (RemoteConnectionException e)
                {
                    e.Fault = PeerFault.WrongClusterId;
                    throw;
                }
                _config = config;
                _problem = null;
                _fault = PeerFault.None;
                var layout = config.Capabilities?.Cached == true ? Layout.Cache(Name) : Layout.State(Name);
                _prefixes = layout.Prefix;
                connected();
                Publish();
                var connection = new RemoteConnection(Name, store, config, _options, _records, _policy, _pins, _sink, _time, _ticker, Publish, StatusIsOld)
                {
                    Clock = _heartbeat,
                };
                _connection = connection;
                await connection.RunAsync(cancellation);
            }
            finally
            {
                if (_connection is { } ended)
                    _throttledBefore += ended.Throttled;
                _connection = null;
                _config = null;
                _prefixes = null;
                _store = null;
            }
        }
    }

    private async Task<ClusterConfig> FetchConfigAsync(IKVStore store, CancellationToken cancellation)
    {
        var key = Keys.ClusterConfig(Name);
        var start = _time.GetTimestamp();
        for (var attempt = 1; ; attempt++)
        {
            var found = await WhilePublishing(store.GetAsync(key, cancellation), cancellation);
            _wasConnected = true;
            if (found is { } present)
            {
                if (ClusterConfigCodec.TryDecode(present.Value.Span, out var config, out var rejection))
                    return config;
                _problem = $"{key} is malformed: {rejection}";
                _fault = PeerFault.ConfigMalformed;
            }
            else
            {
                _problem = $"{key} is missing at {store.Status.Endpoint}: no cluster named {Name} has published itself there";
                _fault = PeerFault.ConfigMissing;
            }
            if (_time.GetElapsedTime(start) > _options.ConfigTimeout)
                throw new RemoteConnectionException(_problem) { Fault = _fault };
            await WhilePublishing(Wait(Backoff(attempt)), cancellation);
        }

        async Task<bool> Wait(TimeSpan time)
        {
            await Task.Delay(time, _time, cancellation);
            return true;
        }
    }

    private async Task<T> WhilePublishing<T>(Task<T> work, CancellationToken cancellation)
    {
        Publish();
        while (!work.IsCompleted && !cancellation.IsCancellationRequested)
        {
            using var tick = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
            await Task.WhenAny(work, Task.Delay(StatusInterval, _time, tick.Token));
            await tick.CancelAsync();
            Publish();
        }
        return await work;
    }

    /// <summary>Takes the announced cluster ID, or refuses the peer. What was known under another ID is forgotten: every identity
    /// of it would be wrong.</summary>
    private void Adopt(ClusterConfig config)
    {
        var max = _options.Numbering.MaxConnectedClusters;
        var announcedMax = config.Capabilities?.MaxConnectedClusters is { } given and not 0 ? given : 255;
        if (!_options.Numbering.IsValidClusterId(config.Id))
            throw new RemoteConnectionException($"cluster ID {config.Id} of {Name} is not valid here: allowed are 1 to {max}");
        if (max == 511 && announcedMax != 511)
            throw new RemoteConnectionException($"{Name} is made for {announcedMax} clusters, this mesh for {max}: set both to the same");
        if (_policy.ClusterId is { } pinned && config.Id != pinned)
            throw new RemoteConnectionException(
                $"{Name} announces cluster ID {config.Id}, but {Name}{ImportPolicyFile.Suffix} pins {pinned}: correct whichever is wrong");
        if (config.Id == _options.LocalClusterId)
            throw new RemoteConnectionException($"cluster ID {config.Id} of {Name} is our own: give one of the clusters another ID");
        var reservation = _reservations.TryReserve(config.Id, Name, out var holder);
        var letGo = reservation == IdReservation.HolderIsLeaving || (reservation == IdReservation.Granted && _clusterId != config.Id);
        if (letGo && _clusterId != 0)
        {
            _sink.Drain(Name, _clusterId);
            _records.Clear();
            _reservations.Release(_clusterId, Name);
            _clusterId = 0;
        }
        if (reservation != IdReservation.Granted)
        {
            throw new RemoteConnectionException(
                $"cluster ID {config.Id} of {Name} is already used by {holder}: give one of them another ID");
        }
        _clusterId = config.Id;
    }

    // Jittered by a fifth, so that a fleet of agents does not come back in step.
    private TimeSpan Backoff(int attempt)
    {
        var linear = _options.ReconnectBackoff * attempt;
        var capped = linear < _options.ReconnectBackoffMax ? linear : _options.ReconnectBackoffMax;
        return capped * (0.8 + 0.4 * _random.NextDouble());
    }

    private bool StatusIsOld()
    {
        if (_store?.Health is not { } health)
            return false;
        return health.Connected != _publishedConnected || !ReferenceEquals(health.Error, _publishedError)
            || !ReferenceEquals(health.Tls, _publishedTls) || ++_ticks % TicksPerLook == 0;
    }

    private void Publish()
    {
        var store = _store?.Status;
        var connected = store?.Connected == true;
        (_publishedConnected, _publishedError, _publishedTls) = (connected, store?.Error, store?.Tls);
        var synced = _options.Resources.All(IsSynced);
        if (connected && _config is not null)
            _lastConnected = _time.GetUtcNow() - (store!.ProofAge ?? TimeSpan.Zero);
        var status = new RemoteClusterStatus
        {
            Name = Name,
            ClusterId = _clusterId,
            Connected = connected,
            Ready = connected && _config is not null && synced,
            Status = StatusText(store, connected),
            ConfigRetrieved = _config is not null,
            SyncedCanaries = _config?.Capabilities?.SyncedCanaries ?? false,
            Cached = _config?.Capabilities?.Cached ?? false,
            ServiceExportsEnabled = _config?.Capabilities?.ServiceExportsEnabled,
            NodesSynced = IsSynced(RemoteResource.Nodes),
            ServicesSynced = IsSynced(RemoteResource.Services),
            IpEntriesSynced = IsSynced(RemoteResource.IpEntries),
            IdentitiesSynced = IsSynced(RemoteResource.Identities),
            Nodes = _records.Count(RemoteResource.Nodes),
            Services = _records.Count(RemoteResource.Services),
            IpEntries = _records.Count(RemoteResource.IpEntries),
            Identities = _records.Count(RemoteResource.Identities),
            ServiceExportsSynced = _options.Resources.Contains(RemoteResource.ServiceExports) && _config?.Capabilities?.ServiceExportsEnabled is not null
                ? _records.IsSynced(RemoteResource.ServiceExports) : null,
            ServiceExports = _records.Count(RemoteResource.ServiceExports),
            Failures = _failures,
            LastFailure = _lastFailure,
            ConnectedUntil = connected && _config is not null ? null : _lastConnected,
            Tls = store?.Tls,
            CertificateExpiry = store?.Tls?.Expiry(_time.GetUtcNow()),
            Rejected = _records.Quarantine.Total,
            LastRejection = _records.Quarantine.Last,
            Quarantined = _records.Quarantine.Count,
            QuarantineOverflow = _records.Quarantine.Overflow,
            Held = _records.Held,
            HeldText = _records.HeldText(_policy.Breaker),
            HeldSince = _records.HeldSince,
            Holds = _records.Holds,
            Pinned = _policy.FromFile,
            ImportsProblem = _importsProblem,
        };
        if (status == _status)
            return;
        _status = status;
        _sink.StatusChanged(status);
    }

    /// <summary>What is not read is nothing to wait for.</summary>
    private bool IsSynced(RemoteResource resource) => !_options.Resources.Contains(resource) || _records.IsSynced(resource);

    private string StatusText(KVStoreStatus? store, bool connected) => _expired
        ? $"{ConnectionText(store, connected)}; its services were withdrawn after {_options.CacheTtl}" : ConnectionText(store, connected);

    private string ConnectionText(KVStoreStatus? store, bool connected)
    {
        if (_problem is not null && (connected || store?.Error is null))
            return _problem;
        if (connected)
        {
            var remarks = new[] { _records.HeldText(_policy.Breaker), _importsProblem }.OfType<string>();
            return string.Join("; ", remarks.Prepend($"{ConnectedText}, ID: {store!.ClusterId:x}"));
        }
        var cause = store?.Error is { } error ? $": {error}" : "";
        return (_wasConnected ? NotConnected : WaitingForConnection) + cause;
    }

    private static PeerFault FaultOf(Exception e) => e switch
    {
        RemoteConnectionException known => known.Fault,
        StoreNotOpenedException => PeerFault.Settings,
        KVStoreException store => PeerFaults.Of(store.Fault),
        _ => PeerFault.Other,
    };

    private sealed class StoreNotOpenedException(string message, Exception cause) : Exception(message, cause);
}
