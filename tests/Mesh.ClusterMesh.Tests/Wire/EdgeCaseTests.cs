using System.Reflection;
using Mesh.ClusterMesh.Remote;
using Mesh.ClusterMesh.Tests.Config;
using Mesh.ClusterMesh.Tests.Remote;
using Mesh.ClusterMesh.Wire;
using Mesh.Model;
using Xunit;

namespace Mesh.ClusterMesh.Tests.Wire;

/// <summary>The 55 rows of the contract's table of edge cases. A row about a value is decided here; a row about behaviour names the
/// test that shows it.</summary>
public sealed class EdgeCaseTests
{
    private const string Accepted = "accepted";
    private const string Withdrawn = "withdrawn";

    private static readonly string NodeText = Falcon.Node;

    public static TheoryData<int, string, RemoteResource, string, string, string> Values()
    {
        var rows = new TheoryData<int, string, RemoteResource, string, string, string>();
        const string service = "shop/cart";

        rows.Add(1, "a node of half a document", RemoteResource.Nodes, "n1", NodeText[..100], "malformed JSON");
        rows.Add(1, "a service that is not JSON", RemoteResource.Services, service, "cart", "malformed JSON");
        rows.Add(1, "an ip entry with a comma too many", RemoteResource.IpEntries, "10.7.0.9", Falcon.Ip.Replace("\"Key\":0,",
            "\"Key\":0,,"), "malformed JSON");
        rows.Add(1, "two documents in one value", RemoteResource.Services, service, Falcon.Service + Falcon.Service, "");
        rows.Add(1, "an empty value", RemoteResource.Nodes, "n1", "", "");
        rows.Add(2, "a null node", RemoteResource.Nodes, "n1", "null", "differs from its key");
        rows.Add(2, "an empty service", RemoteResource.Services, service, "{}", "cluster '' is not falcon");
        rows.Add(2, "an empty ip entry", RemoteResource.IpEntries, "10.7.0.9", "{}", "differs from its key");
        Service(3, "an unknown field of any shape", "\"shared\":true", "\"shared\":true,\"later\":{\"a\":[1,{\"b\":null}]}", Accepted);
        Service(4, "field names in another case", "\"clusterID\":7", "\"CLUSTERid\":7", Accepted);
        Node(4, "field names in lower case", "\"Name\"", "\"name\"", Accepted);
        Service(5, "a repeated member, wrong first", "\"cluster\":\"falcon\"", "\"cluster\":\"x\",\"cluster\":\"falcon\"", Accepted);
        Service(5, "a repeated member, wrong last", "\"cluster\":\"falcon\"", "\"cluster\":\"falcon\",\"Cluster\":\"x\"",
            "cluster 'x' is not");
        Service(6, "a number as string", "\"clusterID\":7", "\"clusterID\":\"7\"", "must be an integer");
        Service(6, "a fraction that is none", "\"clusterID\":7", "\"clusterID\":7.0", "not an integer");
        Service(6, "an exponent", "\"clusterID\":7", "\"clusterID\":7e0", "not an integer");
        Ip(6, "a negative identity", "\"ID\":459001", "\"ID\":-459001", "not an integer");
        Ip(6, "an identity beyond 32 bits", "\"ID\":459001", "\"ID\":4294967296", "not an integer");
        Node(6, "EncryptionKey 300", "\"EncryptionKey\":0", "\"EncryptionKey\":300", "not an integer from 0 to 255");
        Service(6, "port 70000", "8080", "70000", "not an integer from 0 to 65535");
        Ip(6, "named port 70000", "\"Port\":8080", "\"Port\":70000", "not an integer from 0 to 65535");
        Service(7, "another cluster's service", "\"cluster\":\"falcon\"", "\"cluster\":\"osprey\"", "is not falcon");
        Service(8, "another name than the key's", "\"name\":\"cart\"", "\"name\":\"card\"", "differs from its key");
        Service(8, "another namespace than the key's", "\"namespace\":\"shop\"", "\"namespace\":\"bank\"", "differs from its key");
        Service(9, "a service of another ID", "\"clusterID\":7", "\"clusterID\":8", "cluster ID 8 is not the advertised 7");
        Node(9, "a node of another ID", "\"ClusterID\":7", "\"ClusterID\":8", "cluster ID 8 is not the advertised 7");
        Service(10, "ID 0", "\"clusterID\":7", "\"clusterID\":0", "cluster ID 0");
        Service(10, "ID above the maximum", "\"clusterID\":7", "\"clusterID\":256", "cluster ID 256");
        foreach (var address in new[] { "", "10.7.0.0/24", "10.0.0.1@3", "010.0.0.1", "fd07::9%", "10.7.0", "[fd07::9]" })
        {
            Service(11, $"backend '{address}'", "fd07::9", address, "is not an IP address");
            Service(11, $"frontend '{address}'", "10.96.7.20", address, "is not an IP address");
        }
        Service(12, "a backend with a zone", "fd07::9", "fe80::9%eth0", Accepted);
        Service(12, "an IPv4-mapped backend", "fd07::9", "::ffff:10.7.0.10", Accepted);
        foreach (var none in new[] { "{}", "null" })
            Service(13, $"backends {none}", "\"backends\":{\"10.7.0.9\":", $"\"backends\":{none},\"x\":{{\"10.7.0.9\":", Accepted);
        Service(13, "no backends at all", "\"backends\"", "\"before\"", Accepted);
        Service(14, "a backend without ports", "\"10.7.0.9\":{\"http\":{\"Protocol\":\"TCP\",\"Port\":8080}}", "\"10.7.0.9\":{}", Accepted);
        Service(14, "a backend with null ports", "\"10.7.0.9\":{\"http\":{\"Protocol\":\"TCP\",\"Port\":8080}}", "\"10.7.0.9\":null",
            Accepted);
        Service(15, "a null port", "{\"Protocol\":\"TCP\",\"Port\":8080}", "null", "port 'http' is null");
        Service(16, "shared: false", "\"shared\":true", "\"shared\":false", Withdrawn);
        Service(16, "shared absent", "\"shared\":true", "\"other\":true", Withdrawn);
        Service(17, "a protocol in lower case", "\"Protocol\":\"TCP\",\"Port\":8080", "\"Protocol\":\"tcp\",\"Port\":8080", Accepted);
        rows.Add(20, "a deeper key", RemoteResource.Services, "shop/cart/x", Falcon.Service, "the key is not NAMESPACE/NAME");
        rows.Add(20, "a shallower key", RemoteResource.Services, "cart", Falcon.Service, "the key is not NAMESPACE/NAME");
        rows.Add(20, "a key ending in a slash", RemoteResource.Services, "shop/", Falcon.Service, "the key is not NAMESPACE/NAME");
        rows.Add(22, "a node under another key", RemoteResource.Nodes, "n2", NodeText, "differs from its key");
        rows.Add(22, "a node without name under no key", RemoteResource.Nodes, "", NodeText.Replace("\"n1\"", "\"\""),
            "differs from its key");
        Node(22, "another cluster's node", "\"falcon\"", "\"osprey\"", "is not falcon");
        Node(22, "a node of no cluster", "\"falcon\"", "\"\"", "is not falcon");
        Node(24, "a node without addresses and ranges", "\"IPAddresses\"", "\"None\"", Accepted);
        Node(25, "a range as string", "{\"IP\":\"10.7.0.0\",\"Mask\":\"///8AA==\"}", "\"10.7.0.0/22\"", "must be an object");
        Node(25, "an empty range", "{\"IP\":\"10.7.0.0\",\"Mask\":\"///8AA==\"}", "{}", "no address range");
        Node(25, "a range with holes in its mask", "///8AA==", "/wD/AA==", "no address range");
        Node(25, "a list of ranges with a null", "\"IPv4SecondaryAllocCIDRs\":null", "\"IPv4SecondaryAllocCIDRs\":[null]", "holds a null");
        Node(26, "an invalid node address", "192.0.2.31", "192.0.2.310", "not an IP address");
        Node(26, "an invalid health address", "10.7.0.2", "ten", "not an IP address");
        Node(26, "an empty node address", "192.0.2.31", "", Accepted);
        Ip(26, "an invalid host address", "192.0.2.31", "host-1", "not an IP address");
        Ip(26, "no host address", "192.0.2.31", "", Accepted);
        rows.Add(27, "another address than the key's", RemoteResource.IpEntries, "10.7.0.8", Falcon.Ip, "differs from its key");
        rows.Add(27, "a key in upper case", RemoteResource.IpEntries, "FD07::9", Falcon.Ip.Replace("10.7.0.9", "fd07::9"),
            "not an address as Go prints it");
        rows.Add(27, "a key not compressed", RemoteResource.IpEntries, "fd07:0::9", Falcon.Ip.Replace("10.7.0.9", "fd07::9"),
            "not an address as Go prints it");
        rows.Add(27, "a value not compressed", RemoteResource.IpEntries, "fd07::9", Falcon.Ip.Replace("10.7.0.9", "FD07:0::9"), Accepted);
        rows.Add(27, "a mask the key does not have", RemoteResource.IpEntries, "10.7.0.9", Falcon.Ip.Replace("null", "\"////AA==\""),
            "differs from its key");
        rows.Add(27, "a mask the value does not have", RemoteResource.IpEntries, "10.7.0.9/24", Falcon.Ip, "differs from its key");
        rows.Add(27, "a range under its key", RemoteResource.IpEntries, "10.7.0.0/24",
            Falcon.Ip.Replace("10.7.0.9", "10.7.0.0").Replace("null", "\"////AA==\""), Accepted);
        rows.Add(28, "an entry without address", RemoteResource.IpEntries, "10.7.0.9", Falcon.Ip.Replace("10.7.0.9", ""),
            "differs from its key");
        rows.Add(28, "the key Go would give it", RemoteResource.IpEntries, "<nil>", Falcon.Ip.Replace("10.7.0.9", ""), "not an address");
        Ip(29, "an identity of another cluster", "459001", "524289", "outside the cluster's range 458752-524287");
        Ip(29, "a node-local identity", "459001", "16777217", "outside the cluster's range");
        Ip(29, "the last of the range", "459001", "524287", Accepted);
        Ip(29, "a reserved identity", "459001", "255", Accepted);
        Ip(30, "identity 1", "459001", "1", Accepted);
        Ip(30, "identity 0", "459001", "0", Accepted);
        Ip(33, "a named port without number", "\"Port\":8080", "\"Port\":0", Accepted);
        Ip(33, "a named port of no protocol", "\"Protocol\":\"TCP\"", "\"Protocol\":\"GRE\"", Accepted);
        rows.Add(34, "a word as identity", RemoteResource.Identities, "seven", Falcon.Identity, "not a decimal identity");
        rows.Add(34, "a negative identity", RemoteResource.Identities, "-459001", Falcon.Identity, "not a decimal identity");
        rows.Add(35, "an identity without labels", RemoteResource.Identities, "459001", "", "no labels");
        rows.Add(36, "an identity of another cluster", RemoteResource.Identities, "65537", Falcon.Identity, "outside the cluster's range");
        rows.Add(36, "a reserved identity", RemoteResource.Identities, "1", Falcon.Identity, "outside the cluster's range");
        rows.Add(37, "no cluster label", RemoteResource.Identities, "459001", "k8s:app=cart;", "lacks the label");
        rows.Add(37, "another cluster's label", RemoteResource.Identities, "459001", Falcon.Identity.Replace("falcon", "falcon2"),
            "lacks the label");
        rows.Add(37, "a cluster label of another source", RemoteResource.Identities, "459001", Falcon.Identity.Replace("k8s:io.cilium",
            "any:io.cilium"), "lacks the label");
        rows.Add(39, "unsorted labels", RemoteResource.Identities, "459001", "k8s:io.cilium.k8s.policy.cluster=falcon;k8s:app=cart;",
            Accepted);
        return rows;

        void Node(int row, string name, string from, string to, string expected) =>
            rows.Add(row, name, RemoteResource.Nodes, "n1", Replaced(NodeText, from, to), expected);

        void Service(int row, string name, string from, string to, string expected) =>
            rows.Add(row, name, RemoteResource.Services, service, Replaced(Falcon.Service, from, to), expected);

        void Ip(int row, string name, string from, string to, string expected) =>
            rows.Add(row, name, RemoteResource.IpEntries, "10.7.0.9", Replaced(Falcon.Ip, from, to), expected);
    }

    private static string Replaced(string text, string from, string to)
    {
        var replaced = text.Replace(from, to, StringComparison.Ordinal);
        Assert.NotEqual(text, replaced);
        return replaced;
    }

    [Theory, MemberData(nameof(Values))]
    public void A_value_is_accepted_or_rejected_with_its_reason(
        int row, string name, RemoteResource resource, string key, string value, string expected)
    {
        Assert.InRange(row, 1, 55);
        var outcome = Decide(Falcon.Validator(), resource, key, value);
        if (expected is Accepted or Withdrawn)
            Assert.True(expected == outcome, $"{name}: {outcome}");
        else
            Assert.True(outcome is not (Accepted or Withdrawn) && outcome.Contains(expected, StringComparison.Ordinal),
                $"{name}: {outcome}");
    }

    private static string Decide(RecordValidator validator, RemoteResource resource, string key, string text)
    {
        var value = Falcon.Bytes(text);
        string? rejection;
        switch (resource)
        {
            case RemoteResource.Nodes:
                return validator.TryNode(key, value, out _, out rejection) ? Accepted : rejection;
            case RemoteResource.Services:
                return validator.TryService(key, value, out _, out var service, out rejection)
                    ? service is null ? Withdrawn : Accepted
                    : rejection;
            case RemoteResource.IpEntries:
                return validator.TryIp(key, value, out _, out _, out rejection) ? Accepted : rejection;
            default:
                return validator.TryIdentity(key, value, out _, out _, out rejection) ? Accepted : rejection;
        }
    }

    /// <summary>Row → the test that shows the behaviour.</summary>
    private static readonly (int Row, Type Class, string Test)[] Behaviours =
    [
        (9, typeof(ClusterIdTests), nameof(ClusterIdTests.An_ID_change_drains_the_old_cluster_and_goes_on_with_the_new_one)),
        (12, typeof(EdgeCaseTests), nameof(A_backend_with_a_zone_is_left_out_of_an_accepted_service)),
        (16, typeof(RemoteClusterTests), nameof(RemoteClusterTests.A_service_no_longer_shared_is_withdrawn)),
        (18, typeof(RemoteClusterTests), nameof(RemoteClusterTests.Every_resource_arrives_as_typed_records)),
        (19, typeof(RemoteClusterTests), nameof(RemoteClusterTests.The_same_address_from_two_clusters_is_handed_on_from_both)),
        (21, typeof(RemoteClusterTests), nameof(RemoteClusterTests.A_sibling_whose_name_begins_alike_is_not_seen)),
        (23, typeof(ConfigDirectoryTests), nameof(ConfigDirectoryTests.A_file_named_like_the_local_cluster_is_ignored)),
        (30, typeof(EdgeCaseTests), nameof(The_peers_host_is_a_remote_node_to_us)),
        (31, typeof(RemoteClusterTests), nameof(RemoteClusterTests.Every_resource_arrives_as_typed_records)),
        (32, typeof(RemoteClusterTests), nameof(RemoteClusterTests.The_same_address_from_two_clusters_is_handed_on_from_both)),
        (33, typeof(EdgeCaseTests), nameof(An_invalid_named_port_is_left_out_of_an_accepted_entry)),
        (36, typeof(RemoteClusterTests), nameof(RemoteClusterTests.Deleting_what_was_never_accepted_is_not_handed_on)),
        (37, typeof(RemoteClusterTests), nameof(RemoteClusterTests.A_hostile_value_disturbs_no_other_record)),
        (38, typeof(RemoteClusterTests), nameof(RemoteClusterTests.An_identity_gets_other_labels_under_its_number)),
        (40, typeof(ClusterIdTests), nameof(ClusterIdTests.A_missing_cluster_config_is_named_and_waited_for)),
        (41, typeof(ClusterIdTests), nameof(ClusterIdTests.A_malformed_cluster_config_is_named_and_waited_for)),
        (42, typeof(ClusterIdTests), nameof(ClusterIdTests.An_impossible_cluster_ID_is_refused)),
        (43, typeof(ClusterIdTests), nameof(ClusterIdTests.Two_peers_that_swap_their_IDs_both_come_back)),
        (44, typeof(ClusterIdTests), nameof(ClusterIdTests.A_mesh_of_511_refuses_a_peer_of_255_and_not_the_other_way_round)),
        (45, typeof(EdgeCaseTests), nameof(A_cluster_name_follows_the_rules)),
        (46, typeof(RemoteClusterTests), nameof(RemoteClusterTests.Deleting_what_was_never_accepted_is_not_handed_on)),
        (47, typeof(RemoteClusterTests), nameof(RemoteClusterTests.A_new_connection_believes_a_list_only_after_its_canary)),
        (48, typeof(RemoteClusterTests), nameof(RemoteClusterTests.A_missing_canary_blocks_only_its_own_resource)),
        (49, typeof(RemoteClusterTests), nameof(RemoteClusterTests.A_stale_heartbeat_reconnects_and_keeps_everything)),
        (50, typeof(RemoteClusterEtcdTests),
            nameof(RemoteClusterEtcdTests.A_wiped_etcd_withdraws_nothing_until_the_cluster_has_written_again)),
        (51, typeof(RemoteClusterTests), nameof(RemoteClusterTests.A_relist_deletes_what_it_no_longer_lists)),
        (52, typeof(ExportedServiceTests), nameof(ExportedServiceTests.What_could_be_no_service_is_rejected_by_name)),
        (53, typeof(EdgeCaseTests), nameof(Exports_are_known_and_slices_are_not_read)),
        (54, typeof(ConfigDirectoryTests), nameof(ConfigDirectoryTests.A_file_named_like_the_local_cluster_is_ignored)),
        (55, typeof(EdgeCaseTests), nameof(A_service_of_ten_thousand_backends_is_read)),
    ];

    [Fact]
    public void Every_row_has_a_case_or_a_test()
    {
        foreach (var (row, type, test) in Behaviours)
        {
            var method = type.GetMethod(test);
            Assert.True(method?.GetCustomAttributes<FactAttribute>().Any() == true, $"row {row}: {type.Name}.{test} is no test");
        }
        var covered = Values().Select(value => value.Data.Item1).Concat(Behaviours.Select(behaviour => behaviour.Row)).Distinct().Order();
        Assert.Equal(Enumerable.Range(1, 55), covered);
    }

    [Fact]
    public void A_backend_with_a_zone_is_left_out_of_an_accepted_service()
    {
        var value = Falcon.Bytes(Falcon.Service.Replace("fd07::9", "fe80::9%eth0"));
        Assert.True(Falcon.Validator().TryService("shop/cart", value, out _, out var service, out _));
        Assert.Equal(["10.7.0.9"], service!.Backends!.Keys);
    }

    [Fact]
    public void The_peers_host_is_a_remote_node_to_us()
    {
        var value = Falcon.Bytes(Falcon.Ip.Replace("459001", "1"));
        Assert.True(Falcon.Validator().TryIp("10.7.0.9", value, out _, out var pair, out _));
        Assert.Equal(NumericIdentity.RemoteNode, pair.ID);
    }

    [Theory]
    [InlineData("\"Name\":\"http\"", "\"Name\":\"HTTP\"")]
    [InlineData("\"Name\":\"http\"", "\"Name\":\"-a\"")]
    [InlineData("\"Name\":\"http\"", "\"Name\":\"80\"")]
    [InlineData("\"Name\":\"http\"", "\"Name\":\"abcdefghijklmnop\"")]
    [InlineData("\"Port\":8080", "\"Port\":0")]
    [InlineData("\"Protocol\":\"TCP\"", "\"Protocol\":\"\"")]
    public void An_invalid_named_port_is_left_out_of_an_accepted_entry(string from, string to)
    {
        var sound = """,{"Name":"dns","Port":53,"Protocol":"UDP"}]""";
        var value = Falcon.Bytes(Falcon.Ip.Replace(from, to).Replace("]", sound));
        Assert.True(Falcon.Validator().TryIp("10.7.0.9", value, out _, out var pair, out _));
        Assert.Equal(["dns"], pair.NamedPorts!.Select(port => port.Name));
    }

    [Theory]
    [InlineData("default", false)]
    [InlineData("an-example-name-of-33-characters-", false)]
    [InlineData("Falcon", false)]
    [InlineData("-falcon", false)]
    [InlineData("falcon-", false)]
    [InlineData("fal_con", false)]
    [InlineData("fal.con", false)]
    [InlineData("", false)]
    [InlineData("falcon", true)]
    [InlineData("7", true)]
    public void A_cluster_name_follows_the_rules(string name, bool valid) => Assert.Equal(valid, ClusterName.Validate(name) is null);

    [Fact]
    public void Exports_are_known_and_slices_are_not_read()
    {
        Assert.Equal(KeyKind.ServiceExport, ParsedKey.Parse("cilium/state/serviceexports/v1/falcon/shop/cart").Kind);
        Assert.Equal(KeyKind.Unknown, ParsedKey.Parse("cilium/state/endpointslices/v1/falcon/shop/cart-x1").Kind);
        Assert.Equal(KeyKind.Service, ParsedKey.Parse("cilium/state/services/v1/falcon/shop/cart").Kind);
    }

    [Fact]
    public void A_service_of_ten_thousand_backends_is_read()
    {
        var ports = new Dictionary<string, WirePort> { ["http"] = new() { Protocol = "TCP", Port = 8080 } };
        var service = new ClusterService
        {
            Cluster = Falcon.Cluster,
            Namespace = "shop",
            Name = "cart",
            Backends = Enumerable.Range(0, 10_000).ToDictionary(
                i => IpAddr.V4(0x0a070000u + (uint)i).ToString(), _ => (IReadOnlyDictionary<string, WirePort>)ports),
            Shared = true,
            ClusterId = 7,
        };
        Assert.True(Falcon.Validator().TryService("shop/cart", ClusterServiceCodec.Encode(service), out _, out var read, out _));
        Assert.Equal(10_000, read!.Backends!.Count);
    }

    [Fact]
    public void Only_a_peer_that_looks_like_1_13_may_leave_out_the_cluster_ID()
    {
        var value = Falcon.Service.Replace("\"clusterID\":7", "\"other\":7");
        var old = Falcon.Validator(new ClusterConfig { Id = 7 });
        Assert.True(old.TryService("shop/cart", Falcon.Bytes(value), out _, out var service, out _));
        Assert.Equal(7u, service!.ClusterId);
        Assert.Contains("cluster ID 8", Decide(old, RemoteResource.Services, "shop/cart", Falcon.Service.Replace("\"clusterID\":7",
            "\"clusterID\":8")));
        Assert.Contains("cluster ID 0", Decide(Falcon.Validator(), RemoteResource.Services, "shop/cart", value));
        Assert.Contains("cluster ID 0", Decide(
            Falcon.Validator(new ClusterConfig { Id = 7, Capabilities = new() }), RemoteResource.Services, "shop/cart", value));
        // Behind a relay, which writes capabilities of its own, and nothing of what the source did not say.
        Assert.Equal(Accepted, Decide(Falcon.Validator(Copy(maximum: 0)), RemoteResource.Services, "shop/cart", value));
        Assert.Contains("cluster ID 0", Decide(Falcon.Validator(Copy(maximum: 255)), RemoteResource.Services, "shop/cart", value));

        static ClusterConfig Copy(uint maximum) => new()
        {
            Id = 7,
            Capabilities = new ClusterCapabilities { SyncedCanaries = true, Cached = true, MaxConnectedClusters = maximum },
        };
    }

    [Fact]
    public void Identity_ranges_follow_the_numbering_of_the_mesh()
    {
        var wide = Falcon.Validator(numbering: IdentityNumbering.Max511);
        Assert.Equal(Accepted, Decide(wide, RemoteResource.Identities, "229376", Falcon.Identity));
        Assert.Contains("229376-262143", Decide(wide, RemoteResource.Identities, "459001", Falcon.Identity));
    }
}
