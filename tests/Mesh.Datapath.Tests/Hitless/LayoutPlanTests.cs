using Mesh.Datapath.Loader;

namespace Mesh.Datapath.Tests.Hitless;

/// <summary>Which maps of another layout are shared, copied or made anew. The shapes are those of the compiled programs.</summary>
public sealed class LayoutPlanTests
{
    private static IReadOnlyDictionary<string, MapShape> Ours => DatapathObjects.Shapes;

    [Fact]
    public void The_same_shapes_are_shared_but_for_what_each_layout_has_of_its_own()
    {
        var plan = LayoutPlan.Between(Ours, Ours);

        Assert.Equal(["agent_state"], With(plan, MapFate.New));
        Assert.Empty(With(plan, MapFate.Copied));
        Assert.Empty(plan.Tables);
    }

    [Fact]
    public void A_layout_that_has_not_said_what_its_maps_are_shares_none()
    {
        var plan = LayoutPlan.Between(new Dictionary<string, MapShape>(), Ours);

        Assert.All(plan.Fates.Values, fate => Assert.Equal(MapFate.New, fate));
        Assert.Equal(["clusters", "endpoints", "frontends", "ipcache", "nodes", "policies"], plan.Tables.Order());
    }

    [Fact]
    public void More_room_copies_all_that_hangs_together_by_numbers()
    {
        var plan = LayoutPlan.Between(Changed(Ours, "lb_backends", shape => shape with { MaxEntries = shape.MaxEntries / 2 }), Ours);

        Assert.Equal(["lb4_services", "lb4_source_ranges", "lb6_services", "lb6_source_ranges", "lb_arena", "lb_backend_health", "lb_backends",
            "lb_services"], With(plan, MapFate.Copied).Except(["failover"]));
        // Its keys are numbers of services, which stay the same.
        Assert.Equal(MapFate.Shared, plan.Fates["lb_affinity"]);
        Assert.Empty(plan.Tables);
    }

    [Fact]
    public void Less_room_and_other_types_are_filled_from_the_tables()
    {
        foreach (var serving in new[]
        {
            Changed(Ours, "lb_arena", shape => shape with { MaxEntries = shape.MaxEntries * 2 }),
            Changed(Ours, "lb_arena", shape => shape with { Types = ~shape.Types }),
        })
        {
            var plan = LayoutPlan.Between(serving, Ours);

            Assert.Equal(["clusters", "frontends"], plan.Tables.Order());
            // What counts by places in them has no meaning there.
            foreach (var map in (string[])["lb4_services", "lb_backends", "lb_backend_health", "lb_affinity", "failover", "lb6_source_ranges"])
                Assert.Equal(MapFate.New, plan.Fates[map]);
            foreach (var map in (string[])["ipcache4", "nodes", "conntrack4", "nat4", "policy_flows", "cluster_liveness"])
                Assert.Equal(MapFate.Shared, plan.Fates[map]);
        }
    }

    [Fact]
    public void Flows_from_outside_keep_their_nodes_when_the_ipcache_is_made_anew()
    {
        var plan = LayoutPlan.Between(Changed(Ours, "ipcache4", shape => shape with { Types = ~shape.Types }), Ours);

        Assert.Equal(["ipcache", "nodes"], plan.Tables.Order());
        Assert.Equal((MapFate.New, MapFate.New), (plan.Fates["ipcache4"], plan.Fates["ipcache6_prefixes"]));
        // Old programs go on with the old nodes; the numbers are the same in both.
        Assert.Equal((MapFate.Copied, MapFate.Copied), (plan.Fates["nodes"], plan.Fates["tunnel_senders"]));
        Assert.Equal((MapFate.Shared, MapFate.Copied), (plan.Fates["nat4"], plan.Fates["lb_backend_health"]));
    }

    [Fact]
    public void Flows_from_outside_are_not_led_by_numbers_of_other_nodes()
    {
        var plan = LayoutPlan.Between(Changed(Ours, "nodes", shape => shape with { Types = ~shape.Types }), Ours);

        foreach (var map in (string[])["nodes", "tunnel_senders", "ipcache4", "nat4", "nat6", "lb_backend_health"])
            Assert.Equal(MapFate.New, plan.Fates[map]);
    }

    [Fact]
    public void Memory_of_flows_is_shared_whatever_its_size_since_a_copy_would_miss_what_begins_meanwhile()
    {
        var serving = Ours;
        string[] memory = ["conntrack4", "conntrack6", "nat4", "nat6", "policy_flows", "fragments", "lb_affinity"];
        foreach (var map in memory)
            serving = Changed(serving, map, shape => shape with { MaxEntries = shape.MaxEntries * 2 });

        var plan = LayoutPlan.Between(serving, Ours);

        Assert.All(memory, map => Assert.Equal(MapFate.Shared, plan.Fates[map]));
    }

    [Fact]
    public void Every_map_has_a_fate()
    {
        var plan = LayoutPlan.Between(Ours, Ours);

        Assert.Equal(Ours.Keys.Order(StringComparer.Ordinal), plan.Fates.Keys.Order(StringComparer.Ordinal));
    }

    private static List<string> With(LayoutPlan plan, MapFate fate) =>
        [.. plan.Fates.Where(map => map.Value == fate).Select(map => map.Key).Order(StringComparer.Ordinal)];

    private static Dictionary<string, MapShape> Changed(IReadOnlyDictionary<string, MapShape> shapes, string map, Func<MapShape, MapShape> change) =>
        shapes.ToDictionary(pair => pair.Key, pair => pair.Key == map ? change(pair.Value) : pair.Value);
}
