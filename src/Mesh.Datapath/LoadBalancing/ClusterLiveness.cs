using Mesh.Bpf;
using Mesh.ControlPlane.RemoteClusters;
using Mesh.Datapath.Maps;
using Mesh.StateDB.Reconciler;

namespace Mesh.Datapath.LoadBalancing;

/// <summary>
/// The bit per cluster that says whether it is configured. It rises before the cluster's first segment is committed and
/// falls only when the cluster leaves the configuration (one store takes all its backends out, before the thousand rows that
/// mention them are rewritten). Losing a peer's control plane never clears it; what traffic proves of it stands beside it and is
/// written by <see cref="Mesh.Datapath.Liveness.LivenessMap"/>. As operations it follows the remote-clusters table. Thread-safe.
/// </summary>
internal sealed class ClusterLiveness : IOperations<string, RemoteClusterRow>
{
    private readonly Lock _lock = new();
    private readonly MmapArray<ClusterLivenessValue> _map;
    private readonly uint _ownCluster;
    private readonly Dictionary<string, uint> _idByName = [];
    private readonly HashSet<uint> _drained = [];

    internal ClusterLiveness(MmapArray<ClusterLivenessValue> map, uint ownCluster)
    {
        _map = map;
        _ownCluster = ownCluster;
        EnsureUp(ownCluster);
    }

    internal bool IsUp(uint cluster) => ClusterBits.Has(ref _map[0].Up, cluster);

    /// <summary>For a segment about to be committed. Does nothing for a cluster that is being drained.</summary>
    internal void EnsureUp(uint cluster)
    {
        lock (_lock)
            if (!_drained.Contains(cluster))
                Set(cluster, up: true);
    }

    public void Update(IReadOnlyList<KeyValuePair<string, RemoteClusterRow>> rows, Action<int, RowFault> fail)
    {
        lock (_lock)
        {
            for (var i = 0; i < rows.Count; i++)
            {
                var (name, row) = rows[i];
                if (row.ClusterId >= LbLimits.Clusters)
                {
                    fail(i, $"cluster {name} has ID {row.ClusterId}: the datapath knows 0 to {LbLimits.Clusters - 1}");
                    continue;
                }
                // 0 is not "moved to 0" but "configuration not read yet": what we knew stays.
                if (row.ClusterId == 0)
                    continue;
                if (_idByName.TryGetValue(name, out var before) && before != row.ClusterId)
                    Drain(before);
                _idByName[name] = row.ClusterId;
                _drained.Remove(row.ClusterId);
                Set(row.ClusterId, up: true);
            }
        }
    }

    public void Delete(IReadOnlyList<string> keys, Action<int, RowFault> fail)
    {
        lock (_lock)
            foreach (var name in keys)
                if (_idByName.Remove(name, out var cluster) && !_idByName.ContainsValue(cluster))
                    Drain(cluster);
    }

    /// <summary>Clears the bits of clusters that are no longer configured, but not while a configured one has yet to say its ID.</summary>
    public int Prune(IReadOnlyDictionary<string, RemoteClusterRow> desired)
    {
        if (desired.Values.Any(row => row.ClusterId == 0))
            return 0;
        var wanted = desired.Values.Select(row => row.ClusterId).Append(_ownCluster).ToHashSet();
        var cleared = 0;
        lock (_lock)
        {
            for (uint cluster = 0; cluster < LbLimits.Clusters; cluster++)
            {
                if (wanted.Contains(cluster) || !IsUp(cluster))
                    continue;
                Drain(cluster);
                cleared++;
            }
        }
        return cleared;
    }

    private void Drain(uint cluster)
    {
        if (cluster == _ownCluster)
            return;
        _drained.Add(cluster);
        Set(cluster, up: false);
    }

    private void Set(uint cluster, bool up)
    {
        if (cluster >= LbLimits.Clusters || IsUp(cluster) == up)
            return;
        if (up)
        {
            // Of a cluster that comes in nothing bad is known.
            ClusterBits.Set(ref _map.Write(0).Alive, cluster, on: true);
            Volatile.Write(ref _map.Write(0).Ramp[(int)cluster], ClusterLivenessValue.RampFull);
        }
        ClusterBits.Set(ref _map.Write(0).Up, cluster, up);
    }
}
