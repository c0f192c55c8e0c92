using System.Text.Json.Serialization;

namespace Mesh.AgentApi;

public sealed record ClusterMeshStatus
{
    /// <summary>Sorted by name; null (absent) without any peer.</summary>
    [JsonPropertyName("clusters")] public IReadOnlyList<RemoteCluster>? Clusters { get; init; }

    /// <summary>Services that more than this cluster may answer for. Clients from 1.19 on no longer read it.</summary>
    [JsonPropertyName("num-global-services")] public long NumGlobalServices { get; init; }
}

/// <summary>A peer as this agent sees it. Zero and false are left out, as every client expects.</summary>
public sealed record RemoteCluster
{
    [JsonPropertyName("name")] public string Name { get; init; } = "";

    /// <summary>Connected, configuration read, and every resource listed.</summary>
    [JsonPropertyName("ready")] public bool Ready { get; init; }

    [JsonPropertyName("connected")] public bool Connected { get; init; }

    /// <summary>One line, the etcd state or the cause of the trouble.</summary>
    [JsonPropertyName("status")] public string? Status { get; init; }

    [JsonPropertyName("num-nodes")] public long NumNodes { get; init; }

    /// <summary>Address entries of the peer's pods.</summary>
    [JsonPropertyName("num-endpoints")] public long NumEndpoints { get; init; }

    [JsonPropertyName("num-identities")] public long NumIdentities { get; init; }

    [JsonPropertyName("num-shared-services")] public long NumSharedServices { get; init; }

    [JsonPropertyName("num-service-exports")] public long NumServiceExports { get; init; }

    /// <summary>Reconnections after a failure.</summary>
    [JsonPropertyName("num-failures")] public long NumFailures { get; init; }

    /// <summary>The year 1 means never.</summary>
    [JsonPropertyName("last-failure")]
    [JsonIgnore(Condition = JsonIgnoreCondition.Never)]
    [JsonConverter(typeof(GoTimeConverter))]
    public DateTimeOffset LastFailure { get; init; }

    /// <summary>Ours: when it was last known to be connected; the year 1 (absent) while it is, and when it never was. Behind a relay that
    /// lost the peer: the relay to the peer.</summary>
    [JsonPropertyName("connected-until")]
    [JsonConverter(typeof(GoTimeConverter))]
    public DateTimeOffset ConnectedUntil { get; init; }

    /// <summary>Ours: what does not break the connection and must be mended all the same, each with its mend: an import file that is not
    /// in force, certificate files that cannot be used. Null when there is none.</summary>
    [JsonPropertyName("problems")] public IReadOnlyList<string>? Problems { get; init; }

    /// <summary>Null until connected.</summary>
    [JsonPropertyName("config")] public RemoteClusterConfig? Config { get; init; }

    /// <summary>Null until the configuration has been read.</summary>
    [JsonPropertyName("synced")] public RemoteClusterSynced? Synced { get; init; }

    /// <summary>Ours: the certificates towards the peer, as a relay has them. An agent tells its own in <see cref="MeshStatus"/>.</summary>
    [JsonPropertyName("certificates")] public PeerCertificates? Certificates { get; init; }
}

public sealed record RemoteClusterConfig
{
    [JsonPropertyName("required")] public bool Required { get; init; }

    [JsonPropertyName("retrieved")] public bool Retrieved { get; init; }

    [JsonPropertyName("cluster-id")] public long ClusterId { get; init; }

    [JsonPropertyName("kvstoremesh")] public bool Kvstoremesh { get; init; }

    [JsonPropertyName("sync-canaries")] public bool SyncCanaries { get; init; }

    /// <summary>Null when the peer does not know the feature.</summary>
    [JsonPropertyName("service-exports-enabled")] public bool? ServiceExportsEnabled { get; init; }
}

public sealed record RemoteClusterSynced
{
    [JsonPropertyName("nodes")] public bool Nodes { get; init; }

    [JsonPropertyName("endpoints")] public bool Endpoints { get; init; }

    [JsonPropertyName("identities")] public bool Identities { get; init; }

    [JsonPropertyName("services")] public bool Services { get; init; }

    /// <summary>Null: this agent does not follow service exports.</summary>
    [JsonPropertyName("service-exports")] public bool? ServiceExports { get; init; }
}
