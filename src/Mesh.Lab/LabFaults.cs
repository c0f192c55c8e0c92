using Mesh.Lab.Making;
using Mesh.Lab.Plan;

namespace Mesh.Lab;

/// <summary>Breaks a lab on purpose, one thing at a time, and mends it again.</summary>
public static class LabFaults
{
    /// <summary>The control plane of one cluster and everybody else no longer see each other; nodes and pods all do.</summary>
    public static Task CutControlPlaneAsync(LabPlan plan, ClusterPlan cluster, bool cut, CancellationToken cancel) =>
        Wiring.SetLinkAsync(plan, Wiring.ControlPlanePort(cluster), !cut, cancel);

    /// <summary>The cluster's etcd is killed and everything that it ever stored is gone: its successor begins with nothing.</summary>
    /// <exception cref="LabException">No etcd runs there at this moment.</exception>
    public static void WipeEtcd(LabPlan plan, ClusterPlan cluster)
    {
        var etcd = LabEtcd.Process(plan, cluster) ?? throw new LabException($"no etcd runs in {cluster.Name} at this moment: try again");
        // Away while it still runs, so that however fast its successor starts, it finds nothing.
        var gone = $"{cluster.Directory}/etcd-wiped";
        Directory.Move($"{cluster.Directory}/etcd/member", gone);
        etcd.Kill();
        Directory.Delete(gone, recursive: true);
    }

    /// <summary>One node and everybody else no longer see each other: its pods cannot be reached from other nodes.</summary>
    public static Task CutNodeAsync(LabPlan plan, NodePlan node, bool cut, CancellationToken cancel) =>
        Wiring.SetLinkAsync(plan, node.Name, !cut, cancel);
}
