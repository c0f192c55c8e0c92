using System.Text.Json;
using Mesh.Lab.Native;

namespace Mesh.Lab.Plan;

/// <summary>What `lab info -o json` prints: the plan, and the process numbers of the moment.</summary>
public sealed record LabInfo(
    string Name, string Root, string Bpffs, string Cgroup, string WanNamespace,
    IReadOnlyList<ClusterPlan> Clusters, IReadOnlyList<ProcessInfo> Processes)
{
    public static LabInfo Of(LabPlan plan) => new(
        plan.Name, plan.Root, plan.Bpffs, plan.Cgroup, plan.WanNamespace, plan.Clusters,
        [.. plan.Processes.Select(p => new ProcessInfo(
            p.Name, ProcessReference.FromPidFile(plan.PidFile(p.Name))?.Pid, plan.LogFile(p.Name)))]);

    public string ToJson() => JsonSerializer.Serialize(this, LabJson.Default.LabInfo);
}

/// <param name="Pid">Null when it does not run at this moment.</param>
public sealed record ProcessInfo(string Name, int? Pid, string Log);
