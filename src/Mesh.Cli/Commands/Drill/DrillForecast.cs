using Mesh.Datapath;

namespace Mesh.Cli.Commands.Drill;

/// <summary>What new flows of a node would do with and without a cluster, computed from the same tables that the kernel chooses by.</summary>
/// <param name="Before">Cluster → share of the flows, if every service had as many; they add up to 1.</param>
/// <param name="After">The same without the cluster.</param>
/// <param name="Services">Frontends with a backend.</param>
/// <param name="Stranded">Frontends that have backends in that cluster only: they go on using it (panic).</param>
internal sealed record DrillForecast(
    IReadOnlyDictionary<uint, double> Before, IReadOnlyDictionary<uint, double> After, int Services, IReadOnlyList<string> Stranded)
{
    public static DrillForecast Of(IEnumerable<(IReadOnlyList<PinnedFrontend> Frontends, IReadOnlySet<uint> Alive)> nodes, uint lost)
    {
        var (before, after) = (new Dictionary<uint, double>(), new Dictionary<uint, double>());
        var services = 0;
        var stranded = new SortedSet<string>(StringComparer.Ordinal);
        foreach (var (frontends, alive) in nodes)
            foreach (var frontend in frontends)
            {
                var now = Shares(frontend, alive.Contains);
                if (now.Count == 0)
                    continue;
                services++;
                var then = Shares(frontend, cluster => cluster != lost && alive.Contains(cluster));
                if (then.Count == 0)
                {
                    stranded.Add(frontend.Address.ToString());
                    then = now;
                }
                Add(before, now);
                Add(after, then);
            }
        return new DrillForecast(Mean(before, services), Mean(after, services), services, [.. stranded]);
    }

    /// <summary>Cluster → share of a service's new flows: those of the first tier in which a cluster lives, by weight.</summary>
    internal static IReadOnlyDictionary<uint, double> Shares(PinnedFrontend frontend, Func<uint, bool> lives)
    {
        foreach (var tier in frontend.Segments.GroupBy(segment => segment.Tier).OrderBy(tier => tier.Key))
        {
            // The dead keep their share of the first draw, and what they draw is drawn again: so it is spread by weight.
            var weights = tier.Where(segment => segment.ClusterUp && lives(segment.ClusterId)).GroupBy(segment => segment.ClusterId)
                .Select(cluster => (Id: cluster.Key, Weight: cluster.Sum(Weight))).Where(cluster => cluster.Weight > 0).ToList();
            var sum = weights.Sum(cluster => cluster.Weight);
            if (sum > 0)
                return weights.ToDictionary(cluster => cluster.Id, cluster => cluster.Weight / sum);
        }
        return new Dictionary<uint, double>();
    }

    private static double Weight(PinnedSegment segment)
    {
        var active = segment.Backends.Count(backend => backend.State == Mesh.ControlPlane.LoadBalancing.BackendState.Active);
        return segment.Backends.Count == 0 ? 0 : (double)segment.Weight * active / segment.Backends.Count;
    }

    private static void Add(Dictionary<uint, double> sum, IReadOnlyDictionary<uint, double> shares)
    {
        foreach (var (cluster, share) in shares)
            sum[cluster] = sum.GetValueOrDefault(cluster) + share;
    }

    private static Dictionary<uint, double> Mean(Dictionary<uint, double> sum, int services) =>
        sum.ToDictionary(pair => pair.Key, pair => pair.Value / Math.Max(1, services));
}
