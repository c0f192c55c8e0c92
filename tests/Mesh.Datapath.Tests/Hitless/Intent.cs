using Mesh.ControlPlane.IPCache;
using Mesh.ControlPlane.LoadBalancing;
using Mesh.ControlPlane.Nodes;
using Mesh.ControlPlane.RemoteClusters;
using Mesh.Datapath.Maps;
using Mesh.Datapath.Nodes;
using Mesh.Model;
using Mesh.Policy;
using static Mesh.Datapath.Tests.LoadBalancing.Rows;

namespace Mesh.Datapath.Tests.Hitless;

/// <summary>All that the tables of an agent may say at one time, in two states that differ in everything that can differ.</summary>
internal sealed record Intent
{
    internal const ushort Pod = 5;
    private const uint Local = 1;
    private const uint Osaka = 2;
    private const uint Tokyo = 3;

    internal required IReadOnlyDictionary<L3n4Addr, Frontend> Frontends { get; init; }

    internal required IReadOnlyDictionary<IpPrefix, IPCacheEntry> IPCache { get; init; }

    internal required IReadOnlyDictionary<NodeName, Node> Nodes { get; init; }

    internal required IReadOnlyDictionary<string, RemoteClusterRow> Clusters { get; init; }

    internal required IReadOnlyDictionary<PolicyKey, PolicyRow> Policies { get; init; }

    /// <summary>Next hops by tunnel endpoint.</summary>
    internal required IReadOnlyDictionary<IpAddr, NodePath> Paths { get; init; }

    /// <summary>What traffic proves of clusters: their share of new flows, 0 = silent.</summary>
    internal required IReadOnlyDictionary<uint, byte> Shares { get; init; }

    internal static Intent None { get; } = new()
    {
        Frontends = new Dictionary<L3n4Addr, Frontend>(),
        IPCache = new Dictionary<IpPrefix, IPCacheEntry>(),
        Nodes = new Dictionary<NodeName, Node>(),
        Clusters = new Dictionary<string, RemoteClusterRow>(),
        Policies = new Dictionary<PolicyKey, PolicyRow>(),
        Paths = new Dictionary<IpAddr, NodePath>(),
        Shares = new Dictionary<uint, byte>(),
    };

    internal static Intent Before { get; } = new()
    {
        Frontends = Of(
            Frontend("10.96.0.1:80/TCP", Backend("10.1.0.1:8080/TCP"), Backend("10.2.0.1:8080/TCP", Osaka, 1), Backend("10.2.0.2:8080/TCP", Osaka, 1)),
            Frontend("[fd00:96::1]:80/TCP", Backend("[fd00:1::1]:8080/TCP")),
            Frontend("10.96.0.2:53/UDP", Backend("10.1.0.3:53/UDP"), Backend("10.1.0.4:53/UDP")) with { AffinitySeconds = 60 },
            Balanced(["192.0.2.0/24", "2001:db8::/32"], Backend("10.1.0.5:80/TCP")),
            Frontend("10.96.0.4:80/TCP", Backend("10.1.0.7:80/TCP")),
            Frontend("10.96.0.5:80/TCP", Backend("10.1.0.8:80/TCP"), Backend("10.1.0.9:80/TCP"))),
        IPCache = Of(
            Entry("10.2.0.1/32", 131073, "172.30.0.2", Osaka), Entry("10.2.0.2/32", 131073, "172.30.0.2", Osaka),
            Entry("10.2.0.0/24", 131072, "172.30.0.2", Osaka), Entry("fd00:2::1/128", 131073, "172.30.0.2", Osaka),
            Entry("fd00:2::/64", 131072, "172.30.0.2", Osaka), Entry("10.1.0.1/32", 65537, null, Local)),
        Nodes = Of(Host("osaka-1", Osaka, "172.30.0.2"), Host("nagoya-1", Local, "172.30.0.1"), Host("nagoya-2", Local, "172.30.0.9")),
        Clusters = Of(new RemoteClusterRow("osaka", Osaka, true, true, "")),
        Policies = Sets(10, allow: [131073], ports: [65537]),
        Paths = new Dictionary<IpAddr, NodePath> { [IpAddr.Parse("172.30.0.2")] = Path(2, 0xa1) },
        Shares = new Dictionary<uint, byte> { [Local] = 128 },
    };

    internal static Intent After { get; } = new()
    {
        Frontends = Of(
            // Other backends and tiers; gone; one state; other ranges; two scopes; all gone but a new one.
            Frontend("10.96.0.1:80/TCP", Backend("10.1.0.2:8080/TCP"), Backend("10.3.0.1:8080/TCP", Tokyo), Backend("10.3.0.2:8080/TCP", Tokyo)),
            Frontend("10.96.0.2:53/UDP", Backend("10.1.0.3:53/UDP"), Backend("10.1.0.4:53/UDP", state: BackendState.Draining)) with { AffinitySeconds = 60 },
            Balanced(["198.51.100.0/24", "203.0.113.0/24"], Backend("10.1.0.5:80/TCP"), Backend("10.1.0.6:80/TCP")),
            Frontend("10.96.0.4:80/TCP", Backend("10.1.0.7:80/TCP") with { IsHere = true }, Backend("10.1.0.17:80/TCP")) with { ExternalLocal = true },
            Frontend("10.96.0.5:80/TCP"),
            Frontend("10.96.0.6:80/TCP", Backend("10.1.0.10:80/TCP"))),
        IPCache = Of(
            // Another identity, another node, both, a new node; gone.
            Entry("10.2.0.1/32", 131074, "172.30.0.2", Osaka), Entry("10.2.0.2/32", 131075, "172.30.0.3", Tokyo),
            Entry("10.2.0.0/24", 131072, "172.30.0.3", Tokyo), Entry("fd00:2::1/128", 131076, "172.30.0.4", Tokyo),
            Entry("10.1.0.1/32", 65538, null, Local), Entry("fd00:3::/64", 196608, "172.30.0.4", Tokyo)),
        Nodes = Of(Host("osaka-1", Osaka, "172.30.0.2") with { TakesDsr = true }, Host("nagoya-1", Local, "172.30.0.1"), Host("nagoya-2", Local, "172.30.0.8")),
        Clusters = Of(new RemoteClusterRow("tokyo", Tokyo, true, true, "")),
        Policies = Sets(20, allow: [65537], ports: [131073, 196609]),
        Paths = new Dictionary<IpAddr, NodePath> { [IpAddr.Parse("172.30.0.2")] = Path(3, 0xb2) },
        Shares = new Dictionary<uint, byte> { [Local] = 0 },
    };

    private static Dictionary<L3n4Addr, Frontend> Of(params Frontend[] rows) => rows.ToDictionary(row => row.Address);

    private static Dictionary<IpPrefix, IPCacheEntry> Of(params IPCacheEntry[] rows) => rows.ToDictionary(row => row.Prefix);

    private static Dictionary<NodeName, Node> Of(params Node[] rows) => rows.ToDictionary(row => row.Name);

    private static Dictionary<string, RemoteClusterRow> Of(params RemoteClusterRow[] rows) => rows.ToDictionary(row => row.Name);

    private static Frontend Balanced(string[] ranges, params Backend[] backends) => Frontend("203.0.113.10:80/TCP", backends) with
    {
        Type = ServiceType.LoadBalancer,
        SourceRanges = new([.. ranges.Select(IpPrefix.Parse).Order()]),
    };

    private static IPCacheEntry Entry(string prefix, uint identity, string? tunnel, uint cluster) => new(IpPrefix.Parse(prefix), identity,
        tunnel is null ? null : IpAddr.Parse(tunnel), 0, IPCacheSource.ClusterMesh, $"cluster{cluster}", cluster, "", "");

    private static Node Host(string name, uint cluster, string address) => new(new NodeName($"cluster{cluster}", name), cluster,
        new([new NodeAddress("InternalIP", IpAddr.Parse(address))]), new([]), new([]), name == "nagoya-1");

    private static NodePath Path(uint device, byte mac) => new(device, MacAddress.From(0x020000000000ul | mac), MacAddress.From(0x020000000000ul | mac + 1u));

    /// <summary>An ingress set and an egress set, with ranges of their own, and the pod's word.</summary>
    private static Dictionary<PolicyKey, PolicyRow> Sets(uint number, uint[] allow, uint[] ports)
    {
        var rows = new Dictionary<PolicyKey, PolicyRow>
        {
            [PolicyKey.Verdict(number, 0)] = Row(new PortVerdict(0, false, 0)),
            [PolicyKey.Verdict(number + 1, 0)] = Row(new PortVerdict(0, false, 0), new PortVerdict(6 << 16 | number, true, number)),
            [PolicyKey.Endpoint(Pod)] = new EndpointPolicyRow(number, number + 1, false),
        };
        foreach (var peer in allow)
            rows[PolicyKey.Verdict(number, peer)] = Row(new PortVerdict(0, true, number));
        foreach (var peer in ports)
            rows[PolicyKey.Verdict(number, peer)] = Row(new PortVerdict(0, false, 0), new PortVerdict(6 << 16 | 80 + number, true, number),
                new PortVerdict(6 << 16 | 81 + number, false, 0));
        return rows;
    }

    private static VerdictRow Row(params PortVerdict[] ranges) => new(new EquatableArray<PortVerdict>(ranges));
}
