using System.Globalization;
using Mesh.Bpf;
using Mesh.Datapath.Maps;
using Mesh.Model;

namespace Mesh.Datapath.Tests.Packets;

/// <summary>
/// Two nodes with a pod each, joined by an underlay: real devices, the programs attached, the maps filled by hand. Node n has
/// pods in 10.n.0.0/24 and fd00:n::/64; .1 is the node itself, .2 its pod.
/// </summary>
internal sealed class TwoNodes : IDisposable
{
    /// <param name="underlayV6">Family of the tunnel.</param>
    /// <param name="built">Our programs write the outer headers; else the device does.</param>
    public TwoNodes(bool underlayV6, bool built = false)
    {
        First = new MeshNode(1);
        Second = new MeshNode(2);
        First.Thread.Shell($"""
            ip link add uplink type veth peer name uplink netns {Second.Thread.Id}
            ip addr add 172.30.0.1/24 dev uplink; ip addr add fd00:30::1/64 dev uplink nodad; ip link set uplink up
            """);
        Second.Thread.Shell("ip addr add 172.30.0.2/24 dev uplink; ip addr add fd00:30::2/64 dev uplink nodad; ip link set uplink up");
        First.Start(underlayV6, built ? Second : null);
        Second.Start(underlayV6, built ? First : null);
    }

    public MeshNode First { get; }

    public MeshNode Second { get; }

    public void Dispose()
    {
        First.Dispose();
        Second.Dispose();
    }
}

internal sealed class MeshNode : IDisposable
{
    /// <summary>The range that a new namespace hands out, from which the device takes outer source ports.</summary>
    public const ushort SourcePortMin = 32768;
    public const ushort SourcePortMax = 60999;

    private readonly int _number;
    private readonly List<IDisposable> _owned = [];

    public MeshNode(int number)
    {
        _number = number;
        Thread.Shell($"""
            ip link set lo up
            ip link add pod type veth peer name eth0 netns {Pod.Id}
            ip link add mesh_host type veth peer name mesh_net
            ip link add mesh_vxlan type vxlan external dstport 8472 udp6zerocsumrx
            for device in pod mesh_host mesh_net mesh_vxlan; do ip link set $device up; done
            ip addr add 10.{number}.0.1/32 dev mesh_host; ip addr add fd00:{number}::1/128 dev mesh_host nodad
            ip route add 10.0.0.0/8 dev mesh_host src 10.{number}.0.1; ip route add fd00::/16 dev mesh_host src fd00:{number}::1
            """);
        Pod.Shell($"""
            ip link set lo up; ip link set eth0 up mtu 1430
            ip addr add 10.{number}.0.2/32 dev eth0; ip addr add fd00:{number}::2/128 dev eth0 nodad
            ip route add 10.{number}.0.1/32 dev eth0; ip route add default via 10.{number}.0.1
            ip route add fd00:{number}::1/128 dev eth0; ip route add default via fd00:{number}::1
            """);
    }

    public NamespaceThread Thread { get; } = new();

    public NamespaceThread Pod { get; } = new();

    public ServiceTables Tables { get; private set; } = null!;

    /// <summary>Loads, fills and attaches.</summary>
    /// <param name="neighbour">The other node, to build the headers of frames to it; null: the device builds them.</param>
    public void Start(bool underlayV6, MeshNode? neighbour)
    {
        var uplink = Index("uplink");
        var config = new NodeConfig
        {
            ClusterId = (uint)_number,
            TunnelInterface = Index("mesh_vxlan"),
            HostInterface = Index("mesh_net"),
            IdentityClusterShift = 16,
            UnderlayFamily = underlayV6 ? Family.IPv6 : Family.IPv4,
            PodMtu = 1430,
            GatewayMac = Mac(Thread, "mesh_net"),
            TunnelPort = 8472,
            Flags = neighbour is null ? NodeConfigFlags.None : NodeConfigFlags.BuiltHeaders,
            UplinkInterface = uplink,
            Underlay = MeshAddress.From(IpAddr.Parse(underlayV6 ? $"fd00:30::{_number}" : $"172.30.0.{_number}")),
            SourcePortMin = SourcePortMin,
            SourcePortMax = SourcePortMax,
        };
        var podObject = Own(BpfObject.Open(Objects.Path("pod_in.bpf.o")));
        podObject.SetConstant("config", config);
        podObject.Load();
        var tunnelObject = Own(BpfObject.Open(Objects.Path("vxlan_in.bpf.o")));
        tunnelObject.SetConstant("config", config);
        foreach (var map in tunnelObject.MapNames)
        {
            using var fd = podObject.MapFd(map);
            tunnelObject.Reuse(map, fd);
        }
        tunnelObject.Load();

        Tables = Own(new ServiceTables(podObject));
        Tables.Clear();
        using var endpoints = podObject.Map<EndpointKey, EndpointValue>("endpoints");
        using var ranges4 = podObject.Map<IPCache4PrefixKey, IPCacheValue>("ipcache4_prefixes");
        using var ranges6 = podObject.Map<IPCache6PrefixKey, IPCacheValue>("ipcache6_prefixes");
        foreach (var prefix in new[] { $"10.{_number}.0.", $"fd00:{_number}::" })
        {
            endpoints.Set(EndpointKey.From(IpAddr.Parse(prefix + "2")), new EndpointValue
            {
                InterfaceIndex = Index("pod"),
                Identity = (uint)_number << 16 | 1,
                Mac = Mac(Pod, "eth0"),
                HostMac = Mac(Thread, "pod"),
            });
            endpoints.Set(EndpointKey.From(IpAddr.Parse(prefix + "1")), new EndpointValue
            {
                InterfaceIndex = Index("mesh_net"),
                Identity = 1,
                Mac = Mac(Thread, "mesh_host"),
                HostMac = Mac(Thread, "mesh_net"),
                Flags = EndpointFlags.Host,
            });
        }
        var other = 3 - _number;
        Tables.Nodes[1] = new NodeValue
        {
            TunnelEndpoint = MeshAddress.From(IpAddr.Parse(underlayV6 ? $"fd00:30::{other}" : $"172.30.0.{other}")),
            Family = underlayV6 ? Family.IPv6 : Family.IPv4,
            ClusterId = (ushort)other,
            InterfaceIndex = neighbour is null ? 0 : uplink,
            SourceMac = Mac(Thread, "uplink"),
            NextHopMac = neighbour is null ? default : Mac(neighbour.Thread, "uplink"),
        };
        ranges4.Set(IPCache4PrefixKey.From(IpPrefix.Parse($"10.{other}.0.0/24")), new IPCacheValue { Identity = 2, Node = 1 });
        ranges6.Set(IPCache6PrefixKey.From(IpPrefix.Parse($"fd00:{other}::/64")), new IPCacheValue { Identity = 2, Node = 1 });

        var podIn = Own(podObject.Program("pod_in"));
        var vxlanIn = Own(tunnelObject.Program("vxlan_in"));
        var pod = (int)Index("pod");
        Thread.Run(() =>
        {
            Own(BpfLink.AttachTcx(podIn, pod));
            Own(BpfLink.AttachTcx(podIn, (int)config.HostInterface));
            Own(BpfLink.AttachTcx(vxlanIn, (int)config.TunnelInterface));
            return 0;
        });
    }

    public uint Index(string device) =>
        uint.Parse(Thread.Shell($"ip -o link show {device} | cut -d: -f1"), CultureInfo.InvariantCulture);

    private static MacAddress Mac(NamespaceThread thread, string device) =>
        MacAddress.From(Frame.Mac(thread.Shell($"ip -o link show {device} | sed 's/.*ether //; s/ .*//'").Trim()));

    private T Own<T>(T value)
        where T : IDisposable
    {
        _owned.Add(value);
        return value;
    }

    public void Dispose()
    {
        for (var i = _owned.Count - 1; i >= 0; i--)
            _owned[i].Dispose();
        Pod.Dispose();
        Thread.Dispose();
    }
}
