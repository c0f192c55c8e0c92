using Mesh.Bpf;

namespace Mesh.Datapath.Loader;

/// <summary>What becomes of a map when another layout follows.</summary>
internal enum MapFate
{
    /// <summary>Made empty: filled from the tables, or by packets.</summary>
    New,

    /// <summary>Made with another room, and given all that the old one holds.</summary>
    Copied,

    /// <summary>The same map for both.</summary>
    Shared,
}

/// <summary>
/// Which maps of the layout that serves can be those of this build. A map whose values are numbers of places in another is worth
/// nothing beside another such map, and a shared one must not be tidied up by us while old programs follow numbers of their own into
/// it: maps that hang together by numbers are shared together, or none of them is. Memory of flows keeps its size, since a copy would
/// miss what begins while it is made.
/// </summary>
internal sealed class LayoutPlan
{
    /// <summary>Maps that hang together, and the tables that fill them.</summary>
    private static readonly (string[] Maps, string[] Tables)[] s_groups =
    [
        (["lb4_services", "lb6_services", "lb_services", "lb_arena", "lb_backends", "lb4_source_ranges", "lb6_source_ranges"],
            ["frontends", "clusters"]),
        (["nodes", "tunnel_senders", "ipcache4", "ipcache6", "ipcache4_prefixes", "ipcache6_prefixes"], ["ipcache", "nodes"]),
        (["policy_endpoints", "policy_rows", "policy_ranges"], ["policies"]),
        (["cluster_liveness"], ["frontends", "clusters"]),
        (["endpoints"], ["endpoints"]),
        (["lb_node_addresses"], ["nodes"]),
    ];

    /// <summary>Copied even where the rest of their group is made anew: who is which node stays.</summary>
    private static readonly string[] s_nodes = ["nodes", "tunnel_senders"];

    /// <summary>Written by packets and by proof of traffic, with numbers of places in the others: only where those stay the same.</summary>
    private static readonly (string Map, string[] Into)[] s_followers =
    [
        ("lb_backend_health", ["lb_backends", "nodes"]), ("lb_affinity", ["lb_services"]), ("failover", ["lb_backends"]),
        ("nat4", ["nodes"]), ("nat6", ["nodes"]),
    ];

    /// <summary>Each layout has its own.</summary>
    private static readonly string[] s_own = ["agent_state"];

    /// <summary>Goes with its socket: nobody can list it.</summary>
    private static readonly string[] s_unlisted = ["socket_translations", "events"];

    private readonly Dictionary<string, MapFate> _fates = [];
    private readonly HashSet<string> _tables = [];

    private LayoutPlan()
    {
    }

    /// <summary>By map.</summary>
    internal IReadOnlyDictionary<string, MapFate> Fates => _fates;

    /// <summary>Tables that must be in the maps before a program looks into them.</summary>
    internal IReadOnlySet<string> Tables => _tables;

    /// <param name="serving">The maps there are, as the build that made them declared them.</param>
    /// <param name="ours">As this build does.</param>
    internal static LayoutPlan Between(IReadOnlyDictionary<string, MapShape> serving, IReadOnlyDictionary<string, MapShape> ours)
    {
        var plan = new LayoutPlan();
        foreach (var (maps, tables) in s_groups)
        {
            var present = maps.Where(ours.ContainsKey).ToList();
            var fate = present.Select(map => Best(map, serving, ours)).DefaultIfEmpty(MapFate.Shared).Min();
            foreach (var map in present)
                plan._fates[map] = fate;
            if (fate != MapFate.New)
                continue;
            plan._tables.UnionWith(tables);
            if (s_nodes.All(present.Contains) && s_nodes.All(map => Best(map, serving, ours) != MapFate.New))
                foreach (var map in s_nodes)
                    plan._fates[map] = MapFate.Copied;
        }
        foreach (var (map, into) in s_followers.Where(follower => ours.ContainsKey(follower.Map)))
        {
            var best = Best(map, serving, ours);
            var places = into.Select(target => plan._fates.GetValueOrDefault(target)).Min();
            // A copy of what it points into has the same numbers; what is written from now on is not the same, unless only packets write it.
            plan._fates[map] = places == MapFate.New ? MapFate.New
                : places == MapFate.Copied && best == MapFate.Shared && !IsMemoryOfFlows(ours[map]) ? MapFate.Copied
                : best;
        }
        foreach (var map in ours.Keys.Where(map => !plan._fates.ContainsKey(map)))
            plan._fates[map] = s_own.Contains(map) ? MapFate.New
                : Best(map, serving, ours) is MapFate.Copied && s_unlisted.Contains(map) ? MapFate.New
                : Best(map, serving, ours);
        return plan;
    }

    /// <summary>Written by programs at every new flow, and small enough to lose the oldest.</summary>
    internal static bool IsMemoryOfFlows(MapShape shape) => shape.Type == MapInfo.TypeLruHash;

    /// <summary>Of the map by itself.</summary>
    private static MapFate Best(string map, IReadOnlyDictionary<string, MapShape> serving, IReadOnlyDictionary<string, MapShape> ours)
    {
        if (!serving.TryGetValue(map, out var there))
            return MapFate.New;
        var shape = ours[map];
        if (shape == there || (IsMemoryOfFlows(shape) && shape with { MaxEntries = there.MaxEntries } == there))
            return MapFate.Shared;
        return shape.Takes(there) ? MapFate.Copied : MapFate.New;
    }
}
