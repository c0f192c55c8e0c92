using Mesh.ClusterMesh.Remote;
using Mesh.ClusterMesh.Wire;
using Mesh.ControlPlane.IPCache;
using Mesh.Model;

namespace Mesh.ControlPlane.Sources;

/// <summary>A remote cluster's address records as ipcache entries.</summary>
internal static class AddressesOfRecord
{
    public static IEnumerable<IPCacheChange> Changes(RemoteChanges changes)
    {
        var origin = new IPCacheOrigin(IPCacheSource.ClusterMesh, changes.Cluster, "");
        foreach (var (prefix, record) in changes.IpEntries)
            yield return new IPCacheChange(prefix, origin, record is null ? null : Entry(prefix, record, changes));
    }

    private static IPCacheEntry Entry(IpPrefix prefix, IpIdentityPair record, RemoteChanges changes) =>
        new(prefix,
            // A host there is a remote node here.
            record.ID == NumericIdentity.Host ? NumericIdentity.RemoteNode : record.ID,
            IpAddr.TryParse(record.HostIP, out var node) ? node : null,
            record.Key,
            IPCacheSource.ClusterMesh,
            changes.Cluster,
            changes.ClusterId,
            record.K8sNamespace ?? "",
            record.K8sPodName ?? "");
}
