using System.Net;
using Mesh.ClusterMesh.ApiServer.Observability;
using Mesh.ClusterMesh.ApiServer.Serving;
using Mesh.ClusterMesh.Door;

namespace Mesh.ClusterMesh.ApiServer.Relaying;

/// <summary>What the process `kvstoremesh` was asked to do; every value is possible.</summary>
public sealed record KvstoremeshOptions
{
    public required RelaySettings Relay { get; init; }

    /// <summary>Where the agents read.</summary>
    public required DoorOptions Door { get; init; }

    /// <summary>Where /readyz answers; null for nowhere.</summary>
    public IPEndPoint? Health { get; init; }

    /// <summary>Where /metrics answers; null for nowhere.</summary>
    public IPEndPoint? Metrics { get; init; }
}

/// <summary>The relay as a process of its own: a door with the cache view alone.</summary>
public sealed class KvstoremeshServer(KvstoremeshOptions options, TimeProvider time, Action<string> log) : IAsyncDisposable
{
    private static readonly TimeSpan ReadyCheck = TimeSpan.FromMilliseconds(200);

    private IAsyncDisposable? _pages;
    private RelayKeeper? _relay;
    private DoorKeeper? _door;
    private volatile bool _ready;

    /// <summary>Runs until cancelled.</summary>
    /// <exception cref="IOException">A port, file or directory cannot be used; the message names it.</exception>
    public async Task RunAsync(CancellationToken cancellation)
    {
        _pages = await StatusPages.StartAsync(options.Health, options.Metrics, () => _ready, Page, Problems, cancellation);
        _relay = await RelayKeeper.StartAsync(options.Relay, time, log, cancellation);
        _door = new DoorKeeper(options.Door, null, _relay.Cache, time, log);
        await await Task.WhenAny(_relay.Completion.WaitAsync(cancellation), ReportReadyAsync(_relay, _door, cancellation));
        await _relay.Completion.WaitAsync(cancellation);
    }

    public async ValueTask DisposeAsync()
    {
        foreach (var stage in new[] { _door, _relay, _pages })
        {
            if (stage is not null)
                await stage.DisposeAsync();
        }
    }

    private async Task ReportReadyAsync(RelayKeeper relay, DoorKeeper door, CancellationToken cancellation)
    {
        await door.WaitUntilOpenAsync(cancellation);
        using var timer = new PeriodicTimer(ReadyCheck, time);
        while (relay.Bootstrap is null)
            await timer.WaitForNextTickAsync(cancellation);
        _ready = true;
        log($"ready: {relay.Statuses.Count(peer => peer.Ready)} of {relay.Statuses.Count} remote clusters mirrored, {relay.Cache.Status.Keys} keys");
    }

    private string Page()
    {
        if (_relay is not { } relay)
            return "";
        var page = RelayMetrics.Page(options.Relay.ClusterName, relay.Statuses, relay.Cache.Status, relay.Bootstrap);
        return _door is { } door ? page + DoorMetrics.Page(door.Status, options.Relay.ClusterName, time.GetUtcNow()) : page;
    }

    private string Problems() =>
        string.Concat((_relay?.Problems ?? []).Concat(_door?.Problems ?? []).Select(line => line + "\n"));
}
