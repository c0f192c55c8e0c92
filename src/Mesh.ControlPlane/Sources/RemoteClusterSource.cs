using Mesh.ClusterMesh.Remote;
using Mesh.ControlPlane.Identities;
using Mesh.ControlPlane.IPCache;
using Mesh.ControlPlane.LoadBalancing;
using Mesh.ControlPlane.Nodes;
using Mesh.ControlPlane.RemoteClusters;
using Mesh.ControlPlane.Restored;
using Mesh.Model;

namespace Mesh.ControlPlane.Sources;

/// <summary>
/// Feeds the writers from all remote clusters, and decides when what the kernel had of a cluster before this run may go: when that
/// cluster has been heard in full, or when it is certain that no configured peer is that cluster. A peer that cannot be reached
/// has not told its ID, so as long as there is one, the entries of every unheard cluster stay.
/// </summary>
public sealed class RemoteClusterSource : IRemoteClusterSink
{
    /// <summary>Its name among the sources a table waits for, until the configured peers are known.</summary>
    public const string Name = "list of peers";

    private readonly Lock _lock = new();
    private readonly DesiredState _state;
    private readonly NodesWriter _nodes;
    private readonly IdentitiesWriter _identities;
    private readonly IPCacheWriter _ipcache;
    private readonly LoadBalancingWriter _loadBalancing;
    private readonly Dictionary<string, Peer> _peers = new(StringComparer.Ordinal);
    private readonly HashSet<uint> _restoredServices;
    private readonly HashSet<uint> _restoredAddresses;
    private bool _listed;

    public RemoteClusterSource(DesiredState state, ClusterIdentity self, RestoredState restored, NodesWriter nodes,
        IdentitiesWriter identities, IPCacheWriter ipcache, LoadBalancingWriter loadBalancing)
    {
        _state = state;
        _nodes = nodes;
        _identities = identities;
        _ipcache = ipcache;
        _loadBalancing = loadBalancing;
        state.Nodes.AddInitializer(Name);
        state.RemoteClusters.AddInitializer(Name);
        var addresses = restored.Addresses.Where(address => address.ClusterId != self.Id).ToList();
        _restoredServices = [.. restored.Backends.Select(backend => backend.ClusterId).Where(id => id != self.Id)];
        _restoredAddresses = [.. addresses.Select(address => address.ClusterId)];
        _ipcache.Write(addresses.Select(address => new IPCacheChange(address.Prefix, new IPCacheOrigin(IPCacheSource.Restored, "", ""),
            new IPCacheEntry(address.Prefix, address.Identity, address.TunnelEndpoint, 0, IPCacheSource.Restored, "", address.ClusterId, "", ""))));
    }

    /// <summary>Clusters of which the kernel still has entries from before this run, not yet confirmed.</summary>
    public IReadOnlyList<uint> Unconfirmed
    {
        get
        {
            lock (_lock)
                return [.. _restoredServices.Union(_restoredAddresses).Order()];
        }
    }

    /// <summary>The configuration has been read for the first time: these are all the peers there are.</summary>
    public void PeersListed(IReadOnlyCollection<string> names)
    {
        lock (_lock)
        {
            foreach (var name in names)
            {
                _peers.TryAdd(name, new Peer());
                _state.Nodes.AddInitializer(PeerSource(name));
                _state.RemoteClusters.AddInitializer(PeerSource(name));
            }
            _listed = true;
            _identities.Configured(names);
            _state.Nodes.InitializerDone(Name);
            _state.RemoteClusters.InitializerDone(Name);
            _state.Nodes.SealInitializers();
            _state.RemoteClusters.SealInitializers();
            foreach (var (name, peer) in _peers)
                SayWhatIsDone(name, peer);
            ReleaseRestored();
        }
    }

    public void Apply(RemoteChanges changes)
    {
        _identities.ApplyRemote(changes.Cluster, changes.Identities);
        _nodes.ApplyRemote(changes.Cluster, changes.ClusterId, changes.Nodes);
        if (changes.IpEntries.Count > 0)
            _ipcache.Write(AddressesOfRecord.Changes(changes));
        // Last: a backend must be reachable by the time it is chosen.
        _loadBalancing.ApplyRemote(changes.Cluster, changes.ClusterId, changes.Services, changes.ServiceRevisions);
        if (changes.Synced.Count > 0)
            Synced(changes);
    }

    public void Drain(string cluster, uint clusterId)
    {
        _loadBalancing.Drain(cluster);
        _ipcache.Forget((source, entry) => source == IPCacheSource.ClusterMesh && entry.Cluster == cluster);
        _nodes.Drain(cluster);
        _identities.Drain(cluster);
        lock (_lock)
        {
            if (_peers.Remove(cluster))
                SayWhatIsDone(cluster, null);
            _state.RemoteClusters.Write(transaction => transaction.Delete(cluster));
            ReleaseRestored();
        }
    }

    public void StatusChanged(RemoteClusterStatus status)
    {
        lock (_lock)
        {
            _state.RemoteClusters.Write(transaction => transaction.Upsert(status.Name,
                new RemoteClusterRow(status.Name, status.ClusterId, status.Connected, status.Ready, status.Status)));
            // A file that can be no cluster's will never be heard: nothing waits for it.
            if (ClusterName.Validate(status.Name) is not null)
                return;
            var peer = PeerOf(status.Name);
            if (status.ClusterId == 0 || peer.ClusterId == status.ClusterId)
                return;
            peer.ClusterId = status.ClusterId;
            SayWhatIsDone(status.Name, peer);
            ReleaseRestored();
        }
    }

    private void Synced(RemoteChanges changes)
    {
        if (changes.Synced.Contains(RemoteResource.Identities))
            _identities.Heard(changes.Cluster);
        lock (_lock)
        {
            var peer = PeerOf(changes.Cluster);
            peer.ClusterId = changes.ClusterId;
            peer.Synced.UnionWith(changes.Synced);
            SayWhatIsDone(changes.Cluster, peer);
            ReleaseRestored();
        }
    }

    private Peer PeerOf(string name)
    {
        if (!_peers.TryGetValue(name, out var peer))
            _peers[name] = peer = new Peer();
        return peer;
    }

    private static string PeerSource(string name) => $"peer {name}";

    /// <param name="peer">Null for one that has gone.</param>
    private void SayWhatIsDone(string name, Peer? peer)
    {
        if (peer is null || peer.Synced.Contains(RemoteResource.Nodes))
            _state.Nodes.InitializerDone(PeerSource(name));
        if (peer is null || peer.ClusterId != 0)
            _state.RemoteClusters.InitializerDone(PeerSource(name));
    }

    private void ReleaseRestored()
    {
        var services = _restoredServices.Where(id => MayGo(id, RemoteResource.Services)).ToHashSet();
        if (services.Count > 0)
        {
            _restoredServices.ExceptWith(services);
            _loadBalancing.Release(services.Contains);
        }
        var addresses = _restoredAddresses.Where(id => MayGo(id, RemoteResource.Nodes, RemoteResource.IpEntries)).ToHashSet();
        if (addresses.Count > 0)
        {
            _restoredAddresses.ExceptWith(addresses);
            _ipcache.Forget((source, entry) => source == IPCacheSource.Restored && addresses.Contains(entry.ClusterId));
        }
    }

    /// <param name="clusterId">0 for entries that name no cluster: they stay until every peer has been heard.</param>
    private bool MayGo(uint clusterId, params ReadOnlySpan<RemoteResource> resources)
    {
        if (!_listed)
            return false;
        var certain = true;
        foreach (var peer in _peers.Values)
        {
            var heard = true;
            foreach (var resource in resources)
                heard &= peer.Synced.Contains(resource);
            if (peer.ClusterId == clusterId)
                return heard;
            certain &= clusterId == 0 ? heard : peer.ClusterId != 0;
        }
        return certain;
    }

    private sealed class Peer
    {
        public uint ClusterId { get; set; }

        public HashSet<RemoteResource> Synced { get; } = [];
    }
}
