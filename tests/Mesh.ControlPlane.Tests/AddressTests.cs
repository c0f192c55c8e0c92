using Mesh.ControlPlane.Endpoints;
using Mesh.Model;
using Xunit;

namespace Mesh.ControlPlane.Tests;

/// <summary>Nodes, pods and records in, ipcache out.</summary>
public class AddressTests
{
    private readonly World _world = new();

    private void LocalNode() => _world.Apply(Given.Node("osaka-1", "InternalIP 172.30.0.21", "CiliumInternalIP 10.2.0.1", "10.2.0.0/24"));

    [Fact]
    public void This_nodes_own_addresses_are_the_host()
    {
        LocalNode();
        Assert.Equal("10.2.0.1/32 1 (Local osaka)\n172.30.0.21/32 1 (Local osaka)", _world.Addresses);
        Assert.True(_world.Nodes.LocalNode.IsCompletedSuccessfully);
    }

    [Fact]
    public void Another_node_brings_its_addresses_and_its_pod_range_as_a_fallback()
    {
        LocalNode();
        _world.HearNode("tokyo", 1, "tokyo-1", Given.NodeRecord("tokyo", 1, "tokyo-1", "192.0.2.11", "10.1.0.1", "10.1.0.0/24") with
        {
            IPv4HealthIP = "10.1.0.200",
        });
        Assert.Equal(
            """
            10.1.0.0/24 2 via 192.0.2.11 (PodCidr tokyo)
            10.1.0.1/32 6 via 192.0.2.11 (Node tokyo)
            10.1.0.200/32 4 via 192.0.2.11 (Node tokyo)
            10.2.0.1/32 1 (Local osaka)
            172.30.0.21/32 1 (Local osaka)
            192.0.2.11/32 6 (Node tokyo)
            """, _world.Addresses);

        _world.HearNode("tokyo", 1, "tokyo-1", null);
        Assert.Equal("10.2.0.1/32 1 (Local osaka)\n172.30.0.21/32 1 (Local osaka)", _world.Addresses);
    }

    [Fact]
    public void A_node_that_changes_its_underlay_address_takes_its_entries_along()
    {
        LocalNode();
        _world.HearNode("tokyo", 1, "tokyo-1", Given.NodeRecord("tokyo", 1, "tokyo-1", "192.0.2.11", "10.1.0.1", "10.1.0.0/24"));
        _world.HearNode("tokyo", 1, "tokyo-1", Given.NodeRecord("tokyo", 1, "tokyo-1", "192.0.2.77", "10.1.0.1", "10.1.0.0/24"));
        Assert.Contains("10.1.0.0/24 2 via 192.0.2.77", _world.Addresses);
        Assert.DoesNotContain("192.0.2.11", _world.Addresses);
    }

    [Fact]
    public void With_a_local_node_on_IPv6_the_tunnels_use_IPv6()
    {
        _world.HearNode("tokyo", 1, "tokyo-1", Given.NodeRecord("tokyo", 1, "tokyo-1", "192.0.2.11", "10.1.0.1", "10.1.0.0/24") with
        {
            IPAddresses =
            [
                new() { Type = "InternalIP", IP = "192.0.2.11" },
                new() { Type = "InternalIP", IP = "fd00:30::11" },
                new() { Type = "CiliumInternalIP", IP = "10.1.0.1" },
            ],
        });
        Assert.Contains("10.1.0.0/24 2 via 192.0.2.11", _world.Addresses);

        _world.Apply(Given.Node("osaka-1", "InternalIP fd00:30::21", "10.2.0.0/24"));
        Assert.Contains("10.1.0.0/24 2 via fd00:30::11", _world.Addresses);
        Assert.Contains("10.1.0.1/32 6 via fd00:30::11", _world.Addresses);
    }

    [Fact]
    public void A_remote_pod_is_reached_through_its_node_and_a_remote_host_is_a_remote_node()
    {
        _world.HearAddress("tokyo", 1, "10.1.0.11", Given.Address("10.1.0.11", 65537, "192.0.2.11", "rebel-base-1"));
        _world.HearAddress("tokyo", 1, "10.1.0.9", Given.Address("10.1.0.9", NumericIdentity.Host, ""));
        Assert.Equal(
            "10.1.0.9/32 6 (ClusterMesh tokyo)\n10.1.0.11/32 65537 via 192.0.2.11 default/rebel-base-1 (ClusterMesh tokyo)", _world.Addresses);
    }

    [Fact]
    public void Pods_of_this_node_need_no_tunnel_and_those_of_its_neighbours_do()
    {
        LocalNode();
        _world.Apply(Given.Pod("here", "10.2.0.5", 131073, "172.30.0.21"), Given.Pod("there", "10.2.1.5", 131073, "172.30.0.22"));
        Assert.Contains("10.2.0.5/32 131073 default/here (Local osaka)", _world.Addresses);
        Assert.Contains("10.2.1.5/32 131073 via 172.30.0.22 default/there (Local osaka)", _world.Addresses);
    }

    [Fact]
    public void A_pod_known_before_its_node_loses_its_tunnel_when_the_node_proves_to_be_this_one()
    {
        _world.Apply(Given.Pod("here", "10.2.0.5", 131073, "172.30.0.21"));
        Assert.Contains("10.2.0.5/32 131073 via 172.30.0.21", _world.Addresses);
        LocalNode();
        Assert.Contains("10.2.0.5/32 131073 default/here", _world.Addresses);
    }

    [Fact]
    public void An_address_given_to_the_next_pod_survives_the_late_deletion_of_the_first()
    {
        _world.Apply(Given.Pod("first", "10.2.0.5", 131073, "172.30.0.22"));
        _world.Apply(Given.Pod("second", "10.2.0.5", 131074, "172.30.0.22"));
        _world.Delete(Given.Pod("first", "10.2.0.5", 131073, "172.30.0.22"));
        Assert.Equal("10.2.0.5/32 131074 via 172.30.0.22 default/second (Local osaka)", _world.Addresses);
        Assert.Equal(0, _world.IPCache.Disputed);
    }

    [Fact]
    public void Remote_data_never_overrides_what_is_known_here()
    {
        _world.Apply(Given.Pod("mine", "10.2.0.5", 131073, "172.30.0.22"));
        _world.HearAddress("tokyo", 1, "10.2.0.5", Given.Address("10.2.0.5", 65537, "192.0.2.11"));
        Assert.Equal("10.2.0.5/32 131073 via 172.30.0.22 default/mine (Local osaka)", _world.Addresses);

        _world.Delete(Given.Pod("mine", "10.2.0.5", 131073, "172.30.0.22"));
        Assert.Equal("10.2.0.5/32 65537 via 192.0.2.11 (ClusterMesh tokyo)", _world.Addresses);
    }

    [Fact]
    public void An_address_that_two_clusters_claim_stays_when_one_of_them_deletes_it()
    {
        foreach (var first in new[] { "tokyo", "kyoto" })
        {
            _world.HearAddress("tokyo", 1, "10.1.0.11", Given.Address("10.1.0.11", 65537, "192.0.2.11"));
            _world.HearAddress("kyoto", 3, "10.1.0.11", Given.Address("10.1.0.11", 196609, "192.0.2.31"));
            Assert.Equal("10.1.0.11/32 196609 via 192.0.2.31 (ClusterMesh kyoto)", _world.Addresses);
            _world.HearAddress(first, first == "tokyo" ? 1u : 3u, "10.1.0.11", null);
            Assert.Equal(first == "tokyo" ? "10.1.0.11/32 196609 via 192.0.2.31 (ClusterMesh kyoto)"
                : "10.1.0.11/32 65537 via 192.0.2.11 (ClusterMesh tokyo)", _world.Addresses);
            _world.HearAddress(first == "tokyo" ? "kyoto" : "tokyo", first == "tokyo" ? 3u : 1u, "10.1.0.11", null);
            Assert.Equal("", _world.Addresses);
            Assert.Equal(0, _world.IPCache.Disputed);
        }
    }

    [Fact]
    public void Removing_a_cluster_takes_its_addresses_nodes_and_identities()
    {
        _world.HearAddress("tokyo", 1, "10.1.0.11", Given.Address("10.1.0.11", 65537, "192.0.2.11"));
        _world.HearAddress("kyoto", 3, "10.3.0.11", Given.Address("10.3.0.11", 196609, "192.0.2.31"));
        _world.HearNode("tokyo", 1, "tokyo-1", Given.NodeRecord("tokyo", 1, "tokyo-1", "192.0.2.11", "10.1.0.1", "10.1.0.0/24"));
        _world.Identities.ApplyRemote("tokyo", [new(65537, "k8s:name=x;k8s:io.cilium.k8s.policy.cluster=tokyo;")]);
        _world.Remote.Drain("tokyo", 1);
        Assert.Equal("10.3.0.11/32 196609 via 192.0.2.31 (ClusterMesh kyoto)", _world.Addresses);
        Assert.Equal("", _world.NodeNames);
        Assert.Equal(0, _world.State.Identities.Count);
    }

    [Fact]
    public void An_endpoint_gets_its_identity_from_its_object_whichever_comes_first()
    {
        LocalNode();
        var endpoint = new Endpoint(7, "default", "here", "lxc7", 12, 1, 2, new EquatableArray<IpAddr>([IpAddr.Parse("10.2.0.5")]), 0);
        Assert.Equal(0u, _world.Endpoints.Register(endpoint).Identity);
        Assert.DoesNotContain("10.2.0.5", _world.Addresses);

        _world.Apply(Given.Pod("here", "10.2.0.5", 131073, "172.30.0.21"));
        Assert.True(_world.State.Endpoints.TryGet(7, out var row));
        Assert.Equal(131073u, row.Identity);

        Assert.Equal(131073u, _world.Endpoints.Register(endpoint with { Id = 8 }).Identity);
        Assert.True(_world.Endpoints.Remove(7));
        Assert.False(_world.Endpoints.Remove(7));
        Assert.Contains("10.2.0.5/32 131073 default/here (Local osaka)", _world.Addresses);
    }
}
