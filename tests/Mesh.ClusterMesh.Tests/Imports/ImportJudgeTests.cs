using Mesh.ClusterMesh.Imports;
using Mesh.ClusterMesh.Wire;
using Mesh.Model;
using Xunit;

namespace Mesh.ClusterMesh.Tests.Imports;

/// <summary>What a peer may claim. The world: own nodes 172.30.1.0/24 with pods in 10.1.0.0/16, peer falcon pinned to pods 10.7.0.0/16 and nodes
/// 172.30.7.0/24, peer osprey pinned to pods 10.8.0.0/16; falcon has one node, 172.30.7.31 with health address 10.7.0.2.</summary>
public sealed class ImportJudgeTests
{
    private static readonly ImportPolicy Pinned = ImportPolicyFile.Parse(
        """{"podCIDRs":["10.7.0.0/16","fd07::/64"],"nodeCIDRs":["172.30.7.0/24"],"namespaces":["shop","kube-*"]}""", "falcon");

    private static readonly OwnGround Own = new(new HashSet<IpAddr> { IpAddr.Parse("172.30.1.11") }, PrefixSet.Of("10.1.0.0/16"));

    private readonly NodeAddresses _nodes = new();

    private ImportJudge Judge(ImportPolicy policy)
    {
        _nodes.Set("n1", new NodeRecord
        {
            Name = "n1",
            IPAddresses = [new() { Type = "InternalIP", IP = "172.30.7.31" }, new() { Type = "CiliumInternalIP", IP = "10.7.0.1" }],
            IPv4HealthIP = "10.7.0.2",
        });
        var pins = new Pins();
        pins.Set("falcon", policy);
        pins.Set("osprey", ImportPolicyFile.Parse("""{"podCIDRs":["10.8.0.0/16"]}""", "osprey"));
        return new ImportJudge("falcon", policy, () => Own, () => pins.Ranges, _nodes);
    }

    private static ImportPolicy Policy(string name) => name switch
    {
        "pinned" => Pinned,
        "learned" => ImportPolicyFile.Parse("{}", "falcon"),
        _ => ImportPolicy.Default,
    };

    private static string Text(Refusal? refusal) =>
        refusal is { } found ? $"{found.Reason.Word()}{(found.AwaitsNode ? "?" : "")}: {found.Text}" : "";

    [Theory]
    // address, HostIP, identity, namespace → the refusal under pins, with learned nodes, without a file
    [InlineData("10.7.0.9", "172.30.7.31", 458753u, "shop", "", "", "")]
    [InlineData("10.7.0.9", "", 458753u, "", "", "", "")]
    [InlineData("fd07::9", "172.30.7.31", 458753u, "shop", "", "", "")]
    [InlineData("10.9.0.9", "172.30.7.31", 458753u, "shop", "address: 10.9.0.9/32 is outside its ranges", "", "")]
    [InlineData("10.0.0.0/8", "172.30.7.31", 458753u, "shop", "address: 10.0.0.0/8 is in a pod range of this cluster", "=", "=")]
    [InlineData("10.1.0.9", "172.30.7.31", 458753u, "shop", "address: 10.1.0.9/32 is in a pod range of this cluster", "=", "=")]
    [InlineData("172.30.1.11", "172.30.7.31", 6u, "", "address: 172.30.1.11/32 is an address of this cluster's nodes", "=", "=")]
    [InlineData("10.8.0.9", "172.30.7.31", 458753u, "shop", "address: 10.8.0.9/32 is in a range pinned to cluster osprey", "=", "=")]
    [InlineData("127.0.0.1", "172.30.7.31", 458753u, "shop", "address: 127.0.0.1/32 is loopback", "=", "=")]
    [InlineData("224.0.0.9", "172.30.7.31", 458753u, "shop", "address: 224.0.0.9/32 is loopback, link-local, multicast", "=", "=")]
    [InlineData("fe80::9", "172.30.7.31", 458753u, "shop", "address: fe80::9/128 is loopback", "=", "=")]
    [InlineData("0.0.0.0/0", "", 2u, "", "address: 0.0.0.0/0 is loopback", "=", "=")]
    [InlineData("10.7.0.9", "192.0.2.66", 458753u, "shop", "tunnel-endpoint: tunnel endpoint 192.0.2.66 is outside its node ranges",
        "tunnel-endpoint?: tunnel endpoint 192.0.2.66 is none of its nodes", "")]
    [InlineData("10.7.0.9", "172.30.7.99", 458753u, "shop", "", "tunnel-endpoint?: tunnel endpoint 172.30.7.99 is none", "")]
    [InlineData("10.7.0.9", "172.30.1.11", 458753u, "shop", "tunnel-endpoint: tunnel endpoint 172.30.1.11 is an address of this", "=", "=")]
    [InlineData("10.7.0.2", "172.30.7.31", 4u, "", "", "", "")]
    [InlineData("172.30.7.31", "", 6u, "", "", "", "")]
    [InlineData("10.7.0.9", "172.30.7.31", 4u, "", "reserved-identity?: reserved identity 4 on 10.7.0.9/32", "=", "")]
    [InlineData("10.7.0.0/24", "172.30.7.31", 8u, "", "reserved-identity?: reserved identity 8 on 10.7.0.0/24", "=", "")]
    [InlineData("10.7.0.9", "172.30.7.31", 0u, "", "", "", "")]
    [InlineData("10.7.0.9", "172.30.7.31", 458753u, "bank", "namespace: namespace 'bank' is not granted", "", "")]
    [InlineData("10.7.0.9", "172.30.7.31", 458753u, "kube-system", "", "", "")]
    public void An_address(string address, string host, uint identity, string ns, string pinned, string learned, string without)
    {
        var pair = new IpIdentityPair { IP = address, HostIP = host, ID = identity, K8sNamespace = ns };
        foreach (var (policy, expected) in new[] { ("pinned", pinned), ("learned", learned), ("without", without) })
        {
            var refusal = Text(Judge(Policy(policy)).Ip(IpPrefix.Parse(address), pair));
            Assert.StartsWith(expected == "=" ? pinned : expected, refusal);
            Assert.Equal(expected.Length == 0, refusal.Length == 0);
        }
    }

    [Theory]
    [InlineData("InternalIP 172.30.7.32, CiliumInternalIP 10.7.1.1", "10.7.1.0/24", "", "")]
    [InlineData("InternalIP 192.0.2.66", "10.7.1.0/24", "tunnel-endpoint: InternalIP 192.0.2.66 is outside its node ranges", "")]
    [InlineData("InternalIP 172.30.7.32, ExternalIP 8.8.8.8", "", "tunnel-endpoint: ExternalIP 8.8.8.8 is outside", "")]
    [InlineData("InternalIP 172.30.7.32, CiliumInternalIP 192.0.2.1", "", "address: CiliumInternalIP 192.0.2.1 is outside its ranges", "")]
    [InlineData("InternalIP 172.30.7.32", "10.9.0.0/24", "address: pod range 10.9.0.0/24 is outside its ranges", "")]
    [InlineData("InternalIP 172.30.7.32", "10.1.7.0/24", "address: pod range 10.1.7.0/24 is in a pod range of this cluster", "=")]
    [InlineData("InternalIP 172.30.7.32", "10.0.0.0/8", "address: pod range 10.0.0.0/8 is in a pod range of this cluster", "=")]
    [InlineData("InternalIP 172.30.1.11", "", "address: InternalIP 172.30.1.11 is an address of this cluster's nodes", "=")]
    [InlineData("InternalIP 127.0.0.1", "", "address: InternalIP 127.0.0.1 is loopback", "=")]
    [InlineData("InternalIP 169.254.7.1", "", "address: InternalIP 169.254.7.1 is loopback, link-local", "=")]
    public void A_node(string addresses, string podCidr, string pinned, string without)
    {
        var node = new NodeRecord
        {
            Name = "n2",
            IPAddresses = [.. addresses.Split(", ").Select(text => new WireNodeAddress { Type = text.Split(' ')[0], IP = text.Split(' ')[1] })],
            IPv4AllocCIDR = podCidr.Length == 0 ? null : WireCidr.From(IpPrefix.Parse(podCidr)),
        };
        foreach (var (policy, expected) in new[] { ("pinned", pinned), ("without", without) })
        {
            var refusal = Text(Judge(Policy(policy)).Node(node));
            Assert.StartsWith(expected == "=" ? pinned : expected, refusal);
            Assert.Equal(expected.Length == 0, refusal.Length == 0);
        }
    }

    [Theory]
    [InlineData("shop", "10.7.0.9", "", "")]
    [InlineData("shop", "172.30.7.31", "", "")]
    [InlineData("shop", "10.9.0.9", "backend: backend 10.9.0.9 is outside its ranges", "")]
    [InlineData("shop", "127.0.0.1", "backend: backend 127.0.0.1 is loopback", "=")]
    [InlineData("shop", "ff02::1", "backend: backend ff02::1 is loopback", "=")]
    [InlineData("shop", "169.254.169.254", "backend: backend 169.254.169.254 is loopback, link-local", "=")]
    [InlineData("shop", "255.255.255.255", "backend: backend 255.255.255.255 is loopback", "=")]
    [InlineData("shop", "240.7.0.9", "backend: backend 240.7.0.9 is outside its ranges", "")]
    [InlineData("shop", "10.1.0.9", "backend: backend 10.1.0.9 is in a pod range of this cluster", "=")]
    [InlineData("shop", "10.8.0.9", "backend: backend 10.8.0.9 is in a range pinned to cluster osprey", "=")]
    [InlineData("bank", "10.7.0.9", "namespace: namespace 'bank' is not granted", "")]
    public void A_service(string ns, string backend, string pinned, string without)
    {
        var service = new ClusterService
        {
            Backends = new Dictionary<string, IReadOnlyDictionary<string, WirePort>> { [backend] = new Dictionary<string, WirePort>() },
        };
        foreach (var (policy, expected) in new[] { ("pinned", pinned), ("without", without) })
        {
            var refusal = Text(Judge(Policy(policy)).Service(new ServiceName(ns, "cart"), service));
            Assert.StartsWith(expected == "=" ? pinned : expected, refusal);
            Assert.Equal(expected.Length == 0, refusal.Length == 0);
        }
    }

    [Theory]
    [InlineData("k8s:app=cart;k8s:io.kubernetes.pod.namespace=shop;", "")]
    [InlineData("k8s:app=cart;k8s:io.kubernetes.pod.namespace=bank;", "namespace: namespace 'bank' is not granted")]
    [InlineData("k8s:app=cart;", "")]
    public void An_identity(string labels, string pinned)
    {
        Assert.Equal(pinned, Text(Judge(Pinned).Identity(labels)));
        Assert.Null(Judge(ImportPolicy.Default).Identity(labels));
    }
}
