using Mesh.Model;
using Mesh.Policy.Rules;

namespace Mesh.Policy.Engine;

/// <summary>
/// The rules of one direction that hold for the endpoints that share them, and the verdicts that follow. The rules of a set never
/// change; its rows do as identities come and go. A peer whose verdict is that of everybody has no row.
/// </summary>
internal sealed class RuleSet
{
    private readonly (PolicyRule Rule, Selected[] Peers)[] _rules;
    private readonly bool _allowedByDefault;
    private readonly Action<string> _tell;

    /// <summary>Verdicts by the rules that meet, so that peers whom the same rules mean share one.</summary>
    private readonly Dictionary<EquatableArray<int>, VerdictRow> _verdicts = [];

    /// <param name="number">Of the set.</param>
    /// <param name="specs">In order; at least one.</param>
    /// <param name="tell">Gets what cannot be done.</param>
    public RuleSet(uint number, IReadOnlyList<SpecRules> specs, SelectorCache selectors, IReadOnlyCollection<PeerIdentity> everybody, Action<string> tell)
    {
        Number = number;
        Specs = specs;
        _tell = tell;
        _allowedByDefault = !specs.Any(spec => spec.DefaultDeny);
        _rules = [.. specs.SelectMany(spec => spec.Rules)
            .Select(rule => (rule, rule.Peers.Select(peer => selectors.Use(peer, this, everybody)).ToArray()))];
        Default = Verdict(null);
        foreach (var identity in _rules.SelectMany(rule => rule.Peers).Distinct().SelectMany(peer => peer.Identities).Distinct())
            Judge(identity);
    }

    public uint Number { get; }

    public IReadOnlyList<SpecRules> Specs { get; }

    /// <summary>Its specs name ports: the numbers in it, or that it has none, follow from what pods call theirs.</summary>
    public bool HasNames { get; init; }

    /// <summary>About those of whom nothing is known, and all who have no row.</summary>
    public VerdictRow Default { get; }

    /// <summary>Identity → verdict.</summary>
    public Dictionary<uint, VerdictRow> Rows { get; } = [];

    /// <summary>Ids of the endpoints that it holds for.</summary>
    public HashSet<ushort> Endpoints { get; } = [];

    public IEnumerable<IpPrefix> Ranges =>
        Specs.SelectMany(spec => spec.Rules).SelectMany(rule => rule.Peers).OfType<RangeSelector>().SelectMany(range => range.Named).Distinct();

    public VerdictRow About(uint identity) => Rows.GetValueOrDefault(identity, Default);

    /// <summary>Makes the identity's row anew. Null when it still needs none. A row once made stays while the identity does: to take it
    /// away would not be one step with whatever took its reason.</summary>
    public VerdictRow? Judge(uint identity)
    {
        var verdict = Verdict(identity);
        if (verdict == Default && !Rows.ContainsKey(identity))
            return null;
        Rows[identity] = verdict;
        return verdict;
    }

    public void Release(SelectorCache selectors)
    {
        foreach (var selected in _rules.SelectMany(rule => rule.Peers))
            selectors.Release(selected, this);
    }

    private VerdictRow Verdict(uint? identity)
    {
        var meeting = new List<int>();
        for (var i = 0; i < _rules.Length; i++)
            foreach (var peer in _rules[i].Peers)
                if (identity is { } id ? peer.Contains(id) : peer.Selector.SelectsAnybody)
                {
                    meeting.Add(i);
                    break;
                }
        var key = new EquatableArray<int>(meeting);
        if (_verdicts.TryGetValue(key, out var known))
            return known;
        var verdict = Verdicts.Of([.. meeting.Select(i => _rules[i].Rule)], _allowedByDefault);
        if (verdict is null)
        {
            _tell($"the rules of {string.Join(", ", Specs.Select(spec => spec.Object).Distinct())} make more than {Verdicts.RangesMax} port ranges for "
                + "one peer: nothing passes between them; name fewer ports, or join them to ranges");
            verdict = new VerdictRow(new EquatableArray<PortVerdict>([new PortVerdict(0, false, 0)]));
        }
        return _verdicts[key] = verdict;
    }
}
