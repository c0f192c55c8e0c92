using System.Diagnostics;
using Mesh.Bpf;
using Mesh.Datapath.Loader;
using Mesh.Datapath.Maps;

namespace Mesh.Datapath.Liveness;

/// <summary>
/// What traffic has proved of clusters and nodes, written where every choice of a backend looks: one store each, without a system
/// call. It withdraws nothing: rows, segments and tables stay as the control plane made them. Thread-safe.
/// </summary>
public sealed class LivenessMap
{
    private readonly MmapArray<ClusterLivenessValue> _clusters;
    private readonly MmapArray<NodeValue> _nodes;

    internal LivenessMap(MmapArray<ClusterLivenessValue> clusters, MmapArray<NodeValue> nodes)
    {
        _clusters = clusters;
        _nodes = nodes;
    }

    /// <summary>Low 32 bits of CLOCK_MONOTONIC in milliseconds, as the maps have it.</summary>
    internal static uint NowMs => (uint)(NowNs / 1_000_000);

    /// <summary>CLOCK_MONOTONIC in nanoseconds.</summary>
    internal static ulong NowNs => (ulong)Stopwatch.GetElapsedTime(0).Ticks * 100;

    public bool IsAlive(uint cluster) => ClusterBits.Has(ref _clusters[0].Alive, cluster);

    /// <summary>Of 255: the chance that the cluster takes a new flow, while it is alive.</summary>
    public byte Share(uint cluster) => cluster < LbLimits.Clusters ? Volatile.Read(ref _clusters[0].Ramp[(int)cluster]) : (byte)0;

    /// <summary>From the next choice on the cluster gets no new flow, while others live.</summary>
    public void TakeOut(uint cluster)
    {
        if (cluster < LbLimits.Clusters)
            ClusterBits.Set(ref _clusters.Write(0).Alive, cluster, on: false);
    }

    /// <param name="share">1 to 255; 255 = full.</param>
    public void LetIn(uint cluster, byte share)
    {
        if (cluster >= LbLimits.Clusters)
            return;
        Volatile.Write(ref _clusters.Write(0).Ramp[(int)cluster], share);
        ClusterBits.Set(ref _clusters.Write(0).Alive, cluster, on: true);
    }

    public bool IsSilent(uint node) => node < _nodes.Info.MaxEntries && Volatile.Read(ref State(ref _nodes[node])) == (byte)NodeState.Silent;

    /// <summary>A node that was taken out by other means stays out.</summary>
    public void SetSilent(uint node, bool silent)
    {
        if (node == 0 || node >= _nodes.Info.MaxEntries)
            return;
        var (from, to) = silent ? (NodeState.Up, NodeState.Silent) : (NodeState.Silent, NodeState.Up);
        Interlocked.CompareExchange(ref State(ref _nodes.Write(node)), (byte)to, (byte)from);
    }

    /// <summary>Null when it was never heard.</summary>
    public TimeSpan? SinceHeard(uint node)
    {
        if (node == 0 || node >= _nodes.Info.MaxEntries || Volatile.Read(ref _nodes[node].LastSeenMs) is var seen && seen == 0)
            return null;
        return TimeSpan.FromMilliseconds(Math.Max(0, (int)(NowMs - seen)));
    }

    public void Heard(uint node)
    {
        if (node != 0 && node < _nodes.Info.MaxEntries)
            Volatile.Write(ref _nodes.Write(node).LastSeenMs, NowMs | 1);
    }

    /// <summary>What is left of a drill; null when the cluster is in none.</summary>
    public TimeSpan? DrillLeft(uint cluster) => Drill.Left(_clusters, cluster);

    /// <summary>Of these, the clusters that get no new flow: proved silent, or in a drill.</summary>
    public IReadOnlySet<uint> Lost(IEnumerable<uint> clusters) =>
        clusters.Where(cluster => !IsAlive(cluster) || DrillLeft(cluster) is not null).ToHashSet();

    /// <summary>A drill that is over costs every choice a look at the clock, until it is cleared.</summary>
    public void ClearOldDrills()
    {
        for (var cluster = 0; cluster < LbLimits.Clusters; cluster++)
            if (Volatile.Read(ref _clusters[0].DrillUntilNs[cluster]) is var until && until != 0 && until <= NowNs)
                Interlocked.CompareExchange(ref _clusters.Write(0).DrillUntilNs[cluster], 0, until);
    }

    private static ref byte State(ref NodeValue node) => ref System.Runtime.CompilerServices.Unsafe.As<NodeState, byte>(ref node.State);
}

/// <summary>
/// A rehearsal: a cluster is treated as lost until a time that stands in the map itself, so that it ends whatever becomes of who began
/// it. Written from outside of the agent, which need not live.
/// </summary>
public static class Drill
{
    internal const double Million = 1_000_000;

    /// <param name="bpfRoot">The agent's --bpf-root.</param>
    /// <param name="length">From now on; replaces one that runs.</param>
    /// <param name="maxError">Share of the node's new flows, 0 to 1, that may fail: the agent ends every drill beyond it, see
    /// <see cref="DrillGuard"/>. Null = any.</param>
    /// <exception cref="DatapathException">No datapath is pinned there.</exception>
    public static void Begin(string bpfRoot, uint cluster, TimeSpan length, double? maxError = null)
    {
        // 0 means no limit in the map: that not one may fail is said as one of a million.
        Write(bpfRoot, cluster, LivenessMap.NowNs + (ulong)length.Ticks * 100, maxError is { } share ? (uint)Math.Max(1, share * Million) : 0);
    }

    /// <summary>Ends one at once; there need not be one.</summary>
    /// <exception cref="DatapathException">No datapath is pinned there.</exception>
    public static void End(string bpfRoot, uint cluster) => Write(bpfRoot, cluster, 0, null);

    internal static TimeSpan? Left(MmapArray<ClusterLivenessValue> clusters, uint cluster)
    {
        if (cluster >= LbLimits.Clusters || Volatile.Read(ref clusters[0].DrillUntilNs[(int)cluster]) is var until && until == 0)
            return null;
        var now = LivenessMap.NowNs;
        return until > now ? TimeSpan.FromTicks((long)((until - now) / 100)) : null;
    }

    private static void Write(string bpfRoot, uint cluster, ulong until, uint? errorPpm)
    {
        if (cluster is 0 or >= LbLimits.Clusters)
            throw new DatapathException($"cluster ID {cluster}: the datapath knows 1 to {LbLimits.Clusters - 1}");
        // Says what is wrong with the pins, and refuses those of another layout.
        using (PinnedMaps.Open(bpfRoot))
        {
        }
        var pins = new PinDirectory(bpfRoot);
        // The limit first: no drill runs a moment without it.
        if (errorPpm is { } limit)
        {
            using var failover = BpfMaps.OpenPinnedArray<FailoverValue>(pins.Map("failover"));
            Volatile.Write(ref failover.Write(0).DrillErrorPpm, limit);
        }
        using var clusters = BpfMaps.OpenPinnedArray<ClusterLivenessValue>(pins.Map("cluster_liveness"));
        Volatile.Write(ref clusters.Write(0).DrillUntilNs[(int)cluster], until);
    }
}
