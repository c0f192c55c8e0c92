using Mesh.ClusterMesh.Wire;
using Mesh.Kubernetes.Objects;
using Mesh.Model;

namespace Mesh.ClusterMesh.ApiServer.Converters;

/// <summary>CiliumNode → node record. The first pod range of each family is the primary one.</summary>
internal static class NodeConverter
{
    private const string WireguardKeyAnnotation = "network.cilium.io/wg-pub-key";

    public static Publishable Convert(CiliumNode node, ClusterSelf self)
    {
        var spec = node.Spec;
        var ranges = (spec.Ipam?.PodCIDRs ?? []).Select(IpPrefix.Parse).ToLookup(range => range.Address.IsV6, WireCidr.From);
        var name = node.Metadata.Name!;
        var record = new NodeRecord
        {
            Name = name,
            Cluster = self.Name,
            ClusterID = self.Id,
            // Names (Hostname, InternalDNS) are no addresses: a peer would reject the whole node for one.
            IPAddresses = [.. (spec.Addresses ?? []).Where(address => IpAddr.TryParse(address.Ip, out _))
                .Select(address => new WireNodeAddress { Type = address.Type!, IP = address.Ip! })],
            IPv4AllocCIDR = ranges[false].FirstOrDefault(),
            IPv4SecondaryAllocCIDRs = Rest(ranges[false]),
            IPv6AllocCIDR = ranges[true].FirstOrDefault(),
            IPv6SecondaryAllocCIDRs = Rest(ranges[true]),
            IPv4HealthIP = spec.Health?.Ipv4 ?? "",
            IPv6HealthIP = spec.Health?.Ipv6 ?? "",
            IPv4IngressIP = spec.Ingress?.Ipv4 ?? "",
            IPv6IngressIP = spec.Ingress?.Ipv6 ?? "",
            EncryptionKey = (byte)(spec.Encryption?.Key ?? 0),
            Labels = node.Metadata.Labels,
            Annotations = node.Metadata.Annotations,
            WireguardPubKey = node.Metadata.Annotations?.GetValueOrDefault(WireguardKeyAnnotation) ?? "",
            BootID = spec.Bootid ?? "",
        };
        return Publishable.One(Keys.Node(self.Name, name), NodeRecordCodec.Encode(record));
    }

    private static List<WireCidr>? Rest(IEnumerable<WireCidr> ranges) => ranges.Skip(1).ToList() is { Count: > 0 } rest ? rest : null;
}
