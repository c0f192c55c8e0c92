using System.Text.Json.Serialization;

namespace Mesh.AgentApi;

/// <summary>GET /v1/config.</summary>
public sealed record DaemonConfiguration
{
    [JsonPropertyName("spec")] public DaemonConfigurationSpec? Spec { get; init; }

    [JsonPropertyName("status")] public DaemonConfigurationStatus? Status { get; init; }
}

public sealed record DaemonConfigurationSpec
{
    [JsonPropertyName("options")] public IReadOnlyDictionary<string, string>? Options { get; init; }

    [JsonPropertyName("policy-enforcement")] public string? PolicyEnforcement { get; init; }
}

public sealed record DaemonConfigurationStatus
{
    [JsonPropertyName("addressing")] public NodeAddressing? Addressing { get; init; }

    /// <summary>The agent's options by their Cilium names; ClusterName among them is read by troubleshooting clients.</summary>
    [JsonPropertyName("daemonConfigurationMap")] public DaemonConfigurationMap? DaemonConfigurationMap { get; init; }

    [JsonPropertyName("datapathMode")] public string? DatapathMode { get; init; }

    /// <summary>Largest packet of a pod, in bytes.</summary>
    [JsonPropertyName("deviceMTU")] public long DeviceMTU { get; init; }

    [JsonPropertyName("routeMTU")] public long RouteMTU { get; init; }

    [JsonPropertyName("realized")] public DaemonConfigurationSpec? Realized { get; init; }
}

public sealed record DaemonConfigurationMap
{
    public string? ClusterName { get; init; }

    [JsonPropertyName("ClusterID")] public long ClusterId { get; init; }

    public long MaxConnectedClusters { get; init; }

    public long TunnelPort { get; init; }

    public string? BPFRoot { get; init; }

    public string? CGroupRoot { get; init; }

    public string? SocketPath { get; init; }

    public string? StateDir { get; init; }

    public string? NodeName { get; init; }
}

/// <summary>GET /v1/debuginfo, the part that `cilium version` reads and the tables behind it.</summary>
public sealed record DebugInfo
{
    [JsonPropertyName("cilium-version")] public string CiliumVersion { get; init; } = "";

    [JsonPropertyName("cilium-status")] public StatusResponse? CiliumStatus { get; init; }

    [JsonPropertyName("service-list")] public IReadOnlyList<Service>? ServiceList { get; init; }

    [JsonPropertyName("endpoint-list")] public IReadOnlyList<Endpoint>? EndpointList { get; init; }

    [JsonPropertyName("kernel-version")] public string? KernelVersion { get; init; }
}
