using System.Text.Json.Serialization;

namespace Mesh.Kubernetes.Objects;

/// <summary>A Kubernetes Node (ours is another), as far as a node agent or the operator reads it.</summary>
public sealed record KubeNode : IKubeObject
{
    public ObjectMeta Metadata { get; init; } = new();

    public NodeSpec? Spec { get; init; }

    public NodeStatus? Status { get; init; }
}

public sealed record NodeSpec
{
    [JsonPropertyName("podCIDR")]
    public string? PodCIDR { get; init; }

    [JsonPropertyName("podCIDRs")]
    public IReadOnlyList<string>? PodCIDRs { get; init; }

    [JsonPropertyName("providerID")]
    public string? ProviderID { get; init; }
}

public sealed record NodeStatus
{
    public IReadOnlyList<NodeAddress>? Addresses { get; init; }

    public IReadOnlyList<ObjectCondition>? Conditions { get; init; }

    public NodeInfo? NodeInfo { get; init; }
}

public sealed record NodeAddress
{
    /// <summary>InternalIP, ExternalIP, Hostname, …</summary>
    public string? Type { get; init; }

    public string? Address { get; init; }
}

public sealed record NodeInfo
{
    [JsonPropertyName("bootID")]
    public string? BootID { get; init; }

    public string? KernelVersion { get; init; }

    public string? KubeletVersion { get; init; }
}

public sealed record ObjectCondition
{
    public string? Type { get; init; }

    /// <summary>True, False or Unknown.</summary>
    public string? Status { get; init; }

    public string? Reason { get; init; }

    public string? Message { get; init; }

    public DateTimeOffset? LastTransitionTime { get; init; }
}

/// <summary>A pod, as far as a node agent or the operator reads it.</summary>
public sealed record Pod : IKubeObject
{
    public ObjectMeta Metadata { get; init; } = new();

    public PodSpec? Spec { get; init; }

    public PodStatus? Status { get; init; }
}

public sealed record PodSpec
{
    public string? NodeName { get; init; }

    public bool? HostNetwork { get; init; }

    public string? ServiceAccountName { get; init; }

    public IReadOnlyList<PodContainer>? Containers { get; init; }
}

public sealed record PodContainer
{
    public string? Name { get; init; }

    public IReadOnlyList<PodPort>? Ports { get; init; }
}

public sealed record PodPort
{
    public string? Name { get; init; }

    public int ContainerPort { get; init; }

    /// <summary>TCP when absent.</summary>
    public string? Protocol { get; init; }
}

public sealed record PodStatus
{
    /// <summary>Pending, Running, Succeeded, Failed or Unknown.</summary>
    public string? Phase { get; init; }

    [JsonPropertyName("podIP")]
    public string? PodIP { get; init; }

    [JsonPropertyName("podIPs")]
    public IReadOnlyList<PodAddress>? PodIPs { get; init; }

    [JsonPropertyName("hostIP")]
    public string? HostIP { get; init; }

    public IReadOnlyList<ObjectCondition>? Conditions { get; init; }
}

public sealed record PodAddress
{
    public string? Ip { get; init; }
}
