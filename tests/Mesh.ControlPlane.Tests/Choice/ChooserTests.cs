using Mesh.ControlPlane.LoadBalancing;
using Mesh.ControlPlane.LoadBalancing.Choice;
using Mesh.Model;
using Xunit;

namespace Mesh.ControlPlane.Tests.Choice;

/// <summary>Shares applied to backends: who stands in which tier.</summary>
public sealed class ChooserTests
{
    [Fact]
    public void A_draining_backend_stands_behind_everything_that_lives()
    {
        var (backends, _) = Chooser.Apply(ServiceChoice.Default,
            [Backend(1, "10.1.0.1", BackendState.Draining), Backend(2, "10.2.0.1")], ChoiceContext.Plain(1));
        Assert.Equal([(1u, 1), (2u, 0)], backends.Select(backend => (backend.ClusterId, (int)backend.Tier)));
    }

    [Fact]
    public void A_cluster_that_is_not_named_is_left_out()
    {
        var choice = ServiceChoiceTests.Read([(ServiceChoice.ClustersName, "c2 > c1")]);
        var (backends, _) = Chooser.Apply(choice,
            [Backend(1, "10.1.0.1"), Backend(2, "10.2.0.1"), Backend(3, "10.3.0.1")], ChoiceContext.Plain(1));
        Assert.Equal([(1u, 1), (2u, 0)], backends.Select(backend => (backend.ClusterId, (int)backend.Tier)));
    }

    [Fact]
    public void Backends_that_are_not_ready_count_against_their_cluster()
    {
        var choice = ServiceChoiceTests.Read([(ServiceChoice.ClustersName, "c1 > c2"), (ServiceChoice.MinHealthyName, "50%")]);
        var context = ChoiceContext.Plain(1) with { NotReady = cluster => cluster == 1 ? 3 : 0 };
        var (_, shares) = Chooser.Apply(choice, [Backend(1, "10.1.0.1"), Backend(2, "10.2.0.1")], context);
        Assert.Equal([new Share(1, null, 0, Shares.Whole / 2), new Share(2, null, 0, Shares.Whole / 2)], shares);
    }

    [Fact]
    public void Backends_of_the_own_zone_are_a_group_of_their_own()
    {
        var choice = ServiceChoiceTests.Read([(ServiceChoice.PreferZoneName, "true")]);
        var (backends, _) = Chooser.Apply(choice,
            [Backend(1, "10.1.0.1") with { Zone = "a" }, Backend(1, "10.1.0.2") with { Zone = "b" }], ChoiceContext.Plain(1) with { Zone = "b" });
        Assert.Equal([(1, false), (0, true)], backends.Select(backend => ((int)backend.Tier, backend.InZone == true)));
    }

    [Fact]
    public void An_unreachable_cluster_stays_as_the_last_resort()
    {
        var context = ChoiceContext.Plain(1) with { Reachable = cluster => cluster != 2 };
        var (backends, _) = Chooser.Apply(ServiceChoice.Default, [Backend(1, "10.1.0.1"), Backend(2, "10.2.0.1")], context);
        Assert.Equal([(1u, 0), (2u, 1)], backends.Select(backend => (backend.ClusterId, (int)backend.Tier)));
    }

    private static Backend Backend(uint cluster, string address, BackendState state = BackendState.Active) =>
        new(new L3n4Addr(IpAddr.Parse(address), 80, L4Protocol.TCP), cluster, $"c{cluster}", "", "", state, 9);
}
