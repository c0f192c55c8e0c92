using Mesh.Datapath;
using Mesh.Datapath.Liveness;

namespace Mesh.Cli.Commands.Drill;

/// <summary>What happened to new flows between two looks at the maps of some nodes.</summary>
/// <param name="Choices">Cluster → new flows.</param>
/// <param name="Failed">Connections refused or unanswered, and flows for which there was no backend.</param>
/// <param name="Panics">Choices of a backend not known to live: of services that have no other.</param>
internal sealed record DrillCount(IReadOnlyDictionary<uint, ulong> Choices, ulong Failed, ulong Panics)
{
    public ulong Flows => Choices.Values.Aggregate(0ul, (sum, count) => sum + count);

    /// <summary>0 to 1.</summary>
    public double ErrorRate => Flows == 0 ? 0 : Math.Min(1, (double)Failed / Flows);

    public static DrillCount Read(IEnumerable<PinnedMaps> nodes)
    {
        var choices = new Dictionary<uint, ulong>();
        ulong failed = 0, panics = 0;
        foreach (var maps in nodes)
        {
            foreach (var (cluster, count) in maps.Choices())
                choices[cluster] = choices.GetValueOrDefault(cluster) + count;
            var failover = maps.Failover();
            panics += failover.Panics;
            failed += NewFlows.FailedOf(failover, maps.Counters());
        }
        return new DrillCount(choices, failed, panics);
    }

    public DrillCount Since(DrillCount before) => new(
        Choices.ToDictionary(pair => pair.Key, pair => pair.Value - before.Choices.GetValueOrDefault(pair.Key)).Where(pair => pair.Value > 0)
            .ToDictionary(pair => pair.Key, pair => pair.Value),
        Failed - before.Failed, Panics - before.Panics);
}
