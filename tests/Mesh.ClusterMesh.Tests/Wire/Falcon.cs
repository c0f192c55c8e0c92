using System.Text;
using Mesh.ClusterMesh.Wire;
using Mesh.Model;

namespace Mesh.ClusterMesh.Tests.Wire;

/// <summary>Sound values of cluster falcon, ID 7: what each test of a fault spoils in one place.</summary>
internal static class Falcon
{
    public const string Cluster = "falcon";

    public const string Node =
        """
        {"Name":"n1","Cluster":"falcon","IPAddresses":[{"Type":"InternalIP","IP":"192.0.2.31"},{"Type":"CiliumInternalIP","IP":"10.7.0.1"}],
        "IPv4AllocCIDR":{"IP":"10.7.0.0","Mask":"///8AA=="},"IPv4SecondaryAllocCIDRs":null,
        "IPv6AllocCIDR":{"IP":"fd07::","Mask":"//////////////////8AAA=="},"IPv6SecondaryAllocCIDRs":null,"IPv4HealthIP":"10.7.0.2",
        "IPv6HealthIP":"","IPv4IngressIP":"","IPv6IngressIP":"","ClusterID":7,"Source":"custom-resource","EncryptionKey":0,
        "Labels":{"topology.kubernetes.io/zone":"z1"},"Annotations":null,"NodeIdentity":0,"WireguardPubKey":"","BootID":""}
        """;

    public const string Service =
        """
        {"cluster":"falcon","namespace":"shop","name":"cart","frontends":{"10.96.7.20":{"http":{"Protocol":"TCP","Port":80}}},
        "backends":{"10.7.0.9":{"http":{"Protocol":"TCP","Port":8080}},"fd07::9":{"http":{"Protocol":"TCP","Port":8080}}},
        "hostnames":{"10.7.0.9":"cart-0"},"zones":{"10.7.0.9":{"zone":"z1","forZones":[{"name":"z1"}]}},
        "labels":{},"selector":{"app":"cart"},"includeExternal":true,"shared":true,"clusterID":7}
        """;

    public const string Ip =
        """
        {"IP":"10.7.0.9","Mask":null,"HostIP":"192.0.2.31","ID":459001,"Key":0,"Metadata":"","K8sNamespace":"shop",
        "K8sPodName":"cart-6c9","K8sServiceAccount":"default","NamedPorts":[{"Name":"http","Port":8080,"Protocol":"TCP"}]}
        """;

    public const string Identity =
        "k8s:app=cart;k8s:io.cilium.k8s.policy.cluster=falcon;"
        + "k8s:io.cilium.k8s.policy.serviceaccount=default;k8s:io.kubernetes.pod.namespace=shop;";

    public static ClusterConfig Config => ClusterConfig.SafeProfile(7, 255);

    public static byte[] Bytes(string text) => Encoding.UTF8.GetBytes(text);

    public static RecordValidator Validator(ClusterConfig? config = null, IdentityNumbering? numbering = null) =>
        new(Cluster, config ?? Config, numbering ?? IdentityNumbering.Max255);
}
