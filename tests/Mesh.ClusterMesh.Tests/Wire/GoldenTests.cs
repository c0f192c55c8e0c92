using System.Text.Json.Nodes;
using Mesh.ClusterMesh.Remote;
using Mesh.ClusterMesh.Wire;
using Mesh.Model;
using Xunit;

namespace Mesh.ClusterMesh.Tests.Wire;

/// <summary>Bytes of real Cilium: all of them are accepted, and what we write of them is the same JSON but for a written list.</summary>
public sealed class GoldenTests
{
    private const string Dump113 = "cilium-1.13.2/etcd-dump.txt";
    private const string Dump115 = "cilium-1.15-dev/etcd-dump.txt";
    private const string DumpCache = "cilium-1.15-dev/kvstoremesh-etcd-dump.txt";

    /// <summary>What we write and these versions do not, or the other way round.</summary>
    private static readonly Dictionary<KeyKind, string[]> IntendedAdditions = new()
    {
        // Since 1.16; consumers of before skip it.
        [KeyKind.Node] = ["BootID"],
        // Since 1.14.
        [KeyKind.Service] = ["clusterID"],
        // 1.13 knows no capabilities; later ones always write the member.
        [KeyKind.ClusterConfig] = ["capabilities"],
    };

    private static List<(string Key, string Value)> Read(string dump)
    {
        var lines = File.ReadAllLines(Path.Combine(AppContext.BaseDirectory, "golden", dump));
        return [.. lines.Chunk(2).Where(pair => pair.Length == 2).Select(pair => (pair[0], pair[1]))];
    }

    [Theory]
    [InlineData(Dump113, 8)]
    [InlineData(Dump115, 13)]
    [InlineData(DumpCache, 12)]
    public void Every_key_is_one_of_ours(string dump, int keys)
    {
        var parsed = Read(dump).Select(pair => ParsedKey.Parse(pair.Key)).ToList();
        Assert.Equal(keys, parsed.Count);
        Assert.DoesNotContain(parsed, key => key.Kind == KeyKind.Unknown);
    }

    [Theory]
    [InlineData(Dump113)]
    [InlineData(Dump115)]
    [InlineData(DumpCache)]
    public void Every_record_is_accepted(string dump)
    {
        var pairs = Read(dump);
        Assert.True(ClusterConfigCodec.TryDecode(Falcon.Bytes(pairs.Single(p => p.Key == Keys.ClusterConfig("tokyo")).Value),
            out var config, out _));
        var layout = config.Capabilities?.Cached == true ? Layout.Cache("tokyo") : Layout.State("tokyo");
        var validator = new RecordValidator("tokyo", config, IdentityNumbering.Max255);
        var accepted = RemoteResources.OfEveryCluster.ToDictionary(resource => resource, _ => 0);
        foreach (var (key, text) in pairs)
        {
            foreach (var resource in accepted.Keys.Where(resource => key.StartsWith(layout.Prefix(resource), StringComparison.Ordinal)))
            {
                var suffix = key[layout.Prefix(resource).Length..];
                var value = Falcon.Bytes(text);
                string? rejection = null;
                Assert.True(resource switch
                {
                    RemoteResource.Nodes => validator.TryNode(suffix, value, out _, out rejection),
                    RemoteResource.Services => validator.TryService(suffix, value, out _, out _, out rejection),
                    RemoteResource.IpEntries => validator.TryIp(suffix, value, out _, out _, out rejection),
                    _ => validator.TryIdentity(suffix, value, out _, out _, out rejection),
                }, $"{key}: {rejection}");
                accepted[resource]++;
            }
        }
        Assert.Equal(dump == Dump113 ? [1, 2, 2, 1] : [2, 2, 2, 1], accepted.Values);
    }

    [Theory]
    [InlineData(Dump113)]
    [InlineData(Dump115)]
    [InlineData(DumpCache)]
    public void What_we_write_is_the_same_JSON_but_for_the_intended_additions(string dump)
    {
        foreach (var (key, text) in Read(dump))
        {
            var kind = ParsedKey.Parse(key).Kind;
            var value = Falcon.Bytes(text);
            byte[]? ours = kind switch
            {
                KeyKind.Node when NodeRecordCodec.TryDecode(value, out var node, out _) => NodeRecordCodec.Encode(node),
                KeyKind.Service when ClusterServiceCodec.TryDecode(value, out var service, out _) => ClusterServiceCodec.Encode(service),
                KeyKind.Ip when IpIdentityPairCodec.TryDecode(value, out var pair, out _) => IpIdentityPairCodec.Encode(pair),
                KeyKind.ClusterConfig when ClusterConfigCodec.TryDecode(value, out var config, out _) => ClusterConfigCodec.Encode(config),
                KeyKind.Identity => Falcon.Bytes(IdentityLabels.Encode(IdentityLabels.Decode(text))),
                _ => null,
            };
            if (kind == KeyKind.Identity)
                Assert.Equal(value, ours);
            if (kind is KeyKind.Identity or KeyKind.Heartbeat or KeyKind.Canary)
                continue;
            Assert.NotNull(ours);
            var theirs = JsonNode.Parse(value)!.AsObject();
            var written = JsonNode.Parse(ours)!.AsObject();
            foreach (var addition in IntendedAdditions.GetValueOrDefault(kind, []).Where(name => !theirs.ContainsKey(name)))
                Assert.True(written.Remove(addition), $"{key}: {addition} is in the list but not written");
            Assert.True(JsonNode.DeepEquals(theirs, written), $"{key}: {written.ToJsonString()}");
            Assert.Equal(theirs.Select(field => field.Key), written.Select(field => field.Key));
        }
    }

    [Fact]
    public void The_cache_layout_is_the_state_layout_rewritten()
    {
        var state = Layout.State("tokyo");
        var cache = Layout.Cache("tokyo");
        var rewritten = Read(Dump115).Select(pair => state.Rewrite(pair.Key, cache)).OfType<string>().Order(StringComparer.Ordinal);
        var mirrored = Read(DumpCache).Select(pair => pair.Key).Where(key => key.StartsWith("cilium/cache/", StringComparison.Ordinal));
        Assert.Equal(mirrored.Order(StringComparer.Ordinal), rewritten);
        Assert.All(rewritten, key => Assert.Equal(key, state.Rewrite(cache.Rewrite(key, state)!, cache)));
    }

    [Theory]
    [InlineData(Dump115, false)]
    [InlineData(DumpCache, true)]
    public void The_canaries_have_the_names_we_expect(string dump, bool cached)
    {
        var layout = cached ? Layout.Cache("tokyo") : Layout.State("tokyo");
        var canaries = Read(dump).Select(pair => pair.Key).Where(key => key.StartsWith(Keys.SyncedPrefix("tokyo"),
            StringComparison.Ordinal));
        Assert.Equal(
            canaries.Order(StringComparer.Ordinal),
            RemoteResources.OfEveryCluster.Select(layout.Canary).Order(StringComparer.Ordinal));
    }

    [Fact]
    public void The_safe_profile_is_written_to_the_byte() => Assert.Equal(
        """{"id":7,"capabilities":{"syncedCanaries":true,"maxConnectedClusters":255}}""",
        System.Text.Encoding.UTF8.GetString(ClusterConfigCodec.Encode(ClusterConfig.SafeProfile(7, 255))));
}
