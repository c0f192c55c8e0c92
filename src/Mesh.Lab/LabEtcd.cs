using Mesh.KVStore;
using Mesh.Lab.Native;
using Mesh.Lab.Plan;

namespace Mesh.Lab;

/// <summary>Where etcd's own client has to go and what it has to show.</summary>
public sealed record EtcdReader(string Endpoint, string CaFile, string CertFile, string KeyFile)
{
    /// <summary>A command line of etcdctl.</summary>
    public IReadOnlyList<string> Command(params IReadOnlyList<string> arguments) =>
        ["etcdctl", $"--endpoints={Endpoint}", $"--cacert={CaFile}", $"--cert={CertFile}", $"--key={KeyFile}", .. arguments];
}

/// <summary>The two ways to a cluster's keys: its own etcd, as who owns it, and its door, as a peer that joined.</summary>
public static class LabEtcd
{
    /// <summary>The etcd behind the door, with every right. It is heard only in the control plane's own namespace.</summary>
    /// <returns>Null while there is none.</returns>
    public static EtcdReader? Own(ClusterPlan cluster)
    {
        try
        {
            var file = EtcdConfigFile.Parse(File.ReadAllText(cluster.Etcd.OwnConfigFile));
            return new EtcdReader(file.Endpoints[0], file.TrustedCaFile!, file.CertFile!, file.KeyFile!);
        }
        catch (Exception e) when (e is IOException or FormatException)
        {
            return null;
        }
    }

    /// <summary>The cluster's door, as one of its peers comes to it.</summary>
    /// <returns>Null when the two are not connected.</returns>
    public static EtcdReader? As(ClusterPlan peer, ClusterPlan cluster)
    {
        var prefix = $"{peer.RelayConfig ?? peer.ClusterMeshConfig}/{cluster.Name}.etcd-client";
        return File.Exists($"{prefix}.crt")
            ? new EtcdReader(cluster.Etcd.Endpoint, $"{prefix}-ca.crt", $"{prefix}.crt", $"{prefix}.key") : null;
    }

    /// <summary>The etcd that runs in a cluster at this moment; null when none does.</summary>
    public static ProcessReference? Process(LabPlan plan, ClusterPlan cluster) =>
        ControlGroup.Processes(plan.ControlPlaneCgroup(cluster))
            .Where(pid => Comm(pid) == "etcd").Select(ProcessReference.TryOpen).FirstOrDefault(p => p is not null);

    private static string Comm(int pid)
    {
        try
        {
            return File.ReadAllText($"/proc/{pid}/comm").Trim();
        }
        catch (IOException)
        {
            return "";
        }
    }
}
