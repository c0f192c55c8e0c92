using Mesh.Model;

namespace Mesh.ControlPlane.LoadBalancing.Choice;

/// <summary>What the choice must know besides the backends themselves.</summary>
/// <param name="Self">ID of the own cluster.</param>
/// <param name="Zone">Zone of this node; "" = unknown, nothing is in it.</param>
/// <param name="NotReady">Backends of a cluster that are there but must not be used, by cluster ID; 0 when unknown.</param>
/// <param name="Reachable">False when traffic proves that a cluster cannot be reached, or a drill says so.</param>
/// <param name="LocalUptake">The most that the own cluster may take while it is young, 0 to 1.</param>
public sealed record ChoiceContext(
    uint Self, string Zone, Func<uint, int> NotReady, Func<uint, bool> Reachable, double LocalUptake = 1)
{
    /// <summary>Everything ready, everything reachable, no zone.</summary>
    public static ChoiceContext Plain(uint self) => new(self, "", _ => 0, _ => true);
}

/// <summary>
/// Sorts the merged backends of one frontend into tiers and gives each group its weight. Whoever may be used at all is in exactly
/// one group: what has no share now stands in the last tier, for the moment when everything else is dead or draining.
/// </summary>
public static class Chooser
{
    /// <param name="backends">Tier and InZone are overwritten.</param>
    /// <returns>Backends of clusters that the choice does not name are left out.</returns>
    public static (IReadOnlyList<Backend> Backends, EquatableArray<Share> Shares) Apply(
        ServiceChoice choice, IReadOnlyCollection<Backend> backends, ChoiceContext context)
    {
        var clusters = backends.GroupBy(backend => backend.ClusterId).Select(group => Supply(group, context)).ToList();
        var used = clusters.Where(cluster => choice.Order.Covers(cluster.Cluster, cluster.IsLocal)).ToList();
        var shares = Shares.Of(choice, used, context.LocalUptake);
        var last = (byte)(shares.Count == 0 ? 0 : shares.Max(share => share.Tier) + 1);
        var chosen = new List<Backend>(backends.Count);
        foreach (var backend in backends)
        {
            if (used.TrueForAll(cluster => cluster.ClusterId != backend.ClusterId))
                continue;
            chosen.Add(Place(backend, shares, context, last));
        }
        return (chosen, new EquatableArray<Share>(shares));
    }

    private static Backend Place(Backend backend, IReadOnlyList<Share> shares, ChoiceContext context, byte last)
    {
        var here = IsInZone(backend, context);
        foreach (var share in shares)
            if (share.ClusterId == backend.ClusterId && (share.InZone is null || share.InZone == here))
                return backend with { Tier = share.Tier, InZone = share.InZone };
        return backend with { Tier = last, InZone = null };
    }

    private static ClusterSupply Supply(IGrouping<uint, Backend> group, ChoiceContext context)
    {
        var live = group.Count(backend => backend.State == BackendState.Active);
        var here = group.Count(backend => IsInZone(backend, context));
        return new ClusterSupply(
            group.First().Cluster,
            group.Key,
            group.Key == context.Self,
            live,
            group.Count() + context.NotReady(group.Key),
            group.Count(backend => backend.State == BackendState.Active && IsInZone(backend, context)),
            here,
            context.Reachable(group.Key));
    }

    private static bool IsInZone(in Backend backend, ChoiceContext context) => context.Zone.Length > 0 && backend.Zone == context.Zone;
}
