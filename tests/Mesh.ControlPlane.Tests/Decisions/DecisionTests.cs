using System.Text.Json;
using Mesh.ControlPlane.LoadBalancing;
using Mesh.ControlPlane.LoadBalancing.Decisions;
using Mesh.Model;
using Xunit;

namespace Mesh.ControlPlane.Tests.Decisions;

/// <summary>Every rule that keeps or cuts a backend is told, for the backend that it concerns and for no other.</summary>
public sealed class DecisionTests
{
    private readonly World _world = new();

    [Fact]
    public void Kept_backends_and_the_revision_of_their_record()
    {
        _world.Apply(Given.Service("shop", "10.96.0.10"), Given.Slice("shop", "shop-1", "http:8080/TCP", "10.2.0.5"));
        _world.LoadBalancing.ApplyRemote("tokyo", 1, [new(Shop, Given.Record("tokyo", 1, "shop", "10.1.0.1 http:8080/TCP"))],
            new Dictionary<ServiceName, long> { [Shop] = 4711 });
        Assert.Equal("tokyo 10.1.0.1:8080/TCP Kept @4711\nosaka 10.2.0.5:8080/TCP Kept", Told());
    }

    [Fact]
    public void A_relist_that_says_the_same_has_the_newer_revision_and_the_old_age()
    {
        _world.Apply(Given.Service("shop", "10.96.0.10"));
        foreach (var revision in new[] { 5L, 9L })
            _world.LoadBalancing.ApplyRemote("tokyo", 1, [new(Shop, Given.Record("tokyo", 1, "shop", "10.1.0.1 http:8080/TCP"))],
                new Dictionary<ServiceName, long> { [Shop] = revision });
        Assert.Equal("tokyo 10.1.0.1:8080/TCP Kept @9", Told());
    }

    [Fact]
    public void Not_global()
    {
        _world.Apply(Given.Service("shop", "10.96.0.10", global: false), Given.Slice("shop", "shop-1", "http:8080/TCP", "10.2.0.5"));
        _world.Hear("tokyo", 1, Given.Record("tokyo", 1, "shop", "10.1.0.1 http:8080/TCP"));
        Assert.Equal("osaka 10.2.0.5:8080/TCP Kept\ntokyo 10.1.0.1:8080/TCP NotGlobal", Told());
    }

    [Fact]
    public void Port_name_protocol_and_family()
    {
        _world.Apply(Given.Service("shop", "10.96.0.10"));
        _world.Hear("tokyo", 1, Given.Record("tokyo", 1, "shop",
            "10.1.0.1 http:8080/TCP", "10.1.0.2 web:8080/TCP", "10.1.0.3 http:8080/UDP", "fd00:1::1 http:8080/TCP"));
        Assert.Equal("""
            tokyo 10.1.0.1:8080/TCP Kept
            tokyo 10.1.0.2:8080/TCP PortNameDiffers (web, not http)
            tokyo 10.1.0.3:8080/UDP OtherProtocol (UDP)
            tokyo [fd00:1::1]:8080/TCP OtherFamily (IPv6)
            """, Told());
    }

    [Fact]
    public void Claimed_by_another_cluster()
    {
        _world.Apply(Given.Service("shop", "10.96.0.10"), Given.Slice("shop", "shop-1", "http:8080/TCP", "10.9.0.1"));
        _world.Hear("tokyo", 1, Given.Record("tokyo", 1, "shop", "10.9.0.1 http:8080/TCP", "10.9.0.2 http:8080/TCP"));
        _world.Hear("kyoto", 3, Given.Record("kyoto", 3, "shop", "10.9.0.2 http:8080/TCP"));
        Assert.Equal("""
            osaka 10.9.0.1:8080/TCP Kept
            kyoto 10.9.0.2:8080/TCP Kept
            tokyo 10.9.0.1:8080/TCP ClaimedElsewhere (by osaka)
            tokyo 10.9.0.2:8080/TCP ClaimedElsewhere (by kyoto)
            """, Told());
    }

    [Fact]
    public void Not_ready_and_draining()
    {
        _world.Apply(Given.Service("shop", "10.96.0.10"),
            Given.Slice("shop", "shop-1", "http:8080/TCP", "10.2.0.5", "10.2.0.6 draining", "10.2.0.7 gone"));
        Assert.Equal("""
            osaka 10.2.0.5:8080/TCP Kept
            osaka 10.2.0.6:8080/TCP Draining
            osaka 10.2.0.7:8080/TCP NotReady
            """, Told());
    }

    [Fact]
    public void A_cluster_that_the_annotation_does_not_name_and_one_that_waits_its_turn()
    {
        var service = Given.Service("shop", "10.96.0.10");
        _world.Apply(service with
        {
            Metadata = service.Metadata with
            {
                Annotations = new Dictionary<string, string>(service.Metadata.Annotations!) { ["mesh.cilium.io/clusters"] = "tokyo:80, local:20 > nara" },
            },
        }, Given.Slice("shop", "shop-1", "http:8080/TCP", "10.2.0.5"));
        foreach (var (cluster, id) in new[] { ("tokyo", 1u), ("kyoto", 3u), ("nara", 4u) })
            _world.Hear(cluster, id, Given.Record(cluster, id, "shop", $"10.{id}0.0.1 http:8080/TCP"));
        Assert.Equal("""
            tokyo 10.10.0.1:8080/TCP Kept
            osaka 10.2.0.5:8080/TCP Kept
            nara 10.40.0.1:8080/TCP Standby
            kyoto 10.30.0.1:8080/TCP ClusterNotNamed
            """, Told());
        var decision = _world.LoadBalancing.Decision(Shop)!;
        Assert.Equal("affinity none, clusters tokyo:80, local:20 > nara", decision.Choice);
        var weights = decision.Frontends[0].Candidates.ToDictionary(one => one.Cluster, one => (double)one.Weight);
        Assert.Equal(4, weights["tokyo"] / weights["osaka"], 2);
    }

    [Fact]
    public void Traffic_policy_local_cuts_for_its_clients_only()
    {
        var service = Given.Service("shop", "10.96.0.10");
        _world.Apply(service with { Spec = service.Spec with { InternalTrafficPolicy = "Local" } }, Given.Node("osaka-1", "InternalIP 172.30.2.1"),
            Given.Slice("shop", "shop-1", "http:8080/TCP", "10.2.0.5", "10.2.0.6") is var slice
                ? slice with { Endpoints = [.. slice.Endpoints!.Select((one, i) => one with { NodeName = i == 0 ? "osaka-1" : "osaka-2" })] }
                : null!);
        var frontend = _world.LoadBalancing.Decision(Shop)!.Frontends[0];
        Assert.Equal([BackendRule.Kept, BackendRule.TrafficPolicyLocal], frontend.Candidates.Select(one => frontend.RuleFor(one, external: false)));
        frontend = frontend with { ExternalLocal = false };
        Assert.Equal([BackendRule.Kept, BackendRule.Kept], frontend.Candidates.Select(one => frontend.RuleFor(one, external: true)));
    }

    [Fact]
    public void What_the_kernel_had_of_a_cluster_not_heard_since()
    {
        var frontend = new L3n4Addr(IpAddr.Parse("10.96.0.10"), 80, L4Protocol.TCP);
        var world = new World(new Restored.RestoredState
        {
            Backends = [new(frontend, new L3n4Addr(IpAddr.Parse("10.7.0.1"), 8080, L4Protocol.TCP), 7, BackendState.Active)],
        });
        world.Apply(Given.Service("shop", "10.96.0.10"));
        Assert.Equal(" 10.7.0.1:8080/TCP Restored", Told(world));
    }

    [Fact]
    public void An_address_of_another_service_is_withheld()
    {
        _world.Apply(Given.Service("shop", "10.96.0.10"), Given.Service("store", "10.96.0.10"));
        Assert.Null(_world.LoadBalancing.Decision(Shop)!.Frontends[0].Withheld);
        Assert.Equal("the address belongs to Service default/shop",
            _world.LoadBalancing.Decision(new ServiceName("default", "store"))!.Frontends[0].Withheld);
    }

    [Fact]
    public void Each_service_that_changed_is_told_once()
    {
        _world.Apply(Given.Service("shop", "10.96.0.10"), Given.Service("store", "10.96.0.11"));
        Assert.Equal(2, _world.LoadBalancing.TakeUntold(10).Count);
        Assert.Empty(_world.LoadBalancing.TakeUntold(10));
        _world.Hear("tokyo", 1, Given.Record("tokyo", 1, "shop", "10.1.0.1 http:8080/TCP"));
        Assert.Equal([Shop], _world.LoadBalancing.TakeUntold(10));
        _world.Delete(Given.Service("shop", "10.96.0.10"));
        Assert.Equal([Shop], _world.LoadBalancing.TakeUntold(10));
        Assert.Null(_world.LoadBalancing.Decision(Shop));
    }

    [Fact]
    public void A_decision_survives_its_file()
    {
        _world.Apply(Given.Service("shop", "10.96.0.10", affinity: "local"), Given.Slice("shop", "shop-1", "http:8080/TCP", "10.2.0.5", "10.2.0.7 gone"));
        var text = JsonSerializer.SerializeToUtf8Bytes(_world.LoadBalancing.Decision(Shop)!, DecisionJson.Default.ServiceDecision);
        Assert.Equal(text, JsonSerializer.SerializeToUtf8Bytes(DecisionJson.Parse(text), DecisionJson.Default.ServiceDecision));
    }

    private static ServiceName Shop => new("default", "shop");

    private string Told(World? world = null) => string.Join('\n', (world ?? _world).LoadBalancing.Decision(Shop)!.Frontends[0].Candidates.Select(
        one => $"{one.Cluster} {one.Address} {one.Rule}{(one.Detail is null ? "" : $" ({one.Detail})")}{(one.Revision > 0 ? $" @{one.Revision}" : "")}"));
}
