using System.Threading.Channels;
using Mesh.ClusterMesh.Imports;
using Mesh.ClusterMesh.Wire;
using Mesh.KVStore;

namespace Mesh.ClusterMesh.Remote;

/// <summary>
/// One connection to a peer whose cluster-config is valid: watches heartbeat, canaries and the resources, each in a reader of
/// its own, and applies what they bring from a single loop. A turn of the loop takes all that has arrived, so that a burst becomes
/// few batches while a lone event leaves at once. Ends by cancellation or by <see cref="RemoteConnectionException"/>; either way
/// nothing is withdrawn.
/// </summary>
internal sealed class RemoteConnection
{
    // Readers wait when the loop falls this far behind, which in turn slows the watch streams down.
    private const int InboxBatches = 256;

    /// <summary>Read and not yet applied, by all readers together, each record counting one and another for every 4 KiB: bounds the
    /// memory a peer can take, whatever it sends.</summary>
    private const int InboxRecords = 16_384;

    /// <summary>So many that a burst becomes few batches, so few that another peer's change does not wait long for the sink.</summary>
    private const int EventsPerTurn = 4_096;

    /// <summary>Held keys up to this many are looked up one by one; more are found in a list.</summary>
    private const int LookedUpSingly = 32;

    private static readonly TimeSpan ConfigPause = TimeSpan.FromSeconds(1);
    private readonly string _cluster;
    private readonly IKVStore _store;
    private readonly ClusterConfig _config;

    /// <summary>What we read and the peer publishes.</summary>
    private readonly IReadOnlyList<RemoteResource> _resources;
    private readonly RemoteClusterOptions _options;
    private readonly RemoteRecords _records;
    private readonly IRemoteClusterSink _sink;
    private readonly TimeProvider _time;
    private readonly Ticker _ticker;
    private readonly Action _publishStatus;
    private readonly Func<bool> _statusIsOld;
    private readonly Layout _layout;
    private readonly RecordValidator _validator;
    private readonly ImportSession _session;
    private readonly EventAllowance _changesAllowed;
    private readonly EventAllowance _listsAllowed;
    private readonly InFlight _inFlight = new(InboxRecords);
    private readonly Dictionary<RemoteResource, int> _lists = [];
    private readonly List<Task> _readers = [];
    private readonly Channel<Message> _inbox = Channel.CreateBounded<Message>(
        new BoundedChannelOptions(InboxBatches) { SingleReader = true });
    private readonly Channel<bool> _configDoubts = Channel.CreateBounded<bool>(
        new BoundedChannelOptions(1) { FullMode = BoundedChannelFullMode.DropWrite });

    private ITimer? _inspectionTimer;
    private bool _nodesListed;
    private bool _ipEntriesWait;
    private long _lastHeartbeat;
    private bool _heartbeatListed;
    private int _wrongClusterIdsSeen;

    private volatile SourceTrouble? _sourceTrouble;
    private volatile string? _unsigned;
    private bool _canariesListed;

    private enum Topic
    {
        Tick,
        Heartbeat,
        Canary,
        Resource,
        Config,
        Inspected,
    }

    private readonly record struct Message(Topic Topic, RemoteResource Resource = default, WatchBatch Batch = default, ClusterConfig? Config = null)
    {
        /// <summary>Null when the store could not be asked.</summary>
        public Inspection? Found { get; init; }

        /// <summary>Room it takes among what is in flight.</summary>
        public int Room { get; init; }

        /// <summary>Happened while we watched: what is only listed may be a dead writer's last.</summary>
        public bool Live { get; init; }
    }

    /// <param name="publishStatus">Called after each turn that may have changed it, from the loop.</param>
    /// <param name="statusIsOld">Whether it should be called although nothing happened; from any thread, and cheap.</param>
    public RemoteConnection(
        string cluster,
        IKVStore store,
        ClusterConfig config,
        RemoteClusterOptions options,
        RemoteRecords records,
        ImportPolicy policy,
        Pins pins,
        IRemoteClusterSink sink,
        TimeProvider time,
        Ticker ticker,
        Action publishStatus,
        Func<bool> statusIsOld)
    {
        _cluster = cluster;
        _store = store;
        _config = config;
        var exports = config.Capabilities?.ServiceExportsEnabled is not null;
        _resources = [.. options.Resources.Where(resource => resource != RemoteResource.ServiceExports || exports)];
        _options = options;
        _records = records;
        _sink = sink;
        _time = time;
        _ticker = ticker;
        _publishStatus = publishStatus;
        _statusIsOld = statusIsOld;
        _layout = config.Capabilities?.Cached == true ? Layout.Cache(cluster) : Layout.State(cluster);
        _validator = new RecordValidator(cluster, config, options.Numbering);
        var judge = new ImportJudge(cluster, policy, options.OwnGround, () => pins.Ranges, records.NodeAddresses);
        _session = new ImportSession(_layout, _validator, judge, policy, () => store.Health.ClusterId, () => store.Status.IsDoor);
        var quotas = policy.Quotas;
        _changesAllowed = new EventAllowance(quotas.EventsPerSecond, quotas.EventsPerSecond, time);
        // A first list comes at full speed; a peer that makes us list again and again does not.
        _listsAllowed = new EventAllowance(quotas.Keys, 4.0 * quotas.EventsPerSecond, time);
    }

    /// <summary>How long changes of the peer had to wait because they came faster than allowed.</summary>
    public TimeSpan Throttled => _changesAllowed.Waited + _listsAllowed.Waited;

    /// <summary>Why the relay that we read does not stand for the peer at present, in its words; null when it does, and without a relay.</summary>
    public SourceTrouble? SourceTrouble => _sourceTrouble;

    /// <summary>Resources that have no canary and are not followed; null when all are, and before the canaries are known.</summary>
    public string? Unsigned => _unsigned;

    /// <summary>Told of every heartbeat.</summary>
    public HeartbeatClock? Clock { get; init; }

    private bool HasCanaries => _config.Capabilities?.SyncedCanaries == true;

    public async Task RunAsync(CancellationToken cancellation)
    {
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        _lastHeartbeat = _time.GetTimestamp();
        _records.BeginConnection();
        await using var timer = _time.CreateTimer(
            _ => _inbox.Writer.TryWrite(new Message(Topic.Tick)), null, Timeout.InfiniteTimeSpan, Timeout.InfiniteTimeSpan);
        _inspectionTimer = timer;
        using var ticking = _ticker.Each(Tick);
        try
        {
            _readers.Add(RereadConfigAsync(stop.Token));
            Follow(Topic.Heartbeat, default, Keys.Heartbeat, stop.Token);
            if (HasCanaries)
                Follow(Topic.Canary, default, Keys.SyncedPrefix(_cluster), stop.Token);
            else
            {
                foreach (var resource in _resources)
                    FollowResource(resource, stop.Token);
            }
            NoteMissingExports();
            await LoopAsync(stop.Token);
        }
        finally
        {
            await stop.CancelAsync();
            // Readers do not throw: what ends one early ends the inbox, and so the loop, with the same reason.
            await Task.WhenAll(_readers);
        }
    }

    private void NoteMissingExports()
    {
        if (_resources.Count == _options.Resources.Count)
            return;
        var changes = new RemoteChanges(_cluster, _config.Id);
        _records.HasNoExports(changes);
        _sink.Apply(changes);
        _publishStatus();
    }

    private async Task LoopAsync(CancellationToken cancellation)
    {
        while (await _inbox.Reader.WaitToReadAsync(cancellation))
        {
            var changes = new RemoteChanges(_cluster, _config.Id);
            var (before, more) = (_records.Tally, false);
            try
            {
                for (var events = 0; events < EventsPerTurn && _inbox.Reader.TryRead(out var message);)
                {
                    more |= !IsCommon(message);
                    var count = message.Batch.Events?.Count ?? 0;
                    events += count;
                    await HandleAsync(message, changes, cancellation);
                    _inFlight.Leave(message.Room);
                }
                _records.ReleaseIfTold(_session, changes);
                Inspect(cancellation);
            }
            finally
            {
                // Also what came before a message that ends the connection: the records are marked as handed on.
                if (!changes.IsEmpty)
                    _sink.Apply(changes);
            }
            if (_validator.WrongClusterIds != _wrongClusterIdsSeen)
            {
                _wrongClusterIdsSeen = _validator.WrongClusterIds;
                _configDoubts.Writer.TryWrite(true);
            }
            // A record that takes another's place is nothing that a status says.
            if (more || _records.Tally != before)
                _publishStatus();
        }
    }

    private static bool IsCommon(in Message message) =>
        message.Topic is Topic.Resource or Topic.Heartbeat && message.Batch.Kind is WatchBatchKind.Put or WatchBatchKind.Delete;

    private async ValueTask HandleAsync(Message message, RemoteChanges changes, CancellationToken cancellation)
    {
        if (message.Live)
            _records.SeenAlive(message.Batch.Events[^1].ModRevision);
        switch (message.Topic)
        {
            case Topic.Tick:
                CheckHeartbeat();
                break;
            case Topic.Heartbeat when message.Batch.Kind == WatchBatchKind.Put:
                // The time of arrival counts: the peer's clock is its own affair, but worth knowing.
                Volatile.Write(ref _lastHeartbeat, _time.GetTimestamp());
                if (message.Live)
                    _records.SeenBeat();
                foreach (var beat in message.Batch.Events)
                    Clock?.Beat(beat.Value.Span, !_heartbeatListed, _time.GetUtcNow());
                break;
            case Topic.Heartbeat:
                _heartbeatListed = message.Batch.Kind == WatchBatchKind.ListEnd;
                break;
            case Topic.Canary when message.Batch.Kind == WatchBatchKind.Put:
                foreach (var canary in message.Batch.Events)
                {
                    if (canary.Key == Keys.SourceTrouble(_cluster))
                        _sourceTrouble = SourceTrouble.Decode(canary.Value.Span);
                    else
                        SeeCanary(canary.Key, cancellation);
                }
                LookForUnsigned();
                break;
            case Topic.Canary when message.Batch.Kind == WatchBatchKind.ListEnd:
                _canariesListed = true;
                LookForUnsigned();
                break;
            case Topic.Canary when message.Batch.Kind == WatchBatchKind.ListStart:
                _sourceTrouble = null;
                break;
            case Topic.Canary when message.Batch.Kind == WatchBatchKind.Delete:
                foreach (var canary in message.Batch.Events)
                {
                    if (canary.Key == Keys.SourceTrouble(_cluster))
                        _sourceTrouble = null;
                    if (ResourceOf(canary.Key) is { } lost)
                        _records.CanaryDeleted(lost);
                }
                break;
            case Topic.Inspected when message.Found is { } found:
                _records.Judge(found, _session, changes);
                break;
            case Topic.Inspected:
                _records.NotInspected(message.Resource);
                break;
            case Topic.Config when message.Config != _config:
                throw new RemoteConnectionException("the cluster-config changed: reading the cluster anew", planned: true);
            case Topic.Resource:
                await ApplyAsync(message.Resource, message.Batch, changes, cancellation);
                break;
        }
    }

    private async ValueTask ApplyAsync(RemoteResource resource, WatchBatch batch, RemoteChanges changes, CancellationToken cancellation)
    {
        KeyValue? canary = null;
        if (batch.Kind == WatchBatchKind.ListStart)
            _lists[resource] = _lists.GetValueOrDefault(resource) + 1;
        else if (batch.Kind == WatchBatchKind.ListEnd && HasCanaries)
            canary = await ReadCanaryOfListAsync(resource, batch.Revision, cancellation);
        _records.Apply(resource, batch, canary, _session, changes);
        if (batch.Kind != WatchBatchKind.ListEnd || resource != RemoteResource.Nodes)
            return;
        _nodesListed = true;
        if (_ipEntriesWait)
            FollowResource(RemoteResource.IpEntries, cancellation);
    }

    /// <summary>
    /// A list that follows a loss of continuity may come from an etcd that was wiped and is being filled again. Believing it would
    /// withdraw a cluster that is perfectly well; its canary, written after the data, tells: it must be as old as the list.
    /// </summary>
    private async Task<KeyValue?> ReadCanaryOfListAsync(RemoteResource resource, long revision, CancellationToken cancellation)
    {
        var canary = await _store.GetAsync(_layout.Canary(resource), cancellation);
        if (_lists[resource] > 1 && (canary is not { } present || present.ModRevision > revision))
            throw new RemoteConnectionException("the etcd lost its data: keeping what is known until the cluster has written it again");
        return canary;
    }

    /// <summary>What nobody says is whole is not read: that of an earlier connection stays, and is not what the peer says now.</summary>
    private void LookForUnsigned()
    {
        if (!_canariesListed || (_unsigned is null && _lists.Count == _resources.Count))
            return;
        var missing = _resources.Where(resource =>
            !_lists.ContainsKey(resource) && !(resource == RemoteResource.IpEntries && _ipEntriesWait)).ToList();
        _unsigned = missing.Count == 0 ? null : string.Join(", ", missing);
    }

    private RemoteResource? ResourceOf(string canary)
    {
        foreach (var resource in _resources)
        {
            if (canary == _layout.Canary(resource))
                return resource;
        }
        return null;
    }

    private void SeeCanary(string key, CancellationToken cancellation)
    {
        if (ResourceOf(key) is not { } resource)
            return;
        _records.CanaryWritten(resource);
        // Written again: the producer started anew, maybe as another cluster.
        if (!FollowResource(resource, cancellation))
            _configDoubts.Writer.TryWrite(true);
    }

    /// <summary>Looks again at what the breaker holds, when it is due, and sees to it that the loop wakes for the next.</summary>
    private void Inspect(CancellationToken cancellation)
    {
        if (_records.NextInspection is null)
            return;
        _readers.RemoveAll(reader => reader.IsCompletedSuccessfully);
        foreach (var (resource, deletions) in _records.TakeDue())
            _readers.Add(InspectAsync(resource, deletions, cancellation));
        if (_records.NextInspection is not { } next)
            return;
        // It may have become due since it was looked at, and nothing else may come to wake us. A timer counts whole milliseconds.
        var wait = Math.Max(0, Math.Ceiling((next - _time.GetUtcNow()).TotalMilliseconds));
        _inspectionTimer!.Change(TimeSpan.FromMilliseconds(wait), Timeout.InfiniteTimeSpan);
    }

    private async Task InspectAsync(RemoteResource resource, IReadOnlyList<string> deletions, CancellationToken cancellation)
    {
        await Task.Yield();
        try
        {
            Inspection? found = null;
            try
            {
                found = await LookAsync(resource, deletions, cancellation);
            }
            catch (KVStoreException)
            {
                // Nobody answers: that confirms nothing, and the connection's own status says why. It is asked again.
            }
            await _inbox.Writer.WriteAsync(new Message(Topic.Inspected, resource) { Found = found }, cancellation);
        }
        catch (Exception e)
        {
            _inbox.Writer.TryComplete(e);
        }
    }

    private async Task<Inspection> LookAsync(RemoteResource resource, IReadOnlyList<string> deletions, CancellationToken cancellation)
    {
        // The witnesses first: data that is there after them was not lost with them.
        var config = await _store.GetAsync(Keys.ClusterConfig(_cluster), cancellation);
        var canary = HasCanaries ? await _store.GetAsync(_layout.Canary(resource), cancellation) : null;
        var prefix = _layout.Prefix(resource);
        var there = new HashSet<string>(StringComparer.Ordinal);
        if (deletions.Count <= LookedUpSingly)
        {
            foreach (var key in deletions)
            {
                if (await _store.GetAsync(prefix + key, cancellation) is not null)
                    there.Add(key);
            }
        }
        else
        {
            var held = new HashSet<string>(deletions, StringComparer.Ordinal);
            var (items, _) = await _store.ListAsync(prefix, cancellation);
            there.UnionWith(items.Select(item => item.Key[prefix.Length..]).Where(held.Contains));
        }
        return new Inspection(resource, _store.Health.ClusterId, config, canary, HasCanaries, there);
    }

    /// <summary>Wakes the loop only if it has something to do or to tell. In a full inbox it finds that out by itself.</summary>
    private void Tick()
    {
        if (Silence > _options.HeartbeatTimeout || _statusIsOld() || _records.IsReleaseTold)
            _inbox.Writer.TryWrite(new Message(Topic.Tick));
    }

    private TimeSpan Silence => _time.GetElapsedTime(Volatile.Read(ref _lastHeartbeat));

    private void CheckHeartbeat()
    {
        var silence = Silence;
        if (silence > _options.HeartbeatTimeout)
            throw new RemoteConnectionException(
                $"quorum check failed: {(int)silence.TotalMinutes}m{silence.Seconds}s since last heartbeat update has been received");
    }

    private bool FollowResource(RemoteResource resource, CancellationToken cancellation)
    {
        // Entries are held against nodes that have to be known before, where no ranges are pinned.
        if (resource == RemoteResource.IpEntries && _session.Judge.LearnsNodes && !_nodesListed)
        {
            var waits = _ipEntriesWait;
            _ipEntriesWait = true;
            return !waits;
        }
        if (!_lists.TryAdd(resource, 0))
            return false;
        Follow(Topic.Resource, resource, _layout.Prefix(resource), cancellation);
        return true;
    }

    private void Follow(Topic topic, RemoteResource resource, string prefix, CancellationToken cancellation) =>
        _readers.Add(ReadAsync(topic, resource, prefix, cancellation));

    private async Task ReadAsync(Topic topic, RemoteResource resource, string prefix, CancellationToken cancellation)
    {
        // Off the loop's back: a store may do work before its first await.
        await Task.Yield();
        try
        {
            var listing = false;
            await foreach (var batch in _store.ListWatchAsync(prefix, cancellation))
            {
                listing = batch.Kind == WatchBatchKind.ListStart || (listing && batch.Kind != WatchBatchKind.ListEnd);
                if (topic == Topic.Resource)
                    await (listing ? _listsAllowed : _changesAllowed).TakeAsync(batch.Events.Count, cancellation);
                var room = RoomOf(batch.Events);
                await _inFlight.EnterAsync(room, cancellation);
                var live = !listing && batch.Kind == WatchBatchKind.Put;
                await _inbox.Writer.WriteAsync(new Message(topic, resource, batch) { Live = live, Room = room }, cancellation);
            }
            _inbox.Writer.TryComplete(new RemoteConnectionException($"the watch of {prefix} ended"));
        }
        catch (Exception e)
        {
            _inbox.Writer.TryComplete(e);
        }
    }

    private static int RoomOf(IReadOnlyList<KeyValue> events)
    {
        var room = events.Count;
        for (var i = 0; i < events.Count; i++)
            room += events[i].Value.Length >> 12;
        return room;
    }

    /// <summary>The range watch that etcd offers is not granted to peers on this key, so it is read: every minute, and when a
    /// rewritten canary or a foreign cluster ID gives reason to.</summary>
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
                    await _inbox.Writer.WriteAsync(new Message(Topic.Config, Config: config), cancellation);
                await Task.Delay(ConfigPause, _time, cancellation);
            }
        }
        catch (Exception e)
        {
            _inbox.Writer.TryComplete(e);
        }
    }
}
