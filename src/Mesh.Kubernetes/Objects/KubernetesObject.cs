using System.Text.Json;
using System.Text.Json.Serialization;

namespace Mesh.Kubernetes.Objects;

public enum ObjectKind
{
    Service,
    EndpointSlice,
    Namespace,
    CiliumNode,
    CiliumIdentity,
    CiliumEndpoint,
    NetworkPolicy,
    CiliumNetworkPolicy,
    CiliumClusterwideNetworkPolicy,
    ServiceExport,
}

/// <summary>The part of a Kubernetes object that the mesh reads: slim on purpose, decoded from YAML and JSON alike by one
/// source-generated serializer. Unknown fields are ignored; a wrong type rejects the object.</summary>
public abstract record KubernetesObject : IKubeObject
{
    [JsonIgnore]
    public abstract ObjectKind Kind { get; }

    public ObjectMeta Metadata { get; init; } = new();

    /// <summary>Identity of the object within its cluster.</summary>
    [JsonIgnore]
    public ObjectKey Key => new(Kind, Metadata.Namespace ?? "", Metadata.Name ?? "");
}

/// <param name="Namespace">"" for objects of the whole cluster.</param>
public readonly record struct ObjectKey(ObjectKind Kind, string Namespace, string Name)
{
    public override string ToString() => Namespace.Length == 0 ? $"{Kind} {Name}" : $"{Kind} {Namespace}/{Name}";
}

public sealed record Service : KubernetesObject
{
    public override ObjectKind Kind => ObjectKind.Service;

    public ServiceSpec Spec { get; init; } = new();

    public ServiceStatus? Status { get; init; }
}

public sealed record ServiceStatus
{
    public LoadBalancerStatus? LoadBalancer { get; init; }
}

public sealed record LoadBalancerStatus
{
    public IReadOnlyList<LoadBalancerIngress>? Ingress { get; init; }
}

public sealed record LoadBalancerIngress
{
    /// <summary>Null for one that is known by a host name only.</summary>
    public string? Ip { get; init; }

    /// <summary>VIP when absent; with Proxy the address belongs to a proxy and is not ours to answer for.</summary>
    public string? IpMode { get; init; }
}

public sealed record ServiceSpec
{
    public string? Type { get; init; }

    [JsonPropertyName("clusterIP")]
    public string? ClusterIP { get; init; }

    [JsonPropertyName("clusterIPs")]
    public IReadOnlyList<string>? ClusterIPs { get; init; }

    public IReadOnlyDictionary<string, string>? Selector { get; init; }

    public IReadOnlyList<ServicePort>? Ports { get; init; }

    /// <summary>The server's; IPv4, IPv6 or both, the first is that of clusterIP.</summary>
    public IReadOnlyList<string>? IpFamilies { get; init; }

    /// <summary>SingleStack, PreferDualStack or RequireDualStack.</summary>
    public string? IpFamilyPolicy { get; init; }

    /// <summary>None when absent, or PreferClose and its like.</summary>
    public string? TrafficDistribution { get; init; }

    [JsonPropertyName("externalIPs")]
    public IReadOnlyList<string>? ExternalIPs { get; init; }

    public IReadOnlyList<string>? LoadBalancerSourceRanges { get; init; }

    /// <summary>Cluster when absent, or Local.</summary>
    public string? InternalTrafficPolicy { get; init; }

    /// <summary>Cluster when absent, or Local.</summary>
    public string? ExternalTrafficPolicy { get; init; }

    /// <summary>TCP port at which every node says whether it has backends of this service; 0 = none. Of load balancers with
    /// externalTrafficPolicy Local.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public int HealthCheckNodePort { get; init; }

    /// <summary>None when absent, or ClientIP.</summary>
    public string? SessionAffinity { get; init; }

    public SessionAffinityConfig? SessionAffinityConfig { get; init; }
}

public sealed record SessionAffinityConfig
{
    [JsonPropertyName("clientIP")]
    public ClientIPConfig? ClientIP { get; init; }
}

public sealed record ClientIPConfig
{
    /// <summary>10800 when absent.</summary>
    public int? TimeoutSeconds { get; init; }
}

public sealed record ServicePort
{
    public string? Name { get; init; }

    /// <summary>TCP when absent.</summary>
    public string? Protocol { get; init; }

    public string? AppProtocol { get; init; }

    public int Port { get; init; }

    /// <summary>0 = none.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingDefault)]
    public int NodePort { get; init; }
}

public sealed record EndpointSlice : KubernetesObject
{
    public override ObjectKind Kind => ObjectKind.EndpointSlice;

    public string? AddressType { get; init; }

    public IReadOnlyList<SliceEndpoint>? Endpoints { get; init; }

    public IReadOnlyList<SlicePort>? Ports { get; init; }
}

public sealed record SliceEndpoint
{
    public IReadOnlyList<string>? Addresses { get; init; }

    public SliceConditions? Conditions { get; init; }

    public string? Hostname { get; init; }

    public string? NodeName { get; init; }

    public string? Zone { get; init; }

    public SliceHints? Hints { get; init; }
}

/// <summary>Null means unknown: Ready and Serving count as true, Terminating as false.</summary>
public sealed record SliceConditions
{
    public bool? Ready { get; init; }

    public bool? Serving { get; init; }

    public bool? Terminating { get; init; }
}

public sealed record SliceHints
{
    public IReadOnlyList<SliceZone>? ForZones { get; init; }
}

public sealed record SliceZone
{
    public string? Name { get; init; }
}

public sealed record SlicePort
{
    public string? Name { get; init; }

    /// <summary>TCP when absent.</summary>
    public string? Protocol { get; init; }

    public int? Port { get; init; }

    public string? AppProtocol { get; init; }
}

public sealed record Namespace : KubernetesObject
{
    public override ObjectKind Kind => ObjectKind.Namespace;
}

/// <summary>networking.k8s.io/v1. The policies keep their specs as they came: Policies/ reads them, and passes over nothing.</summary>
public sealed record NetworkPolicy : KubernetesObject
{
    public override ObjectKind Kind => ObjectKind.NetworkPolicy;

    public JsonElement? Spec { get; init; }
}

public sealed record CiliumNetworkPolicy : KubernetesObject
{
    public override ObjectKind Kind => ObjectKind.CiliumNetworkPolicy;

    public JsonElement? Spec { get; init; }

    public JsonElement? Specs { get; init; }
}

public sealed record CiliumClusterwideNetworkPolicy : KubernetesObject
{
    public override ObjectKind Kind => ObjectKind.CiliumClusterwideNetworkPolicy;

    public JsonElement? Spec { get; init; }

    public JsonElement? Specs { get; init; }
}

public sealed record CiliumNode : KubernetesObject
{
    public override ObjectKind Kind => ObjectKind.CiliumNode;

    public CiliumNodeSpec Spec { get; init; } = new();
}

public sealed record CiliumNodeSpec
{
    public IReadOnlyList<CiliumNodeAddress>? Addresses { get; init; }

    public CiliumNodeIpam? Ipam { get; init; }

    public CiliumNodeAddressPair? Health { get; init; }

    public CiliumNodeAddressPair? Ingress { get; init; }

    public CiliumNodeEncryption? Encryption { get; init; }

    public string? Bootid { get; init; }
}

public sealed record CiliumNodeAddress
{
    public string? Type { get; init; }

    public string? Ip { get; init; }
}

public sealed record CiliumNodeIpam
{
    [JsonPropertyName("podCIDRs")]
    public IReadOnlyList<string>? PodCIDRs { get; init; }
}

public sealed record CiliumNodeAddressPair
{
    public string? Ipv4 { get; init; }

    public string? Ipv6 { get; init; }
}

public sealed record CiliumNodeEncryption
{
    public int? Key { get; init; }
}

public sealed record CiliumIdentity : KubernetesObject
{
    public override ObjectKind Kind => ObjectKind.CiliumIdentity;

    /// <summary>"source:key" → value.</summary>
    [JsonPropertyName("security-labels")]
    public IReadOnlyDictionary<string, string>? SecurityLabels { get; init; }
}

public sealed record CiliumEndpoint : KubernetesObject
{
    public override ObjectKind Kind => ObjectKind.CiliumEndpoint;

    public CiliumEndpointStatus? Status { get; init; }
}

public sealed record CiliumEndpointStatus
{
    public CiliumEndpointIdentity? Identity { get; init; }

    public CiliumEndpointNetworking? Networking { get; init; }

    public CiliumEndpointEncryption? Encryption { get; init; }

    [JsonPropertyName("service-account")]
    public string? ServiceAccount { get; init; }

    /// <summary>Of the pod's containers.</summary>
    [JsonPropertyName("named-ports")]
    public IReadOnlyList<NamedPort?>? NamedPorts { get; init; }
}

public sealed record NamedPort
{
    public string Name { get; init; } = "";

    public int Port { get; init; }

    /// <summary>TCP, UDP or SCTP.</summary>
    public string? Protocol { get; init; }
}

public sealed record CiliumEndpointIdentity
{
    public uint Id { get; init; }
}

public sealed record CiliumEndpointNetworking
{
    public IReadOnlyList<CiliumNodeAddressPair>? Addressing { get; init; }

    /// <summary>Underlay address of the node that hosts the pod.</summary>
    public string? Node { get; init; }
}

public sealed record CiliumEndpointEncryption
{
    public int? Key { get; init; }
}
