using System.Text;
using Mesh.ClusterMesh.Tests.Remote;
using Mesh.ClusterMesh.Tests.Wire;
using Mesh.ClusterMesh.Wire;
using Mesh.KVStore;
using Mesh.Model;
using Mesh.TestKit;
using Xunit;

namespace Mesh.ClusterMesh.Relay.Tests;

/// <summary>What lies in the cache, and that an agent that reads there knows what it would know of the peer itself.</summary>
public sealed class MirroringTests : IAsyncLifetime
{
    private EtcdServer _etcd = null!;
    private EtcdKVStore _store = null!;
    private Producer _falcon = null!;
    private RelayUnderTest _relay = null!;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        _etcd = await EtcdServer.StartAsync();
        _store = _etcd.NewStore();
        _falcon = new Producer(_store, "falcon", 7);
        _relay = await RelayUnderTest.StartedAsync();
    }

    public async ValueTask DisposeAsync()
    {
        await _relay.DisposeAsync();
        await _store.DisposeAsync();
        await _etcd.DisposeAsync();
    }

    private Task PutAsync(string key, string value) => _falcon.PutAsync(key, Encoding.UTF8.GetBytes(value));

    [Fact]
    public async Task The_cache_of_the_contracts_minimal_cluster()
    {
        await PutAsync("cilium/.heartbeat", "2026-02-11T08:15:00Z");
        await PutAsync("cilium/cluster-config/falcon", """{"id":7,"capabilities":{"syncedCanaries":true,"maxConnectedClusters":255}}""");
        await PutAsync("cilium/state/nodes/v1/falcon/n1", Falcon.Node);
        await PutAsync("cilium/state/ip/v1/default/10.7.0.9", Falcon.Ip);
        await PutAsync("cilium/state/ip/v1/default/fd07::/64", "not even JSON: \u0001");
        await PutAsync("cilium/state/identities/v1/id/459001", Falcon.Identity);
        await PutAsync("cilium/state/services/v1/falcon/shop/cart", Falcon.Service);
        await PutAsync("cilium/state/services/v1/falcon2/shop/cart", "a neighbour's");
        foreach (var resource in (string[])["nodes", "services", "ip", "identities"])
            await PutAsync($"cilium/synced/falcon/cilium/state/{resource}/v1", "2026-02-11T08:15:01Z");
        _relay.Add("falcon", _etcd.Options);
        await _relay.UntilReadyAsync("falcon");
        var canaries = string.Join('\n', _relay.Mirror.KeysBelow("cilium/synced/"));
        Assert.Equal($$"""
            cilium/cache/identities/v1/falcon/id/459001 {{Falcon.Identity}}
            cilium/cache/ip/v1/falcon/10.7.0.9 {{Falcon.Ip}}
            cilium/cache/ip/v1/falcon/fd07::/64 not even JSON: {{'\u0001'}}
            cilium/cache/nodes/v1/falcon/n1 {{Falcon.Node}}
            cilium/cache/services/v1/falcon/shop/cart {{Falcon.Service}}
            """.ReplaceLineEndings("\n"), _relay.Dump("cilium/cache/"));
        Assert.Equal("""cilium/cluster-config/falcon {"id":7,"capabilities":{"syncedCanaries":true,"cached":true,"maxConnectedClusters":255}}""",
            _relay.Dump("cilium/cluster-config/"));
        Assert.Equal("""
            cilium/synced/falcon/cilium/cache/endpointslices/v1
            cilium/synced/falcon/cilium/cache/identities/v1
            cilium/synced/falcon/cilium/cache/ip/v1
            cilium/synced/falcon/cilium/cache/nodes/v1
            cilium/synced/falcon/cilium/cache/serviceexports/v1
            cilium/synced/falcon/cilium/cache/services/v1
            """.ReplaceLineEndings("\n"), canaries);
        Assert.NotNull(_relay.Mirror.Get("cilium/.heartbeat"));
    }

    [Fact]
    public async Task An_agent_sees_through_the_relay_what_it_sees_direct()
    {
        await _falcon.EverythingAsync();
        await _falcon.PutAsync(Keys.Node("falcon", "bad"), [1, 2, 3]);
        // So many that the deletions below are never most of them, which an agent would hold.
        for (var n = 0; n < 80; n++)
        {
            await _falcon.NodeAsync($"n{n}");
            await _falcon.IpAsync($"10.7.0.{n}");
        }
        _relay.Add("falcon", _etcd.Options);
        var direct = _relay.FileOf("direct");
        Directory.CreateDirectory(direct);
        RelayUnderTest.WritePeer(Path.Combine(direct, "falcon"), _etcd.Options);
        await using var there = new Agent(direct);
        await using var here = _relay.Agent();
        await there.Sink.UntilReadyAsync("falcon");
        await here.Sink.UntilReadyAsync("falcon");
        Assert.Equal(there.Sink.Text, here.Sink.Text);
        Assert.Equal((true, 1L), (here.Clusters.Statuses[0].Cached, here.Clusters.Statuses[0].Rejected));
        var random = new Random(7);
        for (var i = 0; i < 120; i++)
        {
            var n = random.Next(80);
            await (random.Next(5) switch
            {
                0 => _falcon.NodeAsync($"n{n}"),
                1 => _falcon.ServiceAsync($"s{n}", true, $"10.7.1.{i}"),
                2 => _falcon.IpAsync($"10.7.0.{n}", (uint)n + 1),
                3 => _falcon.DeleteAsync(Keys.Node("falcon", $"n{n}")),
                _ => _falcon.DeleteAsync(Keys.Ip(IpPrefix.Parse($"10.7.0.{n}"))),
            });
        }
        await _falcon.NodeAsync("last");
        await there.Sink.UntilAsync(sink => sink.Text.Contains("last", StringComparison.Ordinal), "the last change, direct");
        var source = (await _store.ListAsync("cilium/state/", Cancellation)).Items
            .Select(item => Layout.State("falcon").Rewrite(item.Key, Layout.Cache("falcon"))!).Order(StringComparer.Ordinal).ToList();
        await _relay.UntilAsync(() => _relay.Mirror.KeysBelow("cilium/cache/").SequenceEqual(source), "the cache is the source");
        await here.Sink.UntilAsync(sink => sink.Text == there.Sink.Text, $"as direct: {there.Sink.Text}");
        Assert.Equal(there.Sink.Services.Select(Text).Order(), here.Sink.Services.Select(Text).Order());
        static string Text<T>(T service) => System.Text.Json.JsonSerializer.Serialize(service);
    }

    [Fact]
    public async Task Exports_and_slices_are_carried_when_they_are_advertised()
    {
        await _falcon.RecordsAsync();
        await _falcon.HeartbeatAsync();
        await PutAsync("cilium/state/serviceexports/v1/falcon/shop/cart", "an export");
        await _falcon.PutAsync("cilium/state/endpointslices/v1/falcon/shop/cart-abc", [0x28, 0xb5, 0x2f, 0xfd, 0]);
        await _falcon.ConfigAsync();
        await _falcon.CanariesAsync();
        _relay.Add("falcon", _etcd.Options);
        await _relay.UntilReadyAsync("falcon");
        Assert.Equal("", _relay.Dump("cilium/cache/serviceexports/"));
        await _falcon.ConfigAsync(new ClusterConfig
        {
            Id = 7,
            Capabilities = new() { SyncedCanaries = true, ServiceExportsEnabled = true, EndpointSlicesExportMode = "services-and-endpointslices" },
        });
        await _relay.UntilAsync(() => _relay.Status("falcon").ServiceExportsEnabled == true, "the new config is taken up");
        await PutAsync("cilium/synced/falcon/cilium/state/serviceexports/v1", "now");
        await PutAsync("cilium/synced/falcon/cilium/state/endpointslices/v1", "now");
        await _relay.UntilAsync(() => _relay.Mirror.Get("cilium/cache/endpointslices/v1/falcon/shop/cart-abc") is { Length: 5 }
            && _relay.Dump("cilium/cache/serviceexports/") == "cilium/cache/serviceexports/v1/falcon/shop/cart an export", "both are there");
    }

    [Fact]
    public async Task Relays_can_be_chained()
    {
        await _falcon.EverythingAsync();
        _relay.Add("falcon", _etcd.Options);
        await _relay.UntilReadyAsync("falcon");
        await using var second = await RelayUnderTest.StartedAsync();
        second.Add("falcon", _relay.Local);
        await second.UntilReadyAsync("falcon");
        Assert.Equal(_relay.Dump("cilium/cache/"), second.Dump("cilium/cache/"));
        Assert.True(second.Status("falcon").Cached);
        await using var agent = second.Agent();
        await agent.Sink.UntilReadyAsync("falcon");
        await _falcon.DeleteAsync(Keys.Node("falcon", "n1"));
        await agent.Sink.UntilAsync(sink => sink.Nodes.Count == 0, "a deletion comes through both");
    }

    [Fact]
    public async Task A_source_without_canaries_is_read_at_once_and_gets_ours()
    {
        await _falcon.RecordsAsync();
        await PutAsync(Keys.ClusterConfig("falcon"), """{"id":7,"capabilities":{}}""");
        _relay.Add("falcon", _etcd.Options);
        await using var agent = _relay.Agent();
        await agent.Sink.UntilReadyAsync("falcon");
        Assert.Equal(_falcon.Records, agent.Sink.Text);
    }

    [Fact]
    public async Task Canaries_wait_for_the_complete_list()
    {
        await _falcon.ConfigAsync();
        await _falcon.RecordsAsync();
        _relay.Add("falcon", _etcd.Options);
        await _relay.UntilAsync(() => _relay.Mirror.Get(Keys.ClusterConfig("falcon")) is not null, "the cluster-config");
        await Task.Delay(200, Cancellation);
        Assert.Equal("", _relay.Dump("cilium/cache/"));
        Assert.DoesNotContain("nodes", _relay.Dump("cilium/synced/"), StringComparison.Ordinal);
        await _falcon.CanariesAsync();
        await _relay.UntilReadyAsync("falcon");
        Assert.Contains("nodes", _relay.Dump("cilium/synced/"), StringComparison.Ordinal);
    }
}
