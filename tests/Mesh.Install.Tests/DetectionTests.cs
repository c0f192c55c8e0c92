using System.Text.Json.Nodes;
using Mesh.Install.Detecting;
using Mesh.Install.Text;
using Xunit;

namespace Mesh.Install.Tests;

public class DetectionTests
{
    [Theory]
    [InlineData("spec: {providerID: kind://docker/tokyo/node}", "v1.31.0", ClusterFlavor.Kind)]
    [InlineData("metadata: {labels: {minikube.k8s.io/name: minikube}}", "v1.31.0", ClusterFlavor.Minikube)]
    [InlineData("spec: {providerID: k3s://node}", "v1.31.0+k3s1", ClusterFlavor.K3s)]
    [InlineData("metadata: {}", "v1.31.0+k3s1", ClusterFlavor.K3s)]
    [InlineData("{spec: {providerID: 'aws:///eu/i-1'}, metadata: {labels: {eks.amazonaws.com/nodegroup: a}}}", "v1.31.0-eks-a", ClusterFlavor.Eks)]
    [InlineData("metadata: {labels: {cloud.google.com/gke-nodepool: a}}", "v1.31.0-gke.1", ClusterFlavor.Gke)]
    [InlineData("metadata: {labels: {kubernetes.azure.com/cluster: a}}", "v1.31.0", ClusterFlavor.Aks)]
    [InlineData("spec: {providerID: 'aws:///eu/i-1'}", "v1.31.0", ClusterFlavor.Plain)]
    public void Who_made_a_cluster_shows(string node, string version, ClusterFlavor expected) =>
        Assert.Equal(expected, ClusterFacts.FlavorOf([Node(node)], version));

    [Theory]
    [InlineData(ClusterFlavor.Kind, "kind-tokyo", "tokyo")]
    [InlineData(ClusterFlavor.Eks, "arn:aws:eks:eu-west-1:1234:cluster/Osaka_Prod", "osaka-prod")]
    [InlineData(ClusterFlavor.Gke, "gke_project_europe-west1_kyoto", "kyoto")]
    [InlineData(ClusterFlavor.Plain, "kubernetes-admin@nara", "nara")]
    [InlineData(ClusterFlavor.K3s, "default", "k3s-01234567")]
    [InlineData(ClusterFlavor.Plain, "kubernetes-admin@kubernetes", "plain-01234567")]
    [InlineData(ClusterFlavor.Plain, null, "plain-01234567")]
    [InlineData(ClusterFlavor.Plain, "a-name-that-is-far-too-long-for-a-cluster", "a-name-that-is-far-too-long-for")]
    public void A_context_gives_the_name(ClusterFlavor flavor, string? context, string expected) =>
        Assert.Equal(expected, Choice.NameOf(Facts(flavor), context));

    [Fact]
    public void Pools_follow_the_number_and_avoid_nodes_and_services()
    {
        Assert.Equal("10.7.0.0/16", Pool(7, "192.168.0.2", "10.96.0.1"));
        Assert.Equal("10.107.0.0/16", Pool(7, "10.7.0.2", "10.200.0.1"));
        // 10.100 is among the services when their range is a /12 around 10.96.
        Assert.Equal("10.200.0.0/16", Pool(100, "192.168.0.2", "10.96.0.1"));

        static string Pool(long id, string node, string service)
        {
            var facts = Facts(ClusterFlavor.Plain, Node($"status: {{addresses: [{{type: InternalIP, address: {node}}}]}}")) with { ServiceAddress = service };
            var picked = Choice.Pick(facts, new Map().Set("cluster.id", id), "tokyo");
            return (string)((List<object?>)picked.Single(pick => pick.Name.EndsWith("IPv4PodCIDRList", StringComparison.Ordinal)).Value!)[0]!;
        }
    }

    [Fact]
    public void Ranges_of_Kubernetes_are_used_when_every_node_has_one()
    {
        var dual = Node("spec: {podCIDRs: [10.244.0.0/24, 'fd00::/64']}");
        Assert.Equal(["kubernetes", true], Choice.Pick(Facts(ClusterFlavor.Kind, dual, dual), [], "kind-a")
            .Where(pick => pick.Name is "ipam.mode" or "ipv6.enabled").Select(pick => pick.Value));
        Assert.Contains(Choice.Pick(Facts(ClusterFlavor.Kind, dual, Node("spec: {}")), [], "kind-a"),
            pick => pick is { Name: "ipam.mode", Value: "cluster-pool" });
    }

    [Fact]
    public void Without_kube_proxy_the_API_server_itself_is_named()
    {
        var facts = Facts(ClusterFlavor.Plain) with { HasKubeProxy = false, ApiEndpoint = ("192.0.2.10", 6443) };
        var picked = Choice.Pick(facts, [], "a").ToDictionary(pick => pick.Name, pick => pick.Value);
        Assert.Equal((true, "192.0.2.10", "6443"), (picked["kubeProxyReplacement"], picked["k8sServiceHost"], picked["k8sServicePort"]));
        Assert.DoesNotContain(Choice.Pick(facts with { HasKubeProxy = true }, [], "a"), pick => pick.Name == "k8sServiceHost");
    }

    [Fact]
    public void What_was_said_is_not_picked()
    {
        var given = YamlText.ParseMap("{cluster: {name: x, id: 9}, ipam: {mode: cluster-pool}, kubeProxyReplacement: false}", "values");
        Assert.Empty(Choice.Pick(Facts(ClusterFlavor.Kind), given, "kind-tokyo"));
    }

    private static ClusterFacts Facts(ClusterFlavor flavor, params JsonObject[] nodes) =>
        new(flavor, "01234567-89ab-cdef", "v1.31.0", nodes, HasKubeProxy: true, null, "10.96.0.1");

    private static JsonObject Node(string yaml) => (JsonObject)YamlText.ParseJson(yaml, "node")!;
}
