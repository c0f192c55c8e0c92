using CsCheck;
using Xunit;

namespace Mesh.Liveness.Tests;

/// <summary>What the judge decides of a network in virtual time.</summary>
public sealed class JudgeTests
{
    [Fact]
    public void A_cluster_that_falls_silent_is_out_within_a_fifth_of_a_second()
    {
        var delays = new List<double>();
        for (var seed = 0; seed < 200; seed++)
        {
            var world = new World(seed);
            world.Run(2 + seed * 0.00137);
            var cut = world.Now;
            world.IsCut = target => target.ClusterId == 2;
            world.Run(1);
            var (at, verdict) = Assert.Single(world.OfCluster(2));
            Assert.Equal(VerdictKind.ClusterOut, verdict.Kind);
            delays.Add((at - cut).TotalMilliseconds);
        }
        delays.Sort();
        Assert.InRange(delays[100], 100, 180);
        Assert.InRange(delays[197], 100, 250);
    }

    [Fact]
    public void A_cluster_far_away_is_given_the_time_that_its_answers_take()
    {
        var world = new World { RoundTrip = TimeSpan.FromMilliseconds(150) };
        world.Run(10);
        Assert.Empty(world.Verdicts);
        var cut = world.Now;
        world.IsCut = target => target.ClusterId == 2;
        world.Run(2);
        Assert.InRange((Assert.Single(world.OfCluster(2)).At - cut).TotalMilliseconds, 200, 600);
    }

    [Fact]
    public void A_node_that_falls_silent_is_out_alone()
    {
        var world = new World();
        world.Run(2);
        world.IsCut = target => target.Index == 22;
        world.Run(2);
        var (_, verdict) = Assert.Single(world.Verdicts);
        Assert.Equal((VerdictKind.NodeOut, 22u), (verdict.Kind, verdict.Node));
    }

    [Fact]
    public void A_node_of_the_own_cluster_is_out_alone()
    {
        var world = new World();
        world.Run(2);
        world.IsCut = target => target.ClusterId == 1;
        world.Run(2);
        Assert.Equal((VerdictKind.NodeOut, 12u), (Assert.Single(world.Verdicts).Verdict.Kind, world.Verdicts[0].Verdict.Node));
    }

    [Fact]
    public void When_everybody_is_silent_at_once_the_observer_blames_itself()
    {
        var world = new World();
        world.Run(2);
        world.IsCut = _ => true;
        world.Run(30);
        Assert.Empty(world.Verdicts);
        // The first whom it hears again proves nothing against the others.
        world.RoundTrip = TimeSpan.FromMilliseconds(30);
        world.IsCut = target => target.ClusterId == 2;
        world.Run(0.12);
        world.IsCut = _ => false;
        world.Run(20);
        Assert.Empty(world.Verdicts);
        Assert.True(world.Report.SelfSuspicions > 0);
    }

    /// <summary>The control of the test above: one witness is enough.</summary>
    [Fact]
    public void When_all_peers_are_silent_but_the_own_cluster_speaks_they_are_out()
    {
        var world = new World();
        world.Run(2);
        world.IsCut = target => target.ClusterId != 1;
        world.Run(1);
        Assert.Equal(VerdictKind.ClusterOut, Assert.Single(world.OfCluster(2)).Verdict.Kind);
        Assert.Equal(VerdictKind.ClusterOut, Assert.Single(world.OfCluster(3)).Verdict.Kind);
    }

    [Fact]
    public void Without_a_carrier_nothing_changes()
    {
        var world = new World();
        world.Run(2);
        world.LinkUp = false;
        world.Run(30);
        world.LinkUp = true;
        world.Run(20);
        Assert.Empty(world.Verdicts);
    }

    [Theory]
    [InlineData(0.06)]
    [InlineData(0.3)]
    [InlineData(10)]
    public void An_observer_that_slept_blames_itself(double seconds)
    {
        var world = new World();
        world.Run(2);
        for (var i = 0; i < 20; i++)
        {
            world.Sleep(seconds);
            world.Run(0.11);
        }
        Assert.Empty(world.Verdicts);
        Assert.True(world.Report.LateTurns > 0);
    }

    [Fact]
    public void A_cluster_comes_back_after_the_hold_and_gradually()
    {
        var world = new World();
        world.Run(2);
        world.IsCut = target => target.ClusterId == 2;
        world.Run(5);
        var back = world.Now;
        world.IsCut = _ => false;
        world.Run(15);
        var changes = world.OfCluster(2).ToList();
        Assert.Equal(VerdictKind.ClusterIn, changes[1].Verdict.Kind);
        Assert.InRange((changes[1].At - back).TotalSeconds, 5, 5.6);
        var shares = world.Verdicts.Where(one => one.Verdict.ClusterId == 2 && one.Verdict.Kind is VerdictKind.ClusterIn or VerdictKind.ClusterShare)
            .ToList();
        Assert.InRange(shares[0].Verdict.Share, 1, 60);
        Assert.Equal(255, shares[^1].Verdict.Share);
        Assert.Equal(shares.Select(one => one.Verdict.Share).Order(), shares.Select(one => one.Verdict.Share));
        Assert.InRange((shares[^1].At - shares[0].At).TotalSeconds, 2.5, 3.5);
    }

    [Theory]
    [InlineData(3, 3)]
    [InlineData(1.5, 1.5)]
    [InlineData(0.5, 2.5)]
    public void Flapping_for_a_minute_makes_two_transitions_at_most(double down, double up)
    {
        var world = new World();
        world.Run(2);
        for (double at = 0; at < 60; at += down + up)
        {
            world.IsCut = target => target.ClusterId == 2;
            world.Run(down);
            world.IsCut = _ => false;
            world.Run(up);
        }
        Assert.InRange(world.OfCluster(2).Count(), 1, 2);
        Assert.Equal(VerdictKind.ClusterOut, world.OfCluster(2).First().Verdict.Kind);
        world.Run(60);
        Assert.Equal(VerdictKind.ClusterIn, world.OfCluster(2).Last().Verdict.Kind);
        Assert.InRange(world.OfCluster(2).Count(), 1, 2);
    }

    [Fact]
    public void Packets_that_still_arrive_buy_time_but_not_for_ever()
    {
        var world = new World();
        world.Run(2);
        var cut = world.Now;
        world.IsCut = target => target.ClusterId == 2;
        world.IsHeard = target => target.ClusterId == 2;
        world.Run(0.4);
        Assert.Empty(world.Verdicts);
        world.Run(1);
        Assert.InRange((Assert.Single(world.OfCluster(2)).At - cut).TotalMilliseconds, 490, 700);
    }

    [Fact]
    public void Who_never_answered_is_not_judged()
    {
        var world = new World { IsCut = target => target.ClusterId == 2 };
        world.Run(10);
        Assert.Empty(world.Verdicts);
        // Unless an earlier run has heard it.
        var known = new World(targets: [World.Own(2), .. World.Peers(2, 2).Select(target => target with { Proved = true }), .. World.Peers(3, 1)])
        {
            IsCut = target => target.ClusterId == 2,
        };
        known.Run(2);
        Assert.Equal(VerdictKind.ClusterOut, Assert.Single(known.OfCluster(2)).Verdict.Kind);
    }

    [Fact]
    public void The_reserve_of_a_cluster_saves_it_when_its_representatives_die()
    {
        ProbeTarget[] targets = [World.Own(2), .. World.Peers(2, 3), .. World.Peers(2, 5, TargetRole.Reserve, first: 4), .. World.Peers(3, 1)];
        var world = new World(targets: targets);
        world.Run(5);
        world.IsCut = target => target.ClusterId == 2 && target.Role == TargetRole.Representative;
        world.Run(2);
        Assert.Empty(world.OfCluster(2));
        Assert.Equal(3, world.Verdicts.Count(one => one.Verdict.Kind == VerdictKind.NodeOut));
        // And does not, when it dies too.
        var other = new World(targets: targets);
        other.Run(5);
        var cut = other.Now;
        other.IsCut = target => target.ClusterId == 2;
        other.Run(2);
        Assert.InRange((Assert.Single(other.OfCluster(2)).At - cut).TotalMilliseconds, 100, 250);
    }

    [Fact]
    public void What_was_out_when_the_observer_started_stays_out_for_the_hold()
    {
        var world = new World(clusterWasIn: cluster => cluster != 2);
        world.Run(4);
        Assert.Empty(world.OfCluster(2));
        world.Run(3);
        Assert.Equal(VerdictKind.ClusterIn, Assert.Single(world.OfCluster(2)).Verdict.Kind);
    }

    [Fact]
    public void Nothing_bad_is_known_of_what_is_no_longer_asked()
    {
        var world = new World();
        world.Run(2);
        world.IsCut = target => target.ClusterId == 2;
        world.Run(1);
        world.Set(World.Own(2));
        world.Run(1);
        Assert.Equal(VerdictKind.ClusterIn, world.OfCluster(2).Last().Verdict.Kind);
        Assert.Equal(2, world.Verdicts.Count(one => one.Verdict.Kind == VerdictKind.NodeIn));
    }

    [Fact]
    public void Random_loss_of_a_fifth_makes_no_false_failover()
    {
        var world = new World(seed: 7) { Loss = 0.2 };
        world.Run(900);
        Assert.Empty(world.Verdicts);
    }

    /// <summary>The control of the test above: without the doubt's faster questions three losses in a row are an accident that happens.</summary>
    [Fact]
    public void Without_asking_faster_in_doubt_random_loss_would_make_false_failovers()
    {
        var world = new World(seed: 7, new LivenessOptions { DoubtPeriod = TimeSpan.FromMilliseconds(50), Overdue = 3 }) { Loss = 0.2 };
        world.Run(120);
        Assert.NotEmpty(world.Verdicts);
    }

    [Fact]
    public void Nobody_is_ever_out_who_owes_less_than_three_answers()
    {
        var phase = Gen.Select(Gen.Double[0.01, 4], Gen.Int[0, 63], Gen.Double[0, 0.3], Gen.Int[0, 9]);
        phase.List[1, 30].Select(Gen.Int).Sample((phases, seed) =>
        {
            var world = new World(seed);
            world.OnVerdict = verdict =>
            {
                if (verdict.Kind == VerdictKind.NodeOut)
                    Assert.True(world.Unanswered(world.Targets.Single(target => target.Index == verdict.Node).Name) >= 3);
                if (verdict.Kind == VerdictKind.ClusterOut)
                    Assert.All(world.Targets.Where(target => target.ClusterId == verdict.ClusterId),
                        target => Assert.True(world.Unanswered(target.Name) >= 3));
                if (verdict.Kind is VerdictKind.NodeOut or VerdictKind.ClusterOut)
                    Assert.True(verdict.Silence >= TimeSpan.FromMilliseconds(140), $"{verdict}");
            };
            foreach (var (seconds, cut, loss, sleep) in phases)
            {
                world.IsCut = target => (cut >> (int)(target.Index % 7) & 1) != 0;
                world.Loss = loss;
                if (sleep == 0)
                    world.Sleep(seconds);
                else
                    world.Run(seconds);
            }
            // However it went: once all is well for long enough, everything is in.
            world.IsCut = _ => false;
            world.Loss = 0;
            world.Run(60);
            Assert.All(world.Report.Clusters, cluster => Assert.Equal((true, 255), (cluster.IsIn, cluster.Share)));
            Assert.All(world.Report.Nodes, node => Assert.True(node.IsIn));
        }, iter: 100);
    }

    [Fact]
    public void A_healthy_mesh_is_asked_twenty_times_a_second_and_no_more()
    {
        var world = new World();
        world.Run(10);
        Assert.InRange(world.Sent / 10.0 / world.Targets.Count, 19, 21);
    }
}
