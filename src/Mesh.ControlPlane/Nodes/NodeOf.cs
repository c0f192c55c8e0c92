using Mesh.ClusterMesh.Wire;
using Mesh.Kubernetes.Objects;
using Mesh.Model;

namespace Mesh.ControlPlane.Nodes;

/// <summary>A node's row from its object or from a remote cluster's record. Address types that are names, not addresses
/// (Hostname, InternalDNS, ExternalDNS), are passed over.</summary>
internal static class NodeOf
{
    public static Node Object(CiliumNode node, ClusterIdentity self, bool isLocalNode)
    {
        var addresses = (node.Spec.Addresses ?? []).Select(address => (address.Type ?? "", address.Ip ?? ""));
        var ranges = (node.Spec.Ipam?.PodCIDRs ?? [])
            .Select(text => (Ok: IpPrefix.TryParse(text, out var range), Range: range)).Where(parsed => parsed.Ok).Select(parsed => parsed.Range);
        return new Node(new NodeName(self.Name, node.Metadata.Name ?? ""), self.Id, Addresses(addresses),
            new EquatableArray<IpPrefix>(ranges), Health(node.Spec.Health?.Ipv4, node.Spec.Health?.Ipv6), isLocalNode)
        {
            TakesDsr = SaysDsr(node.Metadata.Annotations),
        };
    }

    public static Node Record(NodeRecord record, string cluster, uint clusterId)
    {
        var ranges = Present(record.IPv4AllocCIDR, record.IPv6AllocCIDR)
            .Concat(record.IPv4SecondaryAllocCIDRs ?? []).Concat(record.IPv6SecondaryAllocCIDRs ?? [])
            .Select(Range).OfType<IpPrefix>();
        return new Node(new NodeName(cluster, record.Name), clusterId,
            Addresses((record.IPAddresses ?? []).Select(address => (address.Type, address.IP))),
            new EquatableArray<IpPrefix>(ranges), Health(record.IPv4HealthIP, record.IPv6HealthIP), IsLocalNode: false)
        {
            TakesDsr = SaysDsr(record.Annotations),
        };
    }

    private static bool SaysDsr(IReadOnlyDictionary<string, string>? annotations) =>
        annotations is not null && annotations.TryGetValue(Node.DsrAnnotation, out var said) && said == "true";

    private static IEnumerable<WireCidr> Present(params IEnumerable<WireCidr?> ranges) => ranges.OfType<WireCidr>();

    private static EquatableArray<NodeAddress> Addresses(IEnumerable<(string Type, string Text)> addresses) =>
        new(from address in addresses
            let parsed = (Ok: IpAddr.TryParse(address.Text, out var ip), Ip: ip)
            where parsed.Ok && !parsed.Ip.IsUnspecified
            select new NodeAddress(address.Type, parsed.Ip));

    private static EquatableArray<IpAddr> Health(params IEnumerable<string?> texts) =>
        new(from text in texts
            let parsed = (Ok: IpAddr.TryParse(text, out var ip), Ip: ip)
            where parsed.Ok
            select parsed.Ip);

    private static IpPrefix? Range(WireCidr cidr) => cidr.TryToPrefix(out var range) ? range : null;
}
