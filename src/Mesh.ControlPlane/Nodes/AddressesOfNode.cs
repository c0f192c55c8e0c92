using Mesh.ControlPlane.IPCache;
using Mesh.Model;

namespace Mesh.ControlPlane.Nodes;

/// <summary>The ipcache entries that follow from a node.</summary>
internal static class AddressesOfNode
{
    /// <summary>What must be said and taken back when a node's row changes. Null before = new, null after = gone.</summary>
    public static IEnumerable<IPCacheChange> Difference(Node? before, Node? after, bool underlayV6)
    {
        var now = Of(after, underlayV6).ToDictionary(change => (change.Prefix, change.Origin));
        return Of(before, underlayV6).Where(change => !now.ContainsKey((change.Prefix, change.Origin)))
            .Select(change => change with { Entry = null })
            .Concat(now.Values);
    }

    /// <summary>What must be said and taken back when the tunnels change their family.</summary>
    public static IEnumerable<IPCacheChange> Moved(Node node, bool wasV6, bool isV6) =>
        Of(node, wasV6).Select(change => change with { Entry = null }).Concat(Of(node, isV6));

    private static IEnumerable<IPCacheChange> Of(Node? node, bool underlayV6)
    {
        var said = new HashSet<IpPrefix>();
        return node is null ? [] : Entries(node, underlayV6).Where(change => said.Add(change.Prefix));
    }

    private static IEnumerable<IPCacheChange> Entries(Node node, bool underlayV6)
    {
        var tunnel = node.IsLocalNode ? null : node.UnderlayAddress(underlayV6);
        var identity = node.IsLocalNode ? NumericIdentity.Host : NumericIdentity.RemoteNode;
        var source = node.IsLocalNode ? IPCacheSource.Local : IPCacheSource.Node;
        foreach (var address in node.Addresses)
            // Underlay addresses are reached over the underlay; only the one on the pod side needs the tunnel.
            yield return Say(node, IpPrefix.Host(address.Address), identity, address.Type == "CiliumInternalIP" ? tunnel : null, source);
        foreach (var address in node.HealthAddresses)
            yield return Say(node, IpPrefix.Host(address), NumericIdentity.Health, tunnel, source);
        if (tunnel is null)
            yield break;
        foreach (var range in node.PodCidrs)
            yield return Say(node, range, NumericIdentity.World, tunnel, IPCacheSource.PodCidr);
    }

    private static IPCacheChange Say(Node node, IpPrefix prefix, uint identity, IpAddr? tunnel, IPCacheSource source) =>
        new(prefix, new IPCacheOrigin(source, node.Name.Cluster, $"node {node.Name.Name}"),
            new IPCacheEntry(prefix, identity, tunnel, 0, source, node.Name.Cluster, node.ClusterId, "", ""));
}
