using Mesh.ClusterMesh.ApiServer.Etcd;
using Mesh.ClusterMesh.ApiServer.Observability;
using Mesh.ClusterMesh.ApiServer.Relaying;
using Mesh.ClusterMesh.ApiServer.Serving;
using Mesh.ClusterMesh.ApiServer.Writing;
using Mesh.Joining.Listening;
using Mesh.Kubernetes;
using Mesh.KVStore;

namespace Mesh.ClusterMesh.ApiServer;

/// <summary>
/// The stages in pipe order, started one after the other and stopped in reverse: objects, etcd, the door, and the publisher between.
/// Stopping leaves every key: the leases keep them until we are back.
/// </summary>
public sealed class ApiServer : IAsyncDisposable
{
    private readonly ApiServerOptions _options;
    private readonly TimeProvider _time;
    private readonly Action<string> _log;
    private readonly ServerMetrics _metrics;
    private readonly Publisher _publisher;

    // Disposed from the last to the first.
    private readonly Stack<IAsyncDisposable> _started = new();
    private IObjectSource? _source;
    private volatile bool _ready;

    public ApiServer(ApiServerOptions options, TimeProvider? time = null, Action<string>? log = null)
    {
        _options = options;
        _time = time ?? TimeProvider.System;
        _log = log ?? (_ => { });
        _metrics = new ServerMetrics(options.Self.Name, _time);
        _publisher = new Publisher(options, _time, _log);
    }

    /// <summary>Every resource has been written once, canaries included, by us or by the replica that writes, and the door is open.</summary>
    public bool IsReady => _ready;

    /// <summary>Of several replicas on one etcd, this one writes.</summary>
    public bool IsWriter => _publisher.IsWriter;

    /// <summary>The etcd child; null when one was given.</summary>
    public EtcdSupervisor? Etcd { get; private set; }

    /// <summary>The door; null when there is none or the server has not come so far.</summary>
    internal DoorKeeper? Door { get; private set; }

    /// <summary>What mirrors other clusters for our own agents; null when nothing does.</summary>
    internal RelayKeeper? Relay { get; private set; }

    /// <summary>Where other clusters join; null when nowhere.</summary>
    internal JoinListener? Join { get; private set; }

    /// <summary>Runs until cancelled.</summary>
    /// <exception cref="IOException">A port, file or directory cannot be used; the message names it.</exception>
    public async Task RunAsync(CancellationToken cancellation)
    {
        await StartedAsync(await StatusPages.StartAsync(_options.Health, _options.Metrics, () => IsReady, Page, Problems, cancellation));
        if (_options.Join is { } join)
            Join = await StartedAsync(JoinListener.Start(join with { Time = _time, Log = _log }));
        using var name = ReplicaName.Of(_options.StateDirectory);
        var source = _source = await StartedAsync(_options.Source.Open(_publisher.Kinds, "clustermesh-apiserver", _time, _log));
        var etcd = await OpenEtcdAsync(cancellation);
        if (_options.Relay is { } relay)
            Relay = await StartedAsync(await RelayKeeper.StartAsync(relay, _time, _log, cancellation));
        if (_options.Door is { } door)
            Door = await StartedAsync(new DoorKeeper(door, etcd, Relay?.Cache, _time, _log));
        var store = await StartedAsync(new EtcdKVStore(etcd, _time));
        _log($"etcd at {string.Join(' ', etcd.Endpoints)}");
        await AllAsync(
            [
                stop => _publisher.ReflectAsync(source, stop),
                stop => _publisher.WriteAsync(store, Measured, _options.EmbeddedEtcdDirectory is null ? name.Value : null, stop),
                stop => ReportReadyAsync(store, stop),
                stop => Relay?.Completion.WaitAsync(stop) ?? Task.CompletedTask,
            ], cancellation);
    }

    public async ValueTask DisposeAsync()
    {
        while (_started.TryPop(out var stage))
            await stage.DisposeAsync();
    }

    /// <summary>The first that fails ends the others, and is what is told.</summary>
    private static async Task AllAsync(IEnumerable<Func<CancellationToken, Task>> stages, CancellationToken cancellation)
    {
        using var end = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        var running = stages.Select(stage => Task.Run(() => stage(end.Token), CancellationToken.None)).ToList();
        while (running.Count > 0)
        {
            var done = await Task.WhenAny(running);
            running.Remove(done);
            if (done.IsCompletedSuccessfully)
                continue;
            await end.CancelAsync();
            await Task.WhenAll(running).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            await done;
        }
    }

    private MeasuredKVStore Measured(EtcdKVStore store) => new(store, _metrics, _time);

    private async Task<EtcdOptions> OpenEtcdAsync(CancellationToken cancellation)
    {
        if (_options.EmbeddedEtcdDirectory is not { } directory)
            return _options.GivenEtcd!;
        Etcd = await StartedAsync(EtcdSupervisor.Start(directory, _time, _log));
        await Etcd.WaitForStartAsync(0, cancellation);
        await Etcd.WaitUntilReadyAsync(cancellation);
        _log($"etcd: process {Etcd.ChildProcessId} serves this process alone");
        return Etcd.ClientOptions;
    }

    private async Task ReportReadyAsync(EtcdKVStore store, CancellationToken cancellation)
    {
        await _publisher.WaitUntilPublishedAsync(store, cancellation);
        if (Door is not null)
            await Door.WaitUntilOpenAsync(cancellation);
        _ready = true;
        _metrics.BootstrapCompleted();
        _log($"ready: {_publisher.Summary}{(IsWriter ? "" : ", written by another replica")}");
    }

    private string Page()
    {
        var problems = (_source?.Problems.Count ?? 0) + _publisher.Problems.Count;
        var page = _metrics.Page(_publisher.Stores, problems, Etcd?.Restarts, IsWriter);
        page += Join?.Counters.Page("cilium_clustermesh_apiserver_");
        if (Relay is not null)
            page += RelayMetrics.Page(_options.Self.Name, Relay.Statuses, Relay.Cache.Status, Relay.Bootstrap);
        return Door is null ? page : page + DoorMetrics.Page(Door.Status, _options.Self.Name, _time.GetUtcNow());
    }

    private string Problems()
    {
        var source = (_source?.Problems ?? []).Select(problem => $"{problem.Where}: {problem.Message}");
        var stores = _publisher.Stores.Values.Select(status => status.LastError).OfType<string>();
        var etcd = Etcd?.Error is { } error ? [$"etcd: {error}"] : Array.Empty<string>();
        var join = Join?.Problem is { } closed ? [closed] : Array.Empty<string>();
        return string.Concat(
            new[] { source, _publisher.Problems, stores, etcd, Door?.Problems ?? [], Relay?.Problems ?? [], join }
                .SelectMany(lines => lines).Select(line => line + "\n"));
    }

    private ValueTask<T> StartedAsync<T>(T stage)
        where T : IAsyncDisposable
    {
        _started.Push(stage);
        return ValueTask.FromResult(stage);
    }
}
