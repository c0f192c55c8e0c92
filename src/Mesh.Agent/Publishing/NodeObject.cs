using System.Net;
using System.Text.Json.Nodes;
using Mesh.Kubernetes.Objects;

namespace Mesh.Agent.Publishing;

/// <summary>
/// This node's CiliumNode, made of the Node object and of the pod ranges: addresses as the kubelet told them, and one CiliumInternalIP for
/// each family of pod ranges, the first address of its first range. Pure.
/// </summary>
internal static class NodeObject
{
    /// <summary>Which agent wrote the object.</summary>
    public const string AgentAnnotation = "mesh.cilium.io/agent";

    private const string InternalIP = "InternalIP";

    /// <summary>Ranges by what holds for this cluster: those of the CiliumNode, which the operator gives, else those of the Node.</summary>
    /// <param name="fromNode">The Node's ranges alone count (ipam: kubernetes).</param>
    public static IReadOnlyList<string> Ranges(KubeNode node, CiliumNode? present, bool fromNode)
    {
        if (!fromNode && present?.Spec.Ipam?.PodCIDRs is { Count: > 0 } given)
            return given;
        if (!fromNode)
            return [];
        return node.Spec?.PodCIDRs is { Count: > 0 } ranges ? ranges : node.Spec?.PodCIDR is { Length: > 0 } range ? [range] : [];
    }

    /// <summary>What the agent owns of the object.</summary>
    /// <param name="ranges">As <see cref="Ranges"/> has them; written only when they are the Node's.</param>
    public static JsonObject Of(KubeNode node, IReadOnlyList<string> ranges, bool fromNode, string agent, string bootId, string dsrAnnotation)
    {
        var name = node.Metadata.Name!;
        var addresses = new JsonArray();
        foreach (var (type, ip) in Addresses(node, ranges))
            addresses.Add((JsonNode)new JsonObject { ["type"] = type, ["ip"] = ip });
        var labels = new JsonObject();
        foreach (var (key, value) in node.Metadata.Labels ?? new Dictionary<string, string>())
            labels[key] = value;
        var spec = new JsonObject { ["addresses"] = addresses, ["bootid"] = bootId };
        if (fromNode && ranges.Count > 0)
            spec["ipam"] = new JsonObject { ["podCIDRs"] = new JsonArray([.. ranges.Select(range => (JsonNode)range)]) };
        var metadata = new JsonObject
        {
            ["name"] = name,
            ["labels"] = labels,
            ["annotations"] = new JsonObject { [AgentAnnotation] = agent, [dsrAnnotation] = "true" },
        };
        if (node.Metadata.Uid is { } uid)
            metadata["ownerReferences"] = new JsonArray(new JsonObject { ["apiVersion"] = "v1", ["kind"] = "Node", ["name"] = name, ["uid"] = uid });
        return new JsonObject { ["metadata"] = metadata, ["spec"] = spec };
    }

    /// <summary>True when the object says already what we would write.</summary>
    public static bool IsAsWanted(CiliumNode present, KubeNode node, IReadOnlyList<string> ranges, string agent, string bootId, string dsrAnnotation) =>
        (present.Spec.Addresses ?? []).Select(address => (address.Type ?? "", address.Ip ?? "")).SequenceEqual(Addresses(node, ranges))
        && (present.Spec.Ipam?.PodCIDRs ?? []).SequenceEqual(ranges)
        && present.Spec.Bootid == bootId
        && AgentOf(present) == agent
        && present.Metadata.Annotations?.GetValueOrDefault(dsrAnnotation) == "true"
        && (node.Metadata.Labels ?? new Dictionary<string, string>())
            .All(label => present.Metadata.Labels?.GetValueOrDefault(label.Key) == label.Value)
        && (node.Metadata.Uid is null || present.Metadata.OwnerReferences?.Any(owner => owner.Uid == node.Metadata.Uid) == true);

    public static string? AgentOf(CiliumNode node) => node.Metadata.Annotations?.GetValueOrDefault(AgentAnnotation);

    /// <summary>The address that other nodes send to; null when the kubelet has told none.</summary>
    public static string? Underlay(KubeNode node) =>
        node.Status?.Addresses?.FirstOrDefault(address => address.Type == InternalIP && IPAddress.TryParse(address.Address, out _))?.Address;

    private static IEnumerable<(string Type, string Ip)> Addresses(KubeNode node, IReadOnlyList<string> ranges)
    {
        foreach (var address in node.Status?.Addresses ?? [])
        {
            if (address is { Type: InternalIP or "ExternalIP", Address: { } text } && IPAddress.TryParse(text, out _))
                yield return (address.Type, text);
        }
        var families = new HashSet<System.Net.Sockets.AddressFamily>();
        foreach (var range in ranges)
        {
            if (IPNetwork.TryParse(range, out var network) && families.Add(network.BaseAddress.AddressFamily))
                yield return ("CiliumInternalIP", FirstOf(network).ToString());
        }
    }

    private static IPAddress FirstOf(IPNetwork network)
    {
        var bytes = network.BaseAddress.GetAddressBytes();
        bytes[^1] |= 1;
        return new IPAddress(bytes);
    }
}
