using System.Text.Json.Serialization;

namespace Mesh.AgentApi;

/// <summary>An item of GET /v1/service: one frontend with its backends, as asked for (spec) and as it is (status.realized).</summary>
public sealed record Service
{
    [JsonPropertyName("spec")] public ServiceSpec? Spec { get; init; }

    [JsonPropertyName("status")] public ServiceStatus? Status { get; init; }
}

public sealed record ServiceStatus
{
    [JsonPropertyName("realized")] public ServiceSpec? Realized { get; init; }
}

public sealed record ServiceSpec
{
    /// <summary>Null (absent) for a service without backends.</summary>
    [JsonPropertyName("backend-addresses")] public IReadOnlyList<BackendAddress>? BackendAddresses { get; init; }

    [JsonPropertyName("flags")] public ServiceFlags? Flags { get; init; }

    [JsonPropertyName("frontend-address")] public FrontendAddress FrontendAddress { get; init; } = new();

    /// <summary>Number of the frontend on this node; stable while the agent runs.</summary>
    [JsonPropertyName("id")] public long Id { get; init; }
}

public sealed record FrontendAddress
{
    [JsonPropertyName("ip")] public string Ip { get; init; } = "";

    [JsonPropertyName("port")] public ushort Port { get; init; }

    /// <summary>TCP, UDP, SCTP. Clients from 1.17 on print it behind the port.</summary>
    [JsonPropertyName("protocol")] public string? Protocol { get; init; }

    /// <summary>external or internal.</summary>
    [JsonPropertyName("scope")] public string? Scope { get; init; }
}

public sealed record BackendAddress
{
    [JsonPropertyName("ip")]
    [JsonIgnore(Condition = JsonIgnoreCondition.Never)]
    public string Ip { get; init; } = "";

    [JsonPropertyName("nodeName")] public string? NodeName { get; init; }

    [JsonPropertyName("port")] public ushort Port { get; init; }

    /// <summary>Of the service's clusters, its affinity prefers the one this backend lives in.</summary>
    [JsonPropertyName("preferred")] public bool Preferred { get; init; }

    [JsonPropertyName("protocol")] public string? Protocol { get; init; }

    /// <summary>active, terminating, quarantined or maintenance.</summary>
    [JsonPropertyName("state")] public string? State { get; init; }

    [JsonPropertyName("weight")] public ushort? Weight { get; init; }

    [JsonPropertyName("zone")] public string? Zone { get; init; }

    /// <summary>Ours: the cluster the backend lives in.</summary>
    [JsonPropertyName("mesh-cluster")] public string? MeshCluster { get; init; }
}

public sealed record ServiceFlags
{
    [JsonPropertyName("cluster")] public string? Cluster { get; init; }

    [JsonPropertyName("extTrafficPolicy")] public string? ExtTrafficPolicy { get; init; }

    [JsonPropertyName("intTrafficPolicy")] public string? IntTrafficPolicy { get; init; }

    [JsonPropertyName("name")] public string? Name { get; init; }

    [JsonPropertyName("namespace")] public string? Namespace { get; init; }

    [JsonPropertyName("trafficPolicy")] public string? TrafficPolicy { get; init; }

    /// <summary>ClusterIP, NodePort, LoadBalancer or ExternalIPs.</summary>
    [JsonPropertyName("type")] public string? Type { get; init; }
}
