using CsCheck;
using Mesh.ControlPlane.LoadBalancing.Choice;
using Xunit;

namespace Mesh.ControlPlane.Tests.Choice;

/// <summary>Who gets how much, from what the clusters have.</summary>
public sealed class SharesTests
{
    private static readonly ClusterSupply Tokyo = new("tokyo", 1, IsLocal: true, Live: 10, Expected: 10);
    private static readonly ClusterSupply Osaka = new("osaka", 2, IsLocal: false, Live: 10, Expected: 10);
    private static readonly ClusterSupply Kyoto = new("kyoto", 3, IsLocal: false, Live: 10, Expected: 10);

    [Fact]
    public void Healthy_groups_give_nothing_to_the_next() =>
        Assert.Equal("1:80 2:20 | 3:100", Text("tokyo:80, osaka:20 > kyoto", "50%", Tokyo, Osaka, Kyoto));

    [Fact]
    public void Above_the_minimum_nothing_spills() =>
        Assert.Equal("1:80 2:20 | 3:100", Text("tokyo:80, osaka:20 > kyoto", "50%", Tokyo with { Live = 5 }, Osaka, Kyoto));

    [Fact]
    public void Below_the_minimum_the_missing_part_spills_in_proportion() =>
        Assert.Equal("1:64 2:20 3:16", Text("tokyo:80, osaka:20 > kyoto", "50%", Tokyo with { Live = 4 }, Osaka, Kyoto));

    [Fact]
    public void An_unreachable_cluster_has_no_health_and_stands_behind() =>
        Assert.Equal("2:20 3:80 | 1:100", Text("tokyo:80, osaka:20 > kyoto", "50%", Tokyo with { Reachable = false }, Osaka, Kyoto));

    [Fact]
    public void Without_a_minimum_a_group_takes_everything_as_long_as_it_lives() =>
        Assert.Equal("1:80 2:20 | 3:100", Text("tokyo:80, osaka:20 > kyoto", "none", Tokyo with { Live = 1 }, Osaka, Kyoto));

    [Fact]
    public void What_nobody_can_take_is_laid_on_all() =>
        Assert.Equal("1:50 2:50", Text("tokyo > osaka", "100%", Tokyo with { Live = 2 }, Osaka with { Live = 2 }));

    [Fact]
    public void A_cluster_that_is_not_named_is_not_used() =>
        Assert.Equal("2:100", Text("osaka", "none", Tokyo, Osaka, Kyoto));

    [Fact]
    public void A_star_is_every_cluster_not_named() =>
        Assert.Equal("2:100 | 1:50 3:50", Text("osaka > *", "none", Tokyo, Osaka, Kyoto));

    [Fact]
    public void Local_is_the_own_cluster() =>
        Assert.Equal("1:100 | 2:50 3:50", Text("local > *", "none", Tokyo, Osaka, Kyoto));

    [Fact]
    public void Without_weights_backends_count() =>
        Assert.Equal("1:25 2:75", Text("tokyo, osaka", "none", Tokyo, Osaka with { Live = 30, Expected = 30 }));

    [Fact]
    public void A_cluster_without_live_backends_has_no_share() =>
        Assert.Equal("2:100", Text("tokyo > osaka", "none", Tokyo with { Live = 0 }, Osaka));

    [Fact]
    public void The_own_zone_goes_first_and_the_rest_of_its_cluster_stands_before_the_next_group() =>
        Assert.Equal("1+:100 | 1-:100 | 2:100",
            Text("tokyo > osaka", "none", zone: "true", Tokyo with { LiveHere = 4, ExpectedHere = 4 }, Osaka));

    [Fact]
    public void A_zone_below_the_minimum_spills_to_the_other_zones() =>
        Assert.Equal("1+:50 1-:50 | 2:100",
            Text("tokyo > osaka", "50%", zone: "true", Tokyo with { LiveHere = 1, ExpectedHere = 4 }, Osaka));

    [Fact]
    public void A_young_local_side_takes_only_what_it_may()
    {
        var local = ServiceChoiceTests.Read([(ServiceChoice.AffinityName, "local")]);
        Assert.Equal("1:9 2:91", Text(Shares.Of(local, [Tokyo with { Live = 1, Expected = 1 }, Osaka], localUptake: 1.0 / 11)));
        Assert.Equal("1:100 | 2:100", Text(Shares.Of(local, [Tokyo with { Live = 1, Expected = 1 }, Osaka])));
    }

    [Fact]
    public void Whatever_the_clusters_have_somebody_live_takes_the_traffic_and_nobody_named_is_forgotten()
    {
        var supply = Gen.Select(Gen.Int[0, 20], Gen.Int[0, 20], Gen.Bool)
            .Select(one => (Live: one.Item1, Expected: one.Item1 + one.Item2, Reachable: one.Item3));
        Gen.Select(supply.Array[3], Gen.OneOf("none", "25%", "50%", "100%"),
            Gen.OneOf("tokyo:80, osaka:20 > kyoto", "tokyo > osaka > kyoto", "local > *", "*", "kyoto:1, osaka:999 > *"))
            .Sample((clusters, healthy, order) =>
            {
                ClusterSupply[] all =
                [
                    .. new[] { Tokyo, Osaka, Kyoto }.Zip(clusters, (cluster, with) =>
                        cluster with { Live = with.Live, Expected = with.Expected, Reachable = with.Reachable }),
                ];
                var shares = Of(order, healthy, "none", all);
                var live = all.Where(cluster => cluster.Live > 0).Select(cluster => cluster.ClusterId).Order();
                Assert.Equal(live, shares.Select(share => share.ClusterId).Order());
                Assert.Equal(Enumerable.Range(0, shares.Select(share => (int)share.Tier).DefaultIfEmpty(-1).Max() + 1),
                    shares.Select(share => (int)share.Tier).Distinct().Order());
                if (all.Any(cluster => cluster.Live > 0 && cluster.Reachable))
                    Assert.All(shares.Where(share => share.Tier == 0),
                        share => Assert.True(all.Single(cluster => cluster.ClusterId == share.ClusterId).Reachable));
            }, iter: 2000);
    }

    private static IReadOnlyList<Share> Of(string order, string healthy, string zone, params ClusterSupply[] clusters) =>
        Shares.Of(ServiceChoiceTests.Read([
            (ServiceChoice.ClustersName, order), (ServiceChoice.MinHealthyName, healthy), (ServiceChoice.PreferZoneName, zone),
        ]), clusters);

    private static string Text(string order, string healthy, params ClusterSupply[] clusters) =>
        Text(Of(order, healthy, "none", clusters));

    private static string Text(string order, string healthy, string zone, params ClusterSupply[] clusters) =>
        Text(Of(order, healthy, zone, clusters));

    /// <summary>"1:80 2:20 | 3:100": cluster ID and percent, tiers apart; + is the own zone, - the others.</summary>
    private static string Text(IReadOnlyList<Share> shares) =>
        string.Join(" | ", shares.GroupBy(share => share.Tier).OrderBy(tier => tier.Key).Select(tier =>
        {
            var whole = tier.Sum(share => share.Weight);
            return string.Join(' ', tier.OrderBy(share => share.ClusterId).ThenByDescending(share => share.InZone)
                .Select(share => $"{share.ClusterId}{share.InZone switch { true => "+", false => "-", _ => "" }}:{100.0 * share.Weight / whole:0}"));
        }));
}
