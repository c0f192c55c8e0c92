using System.Text.Json.Serialization;

namespace Mesh.AgentApi;

/// <summary>PUT /v1/endpoint/0: the pod and the host side of its veth. The agent gives the id.</summary>
public sealed record EndpointChangeRequest
{
    [JsonPropertyName("addressing")] public AddressPair? Addressing { get; init; }

    /// <summary>Of the container runtime, when a CNI plugin made the device; null for pods that somebody made by hand.</summary>
    [JsonPropertyName("container-id")] public string? ContainerId { get; init; }

    /// <summary>Name of the device inside the pod.</summary>
    [JsonPropertyName("container-interface-name")] public string? ContainerInterfaceName { get; init; }

    /// <summary>Ours: name of the network configuration that the plugin was called with.</summary>
    [JsonPropertyName("cni-network")] public string? CniNetwork { get; init; }

    /// <summary>Link-layer address of the host side, which the pod sees as its gateway.</summary>
    [JsonPropertyName("host-mac")] public string? HostMac { get; init; }

    [JsonPropertyName("id")] public long Id { get; init; }

    /// <summary>Host side of the veth in the node's network namespace.</summary>
    [JsonPropertyName("interface-name")] public string? InterfaceName { get; init; }

    [JsonPropertyName("k8s-namespace")] public string? K8sNamespace { get; init; }

    [JsonPropertyName("k8s-pod-name")] public string? K8sPodName { get; init; }

    [JsonPropertyName("k8s-uid")] public string? K8sUid { get; init; }

    /// <summary>Link-layer address of the pod side.</summary>
    [JsonPropertyName("mac")] public string? Mac { get; init; }

    [JsonPropertyName("state")] public string? State { get; init; }

    /// <summary>Answer when the kernel forwards for the pod, not before; what the kernel refuses is not registered.</summary>
    [JsonPropertyName("sync-build-endpoint")] public bool SyncBuildEndpoint { get; init; }

    /// <summary>CONTAINER:IFNAME; null for a pod that no plugin made.</summary>
    [JsonIgnore]
    public string? Attachment => string.IsNullOrEmpty(ContainerId) ? null : $"{ContainerId}:{ContainerInterfaceName}";
}

public sealed record AddressPair
{
    [JsonPropertyName("ipv4")] public string? Ipv4 { get; init; }

    [JsonPropertyName("ipv6")] public string? Ipv6 { get; init; }
}

/// <summary>A local pod.</summary>
public sealed record Endpoint
{
    [JsonPropertyName("id")] public long Id { get; init; }

    [JsonPropertyName("spec")] public EndpointSpec? Spec { get; init; }

    [JsonPropertyName("status")] public EndpointStatus? Status { get; init; }
}

public sealed record EndpointSpec
{
    [JsonPropertyName("label-configuration")] public EmptyObject LabelConfiguration { get; init; } = new();

    [JsonPropertyName("options")] public IReadOnlyDictionary<string, string>? Options { get; init; }
}

/// <summary>{}.</summary>
public sealed record EmptyObject;

public sealed record EndpointStatus
{
    [JsonPropertyName("external-identifiers")] public EndpointIdentifiers? ExternalIdentifiers { get; init; }

    [JsonPropertyName("health")] public EndpointHealth? Health { get; init; }

    [JsonPropertyName("identity")] public Identity? Identity { get; init; }

    [JsonPropertyName("labels")] public EndpointLabels? Labels { get; init; }

    [JsonPropertyName("networking")] public EndpointNetworking? Networking { get; init; }

    [JsonPropertyName("policy")] public EndpointPolicyStatus? Policy { get; init; }

    [JsonPropertyName("realized")] public EndpointSpec? Realized { get; init; }

    /// <summary>ready, or waiting-for-identity.</summary>
    [JsonPropertyName("state")] public string State { get; init; } = "";
}

public sealed record EndpointIdentifiers
{
    /// <summary>CONTAINER:IFNAME, when a CNI plugin made the device.</summary>
    [JsonPropertyName("cni-attachment-id")] public string? CniAttachmentId { get; init; }

    [JsonPropertyName("container-id")] public string? ContainerId { get; init; }

    [JsonPropertyName("k8s-namespace")] public string? K8sNamespace { get; init; }

    [JsonPropertyName("k8s-pod-name")] public string? K8sPodName { get; init; }

    /// <summary>namespace/pod.</summary>
    [JsonPropertyName("pod-name")] public string? PodName { get; init; }
}

/// <summary>OK, Pending, Warning, Failure, Bootstrap or Disabled each.</summary>
public sealed record EndpointHealth
{
    [JsonPropertyName("bpf")] public string? Bpf { get; init; }

    [JsonPropertyName("connected")] public bool Connected { get; init; }

    [JsonPropertyName("overallHealth")] public string? OverallHealth { get; init; }

    [JsonPropertyName("policy")] public string? Policy { get; init; }
}

public sealed record EndpointLabels
{
    [JsonPropertyName("derived")] public IReadOnlyList<string>? Derived { get; init; }

    [JsonPropertyName("realized")] public EmptyObject Realized { get; init; } = new();

    [JsonPropertyName("security-relevant")] public IReadOnlyList<string>? SecurityRelevant { get; init; }
}

public sealed record EndpointNetworking
{
    [JsonPropertyName("addressing")] public IReadOnlyList<AddressPair>? Addressing { get; init; }

    [JsonPropertyName("host-mac")] public string? HostMac { get; init; }

    [JsonPropertyName("interface-index")] public long InterfaceIndex { get; init; }

    [JsonPropertyName("interface-name")] public string? InterfaceName { get; init; }

    [JsonPropertyName("mac")] public string? Mac { get; init; }
}

public sealed record EndpointPolicyStatus
{
    [JsonPropertyName("realized")] public EndpointPolicy? Realized { get; init; }

    [JsonPropertyName("spec")] public EndpointPolicy? Spec { get; init; }
}

/// <summary>Clients dereference every part of this.</summary>
public sealed record EndpointPolicy
{
    [JsonPropertyName("id")] public long Id { get; init; }

    [JsonPropertyName("l4")] public L4Policy L4 { get; init; } = new();

    /// <summary>none, ingress, egress or both.</summary>
    [JsonPropertyName("policy-enabled")] public string PolicyEnabled { get; init; } = "none";

    [JsonPropertyName("policy-revision")] public long PolicyRevision { get; init; } = 1;
}

public sealed record L4Policy
{
    [JsonPropertyName("egress")] public IReadOnlyList<string> Egress { get; init; } = [];

    [JsonPropertyName("ingress")] public IReadOnlyList<string> Ingress { get; init; } = [];
}
