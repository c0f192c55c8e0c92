using Mesh.Datapath.Devices;
using Mesh.Datapath.Maps;
using Mesh.Model;

namespace Mesh.Datapath.Nodes;

/// <summary>
/// Keeps each node's next hop in the nodes map, so that programs can write outer frames without asking routes and neighbours for
/// every packet. The kernel is asked anew whenever it reports a change, and each second anyway. A node without a usable next hop has
/// device 0 there, and its packets go by the VXLAN device, which finds the way itself: being late costs speed, not packets.
/// </summary>
internal sealed class NodePaths : IDisposable
{
    private static readonly TimeSpan Interval = TimeSpan.FromSeconds(1);

    private readonly NodeIndexes _nodes;
    private readonly Rtnetlink _netlink;
    private readonly NetlinkEvents _events;
    private readonly IpAddr _underlay;

    /// <param name="underlay">A way whose source would be another address is left to the device.</param>
    internal NodePaths(NodeIndexes nodes, Rtnetlink netlink, NetlinkEvents events, IpAddr underlay)
    {
        _nodes = nodes;
        _netlink = netlink;
        _events = events;
        _underlay = underlay;
    }

    /// <summary>Nodes whose next hop is known.</summary>
    internal int Resolved { get; private set; }

    /// <summary>Why the last turn failed; null when it did not.</summary>
    internal string? Problem { get; private set; }

    internal async Task RunAsync(CancellationToken cancellation)
    {
        // Waiting for netlink blocks a thread, which is therefore its own.
        await Task.Factory.StartNew(() =>
        {
            while (!cancellation.IsCancellationRequested)
            {
                Turn();
                _events.Wait(Interval, cancellation);
            }
        }, CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);
    }

    /// <summary>Asks for every node and writes what has changed.</summary>
    internal void Turn()
    {
        try
        {
            var neighbours = _netlink.Neighbours();
            var devices = new Dictionary<int, LinkInfo?>();
            var resolved = 0;
            foreach (var (endpoint, index) in _nodes.All())
            {
                var path = PathTo(endpoint, neighbours, devices);
                _nodes.SetPath(index, path);
                if (path.Interface != 0)
                    resolved++;
            }
            Resolved = resolved;
            Problem = null;
        }
        catch (DatapathException exception)
        {
            Problem = exception.Message;
        }
    }

    public void Dispose() => _events.Dispose();

    private NodePath PathTo(IpAddr endpoint, IReadOnlyDictionary<(int, IpAddr), MacAddress> neighbours, Dictionary<int, LinkInfo?> devices)
    {
        if (_netlink.RouteTo(endpoint) is not { } route || route.Source != _underlay)
            return default;
        if (!devices.TryGetValue(route.InterfaceIndex, out var device))
            devices[route.InterfaceIndex] = device = _netlink.Link(route.InterfaceIndex);
        if (device is null || device.Mac.Value == 0)
            return default;
        var hop = route.Gateway ?? endpoint;
        if (neighbours.TryGetValue((device.Index, hop), out var mac))
            return new NodePath((uint)device.Index, mac, device.Mac);
        _netlink.KeepNeighbour(device.Index, hop);
        return default;
    }
}

/// <summary>The outer Ethernet header towards a node; interface 0 = unknown.</summary>
internal readonly record struct NodePath(uint Interface, MacAddress NextHop, MacAddress Source);
