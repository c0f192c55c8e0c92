using Mesh.ControlPlane.Endpoints;
using Mesh.ControlPlane.IPCache;
using Mesh.ControlPlane.Nodes;
using Mesh.ControlPlane.RemoteClusters;
using Mesh.ControlPlane.Sources;
using Mesh.Kubernetes;
using Mesh.Kubernetes.Objects;
using Mesh.Model;
using Mesh.Policy;
using Mesh.Policy.Engine;
using Mesh.StateDB;

namespace Mesh.ControlPlane.Policies;

/// <summary>
/// Writes the policies table: gives the engine this cluster's policy objects and namespaces, the identities of all clusters and the
/// endpoints of this node, and takes from it the rows that follow. Address ranges that rules name get an identity of this node in the
/// ipcache, but not those of pods: rules about addresses never mean pods.
/// </summary>
public sealed class PolicyWriter : IDisposable
{
    /// <summary>How late something may be that is due without a change: a range given up, rules whose flows have been learnt.</summary>
    private static readonly TimeSpan Idle = TimeSpan.FromMilliseconds(500);

    private readonly Lock _lock = new();
    private readonly DesiredState _state;
    private readonly IPCacheWriter _ipcache;
    private readonly ClusterIdentity _self;
    private readonly PolicyEngine _engine;
    private readonly Action<string> _log;
    private readonly ChangeFeed<uint, IdentityRow> _identities;
    private readonly ChangeFeed<ushort, Endpoint> _endpoints;
    private readonly ChangeFeed<NodeName, Node> _nodes;
    private readonly HashSet<string> _told = new(StringComparer.Ordinal);
    private Dictionary<IpPrefix, uint> _shown = [];

    /// <summary>Endpoints whose policy in the kernel may come from an object that cannot be read now: what would take its place waits here.</summary>
    private Dictionary<PolicyKey, PolicyRow?>? _waiting;

    /// <param name="kept">Endpoints for which the kernel has a policy from before this run.</param>
    /// <param name="log">Gets one line for whatever of a policy is not done, when it appears.</param>
    public PolicyWriter(DesiredState state, IPCacheWriter ipcache, ClusterIdentity self, PolicyEngineOptions options,
        IReadOnlyCollection<ushort> kept, TimeProvider time, Action<string> log)
    {
        _state = state;
        _ipcache = ipcache;
        _self = self;
        _engine = new PolicyEngine(options, time);
        _log = log;
        _waiting = kept.ToDictionary(PolicyKey.Endpoint, _ => (PolicyRow?)null);
        _identities = state.Identities.Subscribe();
        _endpoints = state.Endpoints.Subscribe();
        _nodes = state.Nodes.Subscribe();
        state.Policies.AddInitializer(LocalSource.Name);
        state.Policies.SealInitializers();
    }

    /// <summary>Applies a batch of local objects; those of other kinds are passed over.</summary>
    public void ApplyLocal(IReadOnlyList<ObjectEvent> events)
    {
        lock (_lock)
        {
            foreach (var change in events)
            {
                var gone = change.Type == ObjectEventType.Delete;
                switch (change.Object)
                {
                    case Namespace one:
                        _engine.SetNamespace(one.Metadata.Name ?? "", gone ? null : one.Metadata.Labels ?? new Dictionary<string, string>());
                        break;
                    case CiliumEndpoint pod:
                        _engine.SetNamedPorts($"{pod.Metadata.Namespace}/{pod.Metadata.Name}",
                            gone ? [] : [.. (pod.Status?.NamedPorts ?? []).OfType<NamedPort>()]);
                        break;
                    case NetworkPolicy or CiliumNetworkPolicy or CiliumClusterwideNetworkPolicy when gone:
                        _engine.RemovePolicy(change.Object.Key);
                        break;
                    case NetworkPolicy or CiliumNetworkPolicy or CiliumClusterwideNetworkPolicy:
                        _engine.SetPolicy(change.Object);
                        break;
                }
            }
            Turn();
        }
    }

    /// <summary>Every policy of this cluster could be read once: what holds follows from the objects alone.</summary>
    public void Complete()
    {
        lock (_lock)
        {
            var waiting = _waiting ?? [];
            _waiting = null;
            Write([.. waiting.Where(change => change.Value is not null)]);
            _state.Policies.InitializerDone(LocalSource.Name);
        }
    }

    /// <summary>Takes in what has changed in the other tables, and writes what follows. One transaction, in the order in which the
    /// kernel must get it.</summary>
    public void Turn()
    {
        lock (_lock)
        {
            foreach (var change in _identities.Take())
                if (change.Row is { } identity)
                    _engine.SetIdentity(change.Key, identity.Labels, identity.Cluster);
                else
                    _engine.RemoveIdentity(change.Key);
            foreach (var change in _endpoints.Take())
                if (change.Row is { } endpoint)
                    _engine.SetEndpoint(change.Key, endpoint.Identity, $"{endpoint.Namespace}/{endpoint.PodName}");
                else
                    _engine.RemoveEndpoint(change.Key);
            var moved = _nodes.Take().Count > 0;
            var changes = _engine.Take();
            Write([.. changes.Where(change => !Waits(change))]);
            if (changes.Count > 0 || moved)
                ShowRanges();
            Tell();
        }
    }

    /// <summary>Follows the tables until cancelled.</summary>
    public Task RunAsync(CancellationToken cancellation) =>
        Task.WhenAll(FollowAsync(_identities, cancellation), FollowAsync(_endpoints, cancellation), FollowAsync(_nodes, cancellation));

    /// <summary>Asks the engine something while nothing changes.</summary>
    public T Read<T>(Func<PolicyEngine, T> ask)
    {
        lock (_lock)
            return ask(_engine);
    }

    public void Dispose()
    {
        _identities.Dispose();
        _endpoints.Dispose();
        _nodes.Dispose();
    }

    private bool Waits(KeyValuePair<PolicyKey, PolicyRow?> change)
    {
        if (_waiting?.ContainsKey(change.Key) != true)
            return false;
        _waiting[change.Key] = change.Value;
        // A pod that has gone is waited for no longer.
        return change.Value is not null || !_waiting.Remove(change.Key);
    }

    private void Write(IReadOnlyList<KeyValuePair<PolicyKey, PolicyRow?>> changes)
    {
        if (changes.Count == 0)
            return;
        _state.Policies.Write(table =>
        {
            foreach (var (key, row) in changes)
                if (row is null)
                    table.Delete(key);
                else
                    table.Upsert(key, row);
        });
    }

    private async Task FollowAsync<TKey, TRow>(ChangeFeed<TKey, TRow> feed, CancellationToken cancellation)
        where TKey : notnull
        where TRow : class
    {
        try
        {
            while (!cancellation.IsCancellationRequested)
            {
                await feed.WaitAsync(Idle, cancellation);
                Turn();
            }
        }
        catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
        {
            // The normal end.
        }
    }

    private void ShowRanges()
    {
        var named = _engine.Ranges;
        var pods = named.Count == 0 ? [] : _state.Nodes.Snapshot().SelectMany(pair => pair.Value.Row.PodCidrs.Items).Distinct().ToList();
        var now = named.Where(range => !pods.Any(pod => pod.Length <= range.Key.Length && pod.Contains(range.Key.Address)))
            .ToDictionary(range => range.Key, range => range.Value);
        var origin = new IPCacheOrigin(IPCacheSource.Policy, _self.Name, "policy");
        _ipcache.Write(
        [
            .. _shown.Where(range => !now.ContainsKey(range.Key)).Select(range => new IPCacheChange(range.Key, origin, null)),
            .. now.Where(range => !_shown.ContainsKey(range.Key)).Select(range => new IPCacheChange(range.Key, origin,
                new IPCacheEntry(range.Key, range.Value, null, 0, IPCacheSource.Policy, _self.Name, _self.Id, "", ""))),
        ]);
        _shown = now;
    }

    private void Tell()
    {
        var current = _engine.Policies.SelectMany(policy => policy.Unsupported.Select(what => $"{policy.Key}: {what}")).Concat(_engine.Problems).ToList();
        foreach (var line in current)
            if (_told.Add(line))
                _log(line);
        _told.IntersectWith(current);
    }
}
