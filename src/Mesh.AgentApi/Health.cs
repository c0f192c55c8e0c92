using System.Text.Json.Serialization;

namespace Mesh.AgentApi;

/// <summary>What `cilium-health status -o json` prints: how a node reaches the others.</summary>
public sealed record HealthStatus
{
    [JsonPropertyName("local")] public HealthSelf Local { get; init; } = new();

    [JsonPropertyName("nodes")] public IReadOnlyList<NodeHealth> Nodes { get; init; } = [];

    /// <summary>When this was asked; the probes themselves never stop.</summary>
    [JsonPropertyName("timestamp"), JsonConverter(typeof(GoTimeConverter))] public DateTimeOffset Timestamp { get; init; }
}

public sealed record HealthSelf
{
    /// <summary>cluster/node.</summary>
    [JsonPropertyName("name")] public string Name { get; init; } = "";
}

public sealed record NodeHealth
{
    /// <summary>cluster/node.</summary>
    [JsonPropertyName("name")] public string Name { get; init; } = "";

    [JsonPropertyName("host")] public HostHealth Host { get; init; } = new();
}

public sealed record HostHealth
{
    [JsonPropertyName("primary-address")] public AddressHealth PrimaryAddress { get; init; } = new();
}

public sealed record AddressHealth
{
    [JsonPropertyName("ip")] public string Ip { get; init; } = "";

    /// <summary>Our probe through the tunnel, which stands where Cilium's stands; null for a node that is not probed.</summary>
    [JsonPropertyName("icmp")] public ProbeHealth? Icmp { get; init; }
}

public sealed record ProbeHealth
{
    /// <summary>Round trip in nanoseconds.</summary>
    [JsonPropertyName("latency")] public long Latency { get; init; }

    /// <summary>"" when it answers, else why it is taken not to.</summary>
    [JsonPropertyName("status"), JsonIgnore(Condition = JsonIgnoreCondition.Never)] public string Status { get; init; } = "";
}
