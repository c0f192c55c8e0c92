using System.Threading.Channels;
using Mesh.ClusterMesh.Config;
using Mesh.ClusterMesh.Door;
using Mesh.ClusterMesh.Imports;
using Mesh.ClusterMesh.Remote;
using Mesh.ClusterMesh.Wire;
using Mesh.KVStore;

namespace Mesh.ClusterMesh.Relay;

/// <summary>
/// One peer, from its first connection to its removal: connect → read the cluster-config → publish it rewritten → mirror. Whatever
/// goes wrong ends the connection, becomes the status, and leads to the next attempt; the cache keeps what it has. RunAsync and
/// RemoveAsync are called by one owner, one at a time.
/// </summary>
internal sealed class RelayedPeer
{
    private const string WaitingForConnection = "Waiting for initial connection to be established";
    private const string ConnectedText =
        "etcd: 1/1 connected, leases=0, lock leases=0, has-quorum=true: endpoint status checks are disabled";

    private const string NotConnected = "not able to connect to any etcd endpoints";
    private const int RemovalStep = 1000;
    private static readonly TimeSpan StatusInterval = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan LongestSilence = TimeSpan.FromSeconds(15);

    /// <summary>What changes with time alone, the days that certificates have left, is looked at this often.</summary>
    private const int TicksPerLook = 60;

    private readonly string _name;
    private readonly RelayOptions _options;
    private readonly MirrorView _mirror;
    private readonly PeerCache _cache;
    private readonly TimeProvider _time;
    private readonly Random _random;
    private readonly Ticker _ticker;
    private readonly Action<string> _log;
    private readonly Channel<bool> _toTell = Channel.CreateBounded<bool>(
        new BoundedChannelOptions(1) { FullMode = BoundedChannelFullMode.DropWrite });

    private volatile IKVStore? _store;
    private ClusterConfig? _config;
    private volatile PeerConnection? _connection;
    private volatile Tally _tally = new(0, 0, null);
    private bool _wasConnected;

    /// <summary>TimeProvider timestamp of the first failure since the cluster-config was read last; null while there is none.</summary>
    private long? _lostAt;
    private bool _expired;
    private int _failures;
    private DateTimeOffset? _lastFailure;
    private DateTimeOffset? _lastConnected;
    private volatile PeerFault _fault;
    private string? _importsProblem;
    private string? _problem;
    private volatile RelayedClusterStatus _status;
    private volatile string? _publishedError;
    private volatile TlsStatus? _publishedTls;
    private volatile bool _publishedConnected;
    private volatile bool _troubled;
    private int _ticks;

    /// <summary>What former connections counted, beside the one that stands.</summary>
    private sealed record Tally(long Events, long Withheld, PeerConnection? Now);

    /// <param name="ticker">Shared by all peers; see <see cref="NewTicker"/>.</param>
    public RelayedPeer(
        string name, RelayOptions options, MirrorView mirror, TimeProvider time, Ticker ticker, Random random, Action<string> log)
    {
        (_name, _options, _mirror, _time, _ticker, _random, _log) = (name, options, mirror, time, ticker, random, log);
        _cache = new PeerCache(name, mirror);
        _status = new RelayedClusterStatus { Name = name, Status = WaitingForConnection };
    }

    public static Ticker NewTicker(TimeProvider time) => new(StatusInterval, time);

    /// <summary>With what the cache holds and was told at this moment. From any thread.</summary>
    public RelayedClusterStatus Status
    {
        get
        {
            var (tally, status) = (_tally, _status);
            var inLine = status.Ready ? 0 : _store?.Status.Watches.Count(watch => watch.InLine) ?? 0;
            return status with
            {
                Status = inLine == 0 ? status.Status : $"{status.Status}; {inLine} of its lists stand in line behind those of other peers",
                Synced = _cache.Synced,
                Counts = _cache.Counts,
                Bytes = _cache.Bytes,
                Refused = _cache.Refused,
                LastRefusal = _cache.LastRefusal,
                Withheld = tally.Withheld + (tally.Now?.Withheld ?? 0),
                Events = tally.Events + (tally.Now?.Events ?? 0),
            };
        }
    }

    /// <summary>See the same field of <see cref="Status"/>.</summary>
    public bool Ready => _status.Ready;

    /// <summary>It has answered at least once.</summary>
    public bool WasConnected => _wasConnected;

    /// <summary>Mirrors the peer until cancelled, and never ends otherwise.</summary>
    /// <param name="open">Makes a store for one connection; it is disposed with the connection.</param>
    public async Task RunAsync(PeerConfig peer, Func<PeerConfig, IKVStore> open, CancellationToken cancellation)
    {
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        var telling = TellReadersAsync(stop.Token);
        try
        {
            await KeepConnectedAsync(peer, open, cancellation);
        }
        finally
        {
            await stop.CancelAsync();
            await telling;
        }
    }

    /// <summary>Writes beside the copy why it is not proved, while it is not: its readers have no other way to know.</summary>
    private async Task TellReadersAsync(CancellationToken cancellation)
    {
        var key = Keys.SourceTrouble(_name);
        var before = (SourceTrouble?)null;
        // From before our time: when the peer was last seen by whoever wrote it.
        var since = _mirror.Get(key) is { } left ? SourceTrouble.Decode(left.Span).Since : null;
        var told = (PeerFault?)null;
        _troubled = _mirror.Get(key) is not null;
        using var ticking = _ticker.Each(Tick);
        try
        {
            while (await _toTell.Reader.ReadAsync(cancellation))
            {
                var trouble = Trouble();
                // Seen twice: a reconnection that succeeds at once is nobody's trouble.
                if (trouble is not null && before is not null && (_mirror.Get(key) is null || told != trouble.Fault))
                {
                    await _mirror.CommitAsync([new MirrorChange(key, (trouble with { Since = trouble.Since ?? since }).Encode())], cancellation);
                    told = trouble.Fault;
                }
                else if (trouble is null && _mirror.Get(key) is not null)
                {
                    await _mirror.CommitAsync([new MirrorChange(key, null)], cancellation);
                    since = null;
                }
                before = trouble;
                _troubled = trouble is not null;
            }
        }
        catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
        {
            // Nobody to tell for: the peer goes, or the relay does.
        }
    }

    /// <summary>Nothing is to be told as long as there was no trouble and is none.</summary>
    private void Tick()
    {
        if (_troubled || IsTroubled)
            _toTell.Writer.TryWrite(true);
    }

    /// <summary>Whether <see cref="Trouble"/> has anything to say, cheaply.</summary>
    private bool IsTroubled => _store?.Health is { Connected: true, ProofAge: { } age } && age > LongestSilence
        || _status is not { Connected: true, ConfigRetrieved: true } || _connection?.Doubt is not null;

    private SourceTrouble? Trouble()
    {
        var store = _store?.Status;
        if (store?.Connected == true && store.ProofAge is { } age && age > LongestSilence)
        {
            return new SourceTrouble(store.Fault == StoreFault.NoQuorum ? PeerFault.NoQuorum : PeerFault.Frozen, _time.GetUtcNow() - age,
                $"no sign of life of {_name} for {age.TotalSeconds:0} s");
        }
        var status = _status;
        if (status.Connected && status.ConfigRetrieved)
            return _connection?.Doubt is { } doubt ? new SourceTrouble(PeerFault.DataLost, null, doubt) : null;
        var live = PeerFaults.Of(store?.Fault ?? StoreFault.None);
        return new SourceTrouble(live is PeerFault.None or PeerFault.Other ? _fault : live, status.ConnectedUntil, status.Status);
    }

    private async Task KeepConnectedAsync(PeerConfig peer, Func<PeerConfig, IKVStore> open, CancellationToken cancellation)
    {
        var failuresInARow = 0;
        Publish();
        while (true)
        {
            cancellation.ThrowIfCancellationRequested();
            await ExpireAsync(cancellation);
            var wait = TimeSpan.Zero;
            try
            {
                await ConnectAsync(peer, open, () => failuresInARow = 0, cancellation);
            }
            catch (Exception e)
            {
                // A failure in the moment of the end is no failure any more.
                cancellation.ThrowIfCancellationRequested();
                if (e is RelayConnectionException { Planned: true } || IsExpiring)
                    continue;
                _lostAt ??= _time.GetTimestamp();
                _failures++;
                _lastFailure = _time.GetUtcNow();
                _problem = e is StoreNotOpenedException or RelayConnectionException ? e.Message : $"{NotConnected}: {e.Message}";
                if (!_wasConnected && e is not RelayConnectionException)
                    _problem = $"{WaitingForConnection}: {e.Message}";
                _fault = e switch
                {
                    RelayConnectionException known => known.Fault,
                    StoreNotOpenedException => PeerFault.Settings,
                    KVStoreException lost => PeerFaults.Of(lost.Fault),
                    _ => PeerFault.Other,
                };
                wait = e is StoreNotOpenedException ? _options.OpenRetry : Backoff(++failuresInARow);
            }
            Publish();
            await Task.Delay(Sooner(wait, UntilExpiry), _time, cancellation);
        }
    }

    /// <summary>Until the services of the peer are too old to be kept; infinite when they are kept for ever, or gone already.</summary>
    private TimeSpan UntilExpiry => _options.CacheTtl <= TimeSpan.Zero || _expired || _lostAt is not { } lost ? Timeout.InfiniteTimeSpan
        : _options.CacheTtl - _time.GetElapsedTime(lost) is var left && left > TimeSpan.Zero ? left : TimeSpan.Zero;

    private bool IsExpiring => UntilExpiry == TimeSpan.Zero;

    private static TimeSpan Sooner(TimeSpan wait, TimeSpan other) => other == Timeout.InfiniteTimeSpan || wait < other ? wait : other;

    /// <summary>Who cannot be reached for so long is not sent any traffic: as Cilium does it, its services go and nothing else.</summary>
    private async Task ExpireAsync(CancellationToken cancellation)
    {
        if (!IsExpiring)
            return;
        _expired = true;
        RelayedResource[] expiring = [RelayedResource.Services, RelayedResource.ServiceExports, RelayedResource.EndpointSlices];
        foreach (var resource in expiring)
        {
            await DeleteAsync(RelayKeys.ClusterPrefix(_name, resource), cancellation);
            _cache.Forget(resource);
        }
        _log($"{_name}: not reached for {_options.CacheTtl}: its services are withdrawn until it is");
    }

    /// <summary>Taken out of the configuration: what is left of it waits for its end, and nobody is told of it any more.</summary>
    public bool Removed { get; private set; }

    /// <summary>
    /// The peer was taken out of the configuration: its cluster-config goes first, so that nobody begins to read it; its canaries and
    /// its data after a grace, in which its readers drain it by themselves.
    /// </summary>
    /// <param name="wantedAgain">Completes when the peer is configured anew: what is still there then stays.</param>
    public async Task RemoveAsync(Task wantedAgain, CancellationToken cancellation)
    {
        await _mirror.CommitAsync([new MirrorChange(Keys.ClusterConfig(_name), null)], cancellation);
        _log($"{_name}: removed from the configuration; its data follows in {_options.RemovalGrace}");
        Removed = true;
        using (var wait = CancellationTokenSource.CreateLinkedTokenSource(cancellation))
        {
            await Task.WhenAny(wantedAgain, Task.Delay(_options.RemovalGrace, _time, wait.Token));
            await wait.CancelAsync();
        }
        cancellation.ThrowIfCancellationRequested();
        if (wantedAgain.IsCompleted)
        {
            Removed = false;
            return;
        }
        await DeleteAsync(Keys.SyncedPrefix(_name), cancellation);
        foreach (var resource in RelayKeys.All)
            await DeleteAsync(RelayKeys.ClusterPrefix(_name, resource), cancellation);
        _cache.Forget();
        _wasConnected = false;
        _log($"{_name}: removed");
    }

    private async Task DeleteAsync(string prefix, CancellationToken cancellation)
    {
        foreach (var keys in _mirror.KeysBelow(prefix).Chunk(RemovalStep))
            await _mirror.CommitAsync([.. keys.Select(key => new MirrorChange(key, null))], cancellation);
    }

    private async Task ConnectAsync(
        PeerConfig peer, Func<PeerConfig, IKVStore> open, Action connected, CancellationToken cancellation)
    {
        IKVStore store;
        _importsProblem = peer.ImportsProblem;
        try
        {
            // Limits that cannot be read are not "no limits".
            if (peer.Imports is null && peer.ImportsProblem is { } problem)
                throw new FormatException(problem);
            store = open(peer);
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
                if (peer.Imports?.ClusterId is { } pinned && config.Id != pinned)
                    throw new RelayConnectionException($"{_name} says that its cluster ID is {config.Id}; {ImportPolicyFile.Suffix} pins {pinned}")
                    {
                        Fault = PeerFault.WrongClusterId,
                    };
                _config = config;
                _problem = null;
                _fault = PeerFault.None;
                connected();
                _connection = new PeerConnection(
                    _name, store, config, _options, peer.Imports ?? ImportPolicy.Default, _cache, _time, _ticker, Publish, StatusIsOld);
                _tally = _tally with { Now = _connection };
                Publish();
                await _connection.RunAsync(cancellation);
            }
            finally
            {
                var (events, withheld) = (_connection?.Events ?? 0, _connection?.Withheld ?? 0);
                _tally = new Tally(_tally.Events + events, _tally.Withheld + withheld, null);
                (_connection, _config, _store) = (null, null, null);
            }
        }
    }

    private async Task<ClusterConfig> FetchConfigAsync(IKVStore store, CancellationToken cancellation)
    {
        var key = Keys.ClusterConfig(_name);
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
                _problem = $"{key} is missing at {store.Status.Endpoint}: no cluster named {_name} has published itself there";
                _fault = PeerFault.ConfigMissing;
            }
            if (_time.GetElapsedTime(start) > _options.ConfigTimeout)
                throw new RelayConnectionException(_problem) { Fault = _fault };
            await WhilePublishing(WaitAsync(Backoff(attempt)), cancellation);
        }

        async Task<bool> WaitAsync(TimeSpan time)
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

    // Jittered by a fifth, so that a fleet of relays does not come back in step.
    private TimeSpan Backoff(int attempt)
    {
        var linear = _options.ReconnectBackoff * attempt;
        var capped = linear < _options.ReconnectBackoffMax ? linear : _options.ReconnectBackoffMax;
        return capped * (0.8 + (0.4 * _random.NextDouble()));
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
        var config = _config;
        var before = _status;
        if (connected && config is not null)
            _lastConnected = _time.GetUtcNow() - (store!.ProofAge ?? TimeSpan.Zero);
        var status = new RelayedClusterStatus
        {
            Name = _name,
            ClusterId = config?.Id ?? before.ClusterId,
            Connected = connected,
            Ready = connected && config is not null && _connection?.Doubt is null && RelayKeys.All.All(_cache.Synced.Contains),
            Status = StatusText(store, connected),
            ConfigRetrieved = config is not null,
            SyncedCanaries = config?.Capabilities?.SyncedCanaries ?? false,
            Cached = config?.Capabilities?.Cached ?? false,
            ServiceExportsEnabled = config?.Capabilities?.ServiceExportsEnabled,
            Failures = _failures,
            LastFailure = _lastFailure,
            ConnectedUntil = connected && config is not null ? null : _lastConnected,
            ImportsProblem = _importsProblem,
            // Between two connections the last ones are still the ones to renew.
            Tls = store?.Tls ?? before.Tls,
            CertificateExpiry = (store?.Tls ?? before.Tls)?.Expiry(_time.GetUtcNow()),
        };
        _status = status;
        if (status.CertificateExpiry != before.CertificateExpiry)
            _log($"{_name}: {status.CertificateExpiry ?? "no certificate expires soon"}");
        if (status.Tls?.Problem != before.Tls?.Problem)
            _log($"{_name}: {(status.Tls?.Problem is { } broken ? $"error: {broken}" : "the certificate files are in order again")}");
        if (status.Ready != before.Ready || (!status.Ready && status.Status != before.Status))
            _log($"{_name}: {(status.Ready ? $"ready, {_cache.Counts.Values.Sum()} keys mirrored" : status.Status)}");
    }

    private string StatusText(KVStoreStatus? store, bool connected) =>
        _expired ? $"{ConnectionText(store, connected)}; its services were withdrawn after {_options.CacheTtl}" : ConnectionText(store, connected);

    private string ConnectionText(KVStoreStatus? store, bool connected)
    {
        if (_problem is not null && (connected || store?.Error is null))
            return _problem;
        if (connected && _connection?.Doubt is { } doubt)
            return doubt;
        if (connected)
            return $"{ConnectedText}, ID: {store!.ClusterId:x}";
        var cause = store?.Error is { } error ? $": {error}" : "";
        return (_wasConnected ? NotConnected : WaitingForConnection) + cause;
    }

    private sealed class StoreNotOpenedException(string message, Exception cause) : Exception(message, cause);
}
