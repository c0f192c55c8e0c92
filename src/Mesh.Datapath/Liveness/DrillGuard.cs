using Mesh.Bpf;
using Mesh.Datapath.Maps;

namespace Mesh.Datapath.Liveness;

/// <summary>New flows of a node, and those of them that failed: refused, unanswered, or without any backend. Both only grow.</summary>
public readonly record struct NewFlows(ulong Flows, ulong Failed)
{
    /// <summary>0 to 1.</summary>
    public double ErrorRate => Flows == 0 ? 0 : Math.Min(1, (double)Failed / Flows);

    public NewFlows Since(NewFlows before) => new(Flows - before.Flows, Failed - before.Failed);

    public static ulong FailedOf(FailoverCounters failover, IEnumerable<PacketCounter> counters) => failover.Refused + failover.Unanswered
        + counters.Where(counter => counter.Reason == DropReason.NoServiceBackend).Aggregate(0ul, (sum, counter) => sum + counter.Packets);
}

/// <summary>
/// Ends a drill when more of this node's new flows fail than the map allows, whether the one who began it still lives or not. The
/// drill's deadline needs nobody; this needs the agent. Used by one thread.
/// </summary>
public sealed class DrillGuard
{
    /// <summary>Flows below which an error rate says nothing.</summary>
    public const ulong FlowsToJudge = 20;

    private readonly MmapArray<ClusterLivenessValue> _clusters;
    private readonly MmapArray<FailoverValue> _failover;
    private readonly Func<NewFlows> _count;
    private NewFlows? _before;

    internal DrillGuard(MmapArray<ClusterLivenessValue> clusters, MmapArray<FailoverValue> failover, Func<NewFlows> count)
    {
        _clusters = clusters;
        _failover = failover;
        _count = count;
    }

    /// <summary>Looks once; to be called again and again. Returns the clusters whose drill it has ended, and why.</summary>
    public (IReadOnlyList<uint> Ended, NewFlows Since) Look()
    {
        var running = Enumerable.Range(1, LbLimits.Clusters - 1).Select(id => (uint)id).Where(id => Drill.Left(_clusters, id) is not null).ToList();
        if (running.Count == 0)
        {
            _before = null;
            return ([], default);
        }
        var now = _count();
        _before ??= now;
        var since = now.Since(_before.Value);
        var limit = Volatile.Read(ref _failover[0].DrillErrorPpm);
        if (limit == 0 || since.Flows < FlowsToJudge || since.ErrorRate * Drill.Million <= limit)
            return ([], since);
        foreach (var cluster in running)
            Volatile.Write(ref _clusters.Write(0).DrillUntilNs[(int)cluster], 0);
        return (running, since);
    }
}
