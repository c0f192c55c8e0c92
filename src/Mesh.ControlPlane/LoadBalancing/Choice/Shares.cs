namespace Mesh.ControlPlane.LoadBalancing.Choice;

/// <summary>What one cluster has for a service, as far as the choice goes.</summary>
/// <param name="Live">Backends that may be sent new connections.</param>
/// <param name="Expected">Backends that there are, ready or not; at least <paramref name="Live"/>.</param>
/// <param name="LiveHere">Of the live ones, those in the client node's zone.</param>
/// <param name="ExpectedHere">Of the expected ones, those in the client node's zone.</param>
/// <param name="Reachable">False when traffic does not get there (or a drill says so): counts as health 0, stays as a fallback.</param>
public readonly record struct ClusterSupply(
    string Cluster, uint ClusterId, bool IsLocal, int Live, int Expected, int LiveHere = 0, int ExpectedHere = 0, bool Reachable = true);

/// <summary>A share of the traffic for the backends of one cluster, or of one zone of it.</summary>
/// <param name="InZone">True = only its backends in the node's zone, false = only those of other zones, null = all.</param>
/// <param name="Tier">0 = takes its share now; higher ones only when nothing below lives.</param>
/// <param name="Weight">Relative to the other shares of the tier; at least 1.</param>
public readonly record struct Share(uint ClusterId, bool? InZone, byte Tier, uint Weight);

/// <summary>
/// Turns a choice and what the clusters have into weighted shares. A pure function, the whole of the arithmetic:
/// <list type="bullet">
/// <item>A cluster's capacity is its weight times min(1, health / min-healthy), health being live / expected.</item>
/// <item>A group takes min(what is left, Σ capacity / Σ weight); the rest goes to the next group. What nobody can take is laid on
/// all that take something, in proportion. Without a minimum a group takes everything as long as anything of it lives.</item>
/// <item>Groups that take nothing stand behind, a tier each, for the moment when everything before them is dead.</item>
/// </list>
/// </summary>
public static class Shares
{
    /// <summary>Sum of the weights of tier 0, but for rounding.</summary>
    public const uint Whole = 1 << 16;

    /// <param name="localUptake">1, or less while a local side that began from nothing is young: the most that it may take.</param>
    public static IReadOnlyList<Share> Of(ServiceChoice choice, IReadOnlyCollection<ClusterSupply> clusters, double localUptake = 1)
    {
        var groups = choice.Order.Groups.Select(group => Members(group, choice, clusters)).Where(group => group.Count > 0).ToList();
        if (groups.Count == 0)
            return [];
        var assigned = Assign(groups, choice.MinHealthy, localUptake);
        var shares = new List<Share>();
        byte tier = 0;
        Append(shares, choice, assigned.Where(member => member.Share > 0), ref tier);
        foreach (var group in groups)
        {
            var idle = group.Where(member => assigned.Find(one => one.Supply.ClusterId == member.Supply.ClusterId).Share <= 0).ToList();
            if (idle.Count > 0)
                Append(shares, choice, idle.Select(member => member with { Share = member.Weight / idle.Sum(one => one.Weight) }), ref tier);
        }
        return shares;
    }

    private static List<Member> Members(ClusterGroup group, ServiceChoice choice, IReadOnlyCollection<ClusterSupply> clusters)
    {
        var members = new List<Member>();
        foreach (var share in group.Members)
            foreach (var supply in clusters.Where(cluster => cluster.Live > 0 && Names(share.Cluster, cluster, choice.Order)))
            {
                var weight = share.Weight > 0 ? share.Weight : Math.Max(supply.Expected, supply.Live);
                var health = !supply.Reachable ? 0 : Ratio(supply.Live, supply.Expected);
                members.Add(new Member(supply, weight, weight * Capacity(health, choice.MinHealthy), 0));
            }
        return members;
    }

    private static bool Names(string member, in ClusterSupply cluster, ClusterOrder order) => member switch
    {
        ClusterOrder.Local => cluster.IsLocal,
        ClusterOrder.Others => !IsNamed(cluster, order),
        _ => member == cluster.Cluster,
    };

    private static bool IsNamed(ClusterSupply cluster, ClusterOrder order) => order.Groups.Any(group => group.Members.Any(
        member => member.Cluster == cluster.Cluster || (member.Cluster == ClusterOrder.Local && cluster.IsLocal)));

    /// <summary>Without a minimum a cluster can take everything as long as anything of it lives.</summary>
    private static double Capacity(double health, double minimum) =>
        minimum > 0 ? Math.Min(1, health / minimum) : health > 0 ? 1 : 0;

    private static double Ratio(int live, int expected) => expected > live ? (double)live / expected : 1;

    private static List<Member> Assign(List<List<Member>> groups, double minimum, double localUptake)
    {
        var assigned = new List<Member>();
        var left = 1.0;
        foreach (var group in groups)
        {
            var capacity = group.Sum(member => member.Capacity);
            var taken = Math.Min(left, minimum > 0 ? capacity / group.Sum(member => member.Weight) : capacity > 0 ? 1 : 0);
            if (group.TrueForAll(member => member.Supply.IsLocal))
                taken = Math.Min(taken, localUptake);
            if (taken > 0)
                assigned.AddRange(group.Select(member => member with { Share = taken * member.Capacity / capacity }));
            left -= taken;
        }
        assigned.RemoveAll(member => member.Share <= 0);
        return assigned;
    }

    private static void Append(List<Share> shares, ServiceChoice choice, IEnumerable<Member> members, ref byte tier)
    {
        var all = members.ToList();
        if (all.Count == 0)
            return;
        var whole = all.Sum(member => member.Share);
        var behind = new List<Share>();
        foreach (var member in all)
        {
            var share = member.Share / whole;
            var supply = member.Supply;
            if (!choice.PreferZone || supply.LiveHere == 0 || supply.LiveHere == supply.Live)
            {
                shares.Add(new Share(supply.ClusterId, null, tier, Weight(share)));
                continue;
            }
            var here = Capacity(Ratio(supply.LiveHere, supply.ExpectedHere), choice.MinHealthy);
            shares.Add(new Share(supply.ClusterId, true, tier, Weight(share * here)));
            if (here < 1)
                shares.Add(new Share(supply.ClusterId, false, tier, Weight(share * (1 - here))));
            else
                behind.Add(new Share(supply.ClusterId, false, (byte)(tier + 1), Weight(share)));
        }
        shares.AddRange(behind);
        tier += (byte)(behind.Count > 0 ? 2 : 1);
    }

    private static uint Weight(double share) => Math.Max(1, (uint)Math.Round(share * Whole));

    /// <param name="Share">Of all traffic, 0 to 1.</param>
    private readonly record struct Member(ClusterSupply Supply, double Weight, double Capacity, double Share);
}
