using Mesh.Kubernetes.Policies;
using Mesh.Model;

namespace Mesh.Policy;

/// <summary>Somebody that a rule may mean: an identity with its labels, or an address range outside the mesh.</summary>
public sealed class PeerIdentity
{
    private readonly Dictionary<string, string> _labels;

    /// <param name="labels">"source:key=value" each; one without a source counts as source any.</param>
    /// <param name="range">For the identity of an address range.</param>
    public PeerIdentity(uint id, IEnumerable<string> labels, IpPrefix? range = null)
    {
        Id = id;
        Range = range;
        _labels = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (var label in labels)
        {
            var equals = label.IndexOf('=', StringComparison.Ordinal);
            _labels[equals < 0 ? label : label[..equals]] = equals < 0 ? "" : label[(equals + 1)..];
        }
    }

    public uint Id { get; }

    public IpPrefix? Range { get; }

    /// <summary>"source:key" → value.</summary>
    public IReadOnlyDictionary<string, string> Labels => _labels;

    /// <summary>Null when it is no pod.</summary>
    public string? Namespace => _labels.GetValueOrDefault("k8s:" + LabelSelector.NamespaceLabel);

    public bool Meets(LabelSelector selector)
    {
        foreach (var requirement in selector.Requirements)
            if (!Meets(requirement))
                return false;
        return true;
    }

    private bool Meets(in LabelRequirement requirement)
    {
        const string any = "any:";
        if (!requirement.Key.StartsWith(any, StringComparison.Ordinal))
            return Holds(requirement, _labels.GetValueOrDefault(requirement.Key));
        // Of several sources one is enough; for what must not be, none may have it.
        var negative = requirement.Operator is LabelOperator.NotIn or LabelOperator.DoesNotExist;
        foreach (var (key, value) in _labels)
            if (key.AsSpan(key.IndexOf(':', StringComparison.Ordinal) + 1).SequenceEqual(requirement.Key.AsSpan(any.Length))
                && Holds(requirement, value) != negative)
                return !negative;
        return negative;
    }

    private static bool Holds(in LabelRequirement requirement, string? value) => requirement.Operator switch
    {
        LabelOperator.In => value is not null && requirement.Values.Items.Contains(value),
        LabelOperator.NotIn => value is null || !requirement.Values.Items.Contains(value),
        LabelOperator.Exists => value is not null,
        _ => value is null,
    };
}
