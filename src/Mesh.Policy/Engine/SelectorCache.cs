using Mesh.Policy.Rules;

namespace Mesh.Policy.Engine;

/// <summary>
/// Which identities each selector in use means. An identity is asked once per distinct selector, when it comes or changes; what a rule
/// set needs to know is then a look-up.
/// </summary>
internal sealed class SelectorCache
{
    private readonly Dictionary<PeerSelector, Selected> _selectors = [];

    public int Count => _selectors.Count;

    /// <summary>For a set that uses the selector.</summary>
    /// <param name="everybody">All identities known, asked when the selector is new.</param>
    public Selected Use(PeerSelector selector, RuleSet user, IEnumerable<PeerIdentity> everybody)
    {
        if (!_selectors.TryGetValue(selector, out var selected))
        {
            _selectors[selector] = selected = new Selected(selector);
            if (!selector.SelectsAnybody)
                foreach (var who in everybody)
                    if (selector.Selects(who))
                        selected.Identities.Add(who.Id);
        }
        selected.Users.Add(user);
        return selected;
    }

    public void Release(Selected selected, RuleSet user)
    {
        if (selected.Users.Remove(user) && selected.Users.Count == 0)
            _selectors.Remove(selected.Selector);
    }

    /// <summary>Asks every selector about one identity.</summary>
    /// <param name="who">Null for one that has gone.</param>
    /// <returns>The sets to which it matters.</returns>
    public HashSet<RuleSet> Ask(uint identity, PeerIdentity? who)
    {
        var touched = new HashSet<RuleSet>();
        foreach (var selected in _selectors.Values)
        {
            if (selected.Selector.SelectsAnybody)
                continue;
            var means = who is not null && selected.Selector.Selects(who);
            if (means ? selected.Identities.Add(identity) : selected.Identities.Remove(identity))
                touched.UnionWith(selected.Users);
        }
        return touched;
    }
}

internal sealed class Selected(PeerSelector selector)
{
    public PeerSelector Selector => selector;

    public HashSet<uint> Identities { get; } = [];

    public HashSet<RuleSet> Users { get; } = [];

    public bool Contains(uint identity) => selector.SelectsAnybody || Identities.Contains(identity);
}
