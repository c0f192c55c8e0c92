using Mesh.ControlPlane.Nodes;
using Mesh.Datapath.Devices;
using Mesh.Model;
using Mesh.StateDB.Reconciler;

namespace Mesh.Datapath.Nodes;

/// <summary>
/// Nodes of all clusters → routes to their pod ranges over mesh_host, so that the host's own traffic to pods meets the BPF programs.
/// Two nodes that claim one range share its route. Their addresses go to <see cref="NodeAddresses"/>. Tunnel endpoints are not made
/// here: they follow the ipcache.
/// Driven by one thread at a time.
/// </summary>
internal sealed class NodeOperations : IOperations<NodeName, Node>
{
    private readonly Rtnetlink _netlink;
    private readonly DeviceSet _devices;
    private readonly NodeAddresses _addresses;
    private readonly NodeIndexes _indexes;
    private readonly bool _underlayV6;
    private readonly IpAddr? _source4;
    private readonly IpAddr? _source6;
    private readonly Dictionary<NodeName, EquatableArray<IpPrefix>> _known = [];

    /// <param name="underlayV6">Family of the tunnel.</param>
    internal NodeOperations(Rtnetlink netlink, DeviceSet devices, IReadOnlyList<IpAddr> gateways, NodeAddresses addresses,
        NodeIndexes indexes, bool underlayV6)
    {
        _addresses = addresses;
        _indexes = indexes;
        _underlayV6 = underlayV6;
        _netlink = netlink;
        _devices = devices;
        _source4 = gateways.Where(address => !address.IsV6).Select(address => (IpAddr?)address).FirstOrDefault();
        _source6 = gateways.Where(address => address.IsV6).Select(address => (IpAddr?)address).FirstOrDefault();
    }

    public void Update(IReadOnlyList<KeyValuePair<NodeName, Node>> rows, Action<int, RowFault> fail)
    {
        for (var i = 0; i < rows.Count; i++)
        {
            var (name, node) = rows[i];
            try
            {
                if (node.UnderlayAddress(_underlayV6) is { } underlay)
                    _indexes.SetTakesDsr(underlay, node.TakesDsr);
                foreach (var range in node.PodCidrs)
                    AddRoute(range);
                _known.TryGetValue(name, out var before);
                _known[name] = node.PodCidrs;
                RemoveUnclaimed(before);
                _addresses.Set(name, node);
            }
            catch (DatapathException exception)
            {
                fail(i, $"node {name}: {exception.Message}");
            }
        }
    }

    public void Delete(IReadOnlyList<NodeName> keys, Action<int, RowFault> fail)
    {
        for (var i = 0; i < keys.Count; i++)
        {
            try
            {
                _addresses.Forget(keys[i]);
                if (_known.Remove(keys[i], out var before))
                    RemoveUnclaimed(before);
            }
            catch (DatapathException exception)
            {
                fail(i, $"node {keys[i]}: {exception.Message}");
            }
        }
    }

    public int Prune(IReadOnlyDictionary<NodeName, Node> desired)
    {
        var wanted = desired.Values.SelectMany(node => node.PodCidrs).Where(IsRoutable).ToHashSet();
        var present = _netlink.Routes(_devices.HostStack);
        var leftovers = present.Except(wanted).ToList();
        foreach (var leftover in leftovers)
            _netlink.DeleteRoute(leftover, _devices.HostStack);
        foreach (var missing in wanted.Except(present))
            AddRoute(missing);
        return leftovers.Count + _addresses.Prune(desired.Values);
    }

    private void AddRoute(IpPrefix range)
    {
        if (IsRoutable(range))
            _netlink.ReplaceRoute(range, _devices.HostStack, range.Address.IsV6 ? NodeDevices.NextHop6 : NodeDevices.NextHop4,
                range.Address.IsV6 ? _source6 : _source4, _devices.PodMtu);
    }

    private void RemoveUnclaimed(EquatableArray<IpPrefix> ranges)
    {
        foreach (var range in ranges)
            if (IsRoutable(range) && !_known.Values.Any(others => others.Items.Contains(range)))
                _netlink.DeleteRoute(range, _devices.HostStack);
    }

    private static bool IsRoutable(IpPrefix range) => !range.Address.IsV6 || Sysctl.HasIPv6;
}
