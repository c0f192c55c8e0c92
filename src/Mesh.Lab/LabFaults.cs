using Mesh.Lab.Making;
using Mesh.Lab.Plan;

namespace Mesh.Lab;

/// <summary>Breaks a lab on purpose, one thing at a time, and mends it again.</summary>
public static class LabFaults
{
    /// <summary>The control plane of one cluster and everybody else no longer see each other; nodes and pods all do.</summary>
    public static Task CutControlPlaneAsync(LabPlan plan, ClusterPlan cluster, bool cut, CancellationToken cancel) =>
        Wiring.SetLinkAsync(plan, Wiring.ControlPlanePort(cluster), !cut, cancel);

    /// <summary>One node and everybody else no longer see each other: its pods cannot be reached from other nodes.</summary>
    public static Task CutNodeAsync(LabPlan plan, NodePlan node, bool cut, CancellationToken cancel) =>
        Wiring.SetLinkAsync(plan, node.Name, !cut, cancel);
}
