using System.Text.Json;
using Mesh.Lab.Native;

namespace Mesh.Lab.Plan;

/// <summary>What `lab info -o json` prints: the plan, who may read what at the moment, and the process numbers of the moment.</summary>
public sealed record LabInfo(
    string Name, string Root, string Bpffs, string Cgroup, string WanNamespace,
    IReadOnlyList<ClusterPlan> Clusters, IReadOnlyList<AccessInfo> Access, IReadOnlyList<ProcessInfo> Processes)
{
    public static LabInfo Of(LabPlan plan) => new(
        plan.Name, plan.Root, plan.Bpffs, plan.Cgroup, plan.WanNamespace, plan.Clusters,
        [.. plan.Clusters.Select(c => AccessInfo.Of(plan, c))],
        [.. plan.Processes.Select(p => new ProcessInfo(
            p.Name, ProcessReference.FromPidFile(plan.PidFile(p.Name))?.Pid, plan.LogFile(p.Name)))]);

    public string ToJson() => JsonSerializer.Serialize(this, LabJson.Default.LabInfo);
}

/// <summary>How etcd's own client gets at a cluster's keys.</summary>
/// <param name="Own">The etcd behind the door, with every right; heard in the control plane's namespace only. Null while it does not run.</param>
/// <param name="Door">The door, with the certificate that each connected peer got, by the peer's name.</param>
public sealed record AccessInfo(string Cluster, EtcdReader? Own, IReadOnlyDictionary<string, EtcdReader> Door)
{
    internal static AccessInfo Of(LabPlan plan, ClusterPlan cluster) => new(cluster.Name, LabEtcd.Own(cluster),
        plan.Clusters.Where(peer => peer != cluster).Select(peer => (peer.Name, Reader: LabEtcd.As(peer, cluster)))
            .Where(pair => pair.Reader is not null).ToDictionary(pair => pair.Name, pair => pair.Reader!));
}

/// <param name="Pid">Null when it does not run at this moment.</param>
public sealed record ProcessInfo(string Name, int? Pid, string Log);
