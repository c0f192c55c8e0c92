using Mesh.AgentApi;
using Mesh.ControlPlane.Nodes;

namespace Mesh.Agent.Api;

/// <summary>GET /v1/cluster/nodes and /v1/node/ids.</summary>
internal static class NodeBody
{
    public static ClusterNodeStatus Of(AgentView view) => new()
    {
        Self = $"{view.Options.Cluster.Name}/{view.Options.NodeName}",
        NodesAdded = [.. view.State.Nodes.Snapshot().Select(pair => pair.Value.Row)
            .OrderBy(node => node.Name.ToString(), StringComparer.Ordinal).Select(node => Element(node, view.Options.Cluster.Name))],
    };

    /// <summary>The indexes by which the kernel knows tunnel endpoints; empty before the kernel is programmed.</summary>
    public static IReadOnlyList<NodeId> Ids(AgentView view)
    {
        return view.Datapath is { } datapath
            ? [.. datapath.NodeIndexes().OrderBy(node => node.Value).Select(node => new NodeId { Id = node.Value, Ips = [node.Key.ToString()] })]
            : [];
    }

    /// <summary>The addresses of one node in the API's shape.</summary>
    public static NodeAddressing Primary(Node node) => new() { Ipv4 = Family(node, v6: false), Ipv6 = Family(node, v6: true) };

    private static NodeElement Element(Node node, string localCluster)
    {
        var primary = new[] { node.UnderlayAddress(v6: false), node.UnderlayAddress(v6: true) };
        var others = node.Addresses.Items.Select(address => address.Address).Where(address => !primary.Contains(address)).ToList();
        return new NodeElement
        {
            Name = node.Name.ToString(),
            Source = node.IsLocalNode ? "local" : node.Name.Cluster == localCluster ? "custom-resource" : "clustermesh",
            PrimaryAddress = Primary(node),
            SecondaryAddresses = others.Count == 0 ? null : [.. others.Select(address => new NodeAddressingElement { Ip = address.ToString() })],
            HealthEndpointAddress = node.HealthAddresses.Count == 0
                ? null
                : new NodeAddressing { Ipv4 = Health(node, v6: false), Ipv6 = Health(node, v6: true) },
        };
    }

    private static NodeAddressingElement Family(Node node, bool v6)
    {
        var range = node.PodCidrs.Items.Where(range => range.Address.IsV6 == v6).Select(range => range.ToString()).FirstOrDefault();
        var address = node.UnderlayAddress(v6);
        return new NodeAddressingElement { AllocRange = range, Enabled = address is not null, Ip = address?.ToString() };
    }

    private static NodeAddressingElement Health(Node node, bool v6)
    {
        foreach (var address in node.HealthAddresses)
            if (address.IsV6 == v6)
                return new NodeAddressingElement { Enabled = true, Ip = address.ToString() };
        return new NodeAddressingElement();
    }
}
