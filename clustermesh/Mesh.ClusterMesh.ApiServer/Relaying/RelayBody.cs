using Mesh.AgentApi;
using Mesh.ClusterMesh.Relay;

namespace Mesh.ClusterMesh.ApiServer.Relaying;

/// <summary>A mirrored peer in the shape of the agent's API, as Cilium's KVStoreMesh gives it.</summary>
internal static class RelayBody
{
    public static RemoteCluster Of(RelayedClusterStatus peer) => new()
    {
        Name = peer.Name,
        Ready = peer.Ready,
        Connected = peer.Connected,
        Status = peer.Status,
        NumNodes = peer.Counts.GetValueOrDefault(RelayedResource.Nodes),
        NumEndpoints = peer.Counts.GetValueOrDefault(RelayedResource.IpEntries),
        NumIdentities = peer.Counts.GetValueOrDefault(RelayedResource.Identities),
        NumSharedServices = peer.Counts.GetValueOrDefault(RelayedResource.Services),
        NumServiceExports = peer.Counts.GetValueOrDefault(RelayedResource.ServiceExports),
        NumFailures = peer.Failures,
        LastFailure = peer.LastFailure ?? default,
        ConnectedUntil = peer.ConnectedUntil ?? default,
        Problems = Problems(peer) is { Count: > 0 } problems ? problems : null,
        Config = !peer.Connected
            ? null
            : new RemoteClusterConfig
            {
                Required = true,
                Retrieved = peer.ConfigRetrieved,
                ClusterId = peer.ClusterId,
                Kvstoremesh = peer.Cached,
                SyncCanaries = peer.SyncedCanaries,
                ServiceExportsEnabled = peer.ServiceExportsEnabled,
            },
        Synced = new RemoteClusterSynced
        {
            Nodes = peer.Synced.Contains(RelayedResource.Nodes),
            Endpoints = peer.Synced.Contains(RelayedResource.IpEntries),
            Identities = peer.Synced.Contains(RelayedResource.Identities),
            Services = peer.Synced.Contains(RelayedResource.Services),
            ServiceExports = peer.ServiceExportsEnabled is null ? null : peer.Synced.Contains(RelayedResource.ServiceExports),
        },
        Certificates = peer.Tls is not { } tls
            ? null
            : new PeerCertificates
            {
                Name = peer.Name,
                ClientName = tls.ClientName,
                ClientNotAfter = tls.ClientNotAfter ?? default,
                ServerName = tls.ServerName,
                ServerNotAfter = tls.ServerNotAfter ?? default,
                AuthorityNotAfter = tls.AuthorityNotAfter ?? default,
                Expiry = peer.CertificateExpiry,
                Problem = tls.Problem,
            },
    };

    /// <summary>What does not break the connection and must be mended all the same.</summary>
    public static IReadOnlyList<string> Problems(RelayedClusterStatus peer) =>
        [.. new[] { peer.ImportsProblem, peer.Tls?.Problem, peer.CertificateExpiry }.OfType<string>()];
}
