using System.Globalization;
using Mesh.Model;

namespace Mesh.Joining.Checks;

/// <summary>
/// Whether two clusters, and all that each is connected to, can be one mesh: what can be told from what both say. Pure; both sides run
/// it, the issuer before it lets anybody in.
/// </summary>
public static class MeshChecks
{
    private static readonly TimeSpan ClockWarning = TimeSpan.FromSeconds(5);

    /// <summary>Fresh certificates begin five minutes in the past; a minute of that is for the time they are on their way.</summary>
    private static readonly TimeSpan ClockFault = TimeSpan.FromMinutes(4);

    /// <param name="one">The side that is told as "this one".</param>
    public static IReadOnlyList<Finding> Compare(ClusterFacts one, ClusterFacts other)
    {
        var findings = new List<Finding>(NamesAndIds(Members(one), Members(other)));
        findings.Add(one.MaxConnectedClusters == other.MaxConnectedClusters
            ? Finding.Ok(Finding.Names.MaxClusters, $"both number identities for {one.MaxConnectedClusters} clusters")
            : Finding.Fault(Finding.Names.MaxClusters,
                $"{one.Name} is made for {one.MaxConnectedClusters} clusters and {other.Name} for {other.MaxConnectedClusters}: "
                + "identities would be read as other ones", "make both with the same --max-connected-clusters"));
        Ranges(findings, one, other);
        findings.Add(one.TunnelPort == other.TunnelPort
            ? Finding.Ok(Finding.Names.TunnelPort, $"both tunnel by UDP {one.TunnelPort}")
            : Finding.Fault(Finding.Names.TunnelPort, $"{one.Name} tunnels by UDP {one.TunnelPort} and {other.Name} by UDP {other.TunnelPort}",
                "give both the same --tunnel-port"));
        Versions(findings, one, other);
        return findings;
    }

    /// <param name="skew">How much the other's clock is ahead.</param>
    /// <param name="uncertainty">Half of the round trip by which it was asked.</param>
    public static Finding Clock(TimeSpan skew, TimeSpan uncertainty, string peer)
    {
        var seconds = Math.Abs(skew.TotalSeconds);
        var text = string.Create(CultureInfo.InvariantCulture,
            $"the clock of {peer} is {seconds:0.0} s {(skew >= TimeSpan.Zero ? "ahead" : "behind")} (± {Math.Max(0.001, uncertainty.TotalSeconds):0.000} s)");
        const string mend = "let both take their time from a time server (chrony, systemd-timesyncd)";
        return (skew.Duration() - uncertainty) switch
        {
            var sure when sure > ClockFault => Finding.Fault(Finding.Names.Clock, $"{text}: new certificates would not be valid yet", mend),
            var sure when sure > ClockWarning => Finding.Warning(Finding.Names.Clock, text, mend),
            _ => Finding.Ok(Finding.Names.Clock, text),
        };
    }

    /// <summary>Whether every name and every ID among two clusters and the peers of both is one cluster's alone.</summary>
    /// <returns>One finding for each that is not, else one for names and one for IDs; a warning where the ID of a peer is not known.</returns>
    public static IReadOnlyList<Finding> NamesAndIds(Membership one, Membership other)
    {
        var findings = new List<Finding>();
        foreach (var (a, b) in Pairs(one, other))
        {
            if (a.Name == b.Name && (a.Id != b.Id && a.Id != 0 && b.Id != 0 || one.IsItself(a) && other.IsItself(b)))
                findings.Add(Finding.Fault(Finding.Names.Name, $"{one.Whose(a)} and {other.Whose(b)} have the same name"
                    + (a.Id != b.Id ? $" and different IDs, {a.Id} and {b.Id}" : ""), "rename one: names are unique in a mesh"));
            if (a.Id == b.Id && a.Id != 0 && (a.Name != b.Name || one.IsItself(a) && other.IsItself(b)))
                findings.Add(Finding.Fault(Finding.Names.Id, $"{one.Whose(a)} and {other.Whose(b)} have the same ID {a.Id}",
                    "give one another --cluster-id: IDs are unique in a mesh"));
        }
        var names = findings.Select(finding => finding.Check).ToHashSet();
        if (!names.Contains(Finding.Names.Name))
            findings.Add(Finding.Ok(Finding.Names.Name, $"no two of {Count(one, other)} clusters share a name"));
        if (names.Contains(Finding.Names.Id))
            return findings;
        // What one side does not know, the other may: itself, or by a peer of its own.
        var unknown = one.All.Concat(other.All).GroupBy(member => member.Name).Where(group => group.All(member => member.Id == 0))
            .Select(group => group.Key).Order(StringComparer.Ordinal).ToList();
        findings.Add(unknown.Count == 0
            ? Finding.Ok(Finding.Names.Id, $"no two of {Count(one, other)} clusters share an ID")
            : Finding.Warning(Finding.Names.Id, $"the IDs of {string.Join(", ", unknown)} are not known, the others differ",
                "those peers were not connected by a join: compare their IDs by hand, or connect them again by a token"));
        return findings;
    }

    private static void Ranges(List<Finding> findings, ClusterFacts one, ClusterFacts other)
    {
        var before = findings.Count;
        var (ours, theirs) = (Members(one), Members(other));
        foreach (var (a, b) in Pairs(ours, theirs).Where(pair => pair.A.Name != pair.B.Name || ours.IsItself(pair.A) && theirs.IsItself(pair.B)))
        {
            foreach (var (check, left, right, what) in new[]
            {
                (Finding.Names.PodRanges, a.PodCIDRs, b.PodCIDRs, "pods of"), (Finding.Names.NodeRanges, a.NodeCIDRs, b.NodeCIDRs, "nodes of"),
            })
            {
                if (Overlap(left, right) is var (x, y))
                    findings.Add(Finding.Fault(check, $"{what} {ours.Whose(a)} ({x}) and {what} {theirs.Whose(b)} ({y}) share addresses",
                        "give one another range, or describe the ranges as narrow as they are"));
            }
            foreach (var (pods, nodes, podSide, nodeSide) in new[]
            {
                (a.PodCIDRs, b.NodeCIDRs, ours.Whose(a), theirs.Whose(b)), (b.PodCIDRs, a.NodeCIDRs, theirs.Whose(b), ours.Whose(a)),
            })
            {
                if (Overlap(pods, nodes) is var (x, y))
                    findings.Add(Finding.Fault(Finding.Names.PodRanges, $"pods of {podSide} ({x}) and nodes of {nodeSide} ({y}) share addresses",
                        "give one another range, or describe the ranges as narrow as they are"));
            }
        }
        var found = findings.Skip(before).Select(finding => finding.Check).ToHashSet();
        if (!found.Contains(Finding.Names.PodRanges))
            findings.Add(Finding.Ok(Finding.Names.PodRanges,
                $"pods of {one.Name} ({string.Join(", ", one.PodCIDRs)}) and of {other.Name} ({string.Join(", ", other.PodCIDRs)}) share no address"));
        if (!found.Contains(Finding.Names.NodeRanges))
            findings.Add(Finding.Ok(Finding.Names.NodeRanges, $"nodes of {one.Name} ({string.Join(", ", one.NodeCIDRs)}) and of {other.Name} "
                + $"({string.Join(", ", other.NodeCIDRs)}) share no address"));
    }

    private static void Versions(List<Finding> findings, ClusterFacts one, ClusterFacts other)
    {
        if (Number(one.Profile.Oldest) is not { } oneOldest || Number(one.Profile.Newest) is not { } oneNewest
            || Number(other.Profile.Oldest) is not { } otherOldest || Number(other.Profile.Newest) is not { } otherNewest)
        {
            findings.Add(Finding.Fault(Finding.Names.Version, $"{other.Name} does not tell which records it writes", "use programs of one version"));
            return;
        }
        var common = (Oldest: Max(oneOldest, otherOldest), Newest: Min(oneNewest, otherNewest));
        var texts = $"{one.Name} {one.Version} (records as Cilium {one.Profile.Oldest} to {one.Profile.Newest}), "
            + $"{other.Name} {other.Version} (as {other.Profile.Oldest} to {other.Profile.Newest})";
        if (common.Oldest > common.Newest)
            findings.Add(Finding.Fault(Finding.Names.Version, $"{texts}: no common records", "upgrade the older one"));
        else if (System.Version.TryParse(one.Version, out var a) && System.Version.TryParse(other.Version, out var b)
            && a.Major == b.Major && Math.Abs(a.Minor - b.Minor) <= 1)
            findings.Add(Finding.Ok(Finding.Names.Version, texts));
        else
            findings.Add(Finding.Warning(Finding.Names.Version, $"{texts}: more than one minor version apart", "upgrade the older one step by step"));
    }

    private static Version? Number(string text) => System.Version.TryParse(text, out var version) ? version : null;

    private static Version Max(Version a, Version b) => a > b ? a : b;

    private static Version Min(Version a, Version b) => a < b ? a : b;

    private static (string, string)? Overlap(IReadOnlyList<string> left, IReadOnlyList<string> right)
    {
        foreach (var x in left)
            foreach (var y in right)
            {
                if (IpPrefix.Parse(x).Overlaps(IpPrefix.Parse(y)))
                    return (x, y);
            }
        return null;
    }

    /// <summary>Everyone of one side with everyone of the other.</summary>
    private static IEnumerable<(PeerFacts A, PeerFacts B)> Pairs(Membership one, Membership other) =>
        from a in one.All from b in other.All select (a, b);

    private static Membership Members(ClusterFacts facts) => new(new PeerFacts(facts.Name, facts.Id, facts.PodCIDRs, facts.NodeCIDRs), facts.Peers);

    private static int Count(Membership one, Membership other) => one.All.Concat(other.All).Select(member => member.Name).Distinct().Count();
}
