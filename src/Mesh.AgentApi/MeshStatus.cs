using System.Text.Json.Serialization;

namespace Mesh.AgentApi;

/// <summary>Our own part of the status: each thing that is not as it should be, with its reason.</summary>
public sealed record MeshStatus
{
    [JsonPropertyName("version")] public string Version { get; init; } = "";

    [JsonPropertyName("cluster-name")] public string ClusterName { get; init; } = "";

    [JsonPropertyName("cluster-id")] public long ClusterId { get; init; }

    [JsonPropertyName("node-name")] public string NodeName { get; init; } = "";

    [JsonPropertyName("tables")] public IReadOnlyList<TableStatus>? Tables { get; init; }

    /// <summary>Local objects that could not be taken over.</summary>
    [JsonPropertyName("source-problems")] public IReadOnlyList<Problem>? SourceProblems { get; init; }

    /// <summary>Peer configuration files that could not be taken over.</summary>
    [JsonPropertyName("config-problems")] public IReadOnlyList<Problem>? ConfigProblems { get; init; }

    /// <summary>Peers that published records which had to be rejected.</summary>
    [JsonPropertyName("rejections")] public IReadOnlyList<PeerRejections>? Rejections { get; init; }

    /// <summary>Certificates towards the peers that are read over TLS.</summary>
    [JsonPropertyName("certificates")] public IReadOnlyList<PeerCertificates>? Certificates { get; init; }

    /// <summary>IDs of clusters of which the kernel has entries from before this run that nobody has confirmed yet; 0 = unknown.</summary>
    [JsonPropertyName("unconfirmed-clusters")] public IReadOnlyList<long>? Unconfirmed { get; init; }

    /// <summary>Nothing that this agent knows of is wrong, and that was proved a moment ago.</summary>
    [JsonPropertyName("healthy"), JsonIgnore(Condition = JsonIgnoreCondition.Never)] public bool Healthy { get; init; }

    /// <summary>Everything that is wrong, the worst of each peer first.</summary>
    [JsonPropertyName("faults")] public IReadOnlyList<MeshFault>? Faults { get; init; }

    /// <summary>The peers with the evidence for what is said of them.</summary>
    [JsonPropertyName("peers")] public IReadOnlyList<PeerStatus>? Peers { get; init; }

    /// <summary>What traffic has proved of clusters and nodes; null while the kernel is not programmed.</summary>
    [JsonPropertyName("liveness")] public LivenessStatus? Liveness { get; init; }

    /// <summary>Devices that clients outside come in by.</summary>
    [JsonPropertyName("uplinks")] public IReadOnlyList<UplinkState>? Uplinks { get; init; }

    /// <summary>Why programs of an earlier layout of the maps still serve, in words; null when the agent's own do.</summary>
    [JsonPropertyName("switching")] public string? Switching { get; init; }

    /// <summary>Packets dropped by the datapath since its maps were made, by reason.</summary>
    [JsonPropertyName("drops")] public IReadOnlyDictionary<string, long>? Drops { get; init; }
}

/// <summary>A device that clients outside come in by, and what is attached there.</summary>
public sealed record UplinkState
{
    [JsonPropertyName("device")] public string Device { get; init; } = "";

    /// <summary>"tcx", "tcx+xdp", "clsact" or "clsact+xdp".</summary>
    [JsonPropertyName("hooks")] public string Hooks { get; init; } = "";

    /// <summary>Why native XDP, which was asked for or may be there, is not.</summary>
    [JsonPropertyName("problem")] public string? Problem { get; init; }
}

/// <summary>A desired-state table and how far the kernel has followed it.</summary>
public sealed record TableStatus
{
    [JsonPropertyName("name")] public string Name { get; init; } = "";

    [JsonPropertyName("rows")] public long Rows { get; init; }

    /// <summary>Rows not yet tried.</summary>
    [JsonPropertyName("pending")] public long Pending { get; init; }

    /// <summary>Rows the kernel did not take, all of them counted.</summary>
    [JsonPropertyName("failing")] public long Failing { get; init; }

    /// <summary>The first of the failing rows, with the reason.</summary>
    [JsonPropertyName("failures")] public IReadOnlyList<RowFailure>? Failures { get; init; }

    /// <summary>Kernel maps that have no room for rows of this table.</summary>
    [JsonPropertyName("full")] public IReadOnlyList<FullMap>? Full { get; init; }

    /// <summary>Sources whose first complete list is still awaited: nothing is pruned before.</summary>
    [JsonPropertyName("waiting-for")] public IReadOnlyList<string>? WaitingFor { get; init; }
}

/// <summary>A kernel map without room. It is asked once a second, and rows go in as room appears.</summary>
public sealed record FullMap
{
    [JsonPropertyName("map")] public string Map { get; init; } = "";

    /// <summary>Rows that wait for room.</summary>
    [JsonPropertyName("waiting")] public long Waiting { get; init; }

    [JsonPropertyName("error")] public string Error { get; init; } = "";

    [JsonPropertyName("since")]
    [JsonConverter(typeof(GoTimeConverter))]
    public DateTimeOffset Since { get; init; }
}

public sealed record RowFailure
{
    [JsonPropertyName("key")] public string Key { get; init; } = "";

    [JsonPropertyName("error")] public string Error { get; init; } = "";

    [JsonPropertyName("attempts")] public long Attempts { get; init; }

    [JsonPropertyName("since")]
    [JsonConverter(typeof(GoTimeConverter))]
    public DateTimeOffset Since { get; init; }
}

public sealed record Problem
{
    /// <summary>File or object.</summary>
    [JsonPropertyName("where")] public string Where { get; init; } = "";

    /// <summary>What is wrong and how to mend it.</summary>
    [JsonPropertyName("message")] public string Message { get; init; } = "";

    [JsonPropertyName("since")]
    [JsonConverter(typeof(GoTimeConverter))]
    public DateTimeOffset Since { get; init; }
}

public sealed record PeerRejections
{
    [JsonPropertyName("name")] public string Name { get; init; } = "";

    [JsonPropertyName("rejected")] public long Rejected { get; init; }

    [JsonPropertyName("last")] public string? Last { get; init; }
}

/// <summary>The certificates of a connection to a peer. The year 1 means not known (yet).</summary>
public sealed record PeerCertificates
{
    [JsonPropertyName("name")] public string Name { get; init; } = "";

    /// <summary>Common name of what we show.</summary>
    [JsonPropertyName("client-name")] public string? ClientName { get; init; }

    /// <summary>End of the certificate that we show at the next handshake.</summary>
    [JsonPropertyName("client-not-after")]
    [JsonConverter(typeof(GoTimeConverter))]
    public DateTimeOffset ClientNotAfter { get; init; }

    /// <summary>Subject of what the peer showed last.</summary>
    [JsonPropertyName("server-name")] public string? ServerName { get; init; }

    [JsonPropertyName("server-not-after")]
    [JsonConverter(typeof(GoTimeConverter))]
    public DateTimeOffset ServerNotAfter { get; init; }

    /// <summary>End of the authority by which the peer was verified last.</summary>
    [JsonPropertyName("authority-not-after")]
    [JsonConverter(typeof(GoTimeConverter))]
    public DateTimeOffset AuthorityNotAfter { get; init; }

    /// <summary>What ends soon or has ended, and the mend; null when nothing does.</summary>
    [JsonPropertyName("expiry")] public string? Expiry { get; init; }

    /// <summary>Files that cannot be used as they are; the last good ones stay in use. Null when all is well.</summary>
    [JsonPropertyName("problem")] public string? Problem { get; init; }
}
