using Mesh.ClusterMesh.Wire;
using Mesh.ClusterMesh.Wire.Json;
using Mesh.Model;

namespace Mesh.ClusterMesh.Imports;

/// <summary>
/// Decides whether a record that is well formed speaks only of what is the peer's: its addresses, its nodes, its namespaces. The
/// first fault found is the refusal; null is no objection. What can never be right (loopback, multicast, link-local, this cluster's
/// own addresses, another peer's pinned ranges) is refused from any peer; the rest follows its <see cref="ImportPolicy"/>.
/// </summary>
internal sealed class ImportJudge
{
    /// <summary>Ranges nobody else's pod, node or backend can be in. 240.0.0.0/4 is not among them: there are clusters with pods in it.</summary>
    private static readonly PrefixSet NeverRight = PrefixSet.Of(
        "0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32", "::/128", "::1/128", "fe80::/10", "ff00::/8");

    private readonly string _cluster;
    private readonly ImportPolicy _policy;
    private readonly Func<OwnGround> _own;
    private readonly Func<PinnedRanges> _pins;
    private readonly NodeAddresses _nodes;

    public ImportJudge(string cluster, ImportPolicy policy, Func<OwnGround> own, Func<PinnedRanges> pins, NodeAddresses nodes)
    {
        _cluster = cluster;
        _policy = policy;
        _own = own;
        _pins = pins;
        _nodes = nodes;
    }

    /// <summary>Entries are held against the nodes as they are published: these have to be heard first.</summary>
    public bool LearnsNodes => _policy.FromFile && _policy.NodeCidrs is null;

    public Refusal? Node(NodeRecord node)
    {
        foreach (var (type, text) in Addresses(node))
        {
            if (!IpAddr.TryParse(text, out var address) || address.IsUnspecified)
                continue;
            if (Elsewhere(IpPrefix.Host(address)) is { } where)
                return new Refusal(RefusalReason.Address, $"{type} {address} {where}");
            if (IsUnderlay(type) && _policy.NodeCidrs is { } nodes && !nodes.Contains(address))
                return new Refusal(RefusalReason.TunnelEndpoint, $"{type} {address} is outside its node ranges {nodes}");
            if (!IsUnderlay(type) && _policy.PodCidrs is { } pods && !pods.Contains(address) && _policy.NodeCidrs?.Contains(address) != true)
                return new Refusal(RefusalReason.Address, $"{type} {address} is outside its ranges {pods}");
        }
        foreach (var cidr in Ranges(node))
        {
            if (Elsewhere(cidr) is { } where)
                return new Refusal(RefusalReason.Address, $"pod range {cidr} {where}");
            if (_policy.PodCidrs is { } pods && !pods.Covers(cidr))
                return new Refusal(RefusalReason.Address, $"pod range {cidr} is outside its ranges {pods}");
        }
        return null;
    }

    private static IEnumerable<(string Type, string Text)> Addresses(NodeRecord node) =>
        (node.IPAddresses ?? []).Select(address => (address.Type, address.IP)).Concat(
        [
            ("health address", node.IPv4HealthIP), ("health address", node.IPv6HealthIP),
            ("ingress address", node.IPv4IngressIP), ("ingress address", node.IPv6IngressIP),
        ]);

    /// <summary>What tunnels may end at; the others are on the pod side.</summary>
    private static bool IsUnderlay(string type) => type is not ("CiliumInternalIP" or "health address" or "ingress address");

    public Refusal? Service(ServiceName name, ClusterService service)
    {
        if (!_policy.Grants(name.Namespace))
            return NotGranted(name.Namespace);
        foreach (var text in service.Backends?.Keys ?? [])
        {
            if (IpAddr.TryParse(text, out var backend) && (Elsewhere(IpPrefix.Host(backend)) ?? Outside(IpPrefix.Host(backend))) is { } fault)
                return new Refusal(RefusalReason.Backend, $"backend {backend} {fault}");
        }
        return null;
    }

    public Refusal? ServiceExport(ServiceName name) => _policy.Grants(name.Namespace) ? null : NotGranted(name.Namespace);

    public Refusal? Ip(IpPrefix prefix, IpIdentityPair pair)
    {
        if (pair.K8sNamespace is { Length: > 0 } ns && !_policy.Grants(ns))
            return NotGranted(ns);
        if ((Elsewhere(prefix) ?? Outside(prefix)) is { } fault)
            return new Refusal(RefusalReason.Address, $"{prefix} {fault}");
        if (IpAddr.TryParse(pair.HostIP, out var host) && TunnelFault(host) is { } tunnel)
            return tunnel;
        var reserved = pair.ID is > NumericIdentity.Unknown and < NumericIdentity.FirstAllocatable;
        if (_policy.FromFile && reserved && !(prefix.IsHost && _nodes.Contains(prefix.Address)))
        {
            return new Refusal(RefusalReason.ReservedIdentity,
                $"reserved identity {pair.ID} on {prefix}, which is no address of its nodes", AwaitsNode: true);
        }
        return null;
    }

    public Refusal? Identity(string labels)
    {
        if (_policy.Namespaces is null)
            return null;
        foreach (var label in IdentityLabels.Decode(labels))
        {
            if (label.Key == IdentityLabels.NamespaceKey && label.Source == IdentityLabels.KubernetesSource && !_policy.Grants(label.Value))
                return NotGranted(label.Value);
        }
        return null;
    }

    private Refusal? TunnelFault(IpAddr host)
    {
        if (host.IsUnspecified)
            return null;
        if (Elsewhere(IpPrefix.Host(host)) is { } where)
            return new Refusal(RefusalReason.TunnelEndpoint, $"tunnel endpoint {host} {where}");
        if (_policy.NodeCidrs is { } nodes)
        {
            return nodes.Contains(host)
                ? null
                : new Refusal(RefusalReason.TunnelEndpoint, $"tunnel endpoint {host} is outside its node ranges {nodes}");
        }
        return !_policy.FromFile || _nodes.Contains(host)
            ? null
            : new Refusal(RefusalReason.TunnelEndpoint, $"tunnel endpoint {host} is none of its nodes", AwaitsNode: true);
    }

    private static Refusal NotGranted(string ns) => new(RefusalReason.Namespace, $"namespace {Quoted.Text(ns)} is not granted");

    /// <summary>Why the range can be no peer's, or must be somebody else's.</summary>
    private string? Elsewhere(IpPrefix prefix)
    {
        if (NeverRight.Overlaps(prefix))
            return "is loopback, link-local, multicast or reserved";
        var own = _own();
        if (own.PodCidrs.Overlaps(prefix))
            return "is in a pod range of this cluster";
        if (prefix.IsHost ? own.NodeAddresses.Contains(prefix.Address) : own.NodeAddresses.Any(prefix.Contains))
            return "is an address of this cluster's nodes";
        return _pins().OtherOwner(prefix.Address, _cluster) is { } owner ? $"is in a range pinned to cluster {owner}" : null;
    }

    private string? Outside(IpPrefix prefix)
    {
        if (_policy.PodCidrs is not { } pods || pods.Covers(prefix) || _policy.NodeCidrs?.Covers(prefix) == true)
            return null;
        // Its nodes' ranges are not pinned: what it publishes as nodes is the best there is.
        if (_policy.NodeCidrs is null && prefix.IsHost && _nodes.Contains(prefix.Address))
            return null;
        return $"is outside its ranges {pods}{(_policy.NodeCidrs is { } nodes ? $", {nodes}" : "")}";
    }

    private static IEnumerable<IpPrefix> Ranges(NodeRecord node)
    {
        var all = new[] { node.IPv4AllocCIDR, node.IPv6AllocCIDR }
            .Concat(node.IPv4SecondaryAllocCIDRs ?? []).Concat(node.IPv6SecondaryAllocCIDRs ?? []);
        foreach (var cidr in all)
        {
            if (cidr is not null && cidr.TryToPrefix(out var prefix))
                yield return prefix;
        }
    }
}
