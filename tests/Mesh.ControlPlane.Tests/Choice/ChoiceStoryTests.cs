using Mesh.ControlPlane.LoadBalancing;
using Mesh.Kubernetes.Objects;
using Mesh.Model;
using Mesh.StateDB;
using Microsoft.Extensions.Time.Testing;
using Xunit;

namespace Mesh.ControlPlane.Tests.Choice;

/// <summary>From annotations and endpoints to the weights of a row, as the agent of osaka sees it.</summary>
public sealed class ChoiceStoryTests
{
    [Fact]
    public void Weights_of_the_annotation_become_weights_of_the_row()
    {
        var world = World(("mesh.cilium.io/clusters", "tokyo:80, local:20 > kyoto"));
        world.Hear("tokyo", 1, Given.Record("tokyo", 1, "echo", "10.1.0.1 http:80/TCP"));
        world.Hear("kyoto", 3, Given.Record("kyoto", 3, "echo", "10.3.0.1 http:80/TCP"));
        Assert.Equal("1/0:80 2/0:20 3/1:100", Shares(world));
    }

    [Fact]
    public void A_cluster_that_says_how_many_are_not_ready_spills()
    {
        var world = World(("mesh.cilium.io/clusters", "tokyo > *"), ("mesh.cilium.io/min-healthy", "50%"));
        var record = Given.Record("tokyo", 1, "echo", "10.1.0.1 http:80/TCP");
        world.Hear("tokyo", 1, record with
        {
            Conditions = Enumerable.Range(2, 3).ToDictionary(i => $"10.1.0.{i}", _ => Mesh.ClusterMesh.Wire.ClusterService.NotReady),
        });
        Assert.Equal("1/0:50 2/0:50", Shares(world));
        world.Hear("tokyo", 1, record);
        Assert.Equal("1/0:100 2/1:100", Shares(world));
    }

    [Fact]
    public void Local_endpoints_that_are_not_ready_count_as_well()
    {
        var world = World(("mesh.cilium.io/clusters", "local > *"), ("mesh.cilium.io/min-healthy", "100%"));
        world.Hear("tokyo", 1, Given.Record("tokyo", 1, "echo", "10.1.0.1 http:80/TCP"));
        world.Apply(Given.Slice("echo", "echo-1", "http:80/TCP", "10.2.0.1", "10.2.0.2 gone"));
        Assert.Equal("1/0:50 2/0:50", Shares(world));
    }

    [Fact]
    public void A_word_that_cannot_be_read_changes_nothing_and_is_told()
    {
        var world = World(("mesh.cilium.io/clusters", "tokyo > *"));
        world.Hear("tokyo", 1, Given.Record("tokyo", 1, "echo", "10.1.0.1 http:80/TCP"));
        var before = world.Frontends;
        world.Apply(Service(("mesh.cilium.io/clusters", "tokyo => *")));
        Assert.Equal(before, world.Frontends);
        Assert.Contains("its last good choice stays", Assert.Single(world.LoadBalancing.Conflicts), StringComparison.Ordinal);
        world.Apply(Service(("mesh.cilium.io/clusters", "none")));
        Assert.Empty(world.LoadBalancing.Conflicts);
        Assert.NotEqual(before, world.Frontends);
    }

    [Fact]
    public void Only_services_with_a_minimum_follow_a_cluster_out_of_reach()
    {
        var world = World(("mesh.cilium.io/clusters", "tokyo > *"), ("mesh.cilium.io/min-healthy", "50%"));
        world.Apply(Given.Service("plain", "10.96.0.2"));
        world.Hear("tokyo", 1, Given.Record("tokyo", 1, "echo", "10.1.0.1 http:80/TCP"), Given.Record("tokyo", 1, "plain", "10.1.0.2 http:80/TCP"));
        var plain = Find(world, "10.96.0.2").Revision;
        world.LoadBalancing.SetUnreachable(new HashSet<uint> { 1 });
        Assert.Equal("1/1:100 2/0:100", Shares(world));
        Assert.Equal(plain, Find(world, "10.96.0.2").Revision);
        world.LoadBalancing.SetUnreachable(new HashSet<uint>());
        Assert.Equal("1/0:100 2/1:100", Shares(world));
    }

    [Fact]
    public async Task The_first_local_backend_is_taken_up_step_by_step()
    {
        var time = new FakeTimeProvider();
        var world = new World(time: time);
        world.Apply(Service(("service.cilium.io/affinity", "local")));
        world.Hear("tokyo", 1, Given.Record("tokyo", 1, "echo", [.. Enumerable.Range(1, 9).Select(i => $"10.1.0.{i} http:80/TCP")]));
        world.Apply(Given.Slice("echo", "echo-1", "http:80/TCP", "10.2.0.1"));
        Assert.Equal("1/0:90 2/0:10", Shares(world));

        using var stop = new CancellationTokenSource();
        var steps = world.LoadBalancing.RunAsync(stop.Token);
        var seen = new List<string>();
        for (var second = 0; second < 25; second++)
        {
            time.Advance(TimeSpan.FromSeconds(1));
            await Task.Yield();
            if (Shares(world) is var now && seen.LastOrDefault() != now)
                seen.Add(now);
        }
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => steps);
        Assert.Equal("", seen[^1]);
        Assert.True(seen.Count >= 4, string.Join(" | ", seen));
    }

    [Fact]
    public void What_was_local_at_the_start_is_not_young()
    {
        var world = new World();
        world.Hear("tokyo", 1, Given.Record("tokyo", 1, "echo", "10.1.0.1 http:80/TCP"));
        world.Apply(Service(("service.cilium.io/affinity", "local")), Given.Slice("echo", "echo-1", "http:80/TCP", "10.2.0.1"));
        Assert.Equal("", Shares(world));
    }

    private static World World(params (string Name, string Value)[] annotations)
    {
        var world = new World();
        world.Apply(Service(annotations), Given.Slice("echo", "echo-1", "http:80/TCP", "10.2.0.1"));
        return world;
    }

    private static Service Service(params (string Name, string Value)[] annotations)
    {
        var service = Given.Service("echo", "10.96.0.1");
        return service with
        {
            Metadata = service.Metadata with
            {
                Annotations = service.Metadata.Annotations!.Concat(annotations.Select(pair => KeyValuePair.Create(pair.Name, pair.Value)))
                    .ToDictionary(),
            },
        };
    }

    private static Entry<Frontend> Find(World world, string address) => world.State.Frontends.Snapshot()
        .First(pair => pair.Key == new L3n4Addr(IpAddr.Parse(address), 80, L4Protocol.TCP)).Value;

    /// <summary>"1/0:80": cluster 1 in tier 0 with 80 percent of the tier.</summary>
    private static string Shares(World world)
    {
        var row = Find(world, "10.96.0.1").Row;
        return string.Join(' ', row.Shares.OrderBy(share => share.ClusterId).Select(share =>
            $"{share.ClusterId}/{share.Tier}:{100.0 * share.Weight / row.Shares.Where(one => one.Tier == share.Tier).Sum(one => one.Weight):0}"));
    }
}
