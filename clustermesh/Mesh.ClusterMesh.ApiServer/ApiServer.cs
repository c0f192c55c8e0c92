using Mesh.ClusterMesh.ApiServer.Etcd;
using Mesh.ClusterMesh.ApiServer.Observability;
using Mesh.ClusterMesh.ApiServer.Serving;
using Mesh.ClusterMesh.Remote;
using Mesh.ClusterMesh.Wire;
using Mesh.Joining.Listening;
using Mesh.Kubernetes;
using Mesh.KVStore;

namespace Mesh.ClusterMesh.ApiServer;

/// <summary>
/// The stages in pipe order, started one after the other and stopped in reverse. Config first, then data, then canaries: a peer that
/// reads at any moment finds what it needs to judge the rest. Stopping leaves every key: the leases keep them until we are back.
/// </summary>
public sealed class ApiServer : IAsyncDisposable
{
    private readonly ApiServerOptions _options;
    private readonly TimeProvider _time;
    private readonly Action<string> _log;
    private readonly ServerMetrics _metrics;
    private readonly Reflector _reflector;
    private readonly Dictionary<RemoteResource, SyncStore> _stores = [];

    // Disposed from the last to the first.
    private readonly Stack<IAsyncDisposable> _started = new();
    private ManifestDirectory? _source;
    private volatile bool _ready;

    public ApiServer(ApiServerOptions options, TimeProvider? time = null, Action<string>? log = null)
    {
        _options = options;
        _time = time ?? TimeProvider.System;
        _log = log ?? (_ => { });
        _metrics = new ServerMetrics(options.Self.Name, _time);
        _reflector = new Reflector(options.Self, options.NamespacesAreGlobal);
    }

    /// <summary>Every resource has been written once, canaries included, and the door is open.</summary>
    public bool IsReady => _ready;

    /// <summary>The etcd child; null when one was given.</summary>
    public EtcdSupervisor? Etcd { get; private set; }

    /// <summary>The door; null when there is none or the server has not come so far.</summary>
    internal DoorKeeper? Door { get; private set; }

    /// <summary>Where other clusters join; null when nowhere.</summary>
    internal JoinListener? Join { get; private set; }

    /// <summary>Runs until cancelled.</summary>
    /// <exception cref="IOException">A port or directory cannot be used; the message names it.</exception>
    public async Task RunAsync(CancellationToken cancellation)
    {
        await StartedAsync(await StatusPages.StartAsync(_options, () => IsReady, Page, Problems, cancellation));
        if (_options.Join is { } join)
            Join = await StartedAsync(JoinListener.Start(join with { Time = _time, Log = _log }));
        _source = await StartedAsync(new ManifestDirectory(_options.ManifestDirectory, _time, _log));
        var etcd = await OpenEtcdAsync(cancellation);
        if (_options.Door is { } door)
            Door = await StartedAsync(new DoorKeeper(door, etcd, _time, _log));
        var store = await StartedAsync(new MeasuredKVStore(new EtcdKVStore(etcd, _time), _metrics, _time));
        var leases = await StartedAsync(new LeasePool(store, _options.LeaseTtl));
        await StartedAsync(await Announcements.StartAsync(store, leases, _options, _time, _log, cancellation));
        _log($"etcd {string.Join(' ', etcd.Endpoints)}: cluster-config of {_options.Self.Name} (id {_options.Self.Id}) is written");
        foreach (var publication in _reflector.All)
            _stores[publication.Resource] = await StartedAsync(SyncStore.Start(store, OptionsFor(publication.Resource, leases), _time));
        await Task.WhenAll(ReflectAsync(cancellation), ReportReadyAsync(cancellation));
    }

    public async ValueTask DisposeAsync()
    {
        while (_started.TryPop(out var stage))
            await stage.DisposeAsync();
    }

    private async Task<EtcdOptions> OpenEtcdAsync(CancellationToken cancellation)
    {
        if (_options.EmbeddedEtcdDirectory is not { } directory)
            return _options.GivenEtcd!;
        Etcd = await StartedAsync(EtcdSupervisor.Start(directory, _time, _log));
        await Etcd.WaitForStartAsync(0, cancellation);
        await Etcd.WaitUntilReadyAsync(cancellation);
        _log($"etcd: process {Etcd.ChildProcessId} serves this process at {Etcd.ClientOptions.Endpoints[0]}");
        return Etcd.ClientOptions;
    }

    private SyncStoreOptions OptionsFor(RemoteResource resource, LeasePool leases) => new()
    {
        Prefix = Layout.State(_options.Self.Name).Prefix(resource),
        CanaryKey = Keys.Canary(_options.Self.Name, resource),
        Leases = leases,
    };

    private async Task ReflectAsync(CancellationToken cancellation)
    {
        var problems = new Dictionary<string, string>(StringComparer.Ordinal);
        await foreach (var batch in _source!.WatchAsync(Reflector.Kinds, cancellation))
        {
            bool synced;
            lock (_reflector)
                synced = _reflector.Apply(batch);
            foreach (var publication in _reflector.All)
                Hand(publication, synced);
            LogProblems(problems);
        }
    }

    private void Hand(Publication publication, bool synced)
    {
        var store = _stores[publication.Resource];
        foreach (var (key, value) in publication.TakeChanges())
        {
            if (value is null)
                store.Remove(key);
            else
                store.Set(key, value);
        }
        if (synced)
            store.MarkSynced();
    }

    private void LogProblems(Dictionary<string, string> known)
    {
        foreach (var (subject, message) in _reflector.Problems)
        {
            if (known.GetValueOrDefault(subject) != message)
                _log($"{subject}: {message}");
            known[subject] = message;
        }
        foreach (var subject in known.Keys.Except(_reflector.Problems.Keys).ToArray())
        {
            known.Remove(subject);
            _log($"{subject}: mended");
        }
    }

    private async Task ReportReadyAsync(CancellationToken cancellation)
    {
        foreach (var store in _stores.Values)
            await store.WaitForSyncedAsync(cancellation);
        if (Door is not null)
            await Door.WaitUntilOpenAsync(cancellation);
        _ready = true;
        _metrics.BootstrapCompleted();
        _log($"ready: {string.Join(", ", _reflector.All.Select(publication => $"{publication.Count} {publication.Resource}"))}");
    }

    private string Page()
    {
        lock (_reflector)
        {
            var problems = (_source?.Problems.Count ?? 0) + _reflector.Problems.Count;
            var page = _metrics.Page(_stores.ToDictionary(pair => pair.Key, pair => pair.Value.Status), problems, Etcd?.Restarts);
            page += Join?.Counters.Page("cilium_clustermesh_apiserver_");
            return Door is null ? page : page + DoorMetrics.Page(Door.Status, _options.Self.Name, _time.GetUtcNow());
        }
    }

    private string Problems()
    {
        lock (_reflector)
        {
            var source = (_source?.Problems ?? []).Select(problem => $"{problem.Where}: {problem.Message}");
            var objects = _reflector.Problems.Select(problem => $"{problem.Key}: {problem.Value}");
            var stores = _stores.Values.Select(store => store.Status.LastError).OfType<string>();
            var etcd = Etcd?.Error is { } error ? [$"etcd: {error}"] : Array.Empty<string>();
            var door = Door?.Problems ?? [];
            var join = Join?.Problem is { } closed ? [closed] : Array.Empty<string>();
            return string.Concat(source.Concat(objects).Concat(stores).Concat(etcd).Concat(door).Concat(join).Select(line => line + "\n"));
        }
    }

    private ValueTask<T> StartedAsync<T>(T stage)
        where T : IAsyncDisposable
    {
        _started.Push(stage);
        return ValueTask.FromResult(stage);
    }
}
