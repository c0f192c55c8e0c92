using System.Text.Json.Nodes;
using Mesh.Kubernetes.Objects;
using Endpoint = Mesh.ControlPlane.Endpoints.Endpoint;

namespace Mesh.Agent.Publishing;

/// <summary>A pod's CiliumEndpoint, made of its registration, its Pod object and its identity. Pure.</summary>
internal static class EndpointObject
{
    /// <param name="underlay">Address of this node.</param>
    public static JsonObject Of(Endpoint row, Pod pod, uint identity, SecurityLabels labels, string underlay)
    {
        var own = new JsonObject();
        foreach (var (key, value) in pod.Metadata.Labels ?? new Dictionary<string, string>())
            own[key] = value;
        var metadata = new JsonObject { ["name"] = row.PodName, ["namespace"] = row.Namespace, ["labels"] = own };
        if (pod.Metadata.Uid is { } uid)
            metadata["ownerReferences"] = new JsonArray(new JsonObject { ["apiVersion"] = "v1", ["kind"] = "Pod", ["name"] = row.PodName, ["uid"] = uid });
        var status = new JsonObject
        {
            ["id"] = row.Id,
            ["state"] = "ready",
            ["identity"] = new JsonObject { ["id"] = identity, ["labels"] = new JsonArray([.. labels.Listed.Select(label => (JsonNode)label)]) },
            ["networking"] = new JsonObject { ["addressing"] = new JsonArray(Addressing(row)), ["node"] = underlay },
            ["external-identifiers"] = new JsonObject
            {
                ["k8s-namespace"] = row.Namespace,
                ["k8s-pod-name"] = row.PodName,
                ["pod-name"] = $"{row.Namespace}/{row.PodName}",
            },
            ["service-account"] = AccountOf(pod),
        };
        var ports = NamedPorts(pod);
        if (ports.Count > 0)
            status["named-ports"] = ports;
        return new JsonObject { ["metadata"] = metadata, ["status"] = status };
    }

    /// <summary>True when the object says already what we would write, as far as others read it.</summary>
    public static bool IsAsWanted(CiliumEndpoint present, Endpoint row, Pod pod, uint identity, string underlay) =>
        present.Status is { } status
        && status.Identity?.Id == identity
        && status.Networking?.Node == underlay
        && (status.Networking.Addressing ?? []).SelectMany(Texts).SequenceEqual(Texts(Pair(row)))
        && (status.ServiceAccount ?? "") == AccountOf(pod)
        && (pod.Metadata.Uid is null || present.Metadata.OwnerReferences?.Any(owner => owner.Uid == pod.Metadata.Uid) == true);

    private static string AccountOf(Pod pod) => pod.Spec?.ServiceAccountName is { Length: > 0 } account ? account : "default";

    private static CiliumNodeAddressPair Pair(Endpoint row) => new()
    {
        Ipv4 = row.Addresses.Items.Where(address => !address.IsV6).Select(address => address.ToString()).FirstOrDefault(),
        Ipv6 = row.Addresses.Items.Where(address => address.IsV6).Select(address => address.ToString()).FirstOrDefault(),
    };

    private static JsonObject Addressing(Endpoint row)
    {
        var (pair, addressing) = (Pair(row), new JsonObject());
        if (pair.Ipv4 is { } v4)
            addressing["ipv4"] = v4;
        if (pair.Ipv6 is { } v6)
            addressing["ipv6"] = v6;
        return addressing;
    }

    private static IEnumerable<string> Texts(CiliumNodeAddressPair? pair) => new[] { pair?.Ipv4, pair?.Ipv6 }.Where(text => !string.IsNullOrEmpty(text))!;

    private static JsonArray NamedPorts(Pod pod)
    {
        var ports = new JsonArray();
        foreach (var port in (pod.Spec?.Containers ?? []).SelectMany(container => container?.Ports ?? []))
        {
            if (port is { Name: { Length: > 0 } name, ContainerPort: > 0 and <= ushort.MaxValue })
                ports.Add((JsonNode)new JsonObject { ["name"] = name, ["port"] = port.ContainerPort, ["protocol"] = port.Protocol ?? "TCP" });
        }
        return ports;
    }
}
