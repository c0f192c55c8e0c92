using Xunit;

namespace Mesh.Kubernetes.Tests;

/// <summary>Policies come by the same door as everything else, and nothing in them is passed over.</summary>
public class PolicyManifestTests
{
    private const string Web = """
        apiVersion: cilium.io/v2
        kind: CiliumNetworkPolicy
        metadata: {name: web, namespace: shop}
        spec:
          endpointSelector: {matchLabels: {app: web}}
          ingress:
          - fromEntities: [cluster]
            toPorts:
            - ports: [{port: "80", protocol: TCP}]

        """;

    [Fact]
    public async Task All_three_kinds_are_read()
    {
        await using var manifests = new Manifests();
        manifests.Write("policies.yaml", Web + """
            ---
            apiVersion: networking.k8s.io/v1
            kind: NetworkPolicy
            metadata: {name: deny}
            spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
            ---
            apiVersion: cilium.io/v2
            kind: CiliumClusterwideNetworkPolicy
            metadata: {name: everywhere}
            spec: {endpointSelector: {}, egress: [{toCIDRSet: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}]}]}
            """);
        await manifests.UntilObjects("CiliumClusterwideNetworkPolicy everywhere, CiliumNetworkPolicy shop/web, NetworkPolicy default/deny");
        Assert.Equal("", manifests.Problems);
    }

    [Fact]
    public async Task A_policy_with_an_unknown_field_keeps_its_previous_version()
    {
        await using var manifests = new Manifests();
        manifests.Write("policy.yaml", Web);
        await manifests.UntilObjects("CiliumNetworkPolicy shop/web");
        manifests.Write("policy.yaml", Web.Replace("fromEntities", "fromEntites", StringComparison.Ordinal));
        await manifests.UntilProblem("CiliumNetworkPolicy shop/web: spec.ingress[0].fromEntites is not known: "
            + "remove it, or mend its name; its previous version stays");
        await manifests.UntilObjects("CiliumNetworkPolicy shop/web");
        manifests.Write("policy.yaml", Web);
        await manifests.UntilNoProblem();
    }
}
