using System.Text.Json;
using Mesh.Model;

namespace Mesh.Kubernetes.Policies;

/// <summary>
/// The L3/L4 part of cilium.io/v2 CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy. What goes beyond (L7 rules, names, groups)
/// is told and made stricter: a rule that allows under such a condition allows nothing, one that denies such peers denies everybody.
/// </summary>
/// <param name="place">The policy's namespace; null for a clusterwide one.</param>
internal sealed class CiliumPolicyReader(string? place)
{
    private const string AnySource = "any:";
    private const string NamespaceKey = "k8s:" + LabelSelector.NamespaceLabel;

    private readonly List<string> _unsupported = [];

    /// <summary>A rule whose subjects may not have labels yet: then neither may its peers be asked for a namespace.</summary>
    private bool _selectsInit;

    public PolicyReading Read(JsonElement? spec, JsonElement? specs)
    {
        var read = new List<PolicySpec>();
        if (spec is { ValueKind: not (JsonValueKind.Null or JsonValueKind.Undefined) } one)
            read.Add(Spec(new Fields("spec", one)));
        if (specs is { ValueKind: not (JsonValueKind.Null or JsonValueKind.Undefined) } several)
        {
            if (several.ValueKind != JsonValueKind.Array)
                throw new PolicyFaultException("specs must be a list");
            read.AddRange(several.EnumerateArray().Select((member, index) => Spec(new Fields($"specs[{index}]", member))));
        }
        return read.Count > 0
            ? new PolicyReading(read, _unsupported)
            : throw new PolicyFaultException("the policy has neither spec nor specs: give it one");
    }

    private PolicySpec Spec(Fields spec)
    {
        spec.Only("endpointSelector", "nodeSelector", "ingress", "egress", "ingressDeny", "egressDeny", "enableDefaultDeny", "labels", "description", "log");
        if (spec.Has("nodeSelector"))
            throw new PolicyFaultException($"{spec.At("nodeSelector")}: policies for nodes are not done: select pods by endpointSelector");
        if (spec.Get("endpointSelector") is not { } selector)
            throw new PolicyFaultException($"{spec.At("endpointSelector")} is missing: write {{}} for all pods{(place is null ? "" : " of the namespace")}");
        var subject = new Fields(spec.At("endpointSelector"), selector).Selector(AnySource);
        _selectsInit = subject.Requirements.Items.Any(one => one.Key == "reserved:init");
        if (place is not null && !_selectsInit)
        {
            if (subject.Requirements.Items.Any(one => one.Name == LabelSelector.NamespaceLabel
                && !(one.Operator == LabelOperator.In && one.Values.Items.SequenceEqual([place]))))
                throw new PolicyFaultException($"{spec.At("endpointSelector")} selects another namespace: a policy applies to pods of its own, {place}");
            subject = subject.And(LabelRequirement.Is(NamespaceKey, place));
        }
        var defaults = spec.Get("enableDefaultDeny") is { } given ? new Fields(spec.At("enableDefaultDeny"), given).Only("ingress", "egress") : (Fields?)null;
        return new PolicySpec(spec.Path, subject, Direction(spec, "ingress", "from", defaults), Direction(spec, "egress", "to", defaults));
    }

    private SpecDirection? Direction(Fields spec, string name, string prefix, Fields? defaults)
    {
        var rules = new List<RuleSpec>();
        foreach (var (path, value) in spec.List(name) ?? [])
            rules.Add(Rule(new Fields(path, value), prefix, deny: false));
        foreach (var (path, value) in spec.List($"{name}Deny") ?? [])
            rules.Add(Rule(new Fields(path, value), prefix, deny: true));
        var defaultDeny = defaults?.Flag(name) ?? rules.Count > 0;
        return rules.Count > 0 || defaultDeny ? new SpecDirection(defaultDeny, rules) : null;
    }

    private RuleSpec Rule(Fields rule, string prefix, bool deny)
    {
        string[] conditions = deny ? [$"{prefix}Requires"] : [$"{prefix}Requires", "authentication"];
        string[] others = prefix == "to" ? ["toFQDNs", "toServices", "toGroups", "toNodes"] : ["fromGroups", "fromNodes"];
        rule.Only([$"{prefix}Endpoints", $"{prefix}Entities", $"{prefix}CIDR", $"{prefix}CIDRSet", "toPorts", "icmps", .. conditions, .. others]);
        List<PeerSpec>? peers = null;
        foreach (var (path, value) in rule.List($"{prefix}Endpoints") ?? [])
            Add(ref peers, new LabelPeer(Placed(new Fields(path, value).Selector(AnySource))));
        foreach (var (path, value) in rule.List($"{prefix}Entities") ?? [])
            Add(ref peers, Entity(path, value));
        foreach (var (path, value) in rule.List($"{prefix}CIDR") ?? [])
            Add(ref peers, new CidrPeer(Fields.RangeOf(path, value), default));
        foreach (var (path, value) in rule.List($"{prefix}CIDRSet") ?? [])
            if (Range(new Fields(path, value), deny) is { } range)
                Add(ref peers, range);
            else
                peers ??= [];
        foreach (var name in new[] { "Endpoints", "Entities", "CIDR", "CIDRSet" })
            if (rule.Has(prefix + name))
                peers ??= [];
        foreach (var name in others.Where(rule.Has))
        {
            Tell(rule.At(name), deny ? "it denies everybody" : "it allows nobody");
            if (deny)
                Add(ref peers, PeerSpec.Anybody);
            peers ??= [];
        }
        var ports = PortsOf(rule, deny);
        if (peers is null)
            // Cilium's reading: ports alone mean everybody, an empty rule nobody.
            peers = ports is null ? [] : [PeerSpec.Anybody];
        if (ports is { Count: 0 })
            peers = [];
        foreach (var name in conditions.Where(rule.Has))
        {
            Tell(rule.At(name), deny ? "the rule denies without it" : "the rule allows nothing");
            if (!deny)
                peers = [];
        }
        return new RuleSpec(rule.Path, deny, peers, ports);
    }

    private static void Add(ref List<PeerSpec>? peers, PeerSpec peer) => (peers ??= []).Add(peer);

    private List<PortSpec>? PortsOf(Fields rule, bool deny)
    {
        if (rule.List("toPorts") is not { Count: > 0 } entries)
            entries = null;
        var icmps = rule.List("icmps") is { Count: > 0 } messages ? messages : null;
        if (entries is null && icmps is null)
            return null;
        if (entries is not null && icmps is not null)
            throw new PolicyFaultException($"{rule.Path} has both toPorts and icmps: make two rules of it");
        var ports = new List<PortSpec>();
        foreach (var (path, value) in entries ?? [])
        {
            string[] conditions = ["rules", "terminatingTLS", "originatingTLS", "serverNames", "listener"];
            var entry = new Fields(path, value).Only(["ports", .. conditions]);
            var listed = entry.List("ports") is { Count: > 0 } some ? some
                : throw new PolicyFaultException($"{entry.At("ports")} is empty: list ports, or leave toPorts out for all of them");
            var read = listed.SelectMany(port =>
                Ports.Read(new Fields(port.Path, port.Value).Only("port", "protocol", "endPort"), "ANY")).ToList();
            var met = conditions.Where(name => entry.Has(name) && !IsEmpty(entry, name)).ToList();
            foreach (var name in met)
                Tell(entry.At(name), deny ? "these ports are denied without it" : "these ports are not allowed");
            if (met.Count == 0 || deny)
                ports.AddRange(read);
        }
        foreach (var (path, value) in icmps ?? [])
            foreach (var field in new Fields(path, value).Only("fields").List("fields") ?? [])
                ports.Add(Ports.ReadIcmp(new Fields(field.Path, field.Value)));
        return ports;
    }

    private static bool IsEmpty(Fields fields, string name) => fields.Get(name) is { } value
        && (value.ValueKind == JsonValueKind.Array ? value.GetArrayLength() == 0 : value.ValueKind == JsonValueKind.Object && !value.EnumerateObject().Any());

    private static EntityPeer Entity(string path, JsonElement value)
    {
        var word = Fields.TextOf(path, value);
        return EntityPeer.Entities.Contains(word)
            ? new EntityPeer(word)
            : throw new PolicyFaultException($"{path} '{Fields.Shown(word)}' must be one of {string.Join(", ", EntityPeer.Entities)}");
    }

    private PeerSpec? Range(Fields set, bool deny)
    {
        set.Only("cidr", "except", "cidrGroupRef", "cidrGroupSelector");
        foreach (var name in new[] { "cidrGroupRef", "cidrGroupSelector" })
            if (set.Has(name))
            {
                Tell(set.At(name), deny ? "it denies everybody" : "it allows nobody");
                return deny ? PeerSpec.Anybody : null;
            }
        var range = Fields.RangeOf(set.At("cidr"), set.Get("cidr") ?? default);
        return new CidrPeer(range, new EquatableArray<IpPrefix>(set.Except(range)));
    }

    /// <summary>A selector of pods means those of the policy's namespace, unless it says another; in a clusterwide one, pods of any.</summary>
    private LabelSelector Placed(LabelSelector selector)
    {
        if (_selectsInit || selector.NamesReserved || selector.Names(LabelSelector.NamespaceLabel)
            || selector.Requirements.Items.Any(one => one.Name.StartsWith(LabelSelector.NamespaceLabelsPrefix, StringComparison.Ordinal)))
            return selector;
        return selector.And(place is null ? LabelRequirement.Has(NamespaceKey) : LabelRequirement.Is(NamespaceKey, place));
    }

    private void Tell(string field, string consequence) => _unsupported.Add($"{field} is not done here: {consequence}");
}
