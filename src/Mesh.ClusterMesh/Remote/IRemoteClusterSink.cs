using Mesh.ClusterMesh.Wire;
using Mesh.KVStore;
using Mesh.Model;

namespace Mesh.ClusterMesh.Remote;

/// <summary>
/// What a RemoteCluster hands on: validated records only. Calls for one cluster come one after another from one loop, so a sink
/// need not order them; calls for different clusters may overlap. A sink must not block.
/// </summary>
public interface IRemoteClusterSink
{
    /// <summary>Applies one batch. The sink keeps everything until told otherwise: a lost connection is no message at all.</summary>
    void Apply(RemoteChanges changes);

    /// <summary>Forgets everything of the cluster: it was removed from the configuration, or it changed its ID.</summary>
    void Drain(string cluster, uint clusterId);

    /// <summary>The state of the connection changed, for status only.</summary>
    void StatusChanged(RemoteClusterStatus status);
}

/// <summary>Changes of one remote cluster, in the order they happened per key. A null record is a deletion.</summary>
public sealed record RemoteChanges(string Cluster, uint ClusterId)
{
    public List<KeyValuePair<string, NodeRecord?>> Nodes { get; } = [];

    public List<KeyValuePair<ServiceName, ClusterService?>> Services { get; } = [];

    /// <summary>Revision in the peer's etcd of the records in <see cref="Services"/>, where it is known.</summary>
    public Dictionary<ServiceName, long> ServiceRevisions { get; } = [];

    public List<KeyValuePair<IpPrefix, IpIdentityPair?>> IpEntries { get; } = [];

    /// <summary>Identity number → labels text as on the wire.</summary>
    public List<KeyValuePair<uint, string?>> Identities { get; } = [];

    /// <summary>Only for readers that asked for them.</summary>
    public List<KeyValuePair<ServiceName, ExportedService?>> ServiceExports { get; } = [];

    /// <summary>Resources whose complete list is part of this batch or of earlier ones; said once per connection.</summary>
    public HashSet<RemoteResource> Synced { get; } = [];

    public bool IsEmpty => Nodes.Count + Services.Count + IpEntries.Count + Identities.Count + ServiceExports.Count + Synced.Count == 0;
}

public enum RemoteResource
{
    Nodes,
    Services,
    IpEntries,
    Identities,

    /// <summary>Services given to all clusters (MCS-API): only of clusters that say they know the feature.</summary>
    ServiceExports,
}

public static class RemoteResources
{
    /// <summary>What every cluster publishes, and every agent reads.</summary>
    public static IReadOnlyList<RemoteResource> OfEveryCluster { get; } =
        [RemoteResource.Nodes, RemoteResource.Services, RemoteResource.IpEntries, RemoteResource.Identities];

    /// <summary>All that there is.</summary>
    public static IReadOnlyList<RemoteResource> All { get; } = [.. OfEveryCluster, RemoteResource.ServiceExports];
}

/// <summary>State of one peer for people and for the REST API; field names follow the agent API's RemoteCluster.</summary>
public sealed record RemoteClusterStatus
{
    public required string Name { get; init; }

    /// <summary>0 until the cluster-config has been read.</summary>
    public uint ClusterId { get; init; }

    public bool Connected { get; init; }

    /// <summary>Connected, configuration valid, and all resources that are read listed on this or an earlier connection.</summary>
    public bool Ready { get; init; }

    /// <summary>One line: the etcd state, or why it is not well.</summary>
    public required string Status { get; init; }

    public bool ConfigRetrieved { get; init; }

    public bool SyncedCanaries { get; init; }

    public bool Cached { get; init; }

    /// <summary>Null when the peer does not know the feature.</summary>
    public bool? ServiceExportsEnabled { get; init; }

    public bool NodesSynced { get; init; }

    public bool ServicesSynced { get; init; }

    public bool IpEntriesSynced { get; init; }

    public bool IdentitiesSynced { get; init; }

    /// <summary>Null when they are not read, or the peer does not know the feature.</summary>
    public bool? ServiceExportsSynced { get; init; }

    public int Nodes { get; init; }

    public int Services { get; init; }

    public int IpEntries { get; init; }

    public int Identities { get; init; }

    public int ServiceExports { get; init; }

    /// <summary>Reconnections after a failure.</summary>
    public int Failures { get; init; }

    /// <summary>When it was last known to be connected; null while it is, and when it never was. Behind a relay: the relay to the peer.</summary>
    public DateTimeOffset? ConnectedUntil { get; init; }

    /// <summary>Null when it never failed.</summary>
    public DateTimeOffset? LastFailure { get; init; }

    /// <summary>The certificates towards the peer, ours and its own; null without TLS, or before there was a connection to try.</summary>
    public TlsStatus? Tls { get; init; }

    /// <summary>Which of them end soon or have ended; null when none. Changes once a day.</summary>
    public string? CertificateExpiry { get; init; }

    /// <summary>Records rejected as malformed or not the peer's to publish, since the start; with the latest reason.</summary>
    public long Rejected { get; init; }

    public string? LastRejection { get; init; }

    /// <summary>Refused records that still stand in the peer's store.</summary>
    public int Quarantined { get; init; }

    /// <summary>Refusals that found no room in the quarantine, since the start.</summary>
    public long QuarantineOverflow { get; init; }

    /// <summary>Records whose withdrawal the breaker holds.</summary>
    public int Held { get; init; }

    /// <summary>What is held, since when, why, and when it will be let go; null when nothing is.</summary>
    public string? HeldText { get; init; }

    public DateTimeOffset? HeldSince { get; init; }

    /// <summary>Holds of the breaker since the start.</summary>
    public long Holds { get; init; }

    /// <summary>It is held to what a file of ours says of it; false for a peer without such a file, which only sizes limit.</summary>
    public bool Pinned { get; init; }

    /// <summary>Why the peer's import file is not in force; null when it is, or there never was one. The last good one holds meanwhile.</summary>
    public string? ImportsProblem { get; init; }

    /// <summary>Whether it is well, and by what evidence; null in the notices to a sink, which are about changes and not about time.</summary>
    public PeerHealth? Health { get; init; }
}
