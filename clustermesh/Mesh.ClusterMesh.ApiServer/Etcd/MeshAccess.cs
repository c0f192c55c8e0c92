using System.Security.Cryptography.X509Certificates;
using Mesh.ClusterMesh.Wire;
using Mesh.KVStore;

namespace Mesh.ClusterMesh.ApiServer.Etcd;

/// <summary>
/// Who may read what in a cluster's own etcd; users are the common names of client certificates. Remote clusters see this cluster's
/// state and nothing that other clusters told it; the cluster's own agents see the mirror of the others. Nobody else writes.
/// </summary>
internal static class MeshAccess
{
    public static string AdminOf(ClusterSelf self) => $"admin-{self.Name}";

    public static IReadOnlyList<EtcdRole> Roles(ClusterSelf self) =>
    [
        new("remote", [Keys.Heartbeat, "cilium/state/", Keys.SyncedPrefix(self.Name)],
            [Keys.ClusterConfig(self.Name), Keys.HasClusterConfig]),
        new("local", [Keys.Heartbeat, "cilium/cache/", Keys.ClusterConfigPrefix, "cilium/synced/"], []),
    ];

    public static IReadOnlyList<EtcdUser> Users(ClusterSelf self) =>
    [
        new(AdminOf(self), EtcdAccess.Root),
        new("remote", "remote"),
        new($"local-{self.Name}", "local"),
    ];

    /// <summary>Null when the certificate may administer this cluster's etcd, otherwise what is wrong: once users are in force, any
    /// other name would lock us out of our own etcd.</summary>
    public static string? CheckAdminCertificate(string file, ClusterSelf self)
    {
        try
        {
            using var certificate = X509Certificate2.CreateFromPem(File.ReadAllText(file));
            var name = certificate.GetNameInfo(X509NameType.SimpleName, forIssuer: false);
            return name == EtcdAccess.Root || name == AdminOf(self)
                ? null
                : $"--etcd-client-cert-file {file} has the common name '{name}'; it must be {AdminOf(self)} or {EtcdAccess.Root}";
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or System.Security.Cryptography.CryptographicException)
        {
            return $"--etcd-client-cert-file {file} is not a readable PEM certificate: {e.Message}";
        }
    }
}
