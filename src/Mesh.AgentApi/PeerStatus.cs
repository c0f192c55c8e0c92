using System.Text.Json.Serialization;

namespace Mesh.AgentApi;

/// <summary>One thing that is wrong.</summary>
public sealed record MeshFault
{
    /// <summary>Its kind, such as connection-refused; these names do not change.</summary>
    [JsonPropertyName("class")] public string Class { get; init; } = "";

    /// <summary>The peer it concerns; null when it is this node's own.</summary>
    [JsonPropertyName("peer")] public string? Peer { get; init; }

    [JsonPropertyName("cause")] public string Cause { get; init; } = "";

    [JsonPropertyName("mend")] public string Mend { get; init; } = "";
}

/// <summary>What Cilium's RemoteCluster has no room for. Ages are in seconds at the time of the answer; -1 means never.</summary>
public sealed record PeerStatus
{
    [JsonPropertyName("name")] public string Name { get; init; } = "";

    [JsonPropertyName("healthy"), JsonIgnore(Condition = JsonIgnoreCondition.Never)] public bool Healthy { get; init; }

    /// <summary>Kind of fault; none when healthy.</summary>
    [JsonPropertyName("fault")] public string Fault { get; init; } = "";

    [JsonPropertyName("cause")] public string? Cause { get; init; }

    [JsonPropertyName("mend")] public string? Mend { get; init; }

    [JsonPropertyName("endpoint")] public string? Endpoint { get; init; }

    /// <summary>door or etcd; relay when what is read is a copy that a relay keeps.</summary>
    [JsonPropertyName("server")] public string? Server { get; init; }

    /// <summary>Time since the newest evidence that what is held here is what the peer has.</summary>
    [JsonPropertyName("proof-age-seconds"), JsonIgnore(Condition = JsonIgnoreCondition.Never)] public double ProofAge { get; init; } = -1;

    /// <summary>Reconnections after a failure, since the start.</summary>
    [JsonPropertyName("reconnections")] public long Reconnections { get; init; }

    [JsonPropertyName("last-reconnection")] public string? LastReconnection { get; init; }

    [JsonPropertyName("clock-skew-seconds")] public double? ClockSkew { get; init; }

    [JsonPropertyName("resources")] public IReadOnlyList<PeerResource>? Resources { get; init; }

    [JsonPropertyName("audits")] public long Audits { get; init; }

    /// <summary>Audits that found something lost, which was then read anew.</summary>
    [JsonPropertyName("audit-repairs")] public long AuditRepairs { get; init; }

    [JsonPropertyName("certificates")] public PeerCertificateDays? Certificates { get; init; }

    /// <summary>A file of ours says what the peer may publish (CLUSTER.imports.json); without one only sizes limit it.</summary>
    [JsonPropertyName("pinned")] public bool Pinned { get; init; }

    /// <summary>Records refused since the start, also those that were put right since.</summary>
    [JsonPropertyName("refused")] public long Refused { get; init; }

    [JsonPropertyName("quarantined")] public long Quarantined { get; init; }

    /// <summary>Records whose withdrawal the breaker holds.</summary>
    [JsonPropertyName("held")] public long Held { get; init; }

    [JsonPropertyName("held-reason")] public string? HeldReason { get; init; }

    /// <summary>Nodes of the peer that were asked through the tunnel, and those that did not answer.</summary>
    [JsonPropertyName("nodes-probed")] public long NodesProbed { get; init; }

    [JsonPropertyName("nodes-silent")] public IReadOnlyList<string>? NodesSilent { get; init; }
}

public sealed record PeerResource
{
    [JsonPropertyName("name")] public string Name { get; init; } = "";

    [JsonPropertyName("synced"), JsonIgnore(Condition = JsonIgnoreCondition.Never)] public bool Synced { get; init; }

    [JsonPropertyName("entries"), JsonIgnore(Condition = JsonIgnoreCondition.Never)] public long Entries { get; init; }

    [JsonPropertyName("proof-age-seconds"), JsonIgnore(Condition = JsonIgnoreCondition.Never)] public double ProofAge { get; init; } = -1;

    [JsonPropertyName("audit-age-seconds"), JsonIgnore(Condition = JsonIgnoreCondition.Never)] public double AuditAge { get; init; } = -1;

    [JsonPropertyName("relists")] public long Relists { get; init; }

    [JsonPropertyName("relist-reason")] public string? RelistReason { get; init; }
}

/// <summary>Whole days left; negative when over.</summary>
public sealed record PeerCertificateDays
{
    [JsonPropertyName("client-name")] public string? ClientName { get; init; }

    [JsonPropertyName("client-days-left")] public long? ClientDays { get; init; }

    [JsonPropertyName("server-name")] public string? ServerName { get; init; }

    [JsonPropertyName("server-days-left")] public long? ServerDays { get; init; }

    [JsonPropertyName("authority-days-left")] public long? AuthorityDays { get; init; }

    [JsonPropertyName("problem")] public string? Problem { get; init; }
}
