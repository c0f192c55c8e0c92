using System.Text.Json.Serialization;

namespace Mesh.AgentApi;

/// <summary>GET /v1/clustermesh/quarantine, one per peer: what was refused and what is held back. Not part of Cilium's API.</summary>
public sealed record PeerQuarantine
{
    [JsonPropertyName("name")] public string Name { get; init; } = "";

    /// <summary>Records in quarantine now.</summary>
    [JsonPropertyName("quarantined")]
    [JsonIgnore(Condition = JsonIgnoreCondition.Never)]
    public long Quarantined { get; init; }

    /// <summary>Refusals since the start that found no room.</summary>
    [JsonPropertyName("overflow")] public long Overflow { get; init; }

    /// <summary>Refusals since the start, by reason.</summary>
    [JsonPropertyName("refused")] public IReadOnlyDictionary<string, long>? Refused { get; init; }

    /// <summary>By key.</summary>
    [JsonPropertyName("records")] public IReadOnlyList<QuarantinedRecord>? Records { get; init; }

    /// <summary>Records whose withdrawal waits for a proof.</summary>
    [JsonPropertyName("held")]
    [JsonIgnore(Condition = JsonIgnoreCondition.Never)]
    public long Held { get; init; }

    /// <summary>What is held, since when, why, and when it is let go.</summary>
    [JsonPropertyName("held-reason")] public string? HeldReason { get; init; }

    /// <summary>Why the peer's import file is not in force.</summary>
    [JsonPropertyName("imports-problem")] public string? ImportsProblem { get; init; }
}

public sealed record QuarantinedRecord
{
    /// <summary>nodes, services, ips or identities.</summary>
    [JsonPropertyName("resource")] public string Resource { get; init; } = "";

    [JsonPropertyName("key")] public string Key { get; init; } = "";

    /// <summary>One word: malformed, foreign-key, identity-range, reserved-identity, address, tunnel-endpoint, backend, namespace,
    /// oversize, quota.</summary>
    [JsonPropertyName("reason")] public string Reason { get; init; } = "";

    [JsonPropertyName("message")] public string Message { get; init; } = "";

    /// <summary>Revision of the peer's store.</summary>
    [JsonPropertyName("revision")] public long Revision { get; init; }

    [JsonPropertyName("first-seen")]
    [JsonConverter(typeof(GoTimeConverter))]
    public DateTimeOffset FirstSeen { get; init; }

    [JsonPropertyName("last-seen")]
    [JsonConverter(typeof(GoTimeConverter))]
    public DateTimeOffset LastSeen { get; init; }

    [JsonPropertyName("count")] public long Count { get; init; }
}
