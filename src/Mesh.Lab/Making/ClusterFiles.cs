using Mesh.Joining;
using Mesh.Lab.Plan;
using Mesh.Pki;

namespace Mesh.Lab.Making;

/// <summary>
/// What a cluster has before it knows any other: an authority of its own, which shares nothing with those of its neighbours, the
/// description that joins read, and empty places for peers.
/// </summary>
internal static class ClusterFiles
{
    private const UnixFileMode OwnerOnly = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;

    public static void Write(LabPlan plan) => Parallel.ForEach(plan.Clusters, cluster =>
    {
        foreach (var directory in new[] { cluster.ClusterMeshConfig, cluster.RelayConfig })
        {
            if (directory is not null)
                Directory.CreateDirectory(directory);
        }
        Directory.CreateDirectory(cluster.JoinDirectory, OwnerOnly);
        PkiDirectory.Init(cluster.Pki, new PkiSettings { Cluster = cluster.Name, ServerNames = [cluster.Ip] });
        File.WriteAllText(cluster.UsersFile, "users: []\n");
        Describe(cluster).Save(cluster.Directory);
    });

    private static ClusterDescription Describe(ClusterPlan cluster) => new()
    {
        Name = cluster.Name,
        Id = cluster.Id,
        PodCIDRs = cluster.PodCIDRs,
        NodeCIDRs = cluster.NodeCIDRs,
        DoorAddresses = [cluster.Etcd.Endpoint],
        JoinListen = cluster.JoinListen,
        Pki = cluster.Pki,
        AgentConfigs = [cluster.ClusterMeshConfig],
        RelayConfig = cluster.RelayConfig,
        UsersFile = cluster.UsersFile,
        JoinDirectory = cluster.JoinDirectory,
        AgentSockets = [.. cluster.Nodes.Select(n => n.Socket)],
        NetworkNamespace = cluster.Namespace,
    };
}
