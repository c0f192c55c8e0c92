using System.Collections.Concurrent;
using System.Threading.Channels;
using Mesh.ClusterMesh.Config;
using Mesh.ClusterMesh.Imports;
using Mesh.KVStore;

namespace Mesh.ClusterMesh.Remote;

/// <summary>
/// All peers of this process, following the configuration directory live: a new file connects, a changed one connects anew without
/// forgetting anything, a removed one drains. Each peer has a task of its own, which takes the changes of its file one after
/// another, so that a peer that comes back while it is being removed waits its turn.
/// </summary>
public sealed class RemoteClusters
{
    private readonly RemoteClusterOptions _options;
    private readonly ConfigDirectory _directory;
    private readonly Func<PeerConfig, IKVStore> _open;
    private readonly IRemoteClusterSink _sink;
    private readonly TimeProvider _time;
    private readonly Random _random;
    private readonly ClusterIdReservations _reservations = new();
    private readonly Pins _pins = new();
    private readonly Ticker _ticker;
    private readonly Dictionary<string, Peer> _peers = new(StringComparer.Ordinal);
    private readonly ConcurrentDictionary<string, RemoteClusterStatus> _invalid = new(StringComparer.Ordinal);
    private readonly ConcurrentDictionary<string, RemoteCluster> _clusters = new(StringComparer.Ordinal);

    /// <summary>Peers that are not connected because their import file is malformed and was never good.</summary>
    private readonly ConcurrentDictionary<string, RemoteClusterStatus> _blocked = new(StringComparer.Ordinal);

    private sealed record Peer(Channel<PeerConfig?> Changes, Task Task);

    /// <param name="open">Makes the store for one connection of a peer. It may throw: the message becomes the peer's status.</param>
    /// <param name="random">Thread-safe, such as Random.Shared.</param>
    public RemoteClusters(
        RemoteClusterOptions options,
        ConfigDirectory directory,
        Func<PeerConfig, IKVStore> open,
        IRemoteClusterSink sink,
        TimeProvider time,
        Random random)
    {
        _options = options;
        _directory = directory;
        _open = open;
        _sink = sink;
        _time = time;
        _random = random;
        _ticker = RemoteCluster.NewTicker(time);
    }

    /// <summary>One per configured peer, sorted by name; also those whose file has an impossible name. From any thread.</summary>
    public IReadOnlyList<RemoteClusterStatus> Statuses =>
        [.. _clusters.Values.Select(cluster => cluster.Status).Concat(_invalid.Values).Concat(_blocked.Values)
            .OrderBy(status => status.Name, StringComparer.Ordinal)];

    /// <summary>The connected and configured peers, by name. From any thread.</summary>
    public IReadOnlyList<RemoteCluster> Clusters => [.. _clusters.Values.OrderBy(cluster => cluster.Name, StringComparer.Ordinal)];

    /// <summary>Runs until cancelled, then returns when every connection is closed. Nothing is drained at the end.</summary>
    public async Task RunAsync(CancellationToken cancellation)
    {
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        try
        {
            await foreach (var change in _directory.WatchAsync(stop.Token))
                Take(change, stop);
        }
        catch (OperationCanceledException) when (stop.IsCancellationRequested)
        {
            // Told to stop, or a peer's task failed: the wait below then throws what it threw.
        }
        finally
        {
            await stop.CancelAsync();
            await Task.WhenAll(_peers.Values.Select(peer => peer.Task));
        }
    }

    private void Take(PeerChange change, CancellationTokenSource stop)
    {
        if (_invalid.TryRemove(change.Name, out _))
            _sink.Drain(change.Name, 0);
        if (change.Kind == PeerChangeKind.Invalid)
        {
            var status = new RemoteClusterStatus { Name = change.Name, Status = change.Problem! };
            _invalid[change.Name] = status;
            _sink.StatusChanged(status);
            return;
        }
        if (!_peers.TryGetValue(change.Name, out var peer))
        {
            if (change.Config is null)
                return;
            var changes = Channel.CreateUnbounded<PeerConfig?>();
            _peers[change.Name] = peer = new Peer(changes, RunPeerAsync(change.Name, changes.Reader, stop));
        }
        _pins.Set(change.Name, change.Config?.Imports);
        peer.Changes.Writer.TryWrite(change.Config);
    }

    /// <param name="changes">The wanted configuration each time it changes; null when the peer is to go.</param>
    private async Task RunPeerAsync(string name, ChannelReader<PeerConfig?> changes, CancellationTokenSource stop)
    {
        await Task.Yield();
        var cancellation = stop.Token;
        RemoteCluster? cluster = null;
        try
        {
            while (true)
            {
                var wanted = await changes.ReadAsync(cancellation);
                if (_blocked.TryRemove(name, out _) && wanted is null)
                    _sink.Drain(name, 0);
                if (wanted is { Imports: null, ImportsProblem: { } problem })
                {
                    _sink.StatusChanged(_blocked[name] = new RemoteClusterStatus { Name = name, Status = problem, ImportsProblem = problem });
                    continue;
                }
                if (wanted is null)
                {
                    _clusters.TryRemove(name, out _);
                    cluster?.Drain();
                    cluster = null;
                    continue;
                }
                cluster ??= new RemoteCluster(name, _options, _reservations, _pins, _ticker, _sink, _time, _random);
                cluster.Use(wanted.Imports ?? _options.DefaultImports, wanted.ImportsProblem);
                _clusters[name] = cluster;
                await RunUntilChangedAsync(cluster, wanted, changes, cancellation);
            }
        }
        catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
        {
            // The way to stop.
        }
        catch
        {
            // A defect, not a peer's doing: the process must not go on as if this peer were watched.
            await stop.CancelAsync();
            throw;
        }
    }

    private async Task RunUntilChangedAsync(
        RemoteCluster cluster, PeerConfig wanted, ChannelReader<PeerConfig?> changes, CancellationToken cancellation)
    {
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        var run = cluster.RunAsync(() => _open(wanted), stop.Token);
        await Task.WhenAny(run, changes.WaitToReadAsync(stop.Token).AsTask());
        await stop.CancelAsync();
        try
        {
            await run;
        }
        catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
        {
            // Its file changed.
        }
    }
}
