using Mesh.ClusterMesh.Imports;
using Mesh.ClusterMesh.Wire;
using Mesh.ControlPlane.IPCache;
using Mesh.Kubernetes;
using Mesh.Kubernetes.Objects;
using Mesh.Model;
using Mesh.StateDB;

namespace Mesh.ControlPlane.Nodes;

/// <summary>
/// Writes the nodes of all clusters, and with each node the addresses that follow from it: its own ones, its health endpoint, and
/// its pod ranges as the fallback for pods whose own entry has not arrived.
/// The local node decides which family the tunnels use; when that becomes known or changes, every node's addresses are said anew.
/// </summary>
public sealed class NodesWriter
{
    private readonly Lock _lock = new();
    private readonly Table<NodeName, Node> _nodes;
    private readonly IPCacheWriter _ipcache;
    private readonly ClusterIdentity _self;
    private readonly NodeName _localName;
    private readonly TaskCompletionSource<Node> _local = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private HashSet<IpAddr> _localAddresses = [];
    private volatile OwnGround _ownGround = OwnGround.Unknown;
    private bool _underlayV6;

    public NodesWriter(Table<NodeName, Node> nodes, IPCacheWriter ipcache, ClusterIdentity self, string localNodeName)
    {
        _nodes = nodes;
        _ipcache = ipcache;
        _self = self;
        _localName = new NodeName(self.Name, localNodeName);
    }

    /// <summary>The node this agent runs on; completes when its CiliumNode object has an underlay address.</summary>
    public Task<Node> LocalNode => _local.Task;

    /// <summary>What this cluster's nodes are and own, which no peer can have.</summary>
    public OwnGround OwnGround => _ownGround;

    /// <summary>True for an address of this node: whatever lives there needs no tunnel.</summary>
    public bool IsLocalAddress(IpAddr address)
    {
        lock (_lock)
            return _localAddresses.Contains(address);
    }

    /// <summary>Applies a batch of local objects; those of other kinds are passed over.</summary>
    /// <returns>True when this node's own addresses have changed.</returns>
    public bool ApplyLocal(IReadOnlyList<ObjectEvent> events)
    {
        var changes = new List<KeyValuePair<NodeName, Node?>>();
        foreach (var change in events)
            if (change.Object is CiliumNode node)
            {
                var name = new NodeName(_self.Name, node.Metadata.Name ?? "");
                changes.Add(new(name, change.Type == ObjectEventType.Upsert ? NodeOf.Object(node, _self, name == _localName) : null));
            }
        var moved = Apply(changes);
        if (changes.Count > 0)
            _ownGround = Survey();
        return moved;
    }

    private OwnGround Survey()
    {
        var nodes = _nodes.Snapshot().Where(pair => pair.Key.Cluster == _self.Name).Select(pair => pair.Value.Row).ToList();
        return new OwnGround(
            nodes.SelectMany(node => node.Addresses.Items.Select(address => address.Address)).ToHashSet(),
            new PrefixSet(nodes.SelectMany(node => node.PodCidrs.Items)));
    }

    /// <summary>Applies one remote cluster's changed records; null deletes.</summary>
    public void ApplyRemote(string cluster, uint clusterId, IReadOnlyList<KeyValuePair<string, NodeRecord?>> changes) =>
        Apply([.. changes.Select(change => new KeyValuePair<NodeName, Node?>(
            new NodeName(cluster, change.Key), change.Value is { } record ? NodeOf.Record(record, cluster, clusterId) : null))]);

    public void Drain(string cluster) =>
        Apply([.. _nodes.Snapshot().Where(pair => pair.Key.Cluster == cluster)
            .Select(pair => new KeyValuePair<NodeName, Node?>(pair.Key, null))]);

    private bool Apply(List<KeyValuePair<NodeName, Node?>> changes)
    {
        if (changes.Count == 0)
            return false;
        lock (_lock)
        {
            var addresses = new List<IPCacheChange>();
            var localChanged = false;
            _nodes.Write(transaction =>
            {
                foreach (var (name, node) in changes)
                {
                    transaction.TryGet(name, out var before);
                    if (Equals(before, node))
                        continue;
                    addresses.AddRange(AddressesOfNode.Difference(before, node, _underlayV6));
                    if (node is null)
                        transaction.Delete(name);
                    else
                        transaction.Upsert(name, node);
                    localChanged |= name == _localName;
                }
            });
            _ipcache.Write(addresses);
            if (localChanged)
                LocalNodeChanged();
            return localChanged;
        }
    }

    private void LocalNodeChanged()
    {
        // A node object that vanishes does not move the node: what was known stays until it says something else.
        if (!_nodes.TryGet(_localName, out var local) || (local.UnderlayAddress(v6: false) ?? local.UnderlayAddress(v6: true)) is not { } underlay)
            return;
        _localAddresses = [.. local.Addresses.Select(address => address.Address)];
        if (underlay.IsV6 != _underlayV6)
        {
            var nodes = _nodes.Snapshot().Select(pair => pair.Value.Row).ToList();
            var before = _underlayV6;
            _underlayV6 = underlay.IsV6;
            _ipcache.Write(nodes.SelectMany(node => AddressesOfNode.Moved(node, before, _underlayV6)));
        }
        _local.TrySetResult(local);
    }
}
