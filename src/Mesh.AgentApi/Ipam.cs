using System.Text.Json.Serialization;

namespace Mesh.AgentApi;

/// <summary>POST /v1/ipam?family=ipv4|ipv6&amp;owner=…: addresses set aside for a pod to come, and what its device needs besides.</summary>
public sealed record IpamResponse
{
    [JsonPropertyName("address")] public AddressPair? Address { get; init; }

    /// <summary>The node's routers and pod ranges.</summary>
    [JsonPropertyName("host-addressing")] public NodeAddressing? HostAddressing { get; init; }

    [JsonPropertyName("ipv4")] public IpamAddress? Ipv4 { get; init; }

    [JsonPropertyName("ipv6")] public IpamAddress? Ipv6 { get; init; }

    /// <summary>Ours: largest packet of a pod, in bytes.</summary>
    [JsonPropertyName("device-mtu")] public long DeviceMtu { get; init; }
}

public sealed record IpamAddress
{
    /// <summary>The range it is of.</summary>
    [JsonPropertyName("cidrs")] public IReadOnlyList<string>? Cidrs { get; init; }

    /// <summary>The node's router, which is on the pod's link.</summary>
    [JsonPropertyName("gateway")] public string? Gateway { get; init; }

    [JsonPropertyName("ip")] public string? Ip { get; init; }
}

/// <summary>GET /v1/ipam (ours), and the ipam object of GET /v1/healthz: the node's pod ranges.</summary>
public sealed record IpamStatus
{
    /// <summary>Address → who has it.</summary>
    [JsonPropertyName("allocations")] public IReadOnlyDictionary<string, string>? Allocations { get; init; }

    [JsonPropertyName("ipv4")] public IReadOnlyList<string>? Ipv4 { get; init; }

    [JsonPropertyName("ipv6")] public IReadOnlyList<string>? Ipv6 { get; init; }

    /// <summary>IPv4: 5/254 allocated from 10.1.0.0/24, ….</summary>
    [JsonPropertyName("status")] public string? Status { get; init; }

    /// <summary>Ours: why no further pod can be added now; absent when one can.</summary>
    [JsonPropertyName("problem")] public string? Problem { get; init; }
}

/// <summary>What CNI GC asks: every device of this network that is none of these belongs to nobody.</summary>
public sealed record CniAttachments
{
    /// <summary>"CONTAINER:IFNAME" each.</summary>
    [JsonPropertyName("attachments")] public IReadOnlyList<string> Attachments { get; init; } = [];

    /// <summary>Name of the network configuration.</summary>
    [JsonPropertyName("network")] public string Network { get; init; } = "";
}
