using System.Net;
using Mesh.Model;
using Xunit;

namespace Mesh.Liveness.Tests;

/// <summary>Which nodes are asked.</summary>
public sealed class TargetChoiceTests
{
    private static IEnumerable<ProbeCandidate> Nodes(uint cluster, int count, bool own = false, bool inUse = true) =>
        Enumerable.Range(1, count).Select(number => new ProbeCandidate(new NodeName($"c{cluster}", $"n{number}"), cluster, (uint)number,
            IPAddress.Loopback, own, inUse, false, false));

    [Fact]
    public void A_few_nodes_speak_for_a_cluster_and_a_few_more_are_kept_for_doubt()
    {
        var targets = TargetChoice.Choose("me", Nodes(2, 40));
        Assert.Equal(3, targets.Count(target => target.Role == TargetRole.Representative));
        Assert.Equal(5, targets.Count(target => target.Role == TargetRole.Reserve));
        Assert.Equal(32, targets.Count(target => target.Role == TargetRole.Watched));
    }

    [Fact]
    public void Observers_draw_different_nodes_and_each_always_the_same()
    {
        var drawn = Enumerable.Range(1, 20).SelectMany(observer => TargetChoice.Choose($"o{observer}", Nodes(2, 40))
            .Where(target => target.Role == TargetRole.Representative).Select(target => target.Name)).Distinct().Count();
        Assert.True(drawn > 20, $"{drawn}");
        Assert.Equal(TargetChoice.Choose("me", Nodes(2, 40)), TargetChoice.Choose("me", Nodes(2, 40).Reverse()));
    }

    [Fact]
    public void A_cluster_whose_backends_nobody_uses_is_watched_only()
    {
        Assert.All(TargetChoice.Choose("me", Nodes(2, 5, inUse: false)), target => Assert.Equal(TargetRole.Watched, target.Role));
    }

    [Fact]
    public void A_suspect_is_asked_whatever_the_draw()
    {
        foreach (var number in Enumerable.Range(1, 40))
        {
            var nodes = Nodes(2, 40).Select(node => node with { Suspect = node.Index == number });
            Assert.Equal(TargetRole.Representative, TargetChoice.Choose("me", nodes).Single(target => target.Index == number).Role);
        }
    }

    [Fact]
    public void However_many_nodes_there_are_the_number_of_questions_is_bounded()
    {
        var targets = TargetChoice.Choose("me", [.. Nodes(1, 2000, own: true), .. Nodes(2, 2000), .. Nodes(3, 2000, inUse: false)]);
        Assert.Equal(16 + 3 + 5 + 64, targets.Count);
    }
}
