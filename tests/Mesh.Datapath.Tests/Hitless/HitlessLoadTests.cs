using System.Globalization;
using System.Net;
using System.Text.Json;
using Mesh.Bpf;
using Mesh.ControlPlane.LoadBalancing;
using Mesh.ControlPlane.RemoteClusters;
using Mesh.Datapath.Loader;
using Mesh.Datapath.Tests.Kernel;
using Mesh.Datapath.Uplinks;
using Mesh.Kubernetes;
using Mesh.Kubernetes.Objects;
using Mesh.Model;
using static Mesh.Datapath.Tests.LoadBalancing.Rows;

namespace Mesh.Datapath.Tests.Hitless;

/// <summary>
/// Two nodes of two clusters, and a client outside. The agent of one node is exchanged for one with other maps and back, and killed at any
/// time, while a thousand connections a second are opened and two hundred go on: by the sockets of the node's cgroup, by packets of a pod
/// whose sockets no hook has seen, and by the uplink, at XDP and at tc, to a backend here and to one behind the tunnel, over both families.
/// A policy of the pod lets just that pass. Nothing is refused, reset, late, or asked twice, and nothing that is denied passes.
/// </summary>
[Collection("sockets")]
public sealed class HitlessLoadTests : IDisposable, IClassFixture<NextBuild>
{
    private const string ToTunnel = "203.0.113.10";
    private const string ToHere = "203.0.113.11";
    private const string ToTunnel6 = "2001:db8:99::10";
    private const string ToHere6 = "2001:db8:99::11";
    private const string ToTunnelFromPod6 = "fd00:96::10";
    private const int Denied = 81;

    /// <summary>Of the first node's pod: what the clients below do, and no more.</summary>
    private const string Policy = """
        {"endpointSelector": {"matchLabels": {"app": "pod"}},
         "ingress": [{"fromEntities": ["world"], "toPorts": [{"ports": [{"port": "8080", "protocol": "TCP"}]}]}],
         "egress": [{"toEndpoints": [{"matchLabels": {"app": "pod", "io.cilium.k8s.policy.cluster": "cluster2"}}],
                     "toPorts": [{"ports": [{"port": "8080", "protocol": "TCP"}]}]}]}
        """;

    /// <summary>While it loads programs and shares maps; while it fills maps and exchanges programs; while it serves and writes. With a
    /// number of new connections that go by until it dies.</summary>
    private static readonly (string Word, int AtMost)[] s_deaths = [(Child.Ready, 400), (Child.Started, 60), (Child.Settled, 400)];

    private readonly LayoutVariant _next;
    private readonly NetworkNamespace _switch = new();
    private readonly NetworkNamespace _client = new();
    private readonly LiveNode _tokyo = new(cluster: 1, policy: true);
    private readonly LiveNode _osaka = new(cluster: 2);
    private readonly DirectoryInfo _cgroup;
    private readonly List<Echo> _backends = [];
    private readonly List<(string Path, Traffic Traffic)> _traffic = [];
    private Child? _sockets;
    private Forbidden? _forbidden;

    internal static UplinkOptions Uplink => new() { Acceleration = Acceleration.Native };

    /// <param name="next">The other build.</param>
    public HitlessLoadTests(NextBuild next)
    {
        _next = next.Variant;
        var mount = File.ReadLines("/proc/mounts").Select(line => line.Split(' ')).First(fields => fields[2] == "cgroup2")[1];
        _cgroup = Directory.CreateDirectory($"{mount}/mesh-hitless-{Environment.ProcessId}");
        _switch.Shell("ip", "link", "add", "name", "sw0", "type", "bridge");
        _switch.Shell("ip", "link", "set", "sw0", "up");
        foreach (var (port, space) in new[] { ("tokyo", _tokyo.Space), ("osaka", _osaka.Space), ("client", _client) })
        {
            _switch.Shell("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space.Name);
            _switch.Shell("ip", "link", "set", port, "master", "sw0", "up");
            _switch.Run(() => Ethtool.TakeFrames(port));
        }
        _client.Shell("sh", "-c", "ip link set lo up; ip addr add 172.30.0.100/24 dev eth0; ip link set eth0 up; "
            + $"ip route add {ToTunnel} via 172.30.0.1; ip route add {ToHere} via 172.30.0.1; ip addr add fd00:30::100/64 dev eth0 nodad; "
            + $"ip route add {ToTunnel6} via fd00:30::1; ip route add {ToHere6} via fd00:30::1");
        _tokyo.Space.Shell("ip", "addr", "add", "fd00:30::1/64", "dev", "eth0", "nodad");
        _tokyo.Cgroup = _cgroup.FullName;
        _tokyo.Uplink = Uplink;
        _osaka.Uplink = Uplink;
        _osaka.Start(_tokyo, _osaka);
        _tokyo.Start(_tokyo, _osaka);
        Want(_tokyo, turn: 0);
        Judge(_tokyo);
        _osaka.Settle();
        _tokyo.Settle();
        foreach (var node in new[] { _tokyo, _osaka })
            node.FindPaths();
    }

    public void Dispose()
    {
        foreach (var (_, traffic) in _traffic)
            traffic.Dispose();
        _sockets?.Dispose();
        _forbidden?.Dispose();
        foreach (var backend in _backends)
            backend.Dispose();
        _tokyo.Dispose();
        _osaka.Dispose();
        _client.Dispose();
        _switch.Dispose();
        _cgroup.Delete();
    }

    /// <summary>The services of the first node; one of them is another with every turn.</summary>
    internal static void Want(LiveNode node, int turn) => node.Desired.Frontends.Write(table =>
    {
        Frontend[] rows =
        [
            Frontend($"{ToTunnel}:80/TCP", Backend("10.2.0.1:8080/TCP", 2)) with { Type = ServiceType.LoadBalancer },
            Frontend($"{ToHere}:80/TCP", Backend("10.1.0.1:8080/TCP")) with { Type = ServiceType.LoadBalancer },
            Frontend($"{ToHere}:{Denied}/TCP", Backend("10.1.0.1:8081/TCP")) with { Type = ServiceType.LoadBalancer },
            Frontend($"[{ToTunnel6}]:80/TCP", Backend("[fd00:2::1]:8080/TCP", 2)) with { Type = ServiceType.LoadBalancer },
            Frontend($"[{ToHere6}]:80/TCP", Backend("[fd00:1::1]:8080/TCP")) with { Type = ServiceType.LoadBalancer },
            Frontend($"[{ToTunnelFromPod6}]:80/TCP", Backend("[fd00:2::1]:8080/TCP", 2)),
            Frontend("10.96.0.77:80/TCP", [.. Enumerable.Range(1, 1 + turn % 5).Select(i => Backend($"10.1.0.{i + 100}:80/TCP"))]),
        ];
        foreach (var row in rows)
            table.Upsert(row.Address, row);
    });

    /// <summary>The policy of the first node's pod.</summary>
    internal static void Judge(LiveNode node)
    {
        foreach (var cluster in (uint[])[1, 2])
            node.Desired.Identities.Write(table => table.Upsert(cluster << 16 | 1, new IdentityRow(cluster << 16 | 1, new EquatableArray<string>(
                ["k8s:app=pod", $"k8s:io.cilium.k8s.policy.cluster=cluster{cluster}", "k8s:io.kubernetes.pod.namespace=default"]), $"cluster{cluster}")));
        using var document = JsonDocument.Parse(Policy);
        node.Policies!.ApplyLocal([new ObjectEvent(ObjectEventType.Upsert, new CiliumNetworkPolicy
        {
            Metadata = new ObjectMeta { Name = "policy", Namespace = "default" },
            Spec = document.RootElement.Clone(),
        })]);
        node.Policies.Complete();
    }

    [Fact]
    public void Builds_with_other_maps_follow_each_other_under_load_and_nothing_is_lost()
    {
        StartTraffic();
        var first = _tokyo.Layout;
        var layouts = new List<string>();
        string[] maps = ["conntrack4", "nat4", "nodes", "lb_services", "ipcache4"];
        var ids = maps.Select(IdOf).ToArray();

        foreach (var variant in (LayoutVariant?[])[_next, null])
        {
            var before = Count();
            _tokyo.Variant = variant;
            _tokyo.Restart();
            Assert.Contains($"programs of layout {_tokyo.Layout} serve until", _tokyo.Status().Switching);
            // With the new agent's maps only half full.
            WaitForTraffic(before, 500);
            _tokyo.Settle();
            layouts.Add(_tokyo.Layout);
            WaitForTraffic(Count(), 1500);
        }

        Assert.NotEqual(first, layouts[0]);
        Assert.Equal(first, layouts[1]);
        // Flows that run keep their memory; the others are maps of their own, twice over.
        Assert.Equal([true, true, false, false, false], maps.Select((map, i) => IdOf(map) == ids[i]));
        Report("N, N+1, N");
    }

    [Fact]
    public void An_agent_killed_at_any_time_of_a_switch_loses_nothing_and_its_successor_ends_what_it_began()
    {
        StartTraffic();
        var random = new Random(20261123);
        var layouts = new HashSet<string>();
        _tokyo.Stop();

        foreach (var variant in (LayoutVariant?[])[_next, null])
            foreach (var (word, atMost) in s_deaths)
            {
                using var agent = Child.Agent(_tokyo, _osaka, variant);
                agent.WaitFor(word);
                WaitForTraffic(Count(), random.Next(atMost));
                agent.Kill();
                layouts.Add(_tokyo.Layout);
            }
        _tokyo.Variant = null;
        _tokyo.Restart();
        _tokyo.Settle();

        WaitForTraffic(Count(), 500);
        Assert.Equal(2, layouts.Count);
        Report($"{2 * s_deaths.Length} kills");
    }

    /// <summary>What the tests above would see if the switch did not wait for its maps.</summary>
    [Fact]
    public void Programs_that_serve_before_their_maps_are_filled_are_noticed_on_every_path()
    {
        StartTraffic();

        _tokyo.Variant = _next with { Hasty = true };
        _tokyo.Restart();

        Assert.True(SpinWait.SpinUntil(() => _traffic.TrueForAll(one => !one.Traffic.Faults.IsEmpty), TimeSpan.FromSeconds(60)),
            string.Join(", ", _traffic.Where(one => one.Traffic.Faults.IsEmpty).Select(one => one.Path)) + ": no fault");
    }

    private void StartTraffic()
    {
        foreach (var (backend, place) in new[] { ("10.2.0.1:8080", _osaka), ("[fd00:2::1]:8080", _osaka), ("10.1.0.1:8080", _tokyo),
            ("[fd00:1::1]:8080", _tokyo), ("10.1.0.1:8081", _tokyo) })
            _backends.Add(new Echo(IPEndPoint.Parse(backend), place.Pod.Run));
        _sockets = Child.Clients(_tokyo.Space.Name, _cgroup.FullName, "10.96.0.10:80", longOnes: 50, perSecond: 250);
        _sockets.WaitUntilReady();
        foreach (var (path, service, where) in new[]
        {
            ("packets of a pod", "10.96.0.10", _tokyo.Pod), ("packets of a pod, IPv6", ToTunnelFromPod6, _tokyo.Pod),
            ("uplink and tunnel", ToTunnel, _client), ("uplink and tunnel, IPv6", ToTunnel6, _client),
            ("uplink to a pod here", ToHere, _client), ("uplink to a pod here, IPv6", ToHere6, _client),
        })
            _traffic.Add((path, new Traffic(new IPEndPoint(IPAddress.Parse(service), 80), where.Run, longOnes: 25, perSecond: 125)));
        _forbidden = new Forbidden(new IPEndPoint(IPAddress.Parse(ToHere), Denied), _client.Run);
    }

    private uint IdOf(string map)
    {
        using var fd = BpfFd.OpenPinned(new PinDirectory(_tokyo.BpfRoot).Map(map), readOnly: true);
        return MapInfo.Of(fd, map).Id;
    }

    private int Count() => _traffic.Sum(one => one.Traffic.Connections);

    private void WaitForTraffic(int from, int connections) =>
        Assert.True(SpinWait.SpinUntil(() => Count() >= from + connections, TimeSpan.FromSeconds(60)), "clients are stuck");

    private void Report(string what)
    {
        var sockets = _sockets!.End();
        var numbers = sockets[0].Split(' ').Select(number => int.Parse(number, CultureInfo.InvariantCulture)).ToArray();
        TestContext.Current.TestOutputHelper?.WriteLine($"{what}: sockets {numbers[0]} new, {numbers[1]} exchanges, slowest {numbers[2]} ms; "
            + string.Join("; ", _traffic.Select(one => string.Create(CultureInfo.InvariantCulture,
                $"{one.Path} {one.Traffic.Connections} new, {one.Traffic.Exchanges} exchanges, slowest {one.Traffic.Slowest.TotalMilliseconds:F0} ms"))));
        Assert.Empty(sockets[1..]);
        Assert.True(_forbidden!.Attempts > 10);
        Assert.Equal(0, _forbidden.LetIn);
        Assert.All(_traffic, one => Assert.True(one.Traffic.Faults.IsEmpty, $"{one.Path}: {string.Join(", ", one.Traffic.Faults.Take(20))}"));
        Assert.All(_traffic, one => Assert.True(one.Traffic.Connections > 100 && one.Traffic.Exchanges > 100, one.Path));
        Assert.True(numbers[0] > 100 && numbers[1] > 100);
    }
}
