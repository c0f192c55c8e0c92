using Mesh.Model;
using Xunit;

namespace Mesh.ControlPlane.Tests;

/// <summary>Objects of this cluster and records of others in, frontends out.</summary>
public class GlobalServiceTests
{
    private readonly World _world = new();

    [Fact]
    public void A_global_service_has_the_backends_of_every_cluster()
    {
        _world.Apply(Given.Service("rebel-base", "10.96.0.10"), Given.Slice("rebel-base", "a", "http:8080/TCP", "10.2.0.5"));
        _world.Hear("tokyo", 1, Given.Record("tokyo", 1, "rebel-base", "10.1.0.11 http:8080/TCP", "10.1.0.12 http:8080/TCP"));
        _world.Hear("kyoto", 3, Given.Record("kyoto", 3, "rebel-base", "10.3.0.7 http:9090/TCP"));
        Assert.Equal(
            "10.96.0.10:80/TCP default/rebel-base:http => 10.1.0.11:8080@1 10.1.0.12:8080@1 10.2.0.5:8080@2 10.3.0.7:9090@3",
            _world.Frontends);
    }

    [Fact]
    public void A_service_that_is_not_global_keeps_to_its_own_cluster()
    {
        _world.Apply(Given.Service("db", "10.96.0.10", global: false), Given.Slice("db", "a", "http:8080/TCP", "10.2.0.5"));
        _world.Hear("tokyo", 1, Given.Record("tokyo", 1, "db", "10.1.0.11 http:8080/TCP"));
        Assert.Equal("10.96.0.10:80/TCP default/db:http => 10.2.0.5:8080@2", _world.Frontends);

        _world.Apply(Given.Service("db", "10.96.0.10"));
        Assert.Equal("10.96.0.10:80/TCP default/db:http => 10.1.0.11:8080@1 10.2.0.5:8080@2", _world.Frontends);
    }

    [Fact]
    public void A_record_without_a_local_service_waits_for_it()
    {
        _world.Hear("tokyo", 1, Given.Record("tokyo", 1, "later", "10.1.0.11 http:8080/TCP"));
        Assert.Equal("", _world.Frontends);
        Assert.Equal(1, _world.LoadBalancing.GlobalServices);

        _world.Apply(Given.Service("later", "10.96.0.11"));
        Assert.Equal("10.96.0.11:80/TCP default/later:http => 10.1.0.11:8080@1", _world.Frontends);
    }

    [Fact]
    public void A_service_without_any_backend_is_a_frontend_all_the_same()
    {
        _world.Apply(Given.Service("empty", "10.96.0.12"));
        Assert.Equal("10.96.0.12:80/TCP default/empty:http =>", _world.Frontends);
    }

    [Theory]
    [InlineData("None")]
    [InlineData("")]
    [InlineData(null)]
    public void A_service_without_an_address_has_no_frontend(string? clusterIP)
    {
        _world.Apply(Given.Service("headless", clusterIP));
        Assert.Equal("", _world.Frontends);
    }

    [Fact]
    public void Each_family_has_its_own_frontend_and_backends()
    {
        _world.Apply(Given.Service("dual", "10.96.0.10", moreIPs: "fd96::10"), Given.Slice("dual", "a", "http:8080/TCP", "10.2.0.5"));
        _world.Hear("tokyo", 1, Given.Record("tokyo", 1, "dual", "10.1.0.11 http:8080/TCP", "fd01::b http:8080/TCP"));
        Assert.Equal(
            "10.96.0.10:80/TCP default/dual:http => 10.1.0.11:8080@1 10.2.0.5:8080@2\n"
            + "[fd96::10]:80/TCP default/dual:http => [fd01::b]:8080@1",
            _world.Frontends);
    }

    [Fact]
    public void Ports_match_by_name_and_protocol_and_an_unnamed_one_matches_all()
    {
        _world.Apply(Given.Service("many", "10.96.0.10", "http:80/TCP dns:53/UDP"), Given.Service("bare", "10.96.0.11", ":80/TCP"));
        _world.Hear("tokyo", 1,
            Given.Record("tokyo", 1, "many", "10.1.0.1 http:8080/TCP dns:5353/UDP", "10.1.0.2 web:8080/TCP", "10.1.0.3 :8081/TCP", "10.1.0.4 dns:5353/TCP"),
            Given.Record("tokyo", 1, "bare", "10.1.0.1 http:8080/TCP dns:5353/UDP"));
        Assert.Equal(
            "10.96.0.10:53/UDP default/many:dns => 10.1.0.1:5353@1\n"
            + "10.96.0.10:80/TCP default/many:http => 10.1.0.1:8080@1 10.1.0.3:8081@1\n"
            + "10.96.0.11:80/TCP default/bare => 10.1.0.1:8080@1",
            _world.Frontends);
    }

    [Theory]
    [InlineData("local", "10.2.0.5:8080@2 10.1.0.11:8080@1 tier1")]
    [InlineData("remote", "10.1.0.11:8080@1 10.2.0.5:8080@2 tier1")]
    [InlineData("none", "10.1.0.11:8080@1 10.2.0.5:8080@2")]
    [InlineData("somewhere", "10.1.0.11:8080@1 10.2.0.5:8080@2")]
    [InlineData(null, "10.1.0.11:8080@1 10.2.0.5:8080@2")]
    public void Affinity_puts_the_others_into_the_second_tier(string? affinity, string backends)
    {
        _world.Apply(Given.Service("near", "10.96.0.10", affinity: affinity), Given.Slice("near", "a", "http:8080/TCP", "10.2.0.5"));
        _world.Hear("tokyo", 1, Given.Record("tokyo", 1, "near", "10.1.0.11 http:8080/TCP"));
        Assert.Equal($"10.96.0.10:80/TCP default/near:http => {backends}", _world.Frontends);
    }

    [Fact]
    public void An_endpoint_that_goes_away_drains_and_one_that_serves_no_more_is_out()
    {
        _world.Apply(Given.Service("old", "10.96.0.10"),
            Given.Slice("old", "a", "http:8080/TCP", "10.2.0.5", "10.2.0.6 draining", "10.2.0.7 gone"));
        Assert.Equal("10.96.0.10:80/TCP default/old:http => 10.2.0.5:8080@2 10.2.0.6:8080@2 Draining", _world.Frontends);
    }

    [Fact]
    public void The_local_claim_to_an_address_wins_over_a_remote_one()
    {
        _world.Hear("tokyo", 1, Given.Record("tokyo", 1, "same", "10.9.0.1 http:8080/TCP"));
        _world.Apply(Given.Service("same", "10.96.0.10"), Given.Slice("same", "a", "http:8080/TCP", "10.9.0.1"));
        Assert.Equal("10.96.0.10:80/TCP default/same:http => 10.9.0.1:8080@2", _world.Frontends);

        _world.Delete(Given.Slice("same", "a", "http:8080/TCP", "10.9.0.1"));
        Assert.Equal("10.96.0.10:80/TCP default/same:http => 10.9.0.1:8080@1", _world.Frontends);
    }

    [Fact]
    public void Of_two_remote_claims_the_last_writer_wins_and_saying_it_again_is_no_writing()
    {
        _world.Apply(Given.Service("same", "10.96.0.10"));
        _world.Hear("tokyo", 1, Given.Record("tokyo", 1, "same", "10.9.0.1 http:8080/TCP"));
        _world.Hear("kyoto", 3, Given.Record("kyoto", 3, "same", "10.9.0.1 http:8080/TCP"));
        Assert.EndsWith("10.9.0.1:8080@3", _world.Frontends);

        _world.Hear("tokyo", 1, Given.Record("tokyo", 1, "same", "10.9.0.1 http:8080/TCP"));
        Assert.EndsWith("=> 10.9.0.1:8080@3", _world.Frontends);

        _world.HearDeletion("kyoto", 3, "same");
        Assert.EndsWith("=> 10.9.0.1:8080@1", _world.Frontends);
    }

    [Fact]
    public void Removing_a_cluster_drains_its_backends()
    {
        _world.Apply(Given.Service("rebel-base", "10.96.0.10"));
        _world.Hear("tokyo", 1, Given.Record("tokyo", 1, "rebel-base", "10.1.0.11 http:8080/TCP"));
        _world.Hear("kyoto", 3, Given.Record("kyoto", 3, "rebel-base", "10.3.0.7 http:9090/TCP"));
        _world.Remote.Drain("tokyo", 1);
        Assert.Equal("10.96.0.10:80/TCP default/rebel-base:http => 10.3.0.7:9090@3", _world.Frontends);
    }

    [Fact]
    public void A_lost_connection_changes_nothing()
    {
        _world.Apply(Given.Service("rebel-base", "10.96.0.10"));
        _world.Hear("tokyo", 1, Given.Record("tokyo", 1, "rebel-base", "10.1.0.11 http:8080/TCP"));
        var revision = _world.State.Frontends.Revision;
        _world.Learn("tokyo", 1);
        _world.Remote.StatusChanged(new() { Name = "tokyo", ClusterId = 1, Connected = false, Status = "not able to connect" });
        Assert.Equal(revision, _world.State.Frontends.Revision);
    }

    [Fact]
    public void A_record_that_is_not_shared_withdraws()
    {
        _world.Apply(Given.Service("rebel-base", "10.96.0.10"));
        var record = Given.Record("tokyo", 1, "rebel-base", "10.1.0.11 http:8080/TCP");
        _world.Hear("tokyo", 1, record);
        _world.Hear("tokyo", 1, record with { Shared = false });
        Assert.Equal("10.96.0.10:80/TCP default/rebel-base:http =>", _world.Frontends);
    }

    [Fact]
    public void Slices_that_mirror_remote_endpoints_are_not_counted_twice()
    {
        var mirror = Given.Slice("rebel-base", "m", "http:8080/TCP", "10.1.0.11");
        var labels = new Dictionary<string, string>(mirror.Metadata.Labels!)
        {
            ["endpointslice.kubernetes.io/managed-by"] = "endpointslice-mesh-controller.cilium.io",
        };
        _world.Apply(Given.Service("rebel-base", "10.96.0.10"), mirror with { Metadata = mirror.Metadata with { Labels = labels } });
        Assert.Equal("10.96.0.10:80/TCP default/rebel-base:http =>", _world.Frontends);
    }

    [Fact]
    public void A_slice_may_move_to_another_service()
    {
        _world.Apply(Given.Service("one", "10.96.0.10"), Given.Service("two", "10.96.0.11"), Given.Slice("one", "a", "http:8080/TCP", "10.2.0.5"));
        _world.Apply(Given.Slice("two", "a", "http:8080/TCP", "10.2.0.5"));
        Assert.Equal(
            "10.96.0.10:80/TCP default/one:http =>\n10.96.0.11:80/TCP default/two:http => 10.2.0.5:8080@2",
            _world.Frontends);
    }

    [Fact]
    public void Two_services_with_one_address_do_not_disturb_each_other()
    {
        _world.Apply(Given.Service("first", "10.96.0.10"), Given.Slice("first", "a", "http:8080/TCP", "10.2.0.5"));
        _world.Apply(Given.Service("another", "10.96.0.10"), Given.Slice("another", "b", "http:8080/TCP", "10.2.0.6"));
        Assert.Equal("10.96.0.10:80/TCP default/first:http => 10.2.0.5:8080@2", _world.Frontends);
        Assert.Equal(
            "Service default/another: 10.96.0.10:80/TCP already belongs to Service default/first: give one of them another address",
            Assert.Single(_world.LoadBalancing.Conflicts));

        _world.Delete(Given.Service("first", "10.96.0.10"));
        Assert.Equal("10.96.0.10:80/TCP default/another:http => 10.2.0.6:8080@2", _world.Frontends);
        Assert.Empty(_world.LoadBalancing.Conflicts);
    }

    [Fact]
    public void Two_services_may_exchange_their_addresses_in_one_batch()
    {
        _world.Apply(Given.Service("a", "10.96.0.10"), Given.Service("b", "10.96.0.11"));
        _world.Apply(Given.Service("a", "10.96.0.11"), Given.Service("b", "10.96.0.10"));
        Assert.Equal("10.96.0.10:80/TCP default/b:http =>\n10.96.0.11:80/TCP default/a:http =>", _world.Frontends);
        Assert.Empty(_world.LoadBalancing.Conflicts);
    }

    [Fact]
    public void A_change_to_one_service_touches_its_own_rows_only()
    {
        _world.Apply([.. Enumerable.Range(0, 50).Select(i => Given.Service($"s{i}", $"10.96.1.{i}"))]);
        var revision = _world.State.Frontends.Revision;
        _world.Hear("tokyo", 1, Given.Record("tokyo", 1, "s7", "10.1.0.11 http:8080/TCP"));
        Assert.Equal(revision + 1, _world.State.Frontends.Revision);
    }

    [Fact]
    public void Five_thousand_endpoints_in_one_batch_are_one_change_per_frontend()
    {
        var slices = Enumerable.Range(0, 50).Select(slice => Given.Slice("big", $"big-{slice}", "http:8080/TCP",
            [.. Enumerable.Range(0, 100).Select(i => $"10.2.{slice}.{i + 1}")])).ToArray();
        _world.Apply(Given.Service("big", "10.96.0.10"));
        var revision = _world.State.Frontends.Revision;
        _world.Apply(slices);
        Assert.Equal(revision + 1, _world.State.Frontends.Revision);
        Assert.True(_world.State.Frontends.TryGet(new L3n4Addr(IpAddr.Parse("10.96.0.10"), 80, L4Protocol.TCP), out var row));
        Assert.Equal(5000, row.Backends.Count);
    }
}
