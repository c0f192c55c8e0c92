using Mesh.ControlPlane.Endpoints;
using Mesh.ControlPlane.Identities;
using Mesh.ControlPlane.LoadBalancing;
using Mesh.ControlPlane.Nodes;
using Mesh.ControlPlane.Policies;
using Mesh.Kubernetes;
using Mesh.Kubernetes.Objects;

namespace Mesh.ControlPlane.Sources;

/// <summary>
/// Feeds the writers from this cluster's own objects. Everything up to the source's Synced is held back and applied as one batch: a
/// Service whose file was read before that of its EndpointSlice would otherwise lose its backends for a moment at each restart.
/// </summary>
public sealed class LocalSource
{
    /// <summary>Its name among the sources a table waits for.</summary>
    public const string Name = "local objects";

    /// <summary>The kinds that a node follows.</summary>
    public static IReadOnlySet<ObjectKind> Kinds { get; } = new HashSet<ObjectKind>
    {
        ObjectKind.Service, ObjectKind.EndpointSlice, ObjectKind.CiliumNode, ObjectKind.CiliumIdentity, ObjectKind.CiliumEndpoint,
        ObjectKind.Namespace, ObjectKind.NetworkPolicy, ObjectKind.CiliumNetworkPolicy, ObjectKind.CiliumClusterwideNetworkPolicy,
    };

    private static readonly ObjectKind[] ServiceKinds = [ObjectKind.Service, ObjectKind.EndpointSlice];

    private static readonly ObjectKind[] PolicyKinds =
    [
        ObjectKind.NetworkPolicy, ObjectKind.CiliumNetworkPolicy, ObjectKind.CiliumClusterwideNetworkPolicy, ObjectKind.Namespace,
        ObjectKind.CiliumIdentity, ObjectKind.CiliumEndpoint,
    ];

    private readonly IObjectSource _source;
    private List<ObjectEvent>? _heldServices = [];
    private readonly DesiredState _state;
    private readonly NodesWriter _nodes;
    private readonly IdentitiesWriter _identities;
    private readonly EndpointsWriter _endpoints;
    private readonly LoadBalancingWriter _loadBalancing;
    private readonly PolicyWriter? _policies;
    private readonly TaskCompletionSource _synced = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <param name="policies">Null for a node without policy.</param>
    public LocalSource(IObjectSource source, DesiredState state, NodesWriter nodes, IdentitiesWriter identities,
        EndpointsWriter endpoints, LoadBalancingWriter loadBalancing, PolicyWriter? policies = null)
    {
        _source = source;
        _state = state;
        _nodes = nodes;
        _identities = identities;
        _endpoints = endpoints;
        _loadBalancing = loadBalancing;
        _policies = policies;
        state.Frontends.AddInitializer(Name);
        state.IPCache.AddInitializer(Name);
        state.Nodes.AddInitializer(Name);
        state.Endpoints.AddInitializer(Name);
    }

    /// <summary>Completes when all objects that exist have been applied.</summary>
    public Task Synced => _synced.Task;

    /// <summary>Runs until cancelled.</summary>
    public async Task RunAsync(CancellationToken cancellation)
    {
        List<ObjectEvent>? held = [];
        await foreach (var batch in _source.WatchAsync(Kinds, cancellation))
        {
            var synced = batch.LastOrDefault(change => change.Type == ObjectEventType.Synced);
            var told = synced.Type == ObjectEventType.Synced;
            if (held is not null && !told)
            {
                held.AddRange(batch);
                continue;
            }
            IReadOnlyList<ObjectEvent> objects = [.. held ?? [], .. batch.Where(change => change.Type != ObjectEventType.Synced)];
            held = null;
            Apply(objects, told && synced.IsComplete(ServiceKinds));
            if (told)
                SayWhatIsDone(synced);
        }
    }

    /// <summary>Addresses before services: a backend must be reachable by the time it is chosen. Services wait until all their slices are
    /// known: without, they would lose backends that they have in the kernel.</summary>
    private void Apply(IReadOnlyList<ObjectEvent> batch, bool servicesKnown)
    {
        _identities.ApplyLocal(batch);
        var moved = _nodes.ApplyLocal(batch);
        _endpoints.ApplyLocal(batch);
        if (moved)
            _endpoints.LocalNodeChanged();
        _policies?.ApplyLocal(batch);
        if (_heldServices is null)
            _loadBalancing.ApplyLocal(batch);
        else
            _heldServices.AddRange(batch.Where(change => ServiceKinds.Contains(change.Object!.Kind)));
        if (!servicesKnown || _heldServices is null)
            return;
        _loadBalancing.ApplyLocal(_heldServices);
        _heldServices = null;
    }

    /// <summary>A table of which something was never readable goes on waiting for us: nothing of it is pruned.</summary>
    private void SayWhatIsDone(ObjectEvent synced)
    {
        if (synced.IsComplete(PolicyKinds))
            _policies?.Complete();
        if (synced.IsComplete(ServiceKinds))
            _state.Frontends.InitializerDone(Name);
        if (synced.IsComplete(ObjectKind.CiliumNode, ObjectKind.CiliumEndpoint, ObjectKind.CiliumIdentity))
            _state.IPCache.InitializerDone(Name);
        if (synced.IsComplete(ObjectKind.CiliumNode))
            _state.Nodes.InitializerDone(Name);
        if (synced.IsComplete(ObjectKind.CiliumEndpoint))
            _state.Endpoints.InitializerDone(Name);
        _synced.TrySetResult();
    }
}
