using System.Net;
using Mesh.Lab.Plan;
using Mesh.Pki;

namespace Mesh.Lab.Making;

/// <summary>
/// One authority for the whole lab, thrown away once it has issued: a server and an administrator certificate per cluster, and the
/// client certificate `remote` that every peer presents, with the names that Cilium's installers use.
/// </summary>
internal static class Certificates
{
    private static readonly TimeSpan Lifetime = TimeSpan.FromDays(365);

    public static void Write(LabPlan plan)
    {
        using var authority = CertificateAuthority.Create("Mesh Lab CA", Lifetime);
        foreach (var cluster in plan.Clusters)
        {
            var directory = Path.GetDirectoryName(cluster.Etcd.AdminCertFile)!;
            Directory.CreateDirectory(directory);
            Directory.CreateDirectory(cluster.ClusterMeshConfig);
            var server = authority.Issue("clustermesh-apiserver.cilium.io",
                ["clustermesh-apiserver.cilium.io", "*.mesh.cilium.io", "clustermesh-apiserver.kube-system.svc", "localhost"],
                [IPAddress.Loopback, IPAddress.IPv6Loopback, IPAddress.Parse(cluster.Ip)], Lifetime);
            var remote = authority.Issue("remote", [], [], Lifetime);
            var admin = authority.Issue($"admin-{cluster.Name}", [], [], Lifetime);
            WritePair(server, $"{directory}/server.crt", $"{directory}/server.key");
            WritePair(remote, cluster.Etcd.CertFile, cluster.Etcd.KeyFile);
            WritePair(remote, $"{cluster.ClusterMeshConfig}/common-etcd-client.crt", $"{cluster.ClusterMeshConfig}/common-etcd-client.key");
            WritePair(admin, cluster.Etcd.AdminCertFile, cluster.Etcd.AdminKeyFile);
            File.WriteAllText(cluster.Etcd.CaFile, authority.CertificatePem);
        }
    }

    private static void WritePair(IssuedCertificate issued, string certificateFile, string keyFile)
    {
        File.WriteAllText(certificateFile, issued.CertificatePem);
        using var key = new StreamWriter(new FileStream(keyFile, new FileStreamOptions
        {
            Mode = FileMode.Create,
            Access = FileAccess.Write,
            UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite,
        }));
        key.Write(issued.KeyPem);
    }
}
