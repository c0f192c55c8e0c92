using Mesh.Kubernetes.Objects;
using Mesh.Kubernetes.Policies;

namespace Mesh.Policy.Rules;

/// <summary>Specs → rules of this cluster.</summary>
/// <param name="cluster">Name of the own cluster.</param>
/// <param name="defaultLocal">A selector that names no cluster means the own one.</param>
public sealed class SpecRulesOf(string cluster, bool defaultLocal)
{
    private readonly RuleNumbers _numbers = new();
    private int _serial;

    public IReadOnlyList<SpecRules> Make(ObjectKey subject, PolicyReading reading)
    {
        var made = new List<SpecRules>();
        foreach (var spec in reading.Specs)
        {
            if (spec.Ingress is { } ingress)
                made.Add(Make(subject, spec, ingress, PolicyDirection.Ingress));
            if (spec.Egress is { } egress)
                made.Add(Make(subject, spec, egress, PolicyDirection.Egress));
        }
        return made;
    }

    /// <summary>The counters of the rules may be given to others.</summary>
    public void Free(IEnumerable<SpecRules> specs)
    {
        foreach (var rule in specs.SelectMany(spec => spec.Rules))
            _numbers.Free(rule.Number);
    }

    private SpecRules Make(ObjectKey subject, PolicySpec spec, SpecDirection direction, PolicyDirection way) =>
        new(++_serial, subject, spec.Field, spec.Subject, way, direction.DefaultDeny,
            [.. direction.Rules.Select(rule => new PolicyRule(_numbers.Take(), subject, rule.Field, way, rule.Deny,
                [.. rule.Peers.Select(peer => PeerSelector.Of(peer, cluster, defaultLocal)).OfType<PeerSelector>()], rule.Ports))]);
}
