using Mesh.Bpf;
using Mesh.ControlPlane.Nodes;
using Mesh.Datapath.Maps;
using Mesh.Model;

namespace Mesh.Datapath.Nodes;

/// <summary>
/// Nodes of our own cluster → lb_node_addresses: the addresses on which a NodePort answers. One entry a node's address and one frontend
/// a NodePort, where a frontend for each pair would be their product. Nodes of other clusters have NodePorts of their own, which are
/// not ours to translate. Driven by one thread at a time.
/// </summary>
internal sealed class NodeAddresses
{
    private readonly BpfMap<LbNodeAddress, LbNodePlace> _map;
    private readonly uint _ownCluster;
    private readonly Dictionary<NodeName, HashSet<IpAddr>> _known = [];

    internal NodeAddresses(BpfMap<LbNodeAddress, LbNodePlace> map, uint ownCluster)
    {
        _map = map;
        _ownCluster = ownCluster;
    }

    /// <exception cref="DatapathException">The map is full.</exception>
    internal void Set(NodeName name, Node node)
    {
        try
        {
            var now = Of(node);
            foreach (var address in now)
                _map.Set(LbNodeAddress.From(address), node.IsLocalNode ? LbNodePlace.Here : LbNodePlace.Elsewhere);
            _known.Remove(name, out var before);
            if (now.Count > 0)
                _known[name] = now;
            Withdraw(before);
        }
        catch (BpfException refused)
        {
            throw new DatapathException(refused.Message, refused);
        }
    }

    internal void Forget(NodeName name)
    {
        if (_known.Remove(name, out var before))
            Withdraw(before);
    }

    /// <returns>How many leftovers were removed.</returns>
    internal int Prune(IEnumerable<Node> desired)
    {
        var wanted = desired.SelectMany(Of).ToHashSet();
        var leftovers = _map.Dump().Select(pair => pair.Key).Where(key => key.ToIpAddr() is not { } address || !wanted.Contains(address)).ToArray();
        return _map.RemoveBatch(leftovers);
    }

    private HashSet<IpAddr> Of(Node node) =>
        node.ClusterId == _ownCluster ? [.. node.Addresses.Items.Select(address => address.Address)] : [];

    /// <summary>Two nodes that claim one address share it.</summary>
    private void Withdraw(HashSet<IpAddr>? before)
    {
        foreach (var address in before ?? [])
            if (!_known.Values.Any(addresses => addresses.Contains(address)))
                _map.Remove(LbNodeAddress.From(address));
    }
}
