using System.Text;
using CsCheck;
using Mesh.ClusterMesh.ApiServer.Converters;
using Mesh.ClusterMesh.Wire;
using Mesh.Kubernetes.Objects;
using Mesh.Model;
using Xunit;

namespace Mesh.ClusterMesh.ApiServer.Tests;

public class ConverterTests
{
    private static readonly ClusterSelf Self = TestCluster.Self;

    private static Service Global(string name = "cart") => new()
    {
        Metadata = new() { Namespace = "shop", Name = name, Annotations = new Dictionary<string, string> { ["service.cilium.io/global"] = "true" } },
    };

    private static EndpointSlice Slice(string name, params SliceEndpoint[] endpoints) => new()
    {
        Metadata = new() { Namespace = "shop", Name = name },
        AddressType = "IPv4",
        Ports = [new() { Name = "http", Port = 8080 }],
        Endpoints = endpoints,
    };

    private static SliceEndpoint At(string address, bool? ready = null, bool? serving = null, bool? terminating = null) =>
        new() { Addresses = [address], Conditions = new() { Ready = ready, Serving = serving, Terminating = terminating } };

    private static ClusterService Published(Service service, params EndpointSlice[] slices)
    {
        var record = Assert.Single(ServiceConverter.Convert(service, slices, Self).Records);
        Assert.True(ClusterServiceCodec.TryDecode(record.Value, out var decoded, out var rejection), rejection);
        return decoded;
    }

    [Theory]
    [InlineData(null, null, null, true)]
    [InlineData(true, true, false, true)]
    [InlineData(false, null, null, false)]
    [InlineData(false, false, false, false)]
    [InlineData(false, true, true, true)]
    [InlineData(false, false, true, false)]
    [InlineData(true, false, false, true)]
    public void A_backend_is_published_while_it_is_ready_or_serving(bool? ready, bool? serving, bool? terminating, bool published) =>
        Assert.Equal(published ? ["10.1.0.1"] : [], Published(Global(), Slice("a", At("10.1.0.1", ready, serving, terminating))).Backends!.Keys);

    [Fact]
    public void A_backend_that_goes_away_but_serves_is_marked_unless_another_slice_has_it_ready()
    {
        var leaving = At("10.1.0.2", ready: false, serving: true, terminating: true);
        var record = Published(Global(), Slice("a", At("10.1.0.1", ready: true), leaving));
        Assert.Equal(["10.1.0.2"], record.Conditions!.Keys);
        Assert.True(record.IsTerminating("10.1.0.2"));
        Assert.False(record.IsTerminating("10.1.0.1"));

        Assert.Null(Published(Global(), Slice("a", leaving), Slice("b", At("10.1.0.2", ready: true))).Conditions);
    }

    [Fact]
    public void Slices_of_one_service_become_one_record()
    {
        var hinted = new SliceEndpoint
        {
            Addresses = ["10.1.0.2"],
            Hostname = "cart-0",
            Zone = "z1",
            Hints = new() { ForZones = [new() { Name = "z2" }] },
        };
        var unnamed = Slice("c", At("10.1.0.3")) with { Ports = [new() { Port = 53, Protocol = "UDP" }] };
        var v6 = Slice("d", At("fd01::1")) with { AddressType = "IPv6" };
        var names = Slice("e", At("example.org")) with { AddressType = "FQDN" };
        var record = Published(Global(), Slice("a", At("10.1.0.1")), Slice("b", hinted), unnamed, v6, names);

        Assert.Equal(["10.1.0.1", "10.1.0.2", "10.1.0.3", "fd01::1"], record.Backends!.Keys.Order(StringComparer.Ordinal));
        Assert.Equal(new WirePort { Protocol = "UDP", Port = 53 }, record.Backends["10.1.0.3"][""]);
        Assert.Equal(new WirePort { Protocol = "TCP", Port = 8080 }, record.Backends["fd01::1"]["http"]);
        Assert.Equal("cart-0", record.Hostnames!["10.1.0.2"]);
        Assert.Equal("z1", record.Zones!["10.1.0.2"].Zone);
        Assert.Equal("z2", Assert.Single(record.Zones["10.1.0.2"].ForZones!).Name);
        Assert.True(record is { Cluster: "tokyo", ClusterId: 1, Shared: true, IncludeExternal: true, Namespace: "shop", Name: "cart" });
    }

    [Theory]
    [InlineData("service.cilium.io/global", "false", "ClusterIP")]
    [InlineData("other", "true", "ClusterIP")]
    [InlineData("service.cilium.io/global", "true", "ExternalName")]
    public void A_service_that_is_not_for_others_has_no_record(string annotation, string value, string type)
    {
        var service = Global() with
        {
            Metadata = new() { Namespace = "shop", Name = "cart", Annotations = new Dictionary<string, string> { [annotation] = value } },
            Spec = new() { Type = type },
        };
        Assert.Empty(ServiceConverter.Convert(service, [Slice("a", At("10.1.0.1"))], Self).Records);
    }

    [Fact]
    public void A_slice_mirrored_from_a_peer_is_not_sent_back()
    {
        var labels = new Dictionary<string, string> { ["kubernetes.io/service-name"] = "cart" };
        Assert.Equal(new ServiceName("shop", "cart"), ServiceConverter.ServiceOf(Slice("a") with { Metadata = new() { Namespace = "shop", Labels = labels } }));
        labels["endpointslice.kubernetes.io/managed-by"] = "endpointslice-mesh-controller.cilium.io";
        Assert.Null(ServiceConverter.ServiceOf(Slice("a") with { Metadata = new() { Namespace = "shop", Labels = labels } }));
    }

    [Fact]
    public void A_node_has_its_first_range_of_each_family_as_primary()
    {
        var node = new CiliumNode
        {
            Metadata = new() { Name = "n1", Annotations = new Dictionary<string, string> { ["network.cilium.io/wg-pub-key"] = "key=" } },
            Spec = new()
            {
                Addresses = [new() { Type = "InternalIP", Ip = "192.0.2.1" }, new() { Type = "Hostname", Ip = "n1" }],
                Ipam = new() { PodCIDRs = ["10.1.0.0/24", "fd01::/112", "10.2.0.0/22"] },
                Encryption = new() { Key = 3 },
            },
        };
        var record = Assert.Single(NodeConverter.Convert(node, Self).Records);
        Assert.Equal("cilium/state/nodes/v1/tokyo/n1", record.Key);
        Assert.True(NodeRecordCodec.TryDecode(record.Value, out var decoded, out var rejection), rejection);
        Assert.Equal(WireCidr.From(IpPrefix.Parse("10.1.0.0/24")), decoded.IPv4AllocCIDR);
        Assert.Equal([WireCidr.From(IpPrefix.Parse("10.2.0.0/22"))], decoded.IPv4SecondaryAllocCIDRs);
        Assert.Equal(WireCidr.From(IpPrefix.Parse("fd01::/112")), decoded.IPv6AllocCIDR);
        Assert.Null(decoded.IPv6SecondaryAllocCIDRs);
        Assert.Equal("192.0.2.1", Assert.Single(decoded.IPAddresses!).IP);
        Assert.True(decoded is { ClusterID: 1, WireguardPubKey: "key=", EncryptionKey: 3, Source: "custom-resource" });
    }

    [Theory]
    [InlineData(65537u, 1)]
    [InlineData(6u, 1)]
    [InlineData(131072u, 0)]
    [InlineData(300u, 0)]
    public void A_pod_with_an_identity_of_another_cluster_stays_at_home(uint identity, int records)
    {
        var endpoint = new CiliumEndpoint
        {
            Metadata = new() { Namespace = "shop", Name = "cart-1" },
            Status = new()
            {
                Identity = new() { Id = identity },
                Networking = new() { Node = "192.0.2.1", Addressing = [new() { Ipv4 = "10.1.0.9" }] },
            },
        };
        var outcome = IpEntryConverter.Convert(endpoint, Self);
        Assert.Equal(records, outcome.Records.Count);
        Assert.Equal(records == 0, outcome.Problem is not null);
    }

    /// <summary>Against a naive reading: look each address up in every slice.</summary>
    [Fact]
    public void The_merge_is_the_union_whatever_the_order_of_slices()
    {
        var address = Gen.Int[1, 6].Select(i => $"10.1.0.{i}");
        var flag = Gen.Int[0, 2].Select(i => i == 2 ? (bool?)null : i == 1);
        var endpoint = Gen.Select(address, flag, flag, (at, ready, serving) => At(at, ready, serving));
        var port = Gen.Select(Gen.Int[0, 2], Gen.Int[1, 3], (name, number) => new SlicePort { Name = name == 0 ? null : $"p{name}", Port = number });
        var slice = Gen.Select(endpoint.Array[0, 4], port.Array[0, 3], (endpoints, ports) => (endpoints, ports: ports.DistinctBy(p => p.Name ?? "").ToArray()));
        Gen.Select(slice.Array[0, 4], Gen.Int).Sample((made, seed) =>
        {
            var slices = made.Select((s, i) => Slice($"s{i}", s.endpoints) with { Ports = s.ports }).ToArray();
            var merged = ServiceConverter.Merge(slices);
            var shuffled = slices.ToArray();
            new Random(seed).Shuffle(shuffled);
            Assert.Equal(Text(merged), Text(ServiceConverter.Merge(shuffled)));
            Assert.Equal(Naive(slices), Text(merged));
        });
    }

    private static string Naive(EndpointSlice[] slices)
    {
        var text = new StringBuilder();
        for (var i = 1; i <= 6; i++)
        {
            var address = $"10.1.0.{i}";
            var holding = slices.Where(s => s.Endpoints!.Any(e => e.Addresses![0] == address
                && (e.Conditions!.Ready != false || e.Conditions.Serving == true))).ToArray();
            if (holding.Length == 0)
                continue;
            var ports = new[] { "", "p1", "p2" }.Select(name => (name, port: holding.SelectMany(s => s.Ports!).FirstOrDefault(p => (p.Name ?? "") == name)))
                .Where(p => p.port is not null).Select(p => $"{p.name}={p.port!.Port}");
            text.Append(address).Append(' ').AppendJoin(',', ports).Append('\n');
        }
        return text.ToString();
    }

    private static string Text(ClusterService service)
    {
        var text = new StringBuilder();
        foreach (var (address, ports) in service.Backends!.OrderBy(pair => pair.Key, StringComparer.Ordinal))
        {
            text.Append(address).Append(' ')
                .AppendJoin(',', ports.OrderBy(p => p.Key, StringComparer.Ordinal).Select(p => $"{p.Key}={p.Value.Port}")).Append('\n');
        }
        return text.ToString();
    }
}
