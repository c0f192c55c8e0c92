using System.Collections.Concurrent;
using System.Threading.Channels;
using Mesh.ClusterMesh.Config;
using Mesh.ClusterMesh.Door;
using Mesh.ClusterMesh.Wire;
using Mesh.KVStore;

namespace Mesh.ClusterMesh.Relay;

/// <summary>
/// KVStoreMesh: mirrors the peers of a configuration directory into the cache view of a door, so that a cluster reads each peer once
/// and its agents read at home. Bytes are copied; records are judged by the agents. Each peer has a task of its own and a turn of its
/// own at the cache. What the cache holds leaves it only because the peer deleted it, because a list that the peer's canary confirms
/// lacks it, or because the peer was removed from the directory.
/// </summary>
public sealed class ClusterRelay
{
    private readonly RelayOptions _options;
    private readonly ConfigDirectory _directory;
    private readonly Func<PeerConfig, IKVStore> _open;
    private readonly MirrorView _mirror;
    private readonly TimeProvider _time;
    private readonly Random _random;
    private readonly Action<string> _log;
    private readonly long _born;
    private readonly Ticker _ticker;
    private readonly Lock _gate = new();
    private readonly Dictionary<string, Peer> _peers = new(StringComparer.Ordinal);
    private readonly ConcurrentDictionary<string, RelayedPeer> _relayed = new(StringComparer.Ordinal);
    private readonly ConcurrentDictionary<string, RelayedClusterStatus> _invalid = new(StringComparer.Ordinal);
    private volatile bool _ready;

    private sealed record Peer(Channel<PeerConfig?> Changes, Task Task);

    /// <param name="open">Makes the store for one connection of a peer. It may throw: the message becomes the peer's status.</param>
    /// <param name="mirror">Written by this relay alone; stays the caller's.</param>
    /// <param name="random">Thread-safe, such as Random.Shared.</param>
    /// <param name="log">Takes one line per change of state.</param>
    public ClusterRelay(RelayOptions options, ConfigDirectory directory, Func<PeerConfig, IKVStore> open, MirrorView mirror,
        TimeProvider time, Random random, Action<string> log)
    {
        (_options, _directory, _open, _mirror, _time, _random) = (options, directory, open, mirror, time, random);
        _log = line => log($"relay: {line}");
        _born = time.GetTimestamp();
        _ticker = RelayedPeer.NewTicker(time);
    }

    /// <summary>One per configured peer, sorted by name; also those whose file has an impossible name. From any thread.</summary>
    public IReadOnlyList<RelayedClusterStatus> Statuses =>
        [.. _relayed.Values.Where(peer => !peer.Removed).Select(peer => peer.Status).Concat(_invalid.Values)
            .OrderBy(status => status.Name, StringComparer.Ordinal)];

    /// <summary>Why the directory cannot be read at present, null when it can.</summary>
    public string? Problem => _directory.Problem;

    /// <summary>Every peer that could be reached in time has been mirrored whole; once true it stays so.</summary>
    public bool IsReady => _ready = _ready || Judge();

    /// <summary>Runs until cancelled, then returns when every connection is closed. Nothing is deleted at the end.</summary>
    public async Task RunAsync(CancellationToken cancellation)
    {
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        var beating = BeatAsync(stop);
        var tidying = RemoveUnconfiguredAsync(stop);
        try
        {
            await foreach (var change in _directory.WatchAsync(stop.Token))
                Take(change, stop);
        }
        catch (OperationCanceledException) when (stop.IsCancellationRequested)
        {
            // Told to stop, or a task failed: the wait below then throws what it threw.
        }
        finally
        {
            await stop.CancelAsync();
            await Task.WhenAll([beating, tidying, .. _peers.Values.Select(peer => peer.Task)]);
        }
    }

    private bool Judge()
    {
        var age = _time.GetElapsedTime(_born);
        if (age > _options.GlobalReadyTimeout)
            return true;
        if (!_directory.Listed.IsCompletedSuccessfully)
            return age > _options.PerClusterReadyTimeout;
        return _directory.Listed.Result.All(name => !_relayed.TryGetValue(name, out var peer) || peer.Ready
            || (age > _options.PerClusterReadyTimeout && !peer.WasConnected));
    }

    private void Take(PeerChange change, CancellationTokenSource stop)
    {
        _invalid.TryRemove(change.Name, out _);
        if (change.Kind == PeerChangeKind.Invalid)
        {
            _invalid[change.Name] = new RelayedClusterStatus { Name = change.Name, Status = change.Problem! };
            return;
        }
        lock (_gate)
        {
            if (_peers.ContainsKey(change.Name) || change.Config is not null)
                PeerOf(change.Name, stop).Changes.Writer.TryWrite(change.Config);
        }
    }

    private Peer PeerOf(string name, CancellationTokenSource stop)
    {
        if (_peers.TryGetValue(name, out var peer))
            return peer;
        var changes = Channel.CreateUnbounded<PeerConfig?>();
        return _peers[name] = new Peer(changes, RunPeerAsync(name, changes.Reader, stop));
    }

    /// <summary>Clusters that a former relay mirrored and that are no longer configured.</summary>
    private async Task RemoveUnconfiguredAsync(CancellationTokenSource stop)
    {
        try
        {
            var listed = await _directory.Listed.WaitAsync(stop.Token);
            foreach (var name in Mirrored().Except(listed))
            {
                lock (_gate)
                {
                    if (!_peers.ContainsKey(name))
                        PeerOf(name, stop).Changes.Writer.TryWrite(null);
                }
            }
        }
        catch (OperationCanceledException) when (stop.IsCancellationRequested)
        {
            // The way to stop.
        }
    }

    private IEnumerable<string> Mirrored() =>
        RelayKeys.All.Select(RelayKeys.ResourcePrefix).Prepend(Keys.ClusterConfigPrefix).Append("cilium/synced/")
            .SelectMany(_mirror.SegmentsBelow).Distinct();

    /// <summary>Our own heartbeat in the cache: its readers follow us, not the peers.</summary>
    private async Task BeatAsync(CancellationTokenSource stop)
    {
        try
        {
            using var timer = new PeriodicTimer(_options.HeartbeatInterval, _time);
            do
                await _mirror.CommitAsync([new MirrorChange(Keys.Heartbeat, WireTime.Now(_time))], stop.Token);
            while (await timer.WaitForNextTickAsync(stop.Token));
        }
        catch (OperationCanceledException) when (stop.IsCancellationRequested)
        {
            // The way to stop.
        }
        catch
        {
            await stop.CancelAsync();
            throw;
        }
    }

    /// <param name="changes">The wanted configuration each time it changes; null when the peer is to go.</param>
    private async Task RunPeerAsync(string name, ChannelReader<PeerConfig?> changes, CancellationTokenSource stop)
    {
        await Task.Yield();
        var cancellation = stop.Token;
        try
        {
            while (true)
            {
                var wanted = await changes.ReadAsync(cancellation);
                var peer = _relayed.GetOrAdd(name, _ => new RelayedPeer(name, _options, _mirror, _time, _ticker, _random, _log));
                if (wanted is not null)
                {
                    await RunUntilChangedAsync(peer, wanted, changes, cancellation);
                    continue;
                }
                await peer.RemoveAsync(changes.WaitToReadAsync(cancellation).AsTask(), cancellation);
                if (changes.Count == 0)
                    _relayed.TryRemove(name, out _);
            }
        }
        catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
        {
            // The way to stop.
        }
        catch
        {
            // A defect, not a peer's doing: the process must not go on as if this peer were mirrored.
            await stop.CancelAsync();
            throw;
        }
    }

    private async Task RunUntilChangedAsync(
        RelayedPeer peer, PeerConfig wanted, ChannelReader<PeerConfig?> changes, CancellationToken cancellation)
    {
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        var run = peer.RunAsync(wanted, _open, stop.Token);
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
