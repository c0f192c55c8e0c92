using System.Text.Json.Nodes;

namespace Mesh.Cli.Reachability;

/// <summary>The policies that tests run under, as objects.</summary>
internal sealed class TestPolicies(KubeFacts facts)
{
    private const string ClusterLabel = "io.cilium.k8s.policy.cluster";

    public JsonObject AllIngressDeny() => Cilium("all-ingress-deny", """{"endpointSelector":{},"ingress":[{}]}""");

    public JsonObject AllIngressDenyKnp() => Kubernetes("all-ingress-deny-knp", """{"podSelector":{},"policyTypes":["Ingress"],"ingress":[]}""");

    public JsonObject ClientIngress() => Cilium("client-ingress",
        """{"endpointSelector":{"matchLabels":{"kind":"client"}},"ingress":[{"fromEndpoints":[{"matchLabels":{"name":"client2"}}]}]}""");

    public JsonObject ClientIngressKnp() => Kubernetes("client-ingress-knp",
        """
        {"podSelector":{"matchLabels":{"kind":"client"}},"policyTypes":["Ingress"],
         "ingress":[{"from":[{"podSelector":{"matchLabels":{"name":"client2"}}}]}]}
        """);

    public JsonObject EchoIngress() => Cilium("echo-ingress",
        $$$"""
        {"endpointSelector":{"matchLabels":{"kind":"echo"}},
         "ingress":[{"fromEndpoints":[{"matchLabels":{"name":"client2"}{{{AnyCluster}}}}],"toPorts":[{{{HttpPort}}}]}]}
        """);

    public JsonObject EchoIngressKnp() => Kubernetes("echo-ingress-knp",
        """
        {"podSelector":{"matchLabels":{"kind":"echo"}},"policyTypes":["Ingress"],
         "ingress":[{"from":[{"podSelector":{"matchLabels":{"name":"client2"}}}],"ports":[{"port":8080,"protocol":"TCP"}]}]}
        """);

    public JsonObject ClientEgress() => Cilium("client-egress",
        $$$"""
        {"endpointSelector":{"matchLabels":{"kind":"client"}},
         "egress":[{"toEndpoints":[{"matchLabels":{"kind":"echo"}{{{AnyCluster}}}}],"toPorts":[{{{HttpPort}}}]}]}
        """);

    public JsonObject ClientEgressKnp() => Kubernetes("client-egress-knp",
        """
        {"podSelector":{"matchLabels":{"kind":"client"}},"policyTypes":["Egress"],
         "egress":[{"to":[{"podSelector":{"matchLabels":{"kind":"echo"}}}],"ports":[{"port":8080,"protocol":"TCP"}]}]}
        """);

    public JsonObject ClusterEntity() => Cilium("cluster-entity",
        """{"endpointSelector":{"matchLabels":{"kind":"client"}},"egress":[{"toEntities":["cluster"]}]}""");

    private static string HttpPort => """{"ports":[{"port":"8080","protocol":"TCP"}]}""";

    /// <summary>Names all clusters: without, a selector may mean the own one alone.</summary>
    private string AnyCluster => !facts.IsMultiCluster ? ""
        : $$""","matchExpressions":[{"key":"{{ClusterLabel}}","operator":"In","values":[{{string.Join(',', facts.Clusters.Select(one => $"\"{one}\""))}}]}]""";

    private JsonObject Cilium(string name, string spec) => Make("cilium.io/v2", "CiliumNetworkPolicy", name, spec);

    private JsonObject Kubernetes(string name, string spec) => Make("networking.k8s.io/v1", "NetworkPolicy", name, spec);

    private JsonObject Make(string apiVersion, string kind, string name, string spec) => new()
    {
        ["apiVersion"] = apiVersion,
        ["kind"] = kind,
        ["metadata"] = new JsonObject { ["name"] = name, ["namespace"] = facts.Namespace },
        ["spec"] = JsonNode.Parse(spec),
    };
}
