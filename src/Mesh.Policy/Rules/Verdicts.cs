using Mesh.Model;

namespace Mesh.Policy.Rules;

/// <summary>
/// Rules that mean one peer → one verdict for each protocol and port. A deny rule wins over every allow rule; where none says anything
/// the default of the direction holds. So the kernel finds one answer and weighs nothing.
/// </summary>
public static class Verdicts
{
    /// <summary>As the kernel's search allows.</summary>
    public const int RangesMax = 4096;

    private const uint End = 1 << 24;

    /// <param name="rules">Those that mean the peer, in order: the first that decides is named.</param>
    /// <param name="allowedByDefault">What no rule speaks of passes.</param>
    /// <returns>Null when the answer has more than <see cref="RangesMax"/> ranges.</returns>
    public static VerdictRow? Of(IReadOnlyList<PolicyRule> rules, bool allowedByDefault)
    {
        var starts = new SortedSet<uint> { 0 };
        foreach (var rule in rules)
            foreach (var (first, end) in PlacesOf(rule))
            {
                starts.Add(first);
                if (end < End)
                    starts.Add(end);
            }
        var found = new List<PortVerdict>();
        foreach (var start in starts)
        {
            var verdict = At(rules, start, allowedByDefault);
            if (found.Count == 0 || found[^1] with { Start = start } != verdict)
                found.Add(verdict);
        }
        return found.Count > RangesMax ? null : new VerdictRow(new EquatableArray<PortVerdict>(found));
    }

    private static PortVerdict At(IReadOnlyList<PolicyRule> rules, uint place, bool allowedByDefault)
    {
        PolicyRule? allows = null;
        foreach (var rule in rules)
        {
            if ((!rule.Deny && allows is not null) || !PlacesOf(rule).Any(range => range.First <= place && place < range.End))
                continue;
            if (rule.Deny)
                return new PortVerdict(place, false, rule.Number);
            allows = rule;
        }
        return new PortVerdict(place, allows is not null || allowedByDefault, allows?.Number ?? 0);
    }

    private static IEnumerable<(uint First, uint End)> PlacesOf(PolicyRule rule)
    {
        if (rule.Ports is not { } ports)
            return [(0, End)];
        return ports.Select(port => ((uint)port.Protocol << 16 | port.First, ((uint)port.Protocol << 16 | port.Last) + 1));
    }
}
