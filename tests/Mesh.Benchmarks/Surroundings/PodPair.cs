using System.Runtime.CompilerServices;
using Mesh.Bpf;
using Mesh.ControlPlane;
using Mesh.ControlPlane.Endpoints;
using Mesh.ControlPlane.IPCache;
using Mesh.ControlPlane.LoadBalancing;
using Mesh.ControlPlane.Nodes;
using Mesh.ControlPlane.RemoteClusters;
using Mesh.Datapath;
using Mesh.Datapath.Devices;
using Mesh.Datapath.Maps;
using Mesh.Datapath.Uplinks;
using Mesh.Model;
using Mesh.StateDB;
using Mesh.StateDB.Reconciler;
using Mesh.TestKit;
using Backend = Mesh.ControlPlane.LoadBalancing.Backend;

namespace Mesh.Benchmarks.Surroundings;

/// <summary>
/// Two nodes on a wire with a pod on each, in four namespaces of their own: eth0 of a pod ═ lxc of its node, eth0 of a node ═ eth0 of the
/// other. The wire takes 1600 bytes and the pods send 1500, so that a header more never makes another number of packets.
/// </summary>
internal sealed class PodPair : IDisposable
{
    private const int WireMtu = 1600;
    private const int PodMtu = 1500;

    private readonly int _number;
    private readonly Stack<IDisposable> _owned = new();

    private PodPair(int number)
    {
        _number = number;
        Sides = [new(1), new(2)];
        Sides[0].Node.Shell("ip", "link", "add", "eth0", "mtu", $"{WireMtu}", "type", "veth", "peer", "name", "eth0", "mtu", $"{WireMtu}",
            "netns", Sides[1].Node.Name);
        foreach (var side in Sides)
        {
            side.Node.Shell("sh", "-ec", $"ip link set lo up; ip addr add {Underlay(side)}/24 dev eth0; ip link set eth0 up; "
                + $"ip link add lxc mtu {PodMtu} type veth peer name eth0 mtu {PodMtu} netns {side.Pod.Name}; ip link set lxc up");
            side.Pod.Shell("sh", "-ec", $"ip link set lo up; ip link set eth0 up; ip addr add {PodOf(side)}/32 dev eth0; "
                + $"ip route add {Gateway(side)} dev eth0; ip route add default via {Gateway(side)}");
        }
    }

    /// <summary>A pod and its node.</summary>
    internal sealed class Side(int number)
    {
        public int Number => number;

        public NetworkNamespace Node { get; } = new();

        public NetworkNamespace Pod { get; } = new();
    }

    /// <summary>Who asks, who answers.</summary>
    public Side[] Sides { get; }

    /// <summary>Of the pod that answers.</summary>
    public string Target => PodOf(Sides[1]);

    /// <summary>The kernel's own routes.</summary>
    public static PodPair Routed(int number) => Made(number, pair =>
    {
        foreach (var side in pair.Sides)
        {
            var other = pair.Sides[2 - side.Number];
            side.Node.Shell("sh", "-ec", $"echo 1 > /proc/sys/net/ipv4/ip_forward; ip addr add {pair.Gateway(side)}/32 dev lxc; "
                + $"ip route add {pair.PodOf(side)} dev lxc; ip route add {pair.PodOf(other)} via {pair.Underlay(other)}");
        }
    });

    /// <summary>Two programs that do nothing but pass on: bpf/tests/direct.bpf.c.</summary>
    public static PodPair Redirected(int number) => Made(number, pair =>
    {
        foreach (var side in pair.Sides)
        {
            var other = pair.Sides[2 - side.Number];
            var (eth0, lxc, pod, far) = (Link(side.Node, "eth0"), Link(side.Node, "lxc"), Link(side.Pod, "eth0"), Link(other.Node, "eth0"));
            side.Pod.Shell("ip", "neigh", "add", pair.Gateway(side), "lladdr", lxc.Mac.ToString(), "dev", "eth0");
            using var direct = BpfObject.Open(Path.Combine(Command.Root, "out", "bpf", "tests", "direct.bpf.o"));
            direct.Load();
            using var ways = direct.Map<uint, Way>("direct_ways");
            ways.Set(0, Way.To(far.Mac, eth0.Mac, eth0.Index, "0.0.0.0"));
            ways.Set(1, Way.To(pod.Mac, lxc.Mac, lxc.Index, pair.PodOf(side)));
            side.Node.Run(() =>
            {
                foreach (var (name, device) in (ReadOnlySpan<(string, int)>)[("direct_out", lxc.Index), ("direct_in", eth0.Index)])
                {
                    using var program = direct.Program(name);
                    pair._owned.Push(BpfLink.AttachTcx(program, device));
                }
            });
        }
    });

    /// <summary>The mesh: two clusters, a tunnel.</summary>
    /// <param name="builtHeaders">Our programs write the tunnel's headers; else the device does.</param>
    /// <param name="services">Whose only backend is the pod that answers: <see cref="KubeProxyRules.Address"/>, port 80.</param>
    /// <param name="port">Where that backend listens.</param>
    public static PodPair Meshed(int number, bool builtHeaders, int services = 0, ushort port = 0) => Made(number, pair =>
    {
        foreach (var side in pair.Sides)
        {
            var files = new BpfFileSystem();
            pair._owned.Push(files);
            var desired = pair.Desired(side, services, port);
            var datapath = side.Node.Run(() => Mesh.Datapath.Datapath.Start(new DatapathOptions
            {
                BpfRoot = files.Path,
                ClusterId = (uint)side.Number,
                IdentityNumbering = IdentityNumbering.Max255,
                NodeName = "node",
                UnderlayAddress = IpAddr.Parse(pair.Underlay(side)),
                UnderlayMtu = WireMtu,
                GatewayAddresses = [IpAddr.Parse(pair.Gateway(side))],
                Uplink = new UplinkOptions { BuiltHeaders = builtHeaders },
            }, desired));
            pair._owned.Push(datapath);
            side.Node.Run(() =>
            {
                Once(datapath.Loops.Clusters, desired.RemoteClusters);
                Once(datapath.Loops.Nodes, desired.Nodes);
                Once(datapath.Loops.IPCache, desired.IPCache);
                Once(datapath.Loops.Endpoints, desired.Endpoints);
                Once(datapath.Loops.Frontends, desired.Frontends);
                if (builtHeaders && !SpinWait.SpinUntil(() => Resolved(datapath), TimeSpan.FromSeconds(5)))
                    throw new InvalidOperationException("the next hop of the other node was not found within 5 s");
            });
        }
    });

    public void Dispose()
    {
        foreach (var side in Sides)
        {
            side.Pod.Dispose();
            side.Node.Dispose();
        }
        while (_owned.TryPop(out var owned))
            owned.Dispose();
    }

    private string Underlay(Side side) => $"172.30.{_number}.{side.Number}";

    private string PodOf(Side side) => $"10.{_number}{side.Number}.0.1";

    private string Gateway(Side side) => $"10.{_number}{side.Number}.0.254";

    private static PodPair Made(int number, Action<PodPair> join)
    {
        var pair = new PodPair(number);
        try
        {
            join(pair);
            pair.Sides[0].Pod.Shell("ping", "-c", "1", "-W", "2", pair.Target);
            return pair;
        }
        catch
        {
            pair.Dispose();
            throw;
        }
    }

    private DesiredState Desired(Side here, int services, ushort port)
    {
        var desired = new DesiredState();
        var (host, inside) = (Link(here.Node, "lxc"), Link(here.Pod, "eth0"));
        desired.Endpoints.Write(table => table.Upsert(1, new Endpoint(1, "default", "pod", "lxc", host.Index, inside.Mac.Value, host.Mac.Value,
            new([IpAddr.Parse(PodOf(here))]), (uint)here.Number << 16 | 1)));
        foreach (var side in Sides)
        {
            var (id, name) = ((uint)side.Number, new NodeName($"cluster{side.Number}", "node"));
            var underlay = IpAddr.Parse(Underlay(side));
            if (side != here)
                desired.RemoteClusters.Write(table => table.Upsert(name.Cluster, new RemoteClusterRow(name.Cluster, id, true, true, "")));
            desired.Nodes.Write(table => table.Upsert(name, new Mesh.ControlPlane.Nodes.Node(name, id, new([new NodeAddress("InternalIP", underlay)]),
                new([IpPrefix.Parse($"10.{_number}{side.Number}.0.0/24")]), new([]), side == here)));
            var address = IpPrefix.Parse($"{PodOf(side)}/32");
            desired.IPCache.Write(table => table.Upsert(address, new IPCacheEntry(address, id << 16 | 1, side == here ? null : underlay, 0,
                IPCacheSource.ClusterMesh, name.Cluster, id, "", "")));
        }
        var backend = new Backend(new L3n4Addr(IpAddr.Parse(Target), port, L4Protocol.TCP), 2, "cluster2", "", "", BackendState.Active, 0);
        desired.Frontends.Write(table =>
        {
            for (var i = 0; i < services; i++)
            {
                var frontend = new L3n4Addr(IpAddr.Parse(KubeProxyRules.Address(i)), 80, L4Protocol.TCP);
                table.Upsert(frontend, new Frontend(frontend, new ServiceName("default", $"service-{i}"), "", ServiceType.ClusterIP,
                    ServiceAffinity.None, new([backend])));
            }
        });
        return desired;
    }

    private static LinkInfo Link(NetworkNamespace space, string device) => space.Run(() =>
    {
        using var netlink = new Rtnetlink();
        return netlink.Link(device)!;
    });

    private static bool Resolved(Mesh.Datapath.Datapath datapath)
    {
        datapath.Paths.Turn();
        return datapath.Status().ResolvedNodes > 0;
    }

    private static void Once<TKey, TRow>(Reconciler<TKey, TRow> reconciler, Table<TKey, TRow> table)
        where TKey : notnull
        where TRow : class
    {
        using var feed = table.Subscribe();
        reconciler.RunOnce(feed);
        if (reconciler.Failing > 0)
            throw new InvalidOperationException($"{reconciler.Failing} rows of {typeof(TRow).Name} failed");
    }

    /// <summary>struct direct_way.</summary>
    private struct Way
    {
        public Macs Macs;
        public int InterfaceIndex;
        public Address Address;

        public static Way To(MacAddress destination, MacAddress source, int interfaceIndex, string address)
        {
            var way = new Way { InterfaceIndex = interfaceIndex };
            ((ReadOnlySpan<byte>)destination).CopyTo(way.Macs[..6]);
            ((ReadOnlySpan<byte>)source).CopyTo(way.Macs[6..]);
            IpAddr.Parse(address).ToBytes().CopyTo(way.Address);
            return way;
        }
    }

    [InlineArray(12)]
    private struct Macs
    {
        private byte _first;
    }

    [InlineArray(4)]
    private struct Address
    {
        private byte _first;
    }
}
