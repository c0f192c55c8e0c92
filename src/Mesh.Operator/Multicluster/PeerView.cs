using Mesh.ClusterMesh.Remote;
using Mesh.ClusterMesh.Wire;
using Mesh.Model;

namespace Mesh.Operator.Multicluster;

internal enum PeerKnowledge
{
    /// <summary>Not everything of it has been heard since we began: what stands here on its behalf stays.</summary>
    Unheard,

    /// <summary>What is not known of it is not there.</summary>
    Heard,

    /// <summary>It is no peer: its file is not in the directory.</summary>
    Gone,
}

/// <summary>
/// What the other clusters publish, as far as the operator needs it: services and exports. It outlives connections: a lost one is no message. A
/// cluster that nothing was heard of is <see cref="PeerKnowledge.Gone"/> only when the directory of peers has been read and lacks it.
/// </summary>
/// <param name="touched">Told of each service whose records changed; null when something changed that concerns them all.</param>
internal sealed class PeerView(Action<ServiceName?> touched) : IRemoteClusterSink
{
    private readonly Lock _lock = new();
    private readonly Dictionary<string, Peer> _peers = new(StringComparer.Ordinal);
    private readonly HashSet<string> _removed = new(StringComparer.Ordinal);
    private bool _listed;

    private sealed class Peer
    {
        public Dictionary<ServiceName, ClusterService> Services { get; } = [];

        public Dictionary<ServiceName, ExportedService> Exports { get; } = [];

        public HashSet<RemoteResource> Synced { get; } = [];
    }

    /// <summary>Whether the cluster is still among the configured ones; asked when it is drained.</summary>
    public Func<string, bool> IsConfigured { get; set; } = _ => false;

    /// <summary>Clusters that are configured, by name.</summary>
    public IReadOnlyList<string> Clusters
    {
        get
        {
            lock (_lock)
                return [.. _peers.Keys.Order(StringComparer.Ordinal)];
        }
    }

    public PeerKnowledge Of(string cluster, RemoteResource resource)
    {
        lock (_lock)
            return !_peers.TryGetValue(cluster, out var peer) ? _listed ? PeerKnowledge.Gone : PeerKnowledge.Unheard
                : peer.Synced.Contains(resource) ? PeerKnowledge.Heard : PeerKnowledge.Unheard;
    }

    public ClusterService? FindService(string cluster, ServiceName name)
    {
        lock (_lock)
            return _peers.GetValueOrDefault(cluster)?.Services.GetValueOrDefault(name);
    }

    public IReadOnlyList<ExportedService> Exports(ServiceName name)
    {
        lock (_lock)
            return [.. _peers.Values.Select(peer => peer.Exports.GetValueOrDefault(name)).OfType<ExportedService>()];
    }

    /// <summary>Every service that some cluster exports.</summary>
    public IReadOnlyList<ServiceName> Exported
    {
        get
        {
            lock (_lock)
                return [.. _peers.Values.SelectMany(peer => peer.Exports.Keys).Distinct()];
        }
    }

    /// <summary>The directory has been read: these are the peers.</summary>
    public void Listed(IEnumerable<string> names)
    {
        lock (_lock)
        {
            foreach (var name in names.Where(name => !_removed.Contains(name)))
                _peers.TryAdd(name, new Peer());
            _listed = true;
        }
        touched(null);
    }

    public void Apply(RemoteChanges changes)
    {
        var all = false;
        lock (_lock)
        {
            var peer = PeerOf(changes.Cluster);
            Take(changes.Services, peer.Services);
            Take(changes.ServiceExports, peer.Exports);
            foreach (var resource in changes.Synced)
                all |= peer.Synced.Add(resource);
        }
        foreach (var (name, _) in changes.Services)
            touched(name);
        foreach (var (name, _) in changes.ServiceExports)
            touched(name);
        if (all)
            touched(null);
    }

    public void Drain(string cluster, uint clusterId)
    {
        lock (_lock)
        {
            _peers.Remove(cluster);
            // One that only changed its number is read anew, and what it has here waits for that.
            if (IsConfigured(cluster))
                _peers[cluster] = new Peer();
            else
                _removed.Add(cluster);
        }
        touched(null);
    }

    public void StatusChanged(RemoteClusterStatus status)
    {
        lock (_lock)
            PeerOf(status.Name);
    }

    private Peer PeerOf(string cluster)
    {
        if (!_peers.TryGetValue(cluster, out var peer))
            _peers[cluster] = peer = new Peer();
        _removed.Remove(cluster);
        return peer;
    }

    private static void Take<T>(List<KeyValuePair<ServiceName, T?>> changes, Dictionary<ServiceName, T> into)
        where T : class
    {
        foreach (var (name, record) in changes)
        {
            if (record is null)
                into.Remove(name);
            else
                into[name] = record;
        }
    }
}
