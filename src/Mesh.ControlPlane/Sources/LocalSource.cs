using Mesh.ControlPlane.Endpoints;
using Mesh.ControlPlane.Identities;
using Mesh.ControlPlane.LoadBalancing;
using Mesh.ControlPlane.Nodes;
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

    private static readonly HashSet<ObjectKind> Kinds =
        [ObjectKind.Service, ObjectKind.EndpointSlice, ObjectKind.CiliumNode, ObjectKind.CiliumIdentity, ObjectKind.CiliumEndpoint];

    private readonly IObjectSource _source;
    private readonly DesiredState _state;
    private readonly NodesWriter _nodes;
    private readonly IdentitiesWriter _identities;
    private readonly EndpointsWriter _endpoints;
    private readonly LoadBalancingWriter _loadBalancing;
    private readonly TaskCompletionSource _synced = new(TaskCreationOptions.RunContinuationsAsynchronously);

    public LocalSource(IObjectSource source, DesiredState state, NodesWriter nodes, IdentitiesWriter identities,
        EndpointsWriter endpoints, LoadBalancingWriter loadBalancing)
    {
        _source = source;
        _state = state;
        _nodes = nodes;
        _identities = identities;
        _endpoints = endpoints;
        _loadBalancing = loadBalancing;
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
            if (held is null)
            {
                Apply(batch);
                continue;
            }
            held.AddRange(batch);
            if (!batch.Any(change => change.Type == ObjectEventType.Synced))
                continue;
            Apply(held);
            held = null;
            SayWeAreDone();
        }
    }

    /// <summary>Addresses before services: a backend must be reachable by the time it is chosen.</summary>
    private void Apply(IReadOnlyList<ObjectEvent> batch)
    {
        _identities.ApplyLocal(batch);
        var moved = _nodes.ApplyLocal(batch);
        _endpoints.ApplyLocal(batch);
        if (moved)
            _endpoints.LocalNodeChanged();
        _loadBalancing.ApplyLocal(batch);
    }

    private void SayWeAreDone()
    {
        _state.Frontends.InitializerDone(Name);
        _state.IPCache.InitializerDone(Name);
        _state.Nodes.InitializerDone(Name);
        _state.Endpoints.InitializerDone(Name);
        _synced.TrySetResult();
    }
}
