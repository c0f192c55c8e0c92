using System.Text.Json.Nodes;
using Mesh.KubeApi.Objects;

namespace Mesh.KubeApi.Patching;

/// <summary>
/// How lists of built-in kinds merge: by which key strategic merge patches match items (one key), and by which keys server-side apply
/// does (all of them). A list that is not named here is replaced as a whole. Facts of the Kubernetes API reference.
/// </summary>
internal static class ListKeys
{
    /// <summary>Name of the list, or end of its path when the name alone says different things → keys of server-side apply;
    /// the first is the merge key.</summary>
    private static readonly Dictionary<string, string[]> ByName = new(StringComparer.Ordinal)
    {
        ["containers"] = ["name"],
        ["initContainers"] = ["name"],
        ["ephemeralContainers"] = ["name"],
        ["volumes"] = ["name"],
        ["env"] = ["name"],
        ["imagePullSecrets"] = ["name"],
        ["hostAliases"] = ["ip"],
        ["volumeMounts"] = ["mountPath"],
        ["volumeDevices"] = ["devicePath"],
        ["ownerReferences"] = ["uid"],
        ["conditions"] = ["type"],
        ["podIPs"] = ["ip"],
        ["secrets"] = ["name"],
        ["topologySpreadConstraints"] = ["topologyKey", "whenUnsatisfiable"],
    };

    /// <summary>Lists of plain values that are sets.</summary>
    private static readonly HashSet<string> Sets = ["finalizers", "podCIDRs", "loadBalancerSourceRanges_"];

    public static string[]? Keys(string group, string kind, IReadOnlyList<string> path)
    {
        var name = path[^1];
        var parent = path.Count > 1 ? path[^2] : "";
        return name switch
        {
            "ports" when kind == "Service" && parent == "spec" => ["port", "protocol"],
            "ports" when kind is "EndpointSlice" or "Endpoints" or "NetworkPolicy" => null,
            "ports" when group is "" or "apps" or "batch" => ["containerPort", "protocol"],
            "addresses" when kind == "Node" => ["type"],
            "taints" when kind == "Node" => null,
            "conditions" when group is "" or "apps" or "batch" or "policy" or "apiextensions.k8s.io" or "networking.k8s.io" => ["type"],
            "secrets" when kind != "ServiceAccount" => null,
            "conditions" => null,
            _ => ByName.GetValueOrDefault(name),
        };
    }

    /// <summary>The one key of strategic merge; "" = a set of plain values; null = replace.</summary>
    public static string? MergeKey(string group, string kind, IReadOnlyList<string> path) =>
        Sets.Contains(path[^1]) ? ""
        : kind == "Node" && path[^1] == "taints" ? null
        : path[^1] == "podIPs" ? "ip"
        : Keys(group, kind, path)?[0];

    public static bool IsSet(IReadOnlyList<string> path) => Sets.Contains(path[^1]);

    /// <summary>What of an item the keys say, as text; absent protocol is TCP.</summary>
    public static string KeyOf(JsonNode? item, string[] keys) =>
        string.Join(",", keys.Select(key => Json.Text((item as JsonObject)?[key] ?? (key == "protocol" ? "TCP" : null))));
}
