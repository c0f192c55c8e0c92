using System.Text.Json.Serialization;

namespace Mesh.AgentApi;

/// <summary>GET /v1/cluster/nodes. Every node counts as added: this agent keeps no change log per client.</summary>
public sealed record ClusterNodeStatus
{
    [JsonPropertyName("client-id")] public long ClientId { get; init; }

    [JsonPropertyName("nodes-added")]
    [JsonIgnore(Condition = JsonIgnoreCondition.Never)]
    public IReadOnlyList<NodeElement>? NodesAdded { get; init; }

    [JsonPropertyName("nodes-removed")]
    [JsonIgnore(Condition = JsonIgnoreCondition.Never)]
    public IReadOnlyList<NodeElement>? NodesRemoved { get; init; }

    /// <summary>cluster/node.</summary>
    [JsonPropertyName("self")] public string? Self { get; init; }
}

public sealed record NodeElement
{
    [JsonPropertyName("health-endpoint-address")] public NodeAddressing? HealthEndpointAddress { get; init; }

    /// <summary>cluster/node.</summary>
    [JsonPropertyName("name")] public string? Name { get; init; }

    [JsonPropertyName("primary-address")] public NodeAddressing? PrimaryAddress { get; init; }

    [JsonPropertyName("secondary-addresses")] public IReadOnlyList<NodeAddressingElement>? SecondaryAddresses { get; init; }

    /// <summary>local, custom-resource or clustermesh; printed by clients from 1.17 on.</summary>
    [JsonPropertyName("source")] public string? Source { get; init; }
}

/// <summary>Both families are always present, an absent one empty: clients dereference them.</summary>
public sealed record NodeAddressing
{
    [JsonPropertyName("ipv4")] public NodeAddressingElement Ipv4 { get; init; } = new();

    [JsonPropertyName("ipv6")] public NodeAddressingElement Ipv6 { get; init; } = new();
}

public sealed record NodeAddressingElement
{
    /// <summary>Pod range of the node.</summary>
    [JsonPropertyName("alloc-range")] public string? AllocRange { get; init; }

    [JsonPropertyName("enabled")] public bool Enabled { get; init; }

    [JsonPropertyName("ip")] public string? Ip { get; init; }
}

/// <summary>An item of GET /v1/node/ids.</summary>
public sealed record NodeId
{
    [JsonPropertyName("id")]
    [JsonIgnore(Condition = JsonIgnoreCondition.Never)]
    public long Id { get; init; }

    [JsonPropertyName("ips")]
    [JsonIgnore(Condition = JsonIgnoreCondition.Never)]
    public IReadOnlyList<string>? Ips { get; init; }
}
