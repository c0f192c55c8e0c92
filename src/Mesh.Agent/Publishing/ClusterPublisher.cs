using Mesh.ControlPlane;
using Mesh.ControlPlane.Nodes;
using Mesh.Kubernetes;
using Mesh.Kubernetes.Api;
using Mesh.Kubernetes.Objects;
using Mesh.Model;
using Endpoint = Mesh.ControlPlane.Endpoints.Endpoint;

namespace Mesh.Agent.Publishing;

/// <summary>
/// What this node tells its cluster through the API server: its CiliumNode, a CiliumEndpoint for each of its pods, and the CiliumIdentity of
/// each set of labels. Every touch of anything these are made of has them compared with what the server has, and only a difference is
/// written: so our own writes, coming back as events, end there. While the server is away the differences wait, for as long as it takes.
/// </summary>
internal sealed class ClusterPublisher
{
    /// <summary>Server-side apply knows by it which fields are ours.</summary>
    public const string FieldManager = "mesh-agent";

    private const int RequestsAtOnce = 8;

    private static readonly HashSet<ObjectKind> Kinds =
        [ObjectKind.CiliumNode, ObjectKind.CiliumIdentity, ObjectKind.CiliumEndpoint, ObjectKind.Namespace];

    private readonly AgentOptions _options;
    private readonly KubernetesSource _source;
    private readonly KubeClient _client;
    private readonly DesiredState _state;
    private readonly TimeProvider _time;
    private readonly Action<string> _log;
    private readonly string _agent;
    private readonly string _bootId;
    private readonly IdentityAllocator _identities;
    private readonly Reflector<KubeNode> _nodes;
    private readonly Reflector<Pod> _pods;
    private readonly Work<ObjectName> _work;
    private readonly TaskCompletionSource<Node> _complete = new(TaskCreationOptions.RunContinuationsAsynchronously);

    private readonly Lock _lock = new();
    private readonly Dictionary<string, Namespace> _namespaces = new(StringComparer.Ordinal);
    private readonly Dictionary<ObjectName, CiliumEndpoint> _present = [];
    private readonly Dictionary<ushort, Endpoint> _rows = [];
    private readonly Dictionary<ObjectName, string> _labelsOf = [];
    private readonly Dictionary<ObjectName, SourceProblem> _problems = [];
    private CiliumNode? _node;
    private bool _objectsKnown;
    private bool _rowsKnown;
    private bool _wasOurs;
    private string? _takenOver;
    private volatile string? _waiting;

    public ClusterPublisher(AgentOptions options, KubernetesSource source, DesiredState state, TimeProvider time, Random random, Action<string> log)
    {
        _options = options;
        _source = source;
        _client = source.Client;
        _state = state;
        _time = time;
        _log = log;
        _agent = AgentName.Of(options.StateDirectory);
        _bootId = File.ReadAllText("/proc/sys/kernel/random/boot_id").Trim();
        _identities = new IdentityAllocator(_client, options.Cluster, options.Numbering);
        ReflectorOptions Only(string selector) => new()
        {
            Selection = new KubeSelection { FieldSelector = selector },
            Time = time,
            Random = random,
            Log = log,
        };
        _nodes = new Reflector<KubeNode>(_client, KubeResources.Nodes, Only($"metadata.name={options.NodeName}"));
        _pods = new Reflector<Pod>(_client, KubeResources.Pods, Only($"spec.nodeName={options.NodeName}"));
        _work = new Work<ObjectName>(time, random, TimeSpan.FromMilliseconds(100), TimeSpan.FromSeconds(15));
    }

    /// <summary>Stands for the CiliumNode among the things to do: no pod has an empty name.</summary>
    private static ObjectName TheNode => new("", "");

    /// <summary>This node with all that its datapath is made of: an underlay address, and an address in its pod ranges.</summary>
    public Task<Node> NodeComplete => _complete.Task;

    /// <summary>What the node's own object still lacks; null for nothing.</summary>
    public string? Waiting => _waiting;

    public IReadOnlyList<SourceProblem> Problems
    {
        get
        {
            lock (_lock)
                return [.. _problems.Values.OrderBy(problem => problem.Since)];
        }
    }

    /// <summary>Runs until cancelled.</summary>
    public async Task RunAsync(CancellationToken cancellation)
    {
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        Task[] running = [FollowNodesAsync(stop.Token), FollowPodsAsync(stop.Token), FollowObjectsAsync(stop.Token), FollowRowsAsync(stop.Token),
            FollowLocalNodeAsync(stop.Token), ConvergeAsync(stop.Token)];
        try
        {
            await await Task.WhenAny(running);
        }
        finally
        {
            await stop.CancelAsync();
            await Task.WhenAll(running).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
    }

    private async Task FollowNodesAsync(CancellationToken cancellation)
    {
        await foreach (var batch in _nodes.WatchAsync(cancellation))
        {
            foreach (var change in batch.Where(change => change.Type == ReflectorEventType.Fault))
                Problem(TheNode, $"Node {change.Name}", change.Fault!);
            // The pods' objects name the node's address.
            lock (_lock)
                _work.Touch([TheNode, .. _rows.Values.Select(NameOf)]);
        }
    }

    private async Task FollowPodsAsync(CancellationToken cancellation)
    {
        await foreach (var batch in _pods.WatchAsync(cancellation))
        {
            lock (_lock)
            {
                var mine = _rows.Values.Select(NameOf).ToHashSet();
                _work.Touch(batch.Any(change => change.Type == ReflectorEventType.Synced) ? mine : batch.Select(change => change.Name).Where(mine.Contains));
            }
        }
    }

    private async Task FollowRowsAsync(CancellationToken cancellation)
    {
        using var feed = _state.Endpoints.Subscribe();
        while (true)
        {
            await feed.WaitAsync(_rowsKnown ? Timeout.InfiniteTimeSpan : TimeSpan.FromMilliseconds(100), cancellation);
            var changes = feed.Take();
            lock (_lock)
            {
                foreach (var change in changes)
                {
                    if (_rows.Remove(change.Key, out var before))
                        _work.Touch(NameOf(before));
                    if (change.Row is { } row)
                        _work.Touch(NameOf(_rows[change.Key] = row));
                }
                if (_rowsKnown || !_state.Endpoints.Initialized.IsCompleted)
                    continue;
                // From now on an object of ours without a registration is one of a pod that has ended.
                _rowsKnown = true;
                _work.Touch(_present.Keys);
            }
        }
    }

    private async Task FollowLocalNodeAsync(CancellationToken cancellation)
    {
        using var feed = _state.Nodes.Subscribe();
        while (true)
        {
            if (_state.Nodes.TryGet(new NodeName(_options.Cluster.Name, _options.NodeName), out var row)
                && (row.UnderlayAddress(v6: false) ?? row.UnderlayAddress(v6: true)) is not null
                && row.Addresses.Items.Any(address => address.Type == "CiliumInternalIP"))
                _complete.TrySetResult(row);
            await feed.WaitAsync(Timeout.InfiniteTimeSpan, cancellation);
            feed.Take();
        }
    }

    private async Task FollowObjectsAsync(CancellationToken cancellation)
    {
        await foreach (var batch in _source.WatchAsync(Kinds, cancellation))
        {
            lock (_lock)
            {
                foreach (var change in batch)
                    Note(change);
            }
        }
    }

    private void Note(ObjectEvent change)
    {
        var present = change.Type == ObjectEventType.Upsert;
        switch (change.Object)
        {
            case null:
                _objectsKnown = true;
                _work.Touch([TheNode, .. _present.Keys, .. _rows.Values.Select(NameOf)]);
                break;
            case CiliumNode node when node.Metadata.Name == _options.NodeName:
                _node = present ? node : null;
                _work.Touch(TheNode);
                break;
            case CiliumIdentity identity:
                foreach (var text in _identities.Observe(identity, present))
                    _work.Touch(_labelsOf.Where(pair => pair.Value == text).Select(pair => pair.Key));
                break;
            case CiliumEndpoint endpoint:
                NoteEndpoint(endpoint, present);
                break;
            case Namespace place:
                if (present)
                    _namespaces[place.Metadata.Name!] = place;
                else
                    _namespaces.Remove(place.Metadata.Name!);
                _work.Touch(_rows.Values.Select(NameOf).Where(name => name.Namespace == place.Metadata.Name));
                break;
            default:
                break;
        }
    }

    private void NoteEndpoint(CiliumEndpoint endpoint, bool present)
    {
        var name = new ObjectName(endpoint.Metadata.Namespace!, endpoint.Metadata.Name!);
        if (present)
            _present[name] = endpoint;
        else
            _present.Remove(name);
        if (endpoint.Status?.Networking?.Node == Underlay || _rows.Values.Any(row => NameOf(row) == name))
            _work.Touch(name);
    }

    private string? Underlay => _nodes.Find(null, _options.NodeName) is { } node ? NodeObject.Underlay(node) : null;

    private static ObjectName NameOf(Endpoint row) => new(row.Namespace, row.PodName);

    private async Task ConvergeAsync(CancellationToken cancellation)
    {
        while (true)
        {
            var names = await _work.TakeAsync(cancellation);
            await Parallel.ForEachAsync(names, new ParallelOptions { MaxDegreeOfParallelism = RequestsAtOnce, CancellationToken = cancellation },
                async (name, stop) => await TryConvergeAsync(name, stop));
        }
    }

    private async Task TryConvergeAsync(ObjectName name, CancellationToken cancellation)
    {
        var where = name == TheNode ? $"CiliumNode {_options.NodeName}" : $"CiliumEndpoint {name}";
        try
        {
            var problem = name == TheNode ? await ConvergeNodeAsync(cancellation) : await ConvergePodAsync(name, cancellation);
            _work.Done(name);
            Problem(name, where, problem);
        }
        catch (KubeApiException e)
        {
            _work.Failed(name, e.RetryAfter);
            Problem(name, where, $"is not written, and tried again: {e.Message}");
        }
        catch (InvalidOperationException e)
        {
            _work.Failed(name, null);
            Problem(name, where, e.Message);
        }
    }

    /// <returns>What keeps the object from being written, until something changes; null for nothing.</returns>
    private async Task<string?> ConvergeNodeAsync(CancellationToken cancellation)
    {
        CiliumNode? present;
        lock (_lock)
        {
            if (!_objectsKnown)
                return null;
            present = _node;
        }
        if (_nodes.Find(null, _options.NodeName) is not { } node)
        {
            _waiting = $"waiting for the Node object {_options.NodeName}: does --node-name say the name that kubectl get nodes shows?";
            return _nodes.Status.Synced ? _waiting : null;
        }
        if (NodeObject.Underlay(node) is null)
            return _waiting = $"waiting for Node {_options.NodeName} to have an InternalIP in status.addresses, which its kubelet tells";
        if (Rival(present) is { } rival)
            return rival;
        var ranges = NodeObject.Ranges(node, present, _options.PodRangesFromNode);
        _waiting = ranges.Count > 0 ? null : _options.PodRangesFromNode
            ? $"waiting for Node {_options.NodeName} to have spec.podCIDRs, which the controller manager gives (--allocate-node-cidrs)"
            : $"waiting for pod ranges in spec.ipam.podCIDRs of CiliumNode {_options.NodeName}, which the operator gives";
        if (present is null || !NodeObject.IsAsWanted(present, node, ranges, _agent, _bootId, Node.DsrAnnotation))
        {
            await _client.ApplyAsync(KubeResources.CiliumNodes.Raw, null, _options.NodeName,
                NodeObject.Of(node, ranges, _options.PodRangesFromNode, _agent, _bootId, Node.DsrAnnotation), FieldManager, cancellation);
            _wasOurs = true;
        }
        return _waiting;
    }

    /// <summary>Another agent has taken over our object while we ran: two nodes have one name. Whoever came last has it, or they would take
    /// it from each other for ever.</summary>
    private string? Rival(CiliumNode? present)
    {
        var owner = present is null ? null : NodeObject.AgentOf(present);
        if (owner == _agent)
            _wasOurs = true;
        if (owner is null || owner == _agent)
            return null;
        if (_wasOurs && present!.Metadata.ResourceVersion != _takenOver)
            return $"another node's agent writes it ({string.Join(", ", present.Spec.Addresses?.Select(address => address?.Ip) ?? [])}): two nodes have the "
                + $"name {_options.NodeName}: give each a --node-name of its own, then restart this agent; until then this node is not published";
        if (_takenOver != present!.Metadata.ResourceVersion)
            _log($"CiliumNode {_options.NodeName}: taken over from another agent, which is gone or has the same --node-name");
        _takenOver = present.Metadata.ResourceVersion;
        return null;
    }

    /// <inheritdoc cref="ConvergeNodeAsync"/>
    private async Task<string?> ConvergePodAsync(ObjectName name, CancellationToken cancellation)
    {
        Endpoint? row;
        CiliumEndpoint? present;
        Namespace? place;
        bool known;
        lock (_lock)
        {
            row = _rows.Values.Where(one => NameOf(one) == name).MinBy(one => one.Id);
            present = _present.GetValueOrDefault(name);
            place = _namespaces.GetValueOrDefault(name.Namespace);
            known = _objectsKnown && _rowsKnown;
        }
        if (!known || Underlay is not { } underlay)
            return null;
        if (row is null)
        {
            lock (_lock)
                _labelsOf.Remove(name);
            if (present?.Status?.Networking?.Node == underlay)
                await RemoveAsync(name, present, cancellation);
            return null;
        }
        if (_pods.Find(name.Namespace, name.Name) is not { } pod)
            return _pods.Status.Synced ? $"the pod is registered here and no Pod of this node has its name: it has no identity until there is one" : null;
        if (place is null)
            return $"its Namespace object is not known: its labels are part of the pod's identity";
        var labels = SecurityLabels.Of(pod, place, _options.Cluster.Name);
        lock (_lock)
            _labelsOf[name] = labels.Text;
        var identity = _identities.Find(labels) ?? await _identities.AllocateAsync(labels, cancellation);
        if (present is null || !EndpointObject.IsAsWanted(present, row, pod, identity, underlay))
            await _client.ApplyAsync(KubeResources.CiliumEndpoints.Raw, name.Namespace, name.Name, EndpointObject.Of(row, pod, identity, labels, underlay),
                FieldManager, cancellation);
        return null;
    }

    /// <summary>The pod may run elsewhere by now under the same name: only the object that we know of is removed.</summary>
    private async Task RemoveAsync(ObjectName name, CiliumEndpoint present, CancellationToken cancellation)
    {
        try
        {
            await _client.DeleteAsync(KubeResources.CiliumEndpoints, name.Namespace, name.Name, cancellation,
                new KubeDelete { Uid = present.Metadata.Uid, ResourceVersion = present.Metadata.ResourceVersion });
        }
        catch (KubeApiException e) when (e.Fault == KubeFault.Conflict)
        {
            // It has changed: the change comes as an event, and is judged then.
        }
    }

    private void Problem(ObjectName name, string where, string? message)
    {
        lock (_lock)
        {
            var before = _problems.GetValueOrDefault(name);
            if (before?.Message == message)
                return;
            if (message is null)
            {
                _problems.Remove(name);
                _log($"{where}: mended");
                return;
            }
            _problems[name] = new SourceProblem(where, message, before?.Since ?? _time.GetUtcNow());
            _log($"{where}: {message}");
        }
    }
}
