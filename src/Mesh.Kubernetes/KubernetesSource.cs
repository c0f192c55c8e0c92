using Mesh.Kubernetes.Api;
using Mesh.Kubernetes.Objects;

namespace Mesh.Kubernetes;

/// <summary>
/// A Kubernetes API server as the source of a cluster's objects: one reflector per kind, one feed for all readers, and the same checks as
/// for manifests. An object that cannot be understood changes nothing and is named in <see cref="Problems"/>; a server that is away, refuses
/// or answers nonsense withdraws nothing. Synced is said when every kind has been listed; a kind that we may not read, or whose definition
/// is not installed, is incomplete (<see cref="ObjectEvent.Incomplete"/>) and holds up none of the others.
/// </summary>
public sealed class KubernetesSource : IObjectSource
{
    private readonly KubeClient _client;
    private readonly ReflectorOptions _options;
    private readonly ObjectFeed _feed = new();
    private readonly Lock _lock = new();
    private readonly Dictionary<ObjectKey, SourceProblem> _faults = [];

    /// <summary>Objects of which a sound version has been published.</summary>
    private readonly HashSet<ObjectKey> _published = [];

    private readonly Dictionary<ObjectKind, Func<ReflectorStatus>> _reflectors = [];
    private readonly HashSet<ObjectKind> _synced = [];
    private readonly CancellationTokenSource _stop = new();
    private readonly Task _following;

    /// <param name="client">Becomes ours, and ends with us.</param>
    /// <param name="kinds">Kinds to follow.</param>
    public KubernetesSource(KubeClient client, IReadOnlySet<ObjectKind> kinds, ReflectorOptions? options = null)
    {
        _client = client;
        _options = options ?? new ReflectorOptions();
        var following = kinds.Select(Start).ToArray();
        _following = Task.WhenAll([.. following.Select(start => Task.Run(start)), Task.Run(WatchRefusalsAsync)]);
    }

    /// <summary>For whoever writes to the same server.</summary>
    public KubeClient Client => _client;

    public IReadOnlyList<SourceProblem> Problems
    {
        get
        {
            lock (_lock)
            {
                var servers = _reflectors.Values.Select(status => status()).Where(status => status.Error is not null)
                    .Select(status => new SourceProblem(_client.Configuration.Server.ToString(), status.Error!, status.FailingSince ?? default));
                return [.. servers.Concat(_faults.Values).OrderBy(problem => problem.Since)];
            }
        }
    }

    /// <summary>How each kind's reflector is doing.</summary>
    public IReadOnlyDictionary<ObjectKind, ReflectorStatus> Status
    {
        get
        {
            lock (_lock)
                return _reflectors.ToDictionary(pair => pair.Key, pair => pair.Value());
        }
    }

    public IAsyncEnumerable<IReadOnlyList<ObjectEvent>> WatchAsync(IReadOnlySet<ObjectKind> kinds, CancellationToken cancellation) =>
        _feed.WatchAsync(kinds, cancellation);

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync().ConfigureAwait(false);
        await _following.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        _client.Dispose();
        _stop.Dispose();
    }

    private Func<Task> Start(ObjectKind kind) => kind switch
    {
        ObjectKind.Service => Start(kind, KubeResources.Services),
        ObjectKind.EndpointSlice => Start(kind, KubeResources.EndpointSlices),
        ObjectKind.Namespace => Start(kind, KubeResources.Namespaces),
        ObjectKind.CiliumNode => Start(kind, KubeResources.CiliumNodes),
        ObjectKind.CiliumIdentity => Start(kind, KubeResources.CiliumIdentities),
        ObjectKind.CiliumEndpoint => Start(kind, KubeResources.CiliumEndpoints),
        ObjectKind.ServiceExport => Start(kind, KubeResources.ServiceExports),
        ObjectKind.NetworkPolicy => Start(kind, KubeResources.NetworkPolicies),
        ObjectKind.CiliumNetworkPolicy => Start(kind, KubeResources.CiliumNetworkPolicies),
        ObjectKind.CiliumClusterwideNetworkPolicy => Start(kind, KubeResources.CiliumClusterwideNetworkPolicies),
        _ => throw new ArgumentOutOfRangeException(nameof(kind), kind, "no resource of the API has these objects"),
    };

    private Func<Task> Start<T>(ObjectKind kind, KubeResource<T> resource)
        where T : KubernetesObject
    {
        var reflector = new Reflector<T>(_client, resource, _options);
        _reflectors[kind] = () => reflector.Status;
        return () => FollowAsync(kind, reflector);
    }

    private async Task FollowAsync<T>(ObjectKind kind, Reflector<T> reflector)
        where T : KubernetesObject
    {
        try
        {
            await foreach (var batch in reflector.WatchAsync(_stop.Token).ConfigureAwait(false))
                Publish(kind, batch);
        }
        catch (OperationCanceledException) when (_stop.IsCancellationRequested)
        {
            // The way to stop.
        }
        catch (Exception e)
        {
            // No server makes this happen: it is a fault of ours, and no reader may go on as if nothing would ever change again.
            _feed.Fail(e);
            throw;
        }
    }

    private void Publish<T>(ObjectKind kind, IReadOnlyList<ReflectorEvent<T>> batch)
        where T : KubernetesObject
    {
        lock (_lock)
        {
            var events = new List<ObjectEvent>();
            foreach (var change in batch)
            {
                if (change.Type == ReflectorEventType.Synced)
                    _synced.Add(kind);
                else
                    Take(kind, change, events);
            }
            Say(events);
        }
    }

    private void Take<T>(ObjectKind kind, ReflectorEvent<T> change, List<ObjectEvent> events)
        where T : KubernetesObject
    {
        var key = new ObjectKey(kind, change.Name.Namespace, change.Name.Name);
        if (change.Type == ReflectorEventType.Delete)
        {
            Mended(key);
            if (_published.Remove(key) && _feed.Find(key) is { } last)
                events.Add(new ObjectEvent(ObjectEventType.Delete, last));
            return;
        }
        var fault = change.Fault ?? ObjectRules.Check(change.Object!);
        if (fault is not null)
        {
            if (_faults.GetValueOrDefault(key)?.Message != fault)
                _options.Log($"{key}: {fault}");
            _faults[key] = new SourceProblem(key.ToString(), fault, _options.Time.GetUtcNow());
            return;
        }
        Mended(key);
        _published.Add(key);
        events.Add(new ObjectEvent(ObjectEventType.Upsert, change.Object));
    }

    private void Mended(ObjectKey key)
    {
        if (_faults.Remove(key, out var problem))
            _options.Log($"{key}: mended ({problem.Message})");
    }

    /// <summary>Publishes changes, and Synced when its time has come: no kind is awaited that the server does not let us read.</summary>
    private void Say(List<ObjectEvent> events)
    {
        var refused = _reflectors.Where(pair => !_synced.Contains(pair.Key) && pair.Value().Refused).Select(pair => pair.Key).ToHashSet();
        var complete = _synced.Count + refused.Count == _reflectors.Count;
        var unread = _faults.Keys.Where(key => !_published.Contains(key)).Select(key => key.Kind);
        _feed.Publish(events, complete, refused.Concat(unread).ToHashSet());
    }

    /// <summary>A refusal is no event of any object: whether there is one is looked up until every kind is known.</summary>
    private async Task WatchRefusalsAsync()
    {
        try
        {
            while (true)
            {
                await Task.Delay(RefusalPoll, _options.Time, _stop.Token).ConfigureAwait(false);
                lock (_lock)
                {
                    if (_synced.Count == _reflectors.Count)
                        return;
                    Say([]);
                }
            }
        }
        catch (OperationCanceledException) when (_stop.IsCancellationRequested)
        {
            // The way to stop.
        }
    }

    private static readonly TimeSpan RefusalPoll = TimeSpan.FromMilliseconds(200);
}
