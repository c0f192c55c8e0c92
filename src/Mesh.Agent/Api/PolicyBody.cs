using System.Globalization;
using System.Text.Json;
using Mesh.AgentApi;
using Mesh.Datapath.Maps;
using Mesh.Kubernetes.Policies;
using Mesh.Model;
using Mesh.Policy.Engine;
using Mesh.Policy.Rules;
using Row = Mesh.ControlPlane.Endpoints.Endpoint;

namespace Mesh.Agent.Api;

/// <summary>GET /v1/policy, /v1/policy/report and /v1/policy/trace.</summary>
internal static class PolicyBody
{
    public static PolicyTree Tree(AgentView view)
    {
        var report = Report(view);
        return new PolicyTree
        {
            Policy = JsonSerializer.Serialize(report.Objects, AgentApiJson.Indented.IReadOnlyListPolicyObjectReport),
            Revision = report.Revision,
        };
    }

    public static PolicyReport Report(AgentView view) => view.Policies.Read(engine => new PolicyReport
    {
        Revision = engine.Revision,
        Audit = engine.Options.Audit,
        Objects = [.. engine.Policies.Select(policy => Object(policy, view.Datapath))],
        Endpoints = [.. engine.Enforcement().Select(endpoint => Endpoint(view, endpoint))],
        Problems = engine.Problems.Count == 0 ? null : [.. engine.Problems],
    });

    /// <exception cref="FormatException">A reference or the port cannot be understood; the message says what is allowed.</exception>
    public static PolicyTraceReport Trace(AgentView view, string source, string destination, string port)
    {
        var (protocol, number) = ReadPort(port);
        var from = PolicyParty.Find(view, source);
        var to = PolicyParty.Find(view, destination);
        var ends = new List<PolicyEndReport>();
        view.Policies.Read(engine =>
        {
            if (from.Endpoint is { } pod && engine.Trace(PolicyDirection.Egress, pod.Id, to.Identity, protocol, number) is { } egress)
                ends.Add(End(view, pod, egress, protocol, number));
            if (to.Endpoint is { } target && engine.Trace(PolicyDirection.Ingress, target.Id, from.Identity, protocol, number) is { } ingress)
                ends.Add(End(view, target, ingress, protocol, number));
            return true;
        });
        return new PolicyTraceReport
        {
            Source = from.Text,
            Destination = to.Text,
            Port = $"{number}/{PortSpec.NameOf(protocol)}",
            Verdict = ends.Count == 0 ? "UNKNOWN" : ends.TrueForAll(end => end.Allowed) ? "ALLOWED" : "DENIED",
            Ends = ends,
        };
    }

    private static PolicyObjectReport Object(Mesh.Policy.Engine.Policy policy, Datapath.Datapath? datapath) => new()
    {
        Kind = policy.Key.Kind.ToString(),
        Namespace = policy.Key.Namespace.Length == 0 ? null : policy.Key.Namespace,
        Name = policy.Key.Name,
        Unsupported = policy.Unsupported.Count == 0 ? null : policy.Unsupported,
        Rules = [.. policy.Specs.SelectMany(spec => spec.Rules.Select(rule => Rule(spec, rule, datapath)))],
    };

    private static PolicyRuleReport Rule(SpecRules spec, PolicyRule rule, Datapath.Datapath? datapath)
    {
        var (packets, bytes) = datapath?.Policy.Counted(rule.Number) ?? (0, 0);
        return new PolicyRuleReport
        {
            Field = rule.Field,
            Direction = Word(rule.Direction),
            Deny = rule.Deny,
            Subject = spec.Subject.ToString(),
            Peers = [.. rule.Peers.Select(peer => peer.ToString()!)],
            Ports = rule.Ports is null ? null : [.. rule.Ports.Select(port => port.ToString())],
            Packets = packets,
            Bytes = bytes,
        };
    }

    private static PolicyEndpointReport Endpoint(AgentView view, EndpointEnforcement endpoint)
    {
        string State(uint? set) => !endpoint.Decided ? "undecided" : set is null ? "open" : view.Options.PolicyAuditMode ? "audited" : "enforced";
        return new PolicyEndpointReport
        {
            Id = endpoint.Id,
            Pod = view.State.Endpoints.TryGet(endpoint.Id, out var row) ? $"{row.Namespace}/{row.PodName}" : "",
            Identity = endpoint.Identity,
            Ingress = State(endpoint.Ingress),
            Egress = State(endpoint.Egress),
            Rows = endpoint.Rows,
        };
    }

    private static PolicyEndReport End(AgentView view, Row pod, PolicyDecision decision, byte protocol, ushort port) => new()
    {
        Direction = Word(decision.Direction),
        Endpoint = pod.Id,
        Pod = $"{pod.Namespace}/{pod.PodName}",
        PeerIdentity = decision.Peer,
        Enforced = decision.Enforced,
        Allowed = decision.Allowed,
        Reason = decision.Reason,
        Kernel = view.Datapath is { } datapath ? Kernel(datapath, decision, protocol, port) : null,
        Rules = decision.Considered.Count == 0 ? null :
        [
            .. decision.Considered.Select(one => new PolicyConsideredReport
            {
                Rule = one.Rule.Name, Deny = one.Rule.Deny, MeansPeer = one.MeansPeer, MeansPort = one.MeansPort,
            }),
        ],
    };

    /// <summary>As a packet would find it, and whether that is what was decided.</summary>
    private static PolicyKernelReport Kernel(Datapath.Datapath datapath, PolicyDecision decision, byte protocol, ushort port)
    {
        var word = datapath.Policy.Word(decision.Endpoint);
        var set = decision.Direction == PolicyDirection.Ingress ? word.Ingress : word.Egress;
        var place = $"policy_endpoints[{decision.Endpoint}].{Word(decision.Direction)}";
        var (entry, allowed) = set switch
        {
            PolicyLimits.Undecided => ($"{place} = undecided", false),
            PolicyLimits.Unenforced => ($"{place} = open", true),
            PolicyLimits.Learning => ($"{place} = learning which flows run; the rules hold in a moment", decision.Allowed),
            _ => Entry(place, set),
        };
        var hostComesIn = decision is { Direction: PolicyDirection.Ingress, Peer: NumericIdentity.Host };
        return new PolicyKernelReport { Entry = entry, Allowed = allowed || hostComesIn, Agrees = (allowed || hostComesIn) == decision.Allowed };

        (string, bool) Entry(string where, uint number)
        {
            var text = $"{where} = set {number}{(word.Audit ? " (audited)" : "")}";
            if (datapath.Policy.Find(number, decision.Peer) is not { } found)
                return ($"{text}, which has no row", false);
            var verdict = found.Row.At(protocol, port);
            var says = verdict.Allowed ? "allow" : "deny";
            return ($"{text}, policy_rows[{number}, {found.Identity}] from {verdict.StartText}: {says}, rule {verdict.Rule}", verdict.Allowed);
        }
    }

    private static (byte Protocol, ushort Port) ReadPort(string text)
    {
        var parts = text.Split('/');
        byte protocol = (parts.Length == 2 ? parts[1] : "TCP").ToUpperInvariant() switch
        {
            "TCP" => 6,
            "UDP" => 17,
            "SCTP" => 132,
            "ICMP" => PortSpec.Icmp,
            "ICMPV6" => PortSpec.IcmpV6,
            _ => 0,
        };
        var isNumber = ushort.TryParse(parts[0], NumberStyles.None, CultureInfo.InvariantCulture, out var port);
        if (isNumber && port == 0 && parts.Length <= 2 && protocol is (6 or 17 or 132))
            throw new FormatException($"--dport {text}: the number of a port must be 1 to 65535");
        if (protocol == 0 || parts.Length > 2 || !isNumber)
            throw new FormatException($"--dport '{text}' is no port (1 to 65535, TCP when nothing is said): "
                + "write 80/TCP, 53/UDP, 80/SCTP, or a type of ICMP messages as 8/ICMP or 128/ICMPv6");
        return (protocol, port);
    }

    private static string Word(PolicyDirection direction) => direction == PolicyDirection.Ingress ? "ingress" : "egress";
}

/// <summary>One end of a flow, as a person names it.</summary>
/// <param name="Endpoint">Null when it is no pod of this node.</param>
/// <param name="Text">Who was found.</param>
internal sealed record PolicyParty(Row? Endpoint, uint Identity, string Text)
{
    /// <exception cref="FormatException">Nobody is meant; the message says what is allowed.</exception>
    public static PolicyParty Find(AgentView view, string reference)
    {
        if (IpAddr.TryParse(reference, out var address))
            return OfAddress(view, address);
        if (uint.TryParse(reference, NumberStyles.None, CultureInfo.InvariantCulture, out var identity))
            return Named(view, null, identity, "identity");
        foreach (var (number, word) in NumericIdentity.Reserved)
            if (word == reference)
                return Named(view, null, number, word);
        return OfPod(view, reference) ?? throw new FormatException(
            $"'{reference}' is nobody known here: give NAMESPACE/POD, CLUSTER/NAMESPACE/POD, an address, an identity's number, or a word such as world");
    }

    private static PolicyParty? OfPod(AgentView view, string reference)
    {
        var parts = reference.Split('/');
        if (parts.Length is < 2 or > 3)
            return null;
        var cluster = parts.Length == 3 ? parts[0] : null;
        var (place, name) = (parts[^2], parts[^1]);
        if (cluster is null || cluster == view.Options.Cluster.Name)
            foreach (var (_, entry) in view.State.Endpoints.Snapshot())
                if (entry.Row.Namespace == place && entry.Row.PodName == name)
                    return Named(view, entry.Row, entry.Row.Identity == 0 ? NumericIdentity.Init : entry.Row.Identity, reference);
        var found = view.State.IPCache.Snapshot().Select(pair => pair.Value.Row).Where(row => row.Namespace == place && row.PodName == name)
            .Where(row => cluster is null || row.Cluster == cluster).DistinctBy(row => row.Cluster).ToList();
        return found.Count switch
        {
            0 => null,
            1 => Named(view, null, found[0].Identity, $"{found[0].Cluster}/{place}/{name}"),
            _ => throw new FormatException($"'{reference}' is a pod of {string.Join(" and ", found.Select(row => row.Cluster))}: "
                + $"write {found[0].Cluster}/{reference}"),
        };
    }

    private static PolicyParty OfAddress(AgentView view, IpAddr address)
    {
        foreach (var (_, entry) in view.State.Endpoints.Snapshot())
            if (entry.Row.Addresses.Items.Contains(address))
                return Named(view, entry.Row, entry.Row.Identity == 0 ? NumericIdentity.Init : entry.Row.Identity,
                    $"{entry.Row.Namespace}/{entry.Row.PodName}");
        for (var length = address.Bits; length >= 0; length--)
            if (view.State.IPCache.TryGet(new IpPrefix(address, length), out var row))
                return Named(view, null, row.Identity, $"{address} (of {row.Prefix})");
        return Named(view, null, NumericIdentity.World, address.ToString());
    }

    private static PolicyParty Named(AgentView view, Row? endpoint, uint identity, string text)
    {
        var labels = view.State.Identities.TryGet(identity, out var row) ? string.Join(' ', row.Labels)
            : NumericIdentity.Reserved.TryGetValue(identity, out var word) ? $"reserved:{word}" : "";
        return new PolicyParty(endpoint, identity, $"{text}, identity {identity}{(labels.Length > 0 ? $" [{labels}]" : "")}");
    }
}
