using Mesh.Kubernetes.Objects;
using Mesh.Model;

namespace Mesh.Kubernetes.Policies;

/// <summary>networking.k8s.io/v1 NetworkPolicy: an absent or empty list of peers is everybody, of ports every port.</summary>
internal static class NetworkPolicyReader
{
    private const string Source = "k8s:";
    private const string NamespaceKey = Source + LabelSelector.NamespaceLabel;

    public static PolicyReading Read(NetworkPolicy policy)
    {
        var unsupported = new List<string>();
        var place = policy.Metadata.Namespace ?? "default";
        if (policy.Spec is not { } element)
            throw new PolicyFaultException("spec is missing: give the policy a podSelector and rules");
        var spec = new Fields("spec", element).Only("podSelector", "policyTypes", "ingress", "egress");
        var subject = Selector(spec, "podSelector", Source) ?? LabelSelector.Everything;
        var types = Types(spec);
        return new PolicyReading(
        [
            new PolicySpec("spec", subject.And(LabelRequirement.Is(NamespaceKey, place)),
                types.Contains("Ingress") ? new SpecDirection(true, Rules(spec, "ingress", "from", place, unsupported)) : null,
                types.Contains("Egress") ? new SpecDirection(true, Rules(spec, "egress", "to", place, unsupported)) : null),
        ], unsupported);
    }

    private static HashSet<string> Types(Fields spec)
    {
        if (spec.List("policyTypes") is not { Count: > 0 } given)
            return spec.Has("egress") ? ["Ingress", "Egress"] : ["Ingress"];
        var types = new HashSet<string>(StringComparer.Ordinal);
        foreach (var (path, value) in given)
            types.Add(Fields.TextOf(path, value) is "Ingress" or "Egress"
                ? value.GetString()!
                : throw new PolicyFaultException($"{path} '{Fields.Shown(value.GetString()!)}' must be Ingress or Egress"));
        return types;
    }

    private static List<RuleSpec> Rules(Fields spec, string direction, string peers, string place, List<string> unsupported)
    {
        var rules = new List<RuleSpec>();
        foreach (var (path, value) in spec.List(direction) ?? [])
        {
            var rule = new Fields(path, value).Only(peers, "ports");
            IReadOnlyList<PeerSpec> who = rule.List(peers) is { Count: > 0 } given
                ? [.. given.Select(one => Peer(new Fields(one.Path, one.Value), place))]
                : [PeerSpec.Anybody];
            List<PortSpec>? ports = null;
            if (rule.List("ports") is { Count: > 0 } listed)
            {
                ports = [];
                foreach (var port in listed)
                    ports.AddRange(Ports.Read(new Fields(port.Path, port.Value).Only("protocol", "port", "endPort"), "TCP"));
            }
            // Ports that we cannot do allow nothing; none left must not become every port.
            rules.Add(new RuleSpec(path, Deny: false, ports is { Count: 0 } ? [] : who, ports));
        }
        return rules;
    }

    private static PeerSpec Peer(Fields peer, string place)
    {
        peer.Only("podSelector", "namespaceSelector", "ipBlock");
        var pods = Selector(peer, "podSelector", Source);
        var namespaces = Selector(peer, "namespaceSelector", Source + LabelSelector.NamespaceLabelsPrefix);
        if (peer.Get("ipBlock") is { } block)
        {
            if (pods is not null || namespaces is not null)
                throw new PolicyFaultException($"{peer.Path} has ipBlock beside selectors: make two peers of it");
            var fields = new Fields(peer.At("ipBlock"), block).Only("cidr", "except");
            var range = Fields.RangeOf(fields.At("cidr"), fields.Get("cidr") ?? default);
            return new CidrPeer(range, new EquatableArray<IpPrefix>(fields.Except(range)));
        }
        if (pods is null && namespaces is null)
            throw new PolicyFaultException($"{peer.Path} is empty: give it podSelector, namespaceSelector or ipBlock");
        var which = (pods ?? LabelSelector.Everything).Requirements.Items;
        if (namespaces is null)
            return new LabelPeer(new LabelSelector(new(which)).And(LabelRequirement.Is(NamespaceKey, place)));
        return new LabelPeer(namespaces.Requirements.Count == 0
            ? new LabelSelector(new(which)).And(LabelRequirement.Has(NamespaceKey))
            : new LabelSelector(new(which)).And([.. namespaces.Requirements.Items]));
    }

    private static LabelSelector? Selector(Fields fields, string name, string source) =>
        fields.Get(name) is { } value ? new Fields(fields.At(name), value).Selector(source) : null;
}
