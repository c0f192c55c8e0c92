using Mesh.Model;

namespace Mesh.ControlPlane.LoadBalancing.Decisions;

/// <summary>An endpoint or a record's backend as it was offered, whether it may be used or not.</summary>
/// <param name="Revision">0 for the own cluster.</param>
/// <param name="Ready">False for an endpoint that is there but not ready.</param>
public readonly record struct Offer(
    NamedBackend Backend, string Cluster, uint ClusterId, long Sequence, long Revision, DateTimeOffset Since, bool Ready = true);

/// <summary>
/// Says of each backend that anybody offers what became of it, and by which rule of <see cref="ServiceMerge"/> and
/// <see cref="Choice.Chooser"/>. A pure function over what they were given and the row that they made: it does not decide anything
/// a second time, so it cannot tell another story than the row.
/// </summary>
public static class Decide
{
    /// <summary>Candidates of a frontend that are written down.</summary>
    public const int CandidatesMax = 1000;

    /// <param name="row">In force; null when the frontend is not served.</param>
    /// <param name="withheld">Why not.</param>
    public static FrontendDecision Explain(
        LocalService service, ClusterIdentity self, L3n4Addr address, FrontendPort port, ServiceType type, Frontend? row,
        IReadOnlyCollection<Offer> offers, string? withheld = null)
    {
        var candidates = new List<Candidate>();
        var kept = new Dictionary<(L3n4Addr, uint), Backend>();
        foreach (var backend in row?.Backends ?? default)
            kept[(backend.Address, backend.ClusterId)] = backend;
        foreach (var same in offers.GroupBy(offer => (offer.Backend.Address, offer.ClusterId)))
            candidates.Add(kept.Remove(same.Key, out var backend)
                ? Kept(backend, row!, same)
                : Cut(same, Reason(service, self, address, port, offers, [.. same])));
        foreach (var backend in kept.Values)
            candidates.Add(Kept(backend, row!, []) with { Rule = BackendRule.Restored });
        return new FrontendDecision
        {
            Address = address.ToString(),
            PortName = port.Name,
            Type = type,
            ExternalLocal = row?.ExternalLocal ?? false,
            InternalLocal = row?.InternalLocal ?? false,
            AffinitySeconds = row?.AffinitySeconds ?? 0,
            Algorithm = row?.Algorithm ?? default,
            Forwarding = row?.Forwarding ?? default,
            Withheld = row is null ? withheld ?? "it has not been written yet" : null,
            Candidates = [.. candidates.OrderByDescending(one => one.IsKept).ThenBy(one => one.Tier).ThenBy(one => one.ClusterId)
                .ThenBy(one => one.Address, StringComparer.Ordinal).Take(CandidatesMax)],
            LeftOut = Math.Max(0, candidates.Count - CandidatesMax),
        };
    }

    private static Candidate Kept(in Backend backend, Frontend row, IEnumerable<Offer> offers)
    {
        var offer = offers.FirstOrDefault();
        return new Candidate
        {
            Address = backend.Address.ToString(),
            Cluster = backend.Cluster,
            ClusterId = backend.ClusterId,
            Rule = backend.State == BackendState.Draining ? BackendRule.Draining : backend.Tier > 0 ? BackendRule.Standby : BackendRule.Kept,
            State = backend.State,
            Tier = backend.Tier,
            InZone = backend.InZone,
            Weight = WeightOf(backend, row),
            Node = backend.NodeName,
            Zone = backend.Zone,
            IsHere = backend.IsHere,
            Revision = offer.Revision,
            Since = offer.Since,
        };
    }

    private static uint WeightOf(Backend backend, Frontend row)
    {
        foreach (var share in row.Shares)
            if (share.Tier == backend.Tier && share.ClusterId == backend.ClusterId && share.InZone == backend.InZone)
                return share.Weight;
        return 0;
    }

    private static Candidate Cut(IEnumerable<Offer> offers, (BackendRule Rule, string? Detail) why)
    {
        var offer = offers.First();
        return new Candidate
        {
            Address = offer.Backend.Address.ToString(),
            Cluster = offer.Cluster,
            ClusterId = offer.ClusterId,
            Rule = why.Rule,
            Detail = why.Detail,
            State = offer.Backend.State,
            Node = offer.Backend.NodeName,
            Zone = offer.Backend.Zone,
            Revision = offer.Revision,
            Since = offer.Since,
        };
    }

    /// <summary>In the order in which the rules are applied: the first that cuts is the one that is told.</summary>
    private static (BackendRule, string?) Reason(
        LocalService service, ClusterIdentity self, L3n4Addr address, FrontendPort port, IReadOnlyCollection<Offer> offers, Offer[] same)
    {
        var (backend, cluster, isLocal) = (same[0].Backend.Address, same[0].Cluster, same[0].ClusterId == self.Id);
        if (!service.Global && !isLocal)
            return (BackendRule.NotGlobal, null);
        if (!Array.Exists(same, offer => offer.Ready))
            return (BackendRule.NotReady, null);
        if (ClaimedBy(backend, same[0], self, offers) is { } other)
            return (BackendRule.ClaimedElsewhere, $"by {other}");
        if (backend.Protocol != port.Protocol)
            return (BackendRule.OtherProtocol, backend.Protocol.ToString());
        if (backend.Address.IsV6 != address.Address.IsV6)
            return (BackendRule.OtherFamily, backend.Address.IsV6 ? "IPv6" : "IPv4");
        if (port.Name.Length > 0 && !Array.Exists(same, offer => offer.Backend.PortName.Length == 0 || offer.Backend.PortName == port.Name))
            return (BackendRule.PortNameDiffers, $"{string.Join(", ", same.Select(offer => offer.Backend.PortName))}, not {port.Name}");
        return service.Choice.Order.Covers(cluster, isLocal) ? (BackendRule.NotInForce, null) : (BackendRule.ClusterNotNamed, null);
    }

    /// <summary>The own cluster's claim wins over all, then the latest record's.</summary>
    private static string? ClaimedBy(L3n4Addr address, Offer mine, ClusterIdentity self, IReadOnlyCollection<Offer> offers)
    {
        if (mine.ClusterId == self.Id)
            return null;
        var best = mine;
        foreach (var offer in offers)
            if (offer.Ready && offer.Backend.Address == address
                && (offer.ClusterId == self.Id || (best.ClusterId != self.Id && offer.Sequence > best.Sequence)))
                best = offer;
        return best.ClusterId == mine.ClusterId ? null : best.Cluster;
    }
}
