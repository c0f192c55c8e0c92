using System.Threading.Channels;
using Mesh.ClusterMesh.Imports;
using Mesh.ClusterMesh.Remote;
using Mesh.ClusterMesh.Wire;
using Mesh.KVStore;

namespace Mesh.ClusterMesh.Relay;

/// <summary>
/// One connection to a peer's etcd or door: heartbeat, canaries, and a list-and-watch per resource, taken over by a single loop that
/// commits all that has arrived. Ends by cancellation or with a reason; either way nothing is withdrawn.
/// <para>A deletion is passed on when its owner made it. Several at once are the owner's while the resource's canary stands; a mass
/// (see <see cref="Withdrawals"/>) only if it also looks like a producer's. Anything else is a lease that ended, a wiped etcd, a
/// `del --prefix`: it waits until the peer has written itself again, or until a complete list still says so a while later and
/// the peer has shown itself alive meanwhile.</para>
/// </summary>
internal sealed class PeerConnection
{
    private const int InboxBatches = 256;
    private const int EventsPerTurn = 1024;
    private static readonly TimeSpan ConfigPause = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan Settle = TimeSpan.FromMilliseconds(300);

    /// <summary>How long an owner that is back has to put things right before its silence counts.</summary>
    private static readonly TimeSpan Objection = TimeSpan.FromSeconds(1);

    /// <summary>A heartbeat every minute and a little: who beat within it was there a moment ago.</summary>
    private static readonly TimeSpan LastBeat = TimeSpan.FromSeconds(75);

    /// <summary>After so long without a sign of the owner it is told.</summary>
    private static readonly TimeSpan SignPatience = TimeSpan.FromSeconds(3);

    private readonly string _cluster;
    private readonly IKVStore _store;
    private readonly ClusterConfig _config;
    private readonly RelayOptions _options;
    private readonly ImportQuotas _quotas;
    private readonly BreakerPolicy _breaker;
    private readonly Withdrawals _withdrawals;
    private readonly PeerCache _cache;
    private readonly TimeProvider _time;
    private readonly Ticker _ticker;
    private readonly Action _publishStatus;
    private readonly Func<bool> _statusIsOld;
    private readonly bool _cached;
    private readonly HashSet<RelayedResource> _followed = [];
    private readonly HashSet<RelayedResource> _listed = [];

    /// <summary>No deletion of these is passed on: their sign is gone, or a mass of them is missing.</summary>
    private readonly HashSet<RelayedResource> _doubted = [];

    /// <summary>Those of them whose sign is gone: only its return, and a list after that, ends the doubt.</summary>
    private readonly HashSet<RelayedResource> _unsigned = [];

    /// <summary>Canaries that stand, by what their watch has shown.</summary>
    private readonly HashSet<RelayedResource> _signed = [];

    /// <summary>Complete on an earlier connection, and not followed on this one: nobody says that they are whole.</summary>
    private readonly HashSet<RelayedResource> _absent = [];
    private readonly List<Task> _readers = [];
    private readonly Channel<Message> _inbox = Channel.CreateBounded<Message>(new BoundedChannelOptions(InboxBatches) { SingleReader = true });
    private readonly Channel<bool> _configDoubts = Channel.CreateBounded<bool>(
        new BoundedChannelOptions(1) { FullMode = BoundedChannelFullMode.DropWrite });

    private long _lastHeartbeat;

    /// <summary>TimeProvider timestamp of the last heartbeat that was written while we watched; null before.</summary>
    private long? _beatAt;
    private volatile string? _doubt;
    private bool _judging;

    /// <summary>Newest revision of what was written while we watched.</summary>
    private long _alive;
    private double _allowance;
    private long _allowanceAt;

    private enum Topic
    {
        Tick,
        Heartbeat,
        Canary,
        Resource,
        Config,
        Judge,
    }

    /// <param name="Live">Happened while we watched: what is only listed may be a dead writer's last.</param>
    private readonly record struct Message(Topic Topic, RelayedResource Resource, WatchBatch Batch, ClusterConfig? Config, bool Live = false);

    /// <param name="publishStatus">Called after each turn that may have changed it, from the loop.</param>
    /// <param name="statusIsOld">Whether it should be called although nothing happened; from any thread, and cheap.</param>
    public PeerConnection(string cluster, IKVStore store, ClusterConfig config, RelayOptions options, ImportPolicy limits, PeerCache cache,
        TimeProvider time, Ticker ticker, Action publishStatus, Func<bool> statusIsOld)
    {
        (_cluster, _store, _config, _options, _cache, _time) = (cluster, store, config, options, cache, time);
        (_ticker, _publishStatus, _statusIsOld) = (ticker, publishStatus, statusIsOld);
        _quotas = limits.Quotas;
        _breaker = limits.Breaker;
        _withdrawals = new Withdrawals(_breaker, time);
        _cached = config.Capabilities?.Cached == true;
    }

    public long Events { get; private set; }

    public long Withheld { get; private set; }

    /// <summary>What is withheld and why, for people; null when nothing is. As of the last turn, from any thread.</summary>
    public string? Doubt => _doubt;

    private string? DoubtNow
    {
        get
        {
            if (_absent.Count > 0)
                return $"no canary of {string.Join(", ", _absent)} stands: the cluster lost its data or writes itself anew; what is known is kept";
            if (_doubted.Count == 0 && _cache.Missing.Count == 0)
            {
                var waiting = _withdrawals.Held.Where(held => held.Value.AwaitsSign).Select(held => held.Key).ToList();
                return waiting.Count == 0 ? null
                    : $"deletions of {string.Join(", ", waiting)} are withheld: their owner has not shown itself alive since";
            }
            return $"deletions of {string.Join(", ", _doubted.Union(_cache.Missing.Keys))} are withheld: "
                + "the source lost them without its owner's doing, as far as can be told";
        }
    }

    private bool HasCanaries => _config.Capabilities?.SyncedCanaries == true;

    public static bool Carries(ClusterConfig config, RelayedResource resource) => resource switch
    {
        RelayedResource.ServiceExports => config.Capabilities?.ServiceExportsEnabled is not null,
        RelayedResource.EndpointSlices => config.Capabilities?.EndpointSlicesExportMode is { Length: > 0 },
        _ => true,
    };

    public async Task RunAsync(CancellationToken cancellation)
    {
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        _lastHeartbeat = _allowanceAt = _time.GetTimestamp();
        _allowance = 2.0 * _quotas.EventsPerSecond;
        _cache.Begin(_quotas);
        _doubt = DoubtNow;
        await AnnounceAsync(stop.Token);
        using var ticking = _ticker.Each(Tick);
        try
        {
            _readers.Add(RereadConfigAsync(stop.Token));
            _readers.Add(ReadAsync(Topic.Heartbeat, default, Keys.Heartbeat, stop.Token));
            if (HasCanaries)
                _readers.Add(ReadAsync(Topic.Canary, default, Keys.SyncedPrefix(_cluster), stop.Token));
            else
                Array.ForEach(RelayKeys.All, resource => Follow(resource, stop.Token));
            await LoopAsync(stop.Token);
        }
        finally
        {
            await stop.CancelAsync();
            // Readers do not throw: what ends one early ends the inbox, and so the loop, with the same reason.
            await Task.WhenAll(_readers);
        }
    }

    /// <summary>The cluster-config before anything else; a resource that the peer does not have is complete as it is.</summary>
    private async Task AnnounceAsync(CancellationToken cancellation)
    {
        _cache.SetConfig(Keys.ClusterConfig(_cluster), ClusterConfigCodec.Encode(Rewrite(_config)));
        foreach (var resource in RelayKeys.All)
        {
            if (Carries(_config, resource))
                continue;
            await _cache.BeginListAsync(resource, cancellation);
            await _cache.EndListAsync(resource, WireTime.Now(_time), withhold: false, cancellation);
        }
        await _cache.CommitAsync(cancellation);
    }

    internal static ClusterConfig Rewrite(ClusterConfig config) => config with
    {
        Capabilities = (config.Capabilities ?? new ClusterCapabilities()) with { SyncedCanaries = true, Cached = true },
    };

    private async Task LoopAsync(CancellationToken cancellation)
    {
        while (await _inbox.Reader.WaitToReadAsync(cancellation))
        {
            var standing = new Dictionary<RelayedResource, bool>();
            var changes = 0;
            var (before, more) = (_doubt, false);
            try
            {
                for (var events = 0; events < EventsPerTurn && _inbox.Reader.TryRead(out var message);)
                {
                    events += message.Batch.Events?.Count ?? 0;
                    more |= !IsCommon(message);
                    if (message.Topic == Topic.Resource && !_cache.IsListing(message.Resource))
                        changes += message.Batch.Events?.Count ?? 0;
                    await HandleAsync(message, standing, cancellation);
                }
            }
            finally
            {
                // Also what came before a message that ends the connection.
                await _cache.CommitAsync(CancellationToken.None);
            }
            Events += changes;
            _doubt = DoubtNow;
            // A change of a record is nothing that a status says, but for numbers that are read where they are.
            if (more || _doubt != before)
                _publishStatus();
            if (_cache.WantsRelist)
                throw new RelayConnectionException("there is room again for what was refused: reading the cluster anew", planned: true);
            await RestAsync(changes, cancellation);
        }
    }

    private static bool IsCommon(in Message message) =>
        message.Topic is Topic.Resource or Topic.Heartbeat && message.Batch.Kind is WatchBatchKind.Put or WatchBatchKind.Delete;

    /// <summary>Waits when the peer changed more than it may: only its own readers wait with it.</summary>
    private async ValueTask RestAsync(int changes, CancellationToken cancellation)
    {
        var now = _time.GetTimestamp();
        var earned = _time.GetElapsedTime(_allowanceAt, now).TotalSeconds * _quotas.EventsPerSecond;
        _allowance = Math.Min(2.0 * _quotas.EventsPerSecond, _allowance + earned) - changes;
        _allowanceAt = now;
        if (_allowance < 0)
            await Task.Delay(TimeSpan.FromSeconds(-_allowance / _quotas.EventsPerSecond), _time, cancellation);
    }

    private async ValueTask HandleAsync(Message message, Dictionary<RelayedResource, bool> standing, CancellationToken cancellation)
    {
        if (message.Live)
            SeeAlive(message.Batch.Events[^1].ModRevision);
        switch (message.Topic)
        {
            case Topic.Tick:
                CheckHeartbeat();
                CheckMissing();
                break;
            case Topic.Judge:
                await JudgeAsync(cancellation);
                break;
            case Topic.Heartbeat when message.Batch.Kind == WatchBatchKind.Put:
                // The time of arrival counts: the peer's clock is its own affair.
                Volatile.Write(ref _lastHeartbeat, _time.GetTimestamp());
                if (message.Live)
                    _beatAt = _time.GetTimestamp();
                _cache.HeartbeatRevision = message.Batch.Events[^1].ModRevision;
                break;
            case Topic.Canary:
                if (message.Batch.Kind == WatchBatchKind.ListStart)
                    _signed.Clear();
                foreach (var canary in message.Batch.Events)
                    SeeCanary(canary.Key, message.Batch.Kind, cancellation);
                if (message.Batch.Kind == WatchBatchKind.ListEnd)
                    MissCanaries();
                break;
            case Topic.Config when message.Config != _config:
                throw new RelayConnectionException("the cluster-config changed: reading the cluster anew", planned: true);
            case Topic.Resource:
                await TakeAsync(message.Resource, message.Batch, standing, cancellation);
                break;
        }
    }

    private async ValueTask TakeAsync(
        RelayedResource resource, WatchBatch batch, Dictionary<RelayedResource, bool> standing, CancellationToken cancellation)
    {
        var prefix = RelayKeys.SourcePrefix(_cluster, _cached, resource);
        if (batch.Kind is WatchBatchKind.Put or WatchBatchKind.Delete && !_cache.IsListing(resource))
            _cache.ReadUpTo(resource, batch.Revision);
        switch (batch.Kind)
        {
            case WatchBatchKind.ListStart:
                _withdrawals.Held.Remove(resource);
                await _cache.BeginListAsync(resource, cancellation);
                break;
            case WatchBatchKind.Put:
                _withdrawals.Held.TryGetValue(resource, out var held);
                foreach (var item in batch.Events)
                {
                    held?.Keys.Remove(Suffix(item.Key, prefix));
                    await _cache.PutAsync(resource, Suffix(item.Key, prefix), item, cancellation);
                }
                // What was missing has come back.
                if (!_cache.Missing.ContainsKey(resource) && !_unsigned.Contains(resource))
                    _doubted.Remove(resource);
                break;
            case WatchBatchKind.Delete when !_doubted.Contains(resource) && await IsOwnersAsync(resource, batch, standing, cancellation):
                if (_withdrawals.IsMass(resource, batch.Events, _cache.Count(resource)))
                {
                    _withdrawals.Hold(resource, batch.Events.Select(item => KeyValuePair.Create(Suffix(item.Key, prefix), item.ModRevision)));
                    JudgeLater(cancellation);
                    break;
                }
                foreach (var item in batch.Events)
                    await _cache.DeleteAsync(resource, Suffix(item.Key, prefix), cancellation);
                break;
            case WatchBatchKind.Delete:
                if (_doubted.Add(resource))
                    _unsigned.Add(resource);
                else if (_cache.Missing.ContainsKey(resource))
                    _cache.Miss(resource, batch.Events.Select(item => Suffix(item.Key, prefix)), _time.GetUtcNow());
                Withheld += batch.Events.Count;
                break;
            case WatchBatchKind.ListEnd:
                var sign = await SignAsync(resource, cancellation);
                if (sign is not { } present || (HasCanaries ? present.ModRevision : present.CreateRevision) > batch.Revision)
                    throw new RelayConnectionException("the etcd lost its data: keeping what is known until the cluster has written it again")
                    {
                        Fault = PeerFault.DataLost,
                    };
                var other = _cache.IsOtherHistory(resource, _store.Health.ClusterId, batch);
                await _cache.EndListAsync(resource, WireTime.Now(_time), Withholds(resource, other), cancellation);
                _listed.Add(resource);
                break;
        }
    }

    /// <summary>Whether what a complete list lacks stays for now: it is too much to go at once, and not confirmed yet.</summary>
    /// <param name="other">It comes from a store that was put back, or is another one: then its owner must confirm whatever it lacks.</param>
    private bool Withholds(RelayedResource resource, bool other)
    {
        var (unseen, count) = _cache.Unseen(resource);
        var suspect = other ? unseen > 0 && _breaker.IsOn : _withdrawals.IsMass(unseen, count);
        if (!suspect || IsConfirmed(resource))
        {
            _cache.Missing.Remove(resource);
            return false;
        }
        if (_cache.Miss(resource, _cache.UnseenSuffixes(resource), _time.GetUtcNow()))
            Withheld += unseen;
        return true;
    }

    private bool IsConfirmed(RelayedResource resource) => _cache.Missing.TryGetValue(resource, out var missing)
        && _time.GetUtcNow() - missing.Since >= _breaker.ConfirmAfter && _cache.HeartbeatRevision != missing.Heartbeat;

    private void CheckMissing()
    {
        if (_cache.Missing.Keys.Any(resource => _listed.Contains(resource) && IsConfirmed(resource)))
            throw new RelayConnectionException("asking once more for what was missing", planned: true);
    }

    private void JudgeLater(CancellationToken cancellation)
    {
        if (_judging)
            return;
        _judging = true;
        _readers.RemoveAll(reader => reader.IsCompleted);
        _readers.Add(RemindAsync(cancellation));
    }

    private async Task RemindAsync(CancellationToken cancellation)
    {
        try
        {
            await Task.Delay(Settle, _time, cancellation);
            await _inbox.Writer.WriteAsync(new Message(Topic.Judge, default, default, null), cancellation);
        }
        catch (Exception e)
        {
            _inbox.Writer.TryComplete(e);
        }
    }

    /// <summary>A moment after a mass withdrawal its other traces have arrived.</summary>
    private async ValueTask JudgeAsync(CancellationToken cancellation)
    {
        _judging = false;
        foreach (var (resource, held) in _withdrawals.Held.ToList())
        {
            var first = held.Keys.Count == 0 ? 0 : held.Keys.Values.Min();
            // A source that is a relay itself has judged.
            if (!_cached && held.Keys.Count > 1 && !IsSigned(held) && _withdrawals.LooksOwn(held) && !_doubted.Contains(resource)
                && (_breaker.OwnerBeatsBehind(_store.Status.IsDoor) || !await WasOneByOneAsync(resource, held, cancellation)))
            {
                held.AwaitsSign = _time.GetElapsedTime(held.Since) > SignPatience;
                JudgeLater(cancellation);
                continue;
            }
            _withdrawals.Held.Remove(resource);
            var own = _withdrawals.LooksOwn(held) && !_doubted.Contains(resource)
                && await SignAsync(resource, cancellation) is { } sign && sign.CreateRevision < first
                && await _store.GetAsync(Keys.ClusterConfig(_cluster), cancellation) is { } config && config.CreateRevision < first;
            if (own)
            {
                foreach (var suffix in held.Keys.Keys)
                    await _cache.DeleteAsync(resource, suffix, cancellation);
            }
            else if (held.Keys.Count > 0)
            {
                // Its list decides: now if the peer writes itself again, later if it means it.
                Withheld += held.Keys.Count;
                _doubted.Add(resource);
                _cache.Miss(resource, held.Keys.Keys, _time.GetUtcNow());
            }
        }
    }

    /// <summary>Something was written while we watched: the owner is alive.</summary>
    private void SeeAlive(long revision)
    {
        _alive = Math.Max(_alive, revision);
        foreach (var held in _withdrawals.Held.Values)
        {
            if (held.SignedAt is null && held.IsOlderThan(_alive))
                held.SignedAt = _time.GetTimestamp();
        }
    }

    /// <summary>Whether the owner has shown itself alive behind a withdrawal, and had a moment since to put right what others did.</summary>
    private bool IsSigned(HeldDeletions held)
    {
        SeeAlive(0);
        return held.SignedAt is { } at && _time.GetElapsedTime(at) >= Objection;
    }

    /// <summary>Each key was deleted by itself, its owner was there not longer ago than it beats, and the store that was listed says just now
    /// that they are gone: as good as the next heartbeat, which of Cilium's exporters comes once a minute. Nobody's lease that ends, and no
    /// `del --prefix`, deletes so.</summary>
    private async ValueTask<bool> WasOneByOneAsync(RelayedResource resource, HeldDeletions held, CancellationToken cancellation)
    {
        if (_time.GetElapsedTime(held.Since) < Objection || _beatAt is not { } beat || _time.GetElapsedTime(beat) > LastBeat
            || !_withdrawals.WereOneByOne(held))
            return false;
        var prefix = RelayKeys.SourcePrefix(_cluster, _cached, resource);
        var (items, revision) = await _store.ListAsync(prefix, cancellation);
        return _cache.IsOf(resource, _store.Health.ClusterId) && revision >= held.Keys.Values.Max()
            && !items.Any(item => held.Keys.ContainsKey(Suffix(item.Key, prefix)));
    }

    private static string Suffix(string key, string prefix) => key.StartsWith(prefix, StringComparison.Ordinal)
        ? key[prefix.Length..]
        : throw new RelayConnectionException($"the server answered with {key} where {prefix} was asked for");

    /// <summary>One key that goes is a deletion. Several, or most of a resource, are one only if the canary stays.</summary>
    private async ValueTask<bool> IsOwnersAsync(
        RelayedResource resource, WatchBatch batch, Dictionary<RelayedResource, bool> standing, CancellationToken cancellation)
    {
        if (batch.Events.Count == 1 && _cache.Count(resource) > 2)
            return true;
        if (!standing.TryGetValue(resource, out var stands))
            standing[resource] = stands = await SignAsync(resource, cancellation) is not null;
        return stands;
    }

    /// <summary>What stands as long as the peer's data is whole: the canary, or without canaries the cluster-config.</summary>
    private Task<KeyValue?> SignAsync(RelayedResource resource, CancellationToken cancellation) => _store.GetAsync(
        HasCanaries ? RelayKeys.Canary(_cluster, _cached, resource) : Keys.ClusterConfig(_cluster), cancellation);

    private void SeeCanary(string key, WatchBatchKind kind, CancellationToken cancellation)
    {
        foreach (var resource in RelayKeys.All)
        {
            if (key != RelayKeys.Canary(_cluster, _cached, resource))
                continue;
            if (kind == WatchBatchKind.Delete)
            {
                LoseSign(resource);
                continue;
            }
            _signed.Add(resource);
            _absent.Remove(resource);
            if (_doubted.Contains(resource) || (_listed.Contains(resource) && _cache.Missing.ContainsKey(resource)))
                throw new RelayConnectionException("the cluster has written itself again: reading it anew", planned: true);
            else if (!Follow(resource, cancellation))
                _configDoubts.Writer.TryWrite(true);
        }
    }

    /// <summary>A list of the canaries shows which are gone, also those that were lost while nobody watched.</summary>
    private void MissCanaries()
    {
        foreach (var resource in RelayKeys.All)
        {
            if (!Carries(_config, resource) || _signed.Contains(resource))
                continue;
            if (_followed.Contains(resource))
                LoseSign(resource);
            else if (_cache.Synced.Contains(resource))
                _absent.Add(resource);
        }
    }

    private void LoseSign(RelayedResource resource)
    {
        _signed.Remove(resource);
        _doubted.Add(resource);
        _unsigned.Add(resource);
    }

    /// <summary>Wakes the loop only if it has something to do or to tell. In a full inbox it finds that out by itself.</summary>
    private void Tick()
    {
        if (Silence > _options.HeartbeatTimeout || _cache.IsMissingAny || _statusIsOld())
            _inbox.Writer.TryWrite(new Message(Topic.Tick, default, default, null));
    }

    private TimeSpan Silence => _time.GetElapsedTime(Volatile.Read(ref _lastHeartbeat));

    private void CheckHeartbeat()
    {
        var silence = Silence;
        if (silence > _options.HeartbeatTimeout)
            throw new RelayConnectionException(
                $"quorum check failed: {(int)silence.TotalMinutes}m{silence.Seconds}s since last heartbeat update has been received")
            {
                Fault = PeerFault.HeartbeatStale,
            };
    }

    private bool Follow(RelayedResource resource, CancellationToken cancellation)
    {
        if (!Carries(_config, resource) || !_followed.Add(resource))
            return false;
        _readers.Add(ReadAsync(Topic.Resource, resource, RelayKeys.SourcePrefix(_cluster, _cached, resource), cancellation));
        return true;
    }

    private async Task ReadAsync(Topic topic, RelayedResource resource, string prefix, CancellationToken cancellation)
    {
        // Off the loop's back: a store may do work before its first await.
        await Task.Yield();
        try
        {
            var listing = false;
            await foreach (var batch in _store.ListWatchAsync(prefix, cancellation))
            {
                listing = batch.Kind == WatchBatchKind.ListStart || (listing && batch.Kind != WatchBatchKind.ListEnd);
                var live = !listing && batch.Kind == WatchBatchKind.Put;
                await _inbox.Writer.WriteAsync(new Message(topic, resource, batch, null, live), cancellation);
            }
            _inbox.Writer.TryComplete(new RelayConnectionException($"the watch of {prefix} ended"));
        }
        catch (Exception e)
        {
            _inbox.Writer.TryComplete(e);
        }
    }

    private async Task RereadConfigAsync(CancellationToken cancellation)
    {
        try
        {
            while (true)
            {
                using (var wait = CancellationTokenSource.CreateLinkedTokenSource(cancellation))
                {
                    await Task.WhenAny(
                        _configDoubts.Reader.ReadAsync(wait.Token).AsTask(),
                        Task.Delay(_options.ConfigRefresh, _time, wait.Token));
                    await wait.CancelAsync();
                }
                cancellation.ThrowIfCancellationRequested();
                // Without connection, or without the key, the configuration last read stands.
                if (_store.Health.Connected && await _store.GetAsync(Keys.ClusterConfig(_cluster), cancellation) is { } found
                    && ClusterConfigCodec.TryDecode(found.Value.Span, out var config, out _))
                    await _inbox.Writer.WriteAsync(new Message(Topic.Config, default, default, config), cancellation);
                await Task.Delay(ConfigPause, _time, cancellation);
            }
        }
        catch (Exception e)
        {
            _inbox.Writer.TryComplete(e);
        }
    }
}
