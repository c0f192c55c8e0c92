using Mesh.ClusterMesh.Imports;
using Mesh.ClusterMesh.Remote;
using Mesh.ClusterMesh.Tests.Remote;
using Mesh.ClusterMesh.Tests.Wire;
using Mesh.ClusterMesh.Wire;
using Mesh.KVStore;
using Mesh.Model;
using Xunit;

namespace Mesh.ClusterMesh.Tests.Imports;

/// <summary>Refused records one at a time: where they are kept, when they leave, and that they disturb nobody.</summary>
public sealed class QuarantineTests : RemoteClusterStory
{
    private const string Node = """
        {"Name":"n1","Cluster":"falcon","IPAddresses":[{"Type":"InternalIP","IP":"192.0.2.1"}],"IPv4HealthIP":"10.7.0.2","ClusterID":7}
        """;

    private const string Second = """
        {"Name":"n2","Cluster":"falcon","IPAddresses":[{"Type":"InternalIP","IP":"192.0.2.2"}],
         "IPv4AllocCIDR":{"IP":"10.7.2.0","Mask":"////AA=="},"ClusterID":7}
        """;

    private const string Web = """
        {"cluster":"falcon","namespace":"shop","name":"web","backends":{"10.7.0.9":{"http":{"Protocol":"TCP","Port":80}}},"shared":true,"clusterID":7}
        """;

    private const string Entry = """{"IP":"10.7.0.10","HostIP":"192.0.2.1","ID":458753,"Metadata":"","K8sNamespace":"shop"}""";
    private const string Labels = "k8s:app=web;k8s:io.cilium.k8s.policy.cluster=falcon;k8s:io.kubernetes.pod.namespace=shop;";

    private static RemoteClusterOptions With(string imports) =>
        Following.Options with { DefaultImports = ImportPolicyFile.Parse(imports, "falcon") with { Breaker = Following.Options.DefaultImports.Breaker } };

    private async Task<Following> FollowReadyAsync(string imports)
    {
        await _falcon.EverythingAsync();
        await _falcon.PutAsync(Keys.Node("falcon", "n1"), Falcon.Bytes(Node));
        var following = Follow(options: With(imports));
        await _sink.UntilReadyAsync("falcon");
        return following;
    }

    private static string Text(Following following) => string.Join(' ', following.Cluster.Quarantined
        .Select(record => $"{record.Key.Split('/')[^1]}:{record.Reason.Word()}x{record.Count}"));

    private Task UntilQuarantinedAsync(Following following, string text) =>
        _sink.UntilAsync(_ => Text(following) == text, $"quarantine '{text}', there is '{Text(following)}'");

    [Fact]
    public async Task A_refused_record_is_kept_with_its_reason_until_it_is_mended_or_deleted()
    {
        await using var following = await FollowReadyAsync("""{"podCIDRs":["10.7.0.0/16"],"nodeCIDRs":["192.0.2.0/24"]}""");
        Assert.Equal(_falcon.Records, _sink.Text);
        await _falcon.IpAsync("10.9.0.1");
        await _falcon.IpAsync("10.9.0.1");
        await _falcon.IpAsync("10.9.0.2");
        await _falcon.PutAsync(Keys.Ip(IpPrefix.Parse("10.7.0.3")), Falcon.Bytes("{"));
        await UntilQuarantinedAsync(following, "10.7.0.3:malformedx1 10.9.0.1:addressx2 10.9.0.2:addressx1");
        var record = following.Cluster.Quarantined[1];
        Assert.Equal((RemoteResource.IpEntries, "cilium/state/ip/v1/default/10.9.0.1"), (record.Resource, record.Key));
        Assert.Contains("10.9.0.1/32 is outside its ranges 10.7.0.0/16, 192.0.2.0/24", record.Text);
        Assert.True(record.Revision > 0 && record.LastSeen >= record.FirstSeen);
        Assert.Equal(3, following.Cluster.Status.Quarantined);

        await _falcon.DeleteAsync(Keys.Ip(IpPrefix.Parse("10.9.0.1")));
        await _falcon.IpAsync("10.7.0.3");
        await UntilQuarantinedAsync(following, "10.9.0.2:addressx1");
        await _sink.UntilAsync(sink => sink.IpEntries.Count == 2, "the mended entry");
        Assert.Equal(4, following.Cluster.Refused.Values.Sum());
        // A key that goes while nobody looks leaves with the next list.
        _store.Disconnect();
        _store.Connect();
        await _falcon.DeleteAsync(Keys.Ip(IpPrefix.Parse("10.9.0.2")));
        await UntilQuarantinedAsync(following, "");
    }

    /// <summary>One record of each reason on its whole way: it is in quarantine and not in the sink; then the same record, sound, is in the
    /// sink and not in quarantine.</summary>
    [Theory]
    [InlineData("malformed", "nodes/v1/falcon/n2", Second, "n2", "n3")]
    [InlineData("foreign-key", "nodes/v1/falcon/n2", Second, "falcon", "osprey")]
    [InlineData("foreign-key", "nodes/v1/falcon/n2", Second, "\"ClusterID\":7", "\"ClusterID\":8")]
    [InlineData("foreign-key", "services/v1/falcon/shop/web", Web, "falcon", "osprey")]
    [InlineData("foreign-key", "identities/v1/id/458754", Labels, "falcon", "osprey")]
    [InlineData("identity-range", "ip/v1/default/10.7.0.10", Entry, "458753", "196609")]
    [InlineData("identity-range", "ip/v1/default/10.7.0.10", Entry, "458753", "256")]
    [InlineData("reserved-identity", "ip/v1/default/10.7.0.10", Entry, "458753", "8")]
    [InlineData("address", "nodes/v1/falcon/n2", Second, "10.7.2.0", "10.9.2.0")]
    [InlineData("tunnel-endpoint", "nodes/v1/falcon/n2", Second, "192.0.2.2", "198.51.100.2")]
    [InlineData("tunnel-endpoint", "ip/v1/default/10.7.0.10", Entry, "192.0.2.1", "198.51.100.1")]
    [InlineData("backend", "services/v1/falcon/shop/web", Web, "10.7.0.9", "10.9.0.9")]
    [InlineData("namespace", "ip/v1/default/10.7.0.10", Entry, "shop", "bank")]
    [InlineData("namespace", "identities/v1/id/458754", Labels, "namespace=shop", "namespace=bank")]
    [InlineData("oversize", "ip/v1/default/10.7.0.10", Entry, "\"Metadata\":\"\"", "\"Metadata\":\"LONG\"")]
    public async Task Each_reason_keeps_its_record_out_until_it_is_mended(string reason, string key, string sound, string right, string wrong)
    {
        await using var following = await FollowReadyAsync(
            """{"podCIDRs":["10.7.0.0/16"],"nodeCIDRs":["192.0.2.0/24"],"namespaces":["shop"],"quotas":{"valueBytes":900}}""");
        var spoilt = sound.Replace(right, wrong).Replace("LONG", new string('x', 900));
        await _falcon.PutAsync($"cilium/state/{key}", Falcon.Bytes(spoilt));
        await UntilQuarantinedAsync(following, $"{key.Split('/')[^1]}:{reason}x1");
        // The record behind it comes in: this one was judged and not taken over.
        await _falcon.NodeAsync("n9");
        await _sink.UntilAsync(sink => sink.Nodes.Keys.Any(node => node.Node == "n9"), "the next record");
        Assert.Equal(_falcon.Records, _sink.Text.Replace(" falcon/n9", ""));
        await _falcon.PutAsync($"cilium/state/{key}", Falcon.Bytes(sound));
        await UntilQuarantinedAsync(following, "");
        await _sink.UntilAsync(sink => sink.Text.Split(' ').Length == 6, "the sound record");
    }

    [Fact]
    public async Task The_quarantine_is_bounded_and_what_finds_no_room_is_counted()
    {
        await using var following = await FollowReadyAsync("""{"podCIDRs":["10.7.0.0/16"]}""");
        var hostile = Enumerable.Range(0, Quarantine.Capacity + 500).Select(i => IpAddr.V4(0x0a090000u + (uint)i).ToString()).ToList();
        await _store.WriteAsync([.. hostile.Select(address => new WriteOperation(Keys.Ip(IpPrefix.Parse(address)), _falcon.IpValue(address)))], Cancellation);
        await _sink.UntilAsync(sink => sink.Statuses["falcon"].Rejected == hostile.Count, "all refused");
        Assert.Equal((Quarantine.Capacity, 500), (following.Cluster.Status.Quarantined, following.Cluster.Status.QuarantineOverflow));
        await _falcon.IpAsync("10.7.0.10");
        await _sink.UntilAsync(sink => sink.IpEntries.Count == 2, "a sound one beside them");
    }

    [Fact]
    public async Task Quotas_refuse_what_is_too_much_and_nothing_else()
    {
        await using var following = await FollowReadyAsync("""{"quotas":{"keys":6,"valueBytes":600}}""");
        await _falcon.IpAsync("10.7.0.10");
        await _falcon.IpAsync("10.7.0.11");
        await _falcon.IpAsync("10.7.0.12");
        await UntilQuarantinedAsync(following, "10.7.0.12:quotax1");
        await _falcon.PutAsync(Keys.Service("falcon", new ServiceName("shop", "big")), new byte[601]);
        await UntilQuarantinedAsync(following, "10.7.0.12:quotax1 big:oversizex1");
        // What is known may change, and what goes makes room.
        await _falcon.ServiceAsync("cart", true, "10.7.0.9", "10.7.0.10");
        await _sink.UntilAsync(sink => sink.Backends == 2, "the changed service");
        await _falcon.DeleteAsync(Keys.Ip(IpPrefix.Parse("10.7.0.11")));
        await _sink.UntilAsync(sink => sink.IpEntries.Count == 2, "one gone");
        await _falcon.IpAsync("10.7.0.12");
        await UntilQuarantinedAsync(following, "big:oversizex1");
    }

    [Fact]
    public async Task A_quota_of_bytes_counts_keys_and_values()
    {
        await using var following = await FollowReadyAsync("""{"quotas":{"bytes":2500}}""");
        for (var i = 0; i < 20; i++)
            await _falcon.IpAsync($"10.7.1.{i}");
        await _sink.UntilAsync(sink => sink.Statuses["falcon"].Rejected > 0, "the quota to be reached");
        Assert.InRange(_sink.Read(sink => sink.IpEntries.Count), 3, 15);
        Assert.All(following.Cluster.Quarantined, record => Assert.Equal(RefusalReason.Quota, record.Reason));
    }

    [Fact]
    public async Task A_namespace_that_is_not_granted_stays_outside()
    {
        await using var following = await FollowReadyAsync("""{"namespaces":["bank"]}""");
        Assert.Equal("falcon#458753 falcon/n1", _sink.Text);
        await UntilQuarantinedAsync(following, "10.7.0.9:namespacex1 cart:namespacex1");
    }

    [Fact]
    public async Task Entries_and_nodes_come_in_any_order_and_a_reserved_identity_never_stands_on_another_address()
    {
        await using var following = await FollowReadyAsync("{}");
        await PutAsync("10.7.0.2", "192.0.2.1", NumericIdentity.Health);
        await _sink.UntilAsync(sink => sink.IpEntries.Count == 2, "the health address of n1");
        await PutAsync("10.7.0.200", "192.0.2.2", NumericIdentity.Health);
        await PutAsync("10.7.0.99", "192.0.2.2", _falcon.Identity(1));
        await PutAsync("10.7.0.66", "192.0.2.1", NumericIdentity.KubeApiserver);
        await UntilQuarantinedAsync(following, "10.7.0.200:tunnel-endpointx1 10.7.0.66:reserved-identityx1 10.7.0.99:tunnel-endpointx1");

        await _falcon.PutAsync(Keys.Node("falcon", "n2"), Falcon.Bytes(
            Node.Replace("n1", "n2").Replace("192.0.2.1", "192.0.2.2").Replace("10.7.0.2", "10.7.0.200")));
        await _sink.UntilAsync(sink => sink.IpEntries.Count == 4, "what waited for n2");
        await UntilQuarantinedAsync(following, "10.7.0.66:reserved-identityx2");

        // n2 has another health address now: the old one is nobody's, and no health endpoint any more.
        await _falcon.PutAsync(Keys.Node("falcon", "n2"), Falcon.Bytes(
            Node.Replace("n1", "n2").Replace("192.0.2.1", "192.0.2.2").Replace("10.7.0.2", "10.7.0.201")));
        await _sink.UntilAsync(sink => sink.IpEntries.Count == 3, "the old health address is gone");
        Assert.Contains("10.7.0.200:reserved-identity", Text(following));
    }

    [Fact]
    public async Task With_learned_nodes_the_first_list_waits_for_the_nodes()
    {
        await _falcon.EverythingAsync();
        await _falcon.PutAsync(Keys.Node("falcon", "n1"), Falcon.Bytes(Node));
        await _store.DeletePrefixAsync("cilium/synced/falcon/cilium/state/nodes", Cancellation);
        await using var following = Follow(options: With("{}"));
        await _sink.UntilAsync(sink => sink.Statuses.GetValueOrDefault("falcon")?.ServicesSynced == true, "services");
        Assert.False(following.Cluster.Status.IpEntriesSynced);
        await _falcon.CanaryAsync(RemoteResource.Nodes);
        await _sink.UntilReadyAsync("falcon");
        Assert.Equal(0, following.Cluster.Status.Rejected);
        Assert.Equal(_falcon.Records, _sink.Text);
    }

    [Fact]
    public async Task A_peer_with_another_ID_than_the_pinned_one_is_refused()
    {
        await _falcon.EverythingAsync();
        await using var following = Follow(options: With("""{"clusterID":8}"""));
        await _sink.UntilStatusAsync("falcon", "falcon announces cluster ID 7, but falcon.imports.json pins 8");
        Assert.Equal("", _sink.Text);
    }

    private Task PutAsync(string address, string host, uint identity) => _falcon.PutAsync(Keys.Ip(IpPrefix.Parse(address)),
        IpIdentityPairCodec.Encode(new IpIdentityPair { IP = address, HostIP = host, ID = identity }));
}
