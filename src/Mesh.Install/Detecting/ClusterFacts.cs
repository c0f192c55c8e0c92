using System.Text.Json.Nodes;
using Mesh.Kubernetes.Api;

namespace Mesh.Install.Detecting;

/// <summary>Who made a cluster, as far as it shows.</summary>
public enum ClusterFlavor
{
    Plain,
    Kind,
    Minikube,
    K3s,
    Eks,
    Gke,
    Aks,
}

/// <summary>What a cluster says of itself, as far as an installation depends on it.</summary>
/// <param name="Uid">Of namespace kube-system: the cluster's own, for ever.</param>
/// <param name="Version">Such as v1.31.2.</param>
/// <param name="Nodes">All Node objects.</param>
/// <param name="HasKubeProxy">Pods of kube-proxy exist, or the distribution runs it inside of itself.</param>
/// <param name="ApiEndpoint">Where the API server is reached without services, HOST and PORT; null when it does not say.</param>
/// <param name="ServiceAddress">An address of the service range: that of default/kubernetes.</param>
public sealed record ClusterFacts(
    ClusterFlavor Flavor, string Uid, string Version, IReadOnlyList<JsonObject> Nodes, bool HasKubeProxy, (string Host, int Port)? ApiEndpoint,
    string? ServiceAddress)
{
    /// <exception cref="KubeApiException">It cannot be asked.</exception>
    public static async Task<ClusterFacts> ReadAsync(KubeClient client, CancellationToken cancellation)
    {
        var version = await client.GetVersionAsync(cancellation);
        var nodes = await client.ListAsync(KubeResources.Nodes.Raw, null, cancellation);
        var system = await client.FindAsync(KubeResources.Namespaces.Raw, null, "kube-system", cancellation);
        var flavor = FlavorOf(nodes, version.GitVersion);
        var proxies = await client.ListAsync(KubeResources.Pods.Raw, "kube-system", cancellation, new KubeSelection { LabelSelector = "k8s-app=kube-proxy" });
        if (proxies.Count == 0)
            proxies = await client.ListAsync(KubeResources.Pods.Raw, "kube-system", cancellation, new KubeSelection { LabelSelector = "component=kube-proxy" });
        var slices = await client.ListAsync(KubeResources.EndpointSlices.Raw, "default", cancellation,
            new KubeSelection { LabelSelector = "kubernetes.io/service-name=kubernetes" });
        var service = await client.FindAsync(KubeResources.Services.Raw, "default", "kubernetes", cancellation);
        return new ClusterFacts(flavor, (string?)system?["metadata"]?["uid"] ?? "", version.GitVersion, nodes,
            proxies.Count > 0 || flavor == ClusterFlavor.K3s, slices.Select(Endpoint).FirstOrDefault(endpoint => endpoint is not null),
            (string?)service?["spec"]?["clusterIP"]);
    }

    public static ClusterFlavor FlavorOf(IReadOnlyList<JsonObject> nodes, string version)
    {
        var marks = new List<(ClusterFlavor Flavor, Func<JsonObject, bool> Shows)>
        {
            (ClusterFlavor.Kind, node => Provider(node).StartsWith("kind://", StringComparison.Ordinal)),
            (ClusterFlavor.Minikube, node => HasLabel(node, "minikube.k8s.io/")),
            (ClusterFlavor.K3s, node => Provider(node).StartsWith("k3s://", StringComparison.Ordinal)
                || Label(node, "node.kubernetes.io/instance-type") == "k3s"),
            (ClusterFlavor.Eks, node => HasLabel(node, "eks.amazonaws.com/")),
            (ClusterFlavor.Gke, node => HasLabel(node, "cloud.google.com/gke-")),
            (ClusterFlavor.Aks, node => HasLabel(node, "kubernetes.azure.com/")),
        };
        foreach (var (flavor, shows) in marks)
        {
            if (nodes.Any(shows))
                return flavor;
        }
        if (version.Contains("+k3s", StringComparison.Ordinal))
            return ClusterFlavor.K3s;
        if (version.Contains("-eks-", StringComparison.Ordinal))
            return ClusterFlavor.Eks;
        return version.Contains("-gke.", StringComparison.Ordinal) ? ClusterFlavor.Gke : ClusterFlavor.Plain;
    }

    /// <summary>Addresses of all nodes.</summary>
    public IEnumerable<string> NodeAddresses => Nodes.SelectMany(node => node["status"]?["addresses"] as JsonArray ?? [])
        .Where(address => (string?)address?["type"] is "InternalIP" or "ExternalIP").Select(address => (string)address!["address"]!);

    /// <summary>Ranges that Kubernetes itself gave a node.</summary>
    public static IReadOnlyList<string> PodRanges(JsonObject node) => node["spec"]?["podCIDRs"] is JsonArray { Count: > 0 } ranges
        ? [.. ranges.Select(range => (string)range!)]
        : (string?)node["spec"]?["podCIDR"] is { Length: > 0 } range ? [range] : [];

    private static (string Host, int Port)? Endpoint(JsonObject slice) =>
        (string?)slice["endpoints"]?.AsArray().FirstOrDefault()?["addresses"]?.AsArray().FirstOrDefault() is { } host
            && (int?)slice["ports"]?.AsArray().FirstOrDefault()?["port"] is { } port
            ? (host, port)
            : null;

    private static string Provider(JsonObject node) => (string?)node["spec"]?["providerID"] ?? "";

    private static string? Label(JsonObject node, string name) => (string?)node["metadata"]?["labels"]?[name];

    private static bool HasLabel(JsonObject node, string prefix) =>
        (node["metadata"]?["labels"] as JsonObject ?? []).Any(label => label.Key.StartsWith(prefix, StringComparison.Ordinal));
}
