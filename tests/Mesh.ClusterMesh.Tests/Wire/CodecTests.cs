using System.Text;
using System.Text.Json;
using CsCheck;
using Mesh.ClusterMesh.Wire;
using Mesh.Model;
using Xunit;

namespace Mesh.ClusterMesh.Tests.Wire;

public sealed class CodecTests
{
    private static readonly Gen<string> Word = Gen.String[Gen.Char.AlphaNumeric, 1, 12];
    private static readonly Gen<string> AnyText = Gen.String[Gen.OneOf(Gen.Char['\0', '\x7f'], Gen.Char['\u0080', '\ud7ff']), 0, 20];
    private static readonly Gen<IpAddr> Address = Gen.OneOf(
        Gen.UInt.Select(IpAddr.V4), Gen.Select(Gen.ULong, Gen.ULong, (high, low) => IpAddr.V6(new UInt128(high | 1UL << 61, low))));

    private static readonly Gen<IpPrefix> Prefix = Gen.Select(Address, Gen.Int[0, 128], (a, bits) => new IpPrefix(a, bits % (a.Bits + 1)));
    private static readonly Gen<Dictionary<string, string>> TextMap = Gen.Dictionary(AnyText, AnyText)[0, 4];
    private static readonly Gen<WireCidr> Cidr = Prefix.Select(WireCidr.From);

    private static readonly Gen<NodeRecord> Node =
        from name in Word
        from addresses in Gen.Select(Word, Address, (type, ip) => new WireNodeAddress { Type = type, IP = ip.ToString() }).List[0, 4]
        from cidr in Cidr.Null()
        from more in Cidr.List[0, 3].Null()
        from id in Gen.UInt
        from key in Gen.Byte
        from labels in TextMap.Null()
        from text in AnyText
        select new NodeRecord
        {
            Name = name,
            Cluster = "falcon",
            IPAddresses = addresses,
            IPv4AllocCIDR = cidr,
            IPv6SecondaryAllocCIDRs = more,
            ClusterID = id,
            EncryptionKey = key,
            Labels = labels,
            WireguardPubKey = text,
            BootID = text,
        };

    private static readonly Gen<IpIdentityPair> Pair =
        from prefix in Prefix
        from host in Address
        from id in Gen.UInt
        from pod in AnyText
        from ports in Gen.Select(Word, Gen.UShort, (name, port) => new WireNamedPort
        {
            Name = name,
            Port = port,
            Protocol = "TCP"
        }).List[0, 3]
        select new IpIdentityPair
        {
            IP = prefix.Address.ToString(),
            Mask = prefix.IsHost ? null : WireMask.Encode(prefix.Length, prefix.Address.IsV6),
            HostIP = host.ToString(),
            ID = id,
            K8sPodName = pod.Length == 0 ? null : pod,
            NamedPorts = ports.Count == 0 ? null : ports,
        };

    private static readonly Gen<Dictionary<string, IReadOnlyDictionary<string, WirePort>>> Addresses = Gen.Dictionary(
        Address.Select(a => a.ToString()),
        Gen.Dictionary(AnyText, Gen.UShort.Select(port => new WirePort { Port = port, Protocol = "UDP" }))[0, 3]
            .Select(ports => (IReadOnlyDictionary<string, WirePort>)ports))[0, 4];

    private static readonly Gen<ClusterService> Service =
        from name in AnyText
        from frontends in Addresses
        from backends in Addresses
        from labels in TextMap
        from shared in Gen.Bool
        from id in Gen.UInt
        select new ClusterService
        {
            Cluster = "falcon",
            Namespace = "shop",
            Name = name,
            Frontends = frontends,
            Backends = backends,
            Labels = labels,
            Selector = labels,
            Shared = shared,
            ClusterId = id,
        };

    private static readonly string[] Texts = [Falcon.Node, Falcon.Service, Falcon.Ip, Falcon.Identity];

    [Fact]
    public void A_node_comes_back_as_it_was_written() => Node.Sample(node =>
    {
        Assert.True(NodeRecordCodec.TryDecode(NodeRecordCodec.Encode(node), out var read, out var rejection), rejection);
        Assert.Equal(NodeRecordCodec.Encode(node), NodeRecordCodec.Encode(read));
        Assert.Equivalent(node, read, strict: true);
    }, iter: 500);

    [Fact]
    public void An_ip_entry_comes_back_as_it_was_written() => Pair.Sample(pair =>
    {
        Assert.True(IpIdentityPairCodec.TryDecode(IpIdentityPairCodec.Encode(pair), out var read, out var rejection), rejection);
        Assert.Equivalent(pair, read, strict: true);
    }, iter: 500);

    [Fact]
    public void A_service_comes_back_as_it_was_written() => Service.Sample(service =>
    {
        Assert.True(ClusterServiceCodec.TryDecode(ClusterServiceCodec.Encode(service), out var read, out var rejection), rejection);
        Assert.Equivalent(service, read, strict: true);
    }, iter: 500);

    /// <summary>Bytes overwritten, cut out and doubled anywhere: never anything but a record or a reason.</summary>
    [Fact]
    public void A_mangled_value_is_read_or_rejected_and_nothing_else() => Gen.Select(
        Gen.Int[0, 3].Select(i => Texts[i]),
        Gen.Select(Gen.Int[0, 1000], Gen.Int[0, 8], Gen.OneOf(Gen.Byte, Gen.Int[0, 13].Select(i => (byte)"{}[]:,\"\\0-e.un"[i])).Array[0,
            4]).List[1, 4])
        .Sample((text, edits) =>
        {
            var value = Encoding.UTF8.GetBytes(text).ToList();
            foreach (var (at, length, insert) in edits)
            {
                var start = Math.Min(at, value.Count);
                value.RemoveRange(start, Math.Min(length, value.Count - start));
                value.InsertRange(start, insert);
            }
            var validator = Falcon.Validator();
            byte[] bytes = [.. value];
            _ = validator.TryNode("n1", bytes, out var node, out var a);
            _ = validator.TryService("shop/cart", bytes, out _, out _, out var b);
            _ = validator.TryIp("10.7.0.9", bytes, out _, out _, out var c);
            _ = validator.TryIdentity("459001", bytes, out _, out _, out var d);
            _ = ClusterConfigCodec.TryDecode(bytes, out _, out var e);
            foreach (var reason in new[] { a, b, c, d, e }.OfType<string>())
                Assert.DoesNotContain(reason, char.IsControl);
            if (a is null)
                Assert.NotEmpty(NodeRecordCodec.Encode(node!));
        }, iter: 20_000);

    [Theory]
    [InlineData("""{"id":7,"capabilities":null}""", 7, false)]
    [InlineData("""{"ID":7}""", 7, false)]
    [InlineData("""{"id":1,"id":7}""", 7, false)]
    [InlineData("""{"id":7,"id":null}""", 7, false)]
    [InlineData(""" {"id" : 7 , "\u0063apabilities":{"ſyncedCanarieſ":true}} """, 7, true)]
    [InlineData("""{"capabilities":{"syncedCanaries":true},"capabilities":{"cached":true},"id":7}""", 7, true)]
    [InlineData("null", 0, false)]
    [InlineData("{}", 0, false)]
    public void Go_reads_this_and_so_do_we(string json, uint id, bool canaries)
    {
        Assert.True(ClusterConfigCodec.TryDecode(Falcon.Bytes(json), out var config, out var rejection), rejection);
        Assert.Equal((id, canaries), (config.Id, config.Capabilities?.SyncedCanaries ?? false));
    }

    [Theory]
    [InlineData("")]
    [InlineData("[]")]
    [InlineData("7")]
    [InlineData("""{"id":7,}""")]
    [InlineData("""{"id":07}""")]
    [InlineData("""{"id":-0}""")]
    [InlineData("""{"id":4294967296}""")]
    [InlineData("""{"id":true}""")]
    [InlineData("""{"id":7}x""")]
    [InlineData("""{"id":7} {}""")]
    [InlineData("""{"id":7} // note""")]
    [InlineData("\ufeff{\"id\":7}")]
    [InlineData("""{"id":7,"capabilities":[]}""")]
    [InlineData("""{"id":7,"capabilities":{"syncedCanaries":"true"}}""")]
    [InlineData("""{'id':7}""")]
    [InlineData("""{"id":7,"x":NaN}""")]
    public void Go_rejects_this_and_so_do_we(string json)
    {
        Assert.False(ClusterConfigCodec.TryDecode(Falcon.Bytes(json), out _, out var rejection));
        Assert.NotEmpty(rejection);
    }

    [Fact]
    public void Text_that_is_not_Unicode_is_replaced_as_Go_does()
    {
        byte[] json = [.. """{"IP":"10.7.0.9","K8sPodName":"a\ud800b"""u8, 0xff, .. "c\\\\\\/\\u00e9\"}"u8];
        Assert.True(IpIdentityPairCodec.TryDecode(json, out var pair, out var rejection), rejection);
        Assert.Equal("a\ufffdb\ufffdc\\/é", pair.K8sPodName);
    }

    [Fact]
    public void A_mask_may_be_an_array_of_numbers_and_nesting_may_be_deep()
    {
        var deep = new string('[', 5000) + new string(']', 5000);
        var json = $$"""{"IP":"10.7.0.0","Mask":[255,255,255,0],"x":{{deep}}}""";
        Assert.True(IpIdentityPairCodec.TryDecode(Falcon.Bytes(json), out var pair, out var rejection), rejection);
        Assert.Equal("////AA==", pair.Mask);
        var deeper = Falcon.Bytes("{\"x\":" + new string('[', 20_000) + new string(']', 20_000) + "}");
        Assert.False(IpIdentityPairCodec.TryDecode(deeper, out _, out _));
    }

    [Fact]
    public void A_repeated_map_adds_to_the_earlier_one_and_null_empties_it()
    {
        Assert.True(NodeRecordCodec.TryDecode("""{"Labels":{"a":"1","b":"2"},"Labels":{"b":"3"}}"""u8, out var node, out _));
        Assert.Equal([("a", "1"), ("b", "3")], node.Labels!.Select(label => (label.Key, label.Value)));
        Assert.True(NodeRecordCodec.TryDecode("""{"Labels":{"a":"1"},"Labels":null}"""u8, out node, out _));
        Assert.Null(node.Labels);
    }

    [Fact]
    public void A_producer_cannot_write_what_peers_reject()
    {
        Assert.Throws<ArgumentException>(() => NodeRecordCodec.Encode(new NodeRecord { IPv4AllocCIDR = new WireCidr() }));
        Assert.Throws<ArgumentException>(() => NodeRecordCodec.Encode(new NodeRecord { IPv4HealthIP = "ten" }));
        Assert.Throws<ArgumentException>(() => IpIdentityPairCodec.Encode(new IpIdentityPair()));
        Assert.Throws<ArgumentException>(() => IpIdentityPairCodec.Encode(new IpIdentityPair { IP = "10.0.0.1", Mask = "//8=" }));
        var ports = new Dictionary<string, WirePort>();
        foreach (var address in new[] { "", "FD00::1", "10.0.0.0/8" })
        {
            Assert.Throws<ArgumentException>(() => ClusterServiceCodec.Encode(
                new ClusterService { Backends = new Dictionary<string, IReadOnlyDictionary<string, WirePort>> { [address] = ports } }));
        }
        Assert.Throws<ArgumentException>(() => IdentityLabels.Encode([]));
        Assert.Throws<ArgumentException>(() => IdentityLabels.Encode([new IdentityLabel("k8s", "a", "b;c")]));
    }

    [Fact]
    public void Labels_are_sorted_by_key_and_not_by_source()
    {
        var text = IdentityLabels.Encode([new("k8s", "b", ""), new("cilium", "c", "x=y"), new("reserved", "a", "1")]);
        Assert.Equal("reserved:a=1;k8s:b=;cilium:c=x=y;", text);
        Assert.Equal([new("reserved", "a", "1"), new("k8s", "b", ""), new("cilium", "c", "x=y")], IdentityLabels.Decode(text));
        Assert.Equal([new("", "plain", "")], IdentityLabels.Decode(";;plain;"));
    }

    [Fact]
    public void Maps_are_written_in_byte_order() =>
        Assert.Contains("\"Labels\":{\"B\":\"\",\"a\":\"\",\"ä\":\"\"}", Encoding.UTF8.GetString(NodeRecordCodec.Encode(
            new NodeRecord { Labels = new Dictionary<string, string> { ["ä"] = "", ["a"] = "", ["B"] = "" } })));

    [Fact]
    public void Address_text_agrees_with_the_framework_where_that_agrees_with_Go() => Address.Sample(address =>
    {
        var text = address.ToString();
        Assert.Equal(address, IpAddr.Parse(text));
        if (!text.Contains('.') || !address.IsV6)
            Assert.Equal(address.ToIPAddress(), System.Net.IPAddress.Parse(text));
        Assert.Equal(text, text.ToLowerInvariant());
    });

    [Theory]
    [InlineData("::", "::")]
    [InlineData("::1.2.3.4", "::102:304")]
    [InlineData("::ffff:1.2.3.4", "1.2.3.4")]
    [InlineData("1:0:0:2:0:0:0:3", "1:0:0:2::3")]
    [InlineData("1:0:2:3:4:5:6:7", "1:0:2:3:4:5:6:7")]
    [InlineData("0:0:1:2:0:0:3:4", "::1:2:0:0:3:4")]
    [InlineData("1:2:3:4:5:6:0:0", "1:2:3:4:5:6::")]
    [InlineData("FD00::00Ab", "fd00::ab")]
    [InlineData("1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0")]
    public void Addresses_print_as_Go_prints_them(string text, string expected) => Assert.Equal(expected, IpAddr.Parse(text).ToString());

    [Theory]
    [InlineData(":")]
    [InlineData(":::")]
    [InlineData("1::2::3")]
    [InlineData("1:2:3:4:5:6:7:8::")]
    [InlineData("1:2:3:4:5:6:7")]
    [InlineData("1:2:3:4:5:6:7:8:9")]
    [InlineData("12345::")]
    [InlineData("::1/64")]
    [InlineData("::1%lo")]
    [InlineData("1:2:3:4:5:6:7:1.2.3.4")]
    [InlineData("::1.2.3")]
    [InlineData("1.2.3.4.5")]
    [InlineData("1.2.3.")]
    [InlineData("1.2.3.256")]
    [InlineData("1.2.3.04")]
    [InlineData("0x1.2.3.4")]
    [InlineData("1")]
    public void Go_does_not_read_these_addresses(string text) => Assert.False(IpAddr.TryParse(text, out _));

    [Fact]
    public void What_we_write_any_JSON_reader_reads() => Service.Sample(service =>
    {
        using var document = JsonDocument.Parse(ClusterServiceCodec.Encode(service));
        Assert.Equal(service.Name, document.RootElement.GetProperty("name").GetString());
    }, iter: 200);

    [Fact]
    public void A_segment_that_would_not_survive_is_refused()
    {
        foreach (var segment in new[] { "", ".", "..", "a/b", "a\nb" })
        {
            Assert.Throws<ArgumentException>(() => Keys.Node("falcon", segment));
            Assert.Throws<ArgumentException>(() => Keys.Node(segment, "n1"));
            Assert.Throws<ArgumentException>(() => Keys.Service("falcon", new ServiceName("shop", segment)));
        }
        Assert.Equal(KeyKind.Unknown, ParsedKey.Parse("cilium/state/nodes/v1/falcon/..").Kind);
        Assert.Equal(KeyKind.Unknown, ParsedKey.Parse("cilium/state/nodes/v1//n1").Kind);
    }

    [Theory]
    [InlineData("169.254.23.0")]
    [InlineData("fe80::7")]
    public void A_gateway_that_all_nodes_of_a_cluster_share_is_left_away_and_the_node_is_taken(string gateway)
    {
        var record = Falcon.Node.Replace("10.7.0.1\"", $"{gateway}\"", StringComparison.Ordinal);
        Assert.True(Falcon.Validator().TryNode("n1", Falcon.Bytes(record), out var node, out var rejection), rejection);
        Assert.Equal(["192.0.2.31"], node.IPAddresses!.Select(address => address.IP));
        // The controls: a gateway that can be reached, and another type of address.
        Assert.True(Falcon.Validator().TryNode("n1", Falcon.Bytes(Falcon.Node), out node, out _));
        Assert.Equal(["192.0.2.31", "10.7.0.1"], node.IPAddresses!.Select(address => address.IP));
        var underlay = Falcon.Node.Replace("192.0.2.31", gateway, StringComparison.Ordinal);
        Assert.True(Falcon.Validator().TryNode("n1", Falcon.Bytes(underlay), out node, out _));
        Assert.Equal([gateway, "10.7.0.1"], node.IPAddresses!.Select(address => address.IP));
    }

    [Fact]
    public void Keys_are_written_as_the_contract_says()
    {
        Assert.Equal("cilium/state/nodes/v1/falcon/n1", Keys.Node("falcon", "n1"));
        Assert.Equal("cilium/state/services/v1/falcon/shop/cart", Keys.Service("falcon", new ServiceName("shop", "cart")));
        Assert.Equal("cilium/state/ip/v1/default/10.7.0.9", Keys.Ip(IpPrefix.Parse("10.7.0.9")));
        Assert.Equal("cilium/state/ip/v1/default/fd07::/64", Keys.Ip(IpPrefix.Parse("fd07::/64")));
        Assert.Equal("cilium/state/identities/v1/id/459001", Keys.Identity(459001));
        Assert.Equal("cilium/cluster-config/falcon", Keys.ClusterConfig("falcon"));
        Assert.Equal("cilium/synced/falcon/", Keys.SyncedPrefix("falcon"));
        Assert.Equal(new ParsedKey(KeyKind.Service, "falcon", "shop", "cart", true),
            ParsedKey.Parse("cilium/cache/services/v1/falcon/shop/cart"));
        Assert.Equal(new ParsedKey(KeyKind.Ip, null, null, "fd07::/64", false), ParsedKey.Parse("cilium/state/ip/v1/default/fd07::/64"));
    }
}
