using System.Threading.Channels;
using Mesh.ClusterMesh.Wire;
using Mesh.KVStore;

namespace Mesh.ClusterMesh.Remote;

/// <summary>
/// One connection to a peer whose cluster-config is valid: watches heartbeat, canaries and the four resources, each in a reader of
/// its own, and applies what they bring from a single loop. A turn of the loop takes all that has arrived, so that a burst becomes
/// few batches while a lone event leaves at once. Ends by cancellation or by <see cref="RemoteConnectionException"/>; either way
/// nothing is withdrawn.
/// </summary>
internal sealed class RemoteConnection
{
    // Readers wait when the loop falls this far behind, which in turn slows the watch streams down.
    private const int InboxBatches = 256;
    private const int EventsPerTurn = 8192;

    private static readonly TimeSpan TickInterval = TimeSpan.FromSeconds(1);

    private readonly string _cluster;
    private readonly IKVStore _store;
    private readonly ClusterConfig _config;
    private readonly RemoteClusterOptions _options;
    private readonly RemoteRecords _records;
    private readonly IRemoteClusterSink _sink;
    private readonly TimeProvider _time;
    private readonly Action _publishStatus;
    private readonly Layout _layout;
    private readonly RecordValidator _validator;
    private readonly Dictionary<RemoteResource, int> _lists = [];
    private readonly List<Task> _readers = [];
    private readonly Channel<Message> _inbox = Channel.CreateBounded<Message>(
        new BoundedChannelOptions(InboxBatches) { SingleReader = true });
    private readonly Channel<bool> _configDoubts = Channel.CreateBounded<bool>(
        new BoundedChannelOptions(1) { FullMode = BoundedChannelFullMode.DropWrite });

    private long _lastHeartbeat;
    private int _wrongClusterIdsSeen;

    private enum Topic
    {
        Tick,
        Heartbeat,
        Canary,
        Resource,
        Config,
    }

    private readonly record struct Message(Topic Topic, RemoteResource Resource, WatchBatch Batch, ClusterConfig? Config);

    /// <param name="publishStatus">Called after each turn, from the loop.</param>
    public RemoteConnection(
        string cluster,
        IKVStore store,
        ClusterConfig config,
        RemoteClusterOptions options,
        RemoteRecords records,
        IRemoteClusterSink sink,
        TimeProvider time,
        Action publishStatus)
    {
        _cluster = cluster;
        _store = store;
        _config = config;
        _options = options;
        _records = records;
        _sink = sink;
        _time = time;
        _publishStatus = publishStatus;
        _layout = config.Capabilities?.Cached == true ? Layout.Cache(cluster) : Layout.State(cluster);
        _validator = new RecordValidator(cluster, config, options.Numbering);
    }

    private bool HasCanaries => _config.Capabilities?.SyncedCanaries == true;

    public async Task RunAsync(CancellationToken cancellation)
    {
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        _lastHeartbeat = _time.GetTimestamp();
        try
        {
            _readers.Add(TickAsync(stop.Token));
            _readers.Add(RereadConfigAsync(stop.Token));
            Follow(Topic.Heartbeat, default, Keys.Heartbeat, stop.Token);
            if (HasCanaries)
                Follow(Topic.Canary, default, Keys.SyncedPrefix(_cluster), stop.Token);
            else
                Array.ForEach(Enum.GetValues<RemoteResource>(), resource => FollowResource(resource, stop.Token));
            await LoopAsync(stop.Token);
        }
        finally
        {
            await stop.CancelAsync();
            // Readers do not throw: what ends one early ends the inbox, and so the loop, with the same reason.
            await Task.WhenAll(_readers);
        }
    }

    private async Task LoopAsync(CancellationToken cancellation)
    {
        while (await _inbox.Reader.WaitToReadAsync(cancellation))
        {
            var changes = new RemoteChanges(_cluster, _config.Id);
            try
            {
                for (var events = 0; events < EventsPerTurn && _inbox.Reader.TryRead(out var message);)
                {
                    events += message.Batch.Events?.Count ?? 0;
                    await HandleAsync(message, changes, cancellation);
                }
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
            _publishStatus();
        }
    }

    private async ValueTask HandleAsync(Message message, RemoteChanges changes, CancellationToken cancellation)
    {
        switch (message.Topic)
        {
            case Topic.Tick:
                CheckHeartbeat();
                break;
            case Topic.Heartbeat when message.Batch.Kind == WatchBatchKind.Put:
                // The time of arrival counts: the peer's clock is its own affair.
                _lastHeartbeat = _time.GetTimestamp();
                break;
            case Topic.Canary when message.Batch.Kind == WatchBatchKind.Put:
                foreach (var canary in message.Batch.Events)
                    SeeCanary(canary.Key, cancellation);
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
        if (batch.Kind == WatchBatchKind.ListStart)
            _lists[resource] = _lists.GetValueOrDefault(resource) + 1;
        else if (batch.Kind == WatchBatchKind.ListEnd && _lists[resource] > 1 && HasCanaries)
            await CheckListIsCompleteAsync(resource, batch.Revision, cancellation);
        _records.Apply(resource, _layout.Prefix(resource), batch, _validator, changes);
    }

    /// <summary>
    /// A list that follows a loss of continuity may come from an etcd that was wiped and is being filled again. Believing it would
    /// withdraw a cluster that is perfectly well; its canary, written after the data, tells: it must be as old as the list.
    /// </summary>
    private async Task CheckListIsCompleteAsync(RemoteResource resource, long revision, CancellationToken cancellation)
    {
        var canary = await _store.GetAsync(_layout.Canary(resource), cancellation);
        if (canary is not { } present || present.ModRevision > revision)
            throw new RemoteConnectionException("the etcd lost its data: keeping what is known until the cluster has written it again");
    }

    private void SeeCanary(string key, CancellationToken cancellation)
    {
        foreach (var resource in Enum.GetValues<RemoteResource>())
        {
            if (key != _layout.Canary(resource))
                continue;
            // Written again: the producer started anew, maybe as another cluster.
            if (!FollowResource(resource, cancellation))
                _configDoubts.Writer.TryWrite(true);
        }
    }

    private void CheckHeartbeat()
    {
        var silence = _time.GetElapsedTime(_lastHeartbeat);
        if (silence > _options.HeartbeatTimeout)
            throw new RemoteConnectionException(
                $"quorum check failed: {(int)silence.TotalMinutes}m{silence.Seconds}s since last heartbeat update has been received");
    }

    private bool FollowResource(RemoteResource resource, CancellationToken cancellation)
    {
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
            await foreach (var batch in _store.ListWatchAsync(prefix, cancellation))
                await _inbox.Writer.WriteAsync(new Message(topic, resource, batch, null), cancellation);
            _inbox.Writer.TryComplete(new RemoteConnectionException($"the watch of {prefix} ended"));
        }
        catch (Exception e)
        {
            _inbox.Writer.TryComplete(e);
        }
    }

    private async Task TickAsync(CancellationToken cancellation)
    {
        try
        {
            using var timer = new PeriodicTimer(TickInterval, _time);
            while (await timer.WaitForNextTickAsync(cancellation))
                await _inbox.Writer.WriteAsync(new Message(Topic.Tick, default, default, null), cancellation);
        }
        catch (Exception e)
        {
            _inbox.Writer.TryComplete(e);
        }
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
                if (_store.Status.Connected && await _store.GetAsync(Keys.ClusterConfig(_cluster), cancellation) is { } found
                    && ClusterConfigCodec.TryDecode(found.Value.Span, out var config, out _))
                    await _inbox.Writer.WriteAsync(new Message(Topic.Config, default, default, config), cancellation);
                await Task.Delay(TickInterval, _time, cancellation);
            }
        }
        catch (Exception e)
        {
            _inbox.Writer.TryComplete(e);
        }
    }
}
