using System.Text;
using Mesh.ClusterMesh.Remote;
using Mesh.ClusterMesh.Wire;
using Mesh.ControlPlane.Endpoints;
using Mesh.ControlPlane.Identities;
using Mesh.ControlPlane.IPCache;
using Mesh.ControlPlane.LoadBalancing;
using Mesh.ControlPlane.Nodes;
using Mesh.ControlPlane.Restored;
using Mesh.ControlPlane.Sources;
using Mesh.Kubernetes;
using Mesh.Kubernetes.Objects;
using Mesh.Model;

namespace Mesh.ControlPlane.Tests;

/// <summary>The control plane of node osaka-1 in cluster osaka/2, fed by hand, its tables printed as text.</summary>
internal sealed class World
{
    public static readonly ClusterIdentity Osaka = new("osaka", 2);

    public World(RestoredState? restored = null, TimeProvider? time = null, (ushort First, ushort Last)? nodePorts = null)
    {
        restored ??= RestoredState.Empty;
        IPCache = new IPCacheWriter(State.IPCache);
        Nodes = new NodesWriter(State.Nodes, IPCache, Osaka, "osaka-1");
        Identities = new IdentitiesWriter(State.Identities, Osaka);
        Endpoints = new EndpointsWriter(State.Endpoints, IPCache, Osaka, Nodes.IsLocalAddress);
        LoadBalancing = new LoadBalancingWriter(State.Frontends, Osaka, restored.Backends, "osaka-1", nodePorts, time);
        Remote = new RemoteClusterSource(State, Osaka, restored, Nodes, Identities, IPCache, LoadBalancing);
        Local = new LocalSource(Source, State, Nodes, Identities, Endpoints, LoadBalancing);
        State.Frontends.SealInitializers();
        State.IPCache.SealInitializers();
    }

    public DesiredState State { get; } = new();

    public ScriptedSource Source { get; } = new();

    public IPCacheWriter IPCache { get; }

    public NodesWriter Nodes { get; }

    public IdentitiesWriter Identities { get; }

    public EndpointsWriter Endpoints { get; }

    public LoadBalancingWriter LoadBalancing { get; }

    public RemoteClusterSource Remote { get; }

    public LocalSource Local { get; }

    public void Apply(params KubernetesObject[] objects) => Apply(ObjectEventType.Upsert, objects);

    public void Delete(params KubernetesObject[] objects) => Apply(ObjectEventType.Delete, objects);

    private void Apply(ObjectEventType type, KubernetesObject[] objects)
    {
        ObjectEvent[] batch = [.. objects.Select(subject => new ObjectEvent(type, subject))];
        Identities.ApplyLocal(batch);
        if (Nodes.ApplyLocal(batch))
            Endpoints.LocalNodeChanged();
        Endpoints.ApplyLocal(batch);
        LoadBalancing.ApplyLocal(batch);
    }

    /// <summary>A peer says which services it offers; see <see cref="Given.Record"/>.</summary>
    public void Hear(string cluster, uint id, params ClusterService[] records)
    {
        var changes = new RemoteChanges(cluster, id);
        changes.Services.AddRange(records.Select(record =>
            new KeyValuePair<ServiceName, ClusterService?>(new ServiceName(record.Namespace, record.Name), record)));
        Remote.Apply(changes);
    }

    public void HearDeletion(string cluster, uint id, string service)
    {
        var changes = new RemoteChanges(cluster, id);
        changes.Services.Add(new(new ServiceName("default", service), null));
        Remote.Apply(changes);
    }

    public void HearAddress(string cluster, uint id, string prefix, IpIdentityPair? record)
    {
        var changes = new RemoteChanges(cluster, id);
        changes.IpEntries.Add(new(IpPrefix.Parse(prefix), record));
        Remote.Apply(changes);
    }

    public void HearNode(string cluster, uint id, string name, NodeRecord? record)
    {
        var changes = new RemoteChanges(cluster, id);
        changes.Nodes.Add(new(name, record));
        Remote.Apply(changes);
    }

    public void HearSynced(string cluster, uint id, params RemoteResource[] resources)
    {
        var changes = new RemoteChanges(cluster, id);
        changes.Synced.UnionWith(resources);
        Remote.Apply(changes);
    }

    public void Learn(string cluster, uint id) =>
        Remote.StatusChanged(new RemoteClusterStatus { Name = cluster, ClusterId = id, Connected = id != 0, Status = id == 0 ? "not yet" : "ok" });

    public string Frontends => Lines(State.Frontends.Snapshot().OrderBy(pair => pair.Key).Select(pair => Text(pair.Value.Row)));

    public string Addresses => Lines(State.IPCache.Snapshot().OrderBy(pair => pair.Key).Select(pair => Text(pair.Value.Row)));

    public string NodeNames => Lines(State.Nodes.Snapshot().Select(pair => pair.Key.ToString()).Order(StringComparer.Ordinal));

    public static string Text(Frontend row)
    {
        var text = new StringBuilder($"{row.Address} {row.Service}");
        if (row.PortName.Length > 0)
            text.Append(':').Append(row.PortName);
        text.Append(" =>");
        foreach (var backend in row.Backends)
        {
            text.Append(' ').Append(backend.Address.HostPort).Append('@').Append(backend.ClusterId);
            if (backend.State != BackendState.Active)
                text.Append(' ').Append(backend.State);
            if (backend.Tier != 0)
                text.Append(" tier").Append(backend.Tier);
        }
        return text.ToString();
    }

    public static string Text(IPCacheEntry row)
    {
        var via = row.TunnelEndpoint is { } tunnel ? $" via {tunnel}" : "";
        var pod = row.PodName.Length > 0 ? $" {row.Namespace}/{row.PodName}" : "";
        return $"{row.Prefix} {row.Identity}{via}{pod} ({row.Source} {row.Cluster})".Replace(" )", ")");
    }

    private static string Lines(IEnumerable<string> lines) => string.Join('\n', lines);
}

/// <summary>An object source that says what the test tells it to.</summary>
internal sealed class ScriptedSource : IObjectSource
{
    private readonly System.Threading.Channels.Channel<IReadOnlyList<ObjectEvent>> _batches =
        System.Threading.Channels.Channel.CreateUnbounded<IReadOnlyList<ObjectEvent>>();

    public IReadOnlyList<SourceProblem> Problems => [];

    public void Say(params KubernetesObject[] objects) =>
        _batches.Writer.TryWrite([.. objects.Select(subject => new ObjectEvent(ObjectEventType.Upsert, subject))]);

    /// <summary>Says it once more, with kinds that could not all be read.</summary>
    public void SaySynced(params ObjectKind[] incomplete) => _batches.Writer.TryWrite(
        [new ObjectEvent(ObjectEventType.Synced, null) { Incomplete = incomplete.Length == 0 ? null : incomplete.ToHashSet() }]);

    public IAsyncEnumerable<IReadOnlyList<ObjectEvent>> WatchAsync(IReadOnlySet<ObjectKind> kinds, CancellationToken cancellation) =>
        _batches.Reader.ReadAllAsync(cancellation);

    public ValueTask DisposeAsync() => ValueTask.CompletedTask;
}
