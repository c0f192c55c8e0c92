using Mesh.AgentApi;
using Mesh.ClusterMesh.Imports;
using Mesh.ClusterMesh.Remote;
using QuarantinedRecord = Mesh.AgentApi.QuarantinedRecord;

namespace Mesh.Agent.Api;

/// <summary>GET /v1/clustermesh/quarantine.</summary>
internal static class QuarantineBody
{
    public static IReadOnlyList<PeerQuarantine> Of(AgentView view)
    {
        var clusters = (view.Peers?.Clusters ?? []).ToDictionary(cluster => cluster.Name, StringComparer.Ordinal);
        return [.. (view.Peers?.Statuses ?? []).Select(status => Peer(status, clusters.GetValueOrDefault(status.Name)))];
    }

    /// <returns>False when there is no such peer.</returns>
    public static bool Release(AgentView view, string peer)
    {
        if ((view.Peers?.Clusters ?? []).FirstOrDefault(cluster => cluster.Name == peer) is not { } cluster)
            return false;
        cluster.ReleaseHeld();
        return true;
    }

    private static PeerQuarantine Peer(RemoteClusterStatus status, ClusterMesh.Remote.RemoteCluster? cluster)
    {
        var records = cluster?.Quarantined ?? [];
        var refused = cluster?.Refused ?? new Dictionary<RefusalReason, long>();
        return new PeerQuarantine
        {
            Name = status.Name,
            Quarantined = records.Count,
            Overflow = status.QuarantineOverflow,
            Refused = refused.Count == 0 ? null : refused.ToDictionary(pair => pair.Key.Word(), pair => pair.Value),
            Records = records.Count == 0 ? null : [.. records.Select(Record)],
            Held = status.Held,
            HeldReason = status.HeldText,
            ImportsProblem = status.ImportsProblem,
        };
    }

    private static QuarantinedRecord Record(ClusterMesh.Imports.QuarantinedRecord record) => new()
    {
        Resource = record.Resource switch
        {
            RemoteResource.Nodes => "nodes",
            RemoteResource.Services => "services",
            RemoteResource.IpEntries => "ips",
            _ => "identities",
        },
        Key = record.Key,
        Reason = record.Reason.Word(),
        Message = record.Text,
        Revision = record.Revision,
        FirstSeen = record.FirstSeen,
        LastSeen = record.LastSeen,
        Count = record.Count,
    };
}
