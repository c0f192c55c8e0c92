using Mesh.Policy.Rules;

namespace Mesh.Policy.Engine;

/// <summary>What one end of a flow decides, and why.</summary>
/// <param name="Endpoint">Id of the endpoint whose policy is asked.</param>
/// <param name="Peer">Identity of the other end.</param>
/// <param name="Enforced">False: no policy selects the endpoint in this direction, everything passes.</param>
/// <param name="Set">Number of the rule set; 0 when not enforced.</param>
/// <param name="RowIdentity">Identity of the row that answers: the peer's, or 0 when it has none of its own.</param>
/// <param name="Row">Null when not enforced.</param>
/// <param name="Rule">The rule that decides; null when none does and the default holds.</param>
/// <param name="Considered">Every rule of the set, whether it means the peer and the port.</param>
public sealed record PolicyDecision(
    PolicyDirection Direction, ushort Endpoint, uint Peer, bool Decided, bool Enforced, bool Allowed, uint Set, uint RowIdentity, VerdictRow? Row,
    PolicyRule? Rule, IReadOnlyList<ConsideredRule> Considered)
{
    /// <summary>In words, one line.</summary>
    public string Reason => this switch
    {
        { Decided: false } => "the pod's labels are not known yet: nothing passes",
        { Enforced: false } => "no policy selects the pod in this direction",
        { Rule: { Deny: true } rule } => $"denied by {rule.Name}",
        { Rule: { } rule } => $"allowed by {rule.Name}",
        { Allowed: true, Peer: Mesh.Model.NumericIdentity.Host } => "the node is always let in",
        { Allowed: true } => "no rule speaks of it, and none of the policies denies by default",
        _ => "no rule allows it",
    };
}

/// <param name="MeansPeer">Its peers mean the other end.</param>
/// <param name="MeansPort">Its ports mean the flow's.</param>
public readonly record struct ConsideredRule(PolicyRule Rule, bool MeansPeer, bool MeansPort);

/// <summary>Asks the engine what it has decided.</summary>
public static class PolicyTrace
{
    /// <summary>Null when the endpoint is not known here.</summary>
    public static PolicyDecision? Trace(this PolicyEngine engine, PolicyDirection direction, ushort endpoint, uint peer, byte protocol, ushort port)
    {
        if (engine.SetsOf(endpoint) is not { } sets)
            return null;
        var set = direction == PolicyDirection.Ingress ? sets.Ingress : sets.Egress;
        if (set is null)
            return new PolicyDecision(direction, endpoint, peer, sets.Decided, Enforced: false, sets.Decided, 0, 0, null, null, []);
        var row = set.About(peer);
        var verdict = row.At(protocol, port);
        var who = engine.Identity(peer);
        var considered = set.Specs.SelectMany(spec => spec.Rules).Select(rule => new ConsideredRule(rule,
            rule.Peers.Any(one => who is null ? one.SelectsAnybody : one.Selects(who)),
            rule.Ports is null || rule.Ports.Any(one => one.Protocol == protocol && one.First <= port && port <= one.Last))).ToList();
        var hostComesIn = direction == PolicyDirection.Ingress && peer == Mesh.Model.NumericIdentity.Host;
        return new PolicyDecision(direction, endpoint, peer, sets.Decided, Enforced: true, verdict.Allowed || hostComesIn, set.Number,
            set.Rows.ContainsKey(peer) ? peer : 0, row, hostComesIn ? null : Deciding(considered, verdict), considered);
    }

    /// <summary>By what the rules mean and not by number: several may share a counter.</summary>
    private static PolicyRule? Deciding(List<ConsideredRule> considered, PortVerdict verdict) => verdict.Rule == 0
        ? null
        : considered.Where(one => one is { MeansPeer: true, MeansPort: true } && one.Rule.Deny != verdict.Allowed).Select(one => one.Rule).FirstOrDefault();
}
