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
    /// <summary>The first word is <see cref="SpokenVersion.Of"/> of the agent.</summary>
    [JsonPropertyName("cilium-version")] public string CiliumVersion { get; init; } = "";

    [JsonPropertyName("cilium-status")] public StatusResponse? CiliumStatus { get; init; }

    [JsonPropertyName("service-list")] public IReadOnlyList<Service>? ServiceList { get; init; }

    [JsonPropertyName("endpoint-list")] public IReadOnlyList<Endpoint>? EndpointList { get; init; }

    [JsonPropertyName("kernel-version")] public string? KernelVersion { get; init; }
}

/// <summary>
/// STATE_DIR/agent-runtime-config.json: what Cilium's connectivity test reads in an agent's pod to know which of its tests concern this
/// agent. Only features that we have or have not; the names are those of Cilium's options.
/// </summary>
public sealed record RuntimeConfiguration
{
    public const string FileName = "agent-runtime-config.json";

    public string ClusterName { get; init; } = "";

    [JsonPropertyName("ClusterID")] public long ClusterId { get; init; }

    /// <summary>"none": each packet that is told of is told of.</summary>
    public string MonitorAggregation { get; init; } = "none";

    [JsonPropertyName("EnableIPv4"), JsonIgnore(Condition = JsonIgnoreCondition.Never)] public bool EnableIPv4 { get; init; } = true;

    [JsonPropertyName("EnableIPv6"), JsonIgnore(Condition = JsonIgnoreCondition.Never)] public bool EnableIPv6 { get; init; } = true;

    [JsonIgnore(Condition = JsonIgnoreCondition.Never)] public bool EnableIPv4Masquerade { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.Never)] public bool EnableIPv6Masquerade { get; init; }

    [JsonPropertyName("EnableICMPRules"), JsonIgnore(Condition = JsonIgnoreCondition.Never)] public bool EnableIcmpRules { get; init; } = true;

    [JsonPropertyName("EnableK8sNetworkPolicy"), JsonIgnore(Condition = JsonIgnoreCondition.Never)]
    public bool EnableNetworkPolicy { get; init; } = true;

    /// <summary>Of Cilium's health daemon and its endpoint in each node, which we have not: our own probes are in the status.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.Never)] public bool EnableHealthChecking { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.Never)] public bool EnableEndpointHealthChecking { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.Never)] public bool EncryptNode { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.Never)] public bool EnableL7Proxy { get; init; }
}
