using System.Diagnostics;
using System.Globalization;
using System.Runtime.CompilerServices;
using Mesh.Bpf;
using Mesh.Datapath.Maps;
using Mesh.Model;

namespace Mesh.Datapath.Tests.Packets;

/// <summary>Which program gets the frame.</summary>
public enum Hook
{
    Xdp,
    Tc,
}

/// <summary>
/// The uplink of one node as its programs see it: a client outside behind a router, another node in the tunnel, a pod here. Frames
/// are run through the programs of both hooks. Addresses exist in both families: <see cref="Outside"/>.
/// </summary>
public sealed class NorthWorld : IDisposable
{
    internal const string UplinkMac = "02:00:00:00:1e:01";
    internal const string NodeMac = "02:00:00:00:1e:02";
    internal const string RouterMac = "02:00:00:00:1e:fe";
    internal const string GatewayMac = "02:00:00:00:00:01";
    internal const string PodMac = "02:00:00:00:0a:02";
    internal const string PodHostMac = "02:00:00:00:0b:02";
    internal const uint PodMtu = 1430;
    internal const ushort NatPortMin = 1024;
    internal const ushort NatPortMax = 32767;

    private readonly NamespaceThread _thread = new();
    private readonly List<IDisposable> _owned = [];
    private readonly Dictionary<string, BpfObject> _homes = [];
    private readonly BpfProgram _xdp;
    private readonly BpfProgram _tc;
    private readonly BpfProgram _out;
    private readonly BpfProgram _podIn;
    private readonly BpfProgram _vxlanIn;
    private readonly BpfMap<Lb4RangeKey, uint> _ranges4;
    private readonly BpfMap<Lb6RangeKey, uint> _ranges6;
    private readonly BpfMap<uint, CounterValue> _counters;
    private readonly BpfMap<EndpointKey, EndpointValue> _endpoints;
    private readonly BpfMap<EndpointKey, NodeIndexValue> _senders;
    private readonly MmapArray<AgentStateValue> _agent;
    private readonly uint _pod;

    /// <param name="underlayV6">Family of the tunnel.</param>
    /// <param name="uplink">uplink_in, or what stands for it.</param>
    public NorthWorld(bool underlayV6, string uplink = "uplink_in.bpf.o")
    {
        UnderlayV6 = underlayV6;
        _thread.Shell($"""
            ip link add uplink address {UplinkMac} type veth peer name outside
            ip link add pod type veth peer name pod0
            for device in uplink outside pod pod0; do echo 0 > /proc/sys/net/ipv6/conf/$device/accept_dad; ip link set $device up; done
            echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
            ip addr add 172.30.0.1/24 dev uplink; ip addr add fd00:30::1/64 dev uplink nodad
            ip route add unreachable 203.0.113.99; ip route add unreachable 2001:db8:99::99
            ip route add default via 172.30.0.254; ip route add default via fd00:30::fe
            for address in 172.30.0.254 fd00:30::fe; do ip neigh add $address dev uplink lladdr {RouterMac}; done
            for address in 172.30.0.2 172.30.0.3 fd00:30::2 fd00:30::3; do ip neigh add $address dev uplink lladdr {NodeMac}; done
            """);
        Uplink = IndexOf("uplink");
        _pod = IndexOf("pod");
        var underlay = IpAddr.Parse(underlayV6 ? "fd00:30::1" : "172.30.0.1");
        var config = new NodeConfig
        {
            ClusterId = 1,
            TunnelInterface = _pod,
            IdentityClusterShift = 16,
            UnderlayFamily = underlayV6 ? Family.IPv6 : Family.IPv4,
            PodMtu = PodMtu,
            GatewayMac = MacAddress.From(Frame.Mac(GatewayMac)),
            TunnelPort = 8472,
            Flags = NodeConfigFlags.BuiltHeaders,
            UplinkInterface = Uplink,
            Underlay = MeshAddress.From(underlay),
            Gateway4 = BigEndianUInt32.FromHost((uint)IpAddr.Parse(Outside.V4.Gateway).Value),
            Gateway6 = MeshAddress.From(IpAddr.Parse(Outside.V6.Gateway)),
            Direct4 = BigEndianUInt32.FromHost((uint)IpAddr.Parse(Outside.V4.Node).Value),
            Direct6 = MeshAddress.From(IpAddr.Parse(Outside.V6.Node)),
            NatPortMin = NatPortMin,
            NatPortMax = NatPortMax,
            SourcePortMin = 32768,
            SourcePortMax = 61000,
            UplinkMac = MacAddress.From(Frame.Mac(UplinkMac)),
        };
        var podObject = Load("pod_in.bpf.o", config);
        _podIn = Own(podObject.Program("pod_in"));
        var uplinkObject = Load(uplink, config);
        _tc = Own(uplinkObject.Program("uplink_in"));
        _out = Own(uplinkObject.Program("uplink_out"));
        _vxlanIn = Own(Load("tests/vxlan_in_test.bpf.o", config).Program("vxlan_in_test"));
        _ranges4 = Own(podObject.Map<Lb4RangeKey, uint>("lb4_source_ranges"));
        _ranges6 = Own(podObject.Map<Lb6RangeKey, uint>("lb6_source_ranges"));
        _xdp = Own(Load("xdp_lb.bpf.o", config).Program("xdp_lb"));
        Tables = Own(new ServiceTables(podObject));
        _counters = Own(podObject.Map<uint, CounterValue>("counters"));
        _endpoints = Own(podObject.Map<EndpointKey, EndpointValue>("endpoints"));
        _senders = Own(_homes["tunnel_senders"].Map<EndpointKey, NodeIndexValue>("tunnel_senders"));
        _agent = Own(podObject.Array<AgentStateValue>("agent_state"));
        Nat4 = Own(_homes["nat4"].Map<Nat4Key, NatValue>("nat4"));
        Nat6 = Own(_homes["nat6"].Map<Nat6Key, NatValue>("nat6"));
        Hosts4 = Own(podObject.Map<IPCache4Key, IPCacheValue>("ipcache4"));
        Hosts6 = Own(podObject.Map<IPCache6Key, IPCacheValue>("ipcache6"));
        Reset();
    }

    /// <summary>What the kernel refuses: of tests/faults_uplink_in only. The caller disposes it.</summary>
    internal MmapArray<ulong> Faults => _homes["faults"].Array<ulong>("faults");

    internal bool UnderlayV6 { get; }

    internal uint Uplink { get; }

    internal ServiceTables Tables { get; }

    internal BpfMap<Nat4Key, NatValue> Nat4 { get; }

    internal BpfMap<Nat6Key, NatValue> Nat6 { get; }

    internal BpfMap<IPCache4Key, IPCacheValue> Hosts4 { get; }

    internal BpfMap<IPCache6Key, IPCacheValue> Hosts6 { get; }

    internal ref NodeValue Node => ref Tables.Nodes[1];

    /// <summary>Of the tunnel between this node and the other.</summary>
    internal Vxlan ToNode(uint identity = Vxlan.World) =>
        Vxlan.Between(UnderlayV6 ? "fd00:30::1" : "172.30.0.1", UnderlayV6 ? "fd00:30::2" : "172.30.0.2") with { Identity = identity };

    internal Vxlan FromNode(uint identity = 0x20001) =>
        Vxlan.Between(UnderlayV6 ? "fd00:30::2" : "172.30.0.2", UnderlayV6 ? "fd00:30::1" : "172.30.0.1") with
        {
            Identity = identity,
            SourceMac = NodeMac,
            DestinationMac = UplinkMac,
        };

    internal void Reset()
    {
        Tables.Clear();
        ForgetFlows();
        Tables.Nodes[1] = new NodeValue
        {
            TunnelEndpoint = MeshAddress.From(FromNode().Source),
            Family = Family.Of(FromNode().Source),
            ClusterId = 2,
            NextHopMac = MacAddress.From(Frame.Mac(NodeMac)),
            SourceMac = MacAddress.From(Frame.Mac(UplinkMac)),
            InterfaceIndex = Uplink,
        };
        _senders.Set(EndpointKey.From(FromNode().Source), new NodeIndexValue { Index = 1 });
        _agent[0].SendersKnown = 1;
        foreach (var names in new[] { Outside.V4, Outside.V6 })
        {
            SetAddress(names.RemotePod, 0x20001, 1);
            SetAddress(names.RemoteGateway, 6, 1);
            SetAddress(names.OtherNode, 6, 0);
            SetAddress(names.Pod, 0x10001, 0);
            _endpoints.Set(EndpointKey.From(IpAddr.Parse(names.Pod)), new EndpointValue
            {
                InterfaceIndex = _pod,
                Identity = 0x10001,
                Mac = MacAddress.From(Frame.Mac(PodMac)),
                HostMac = MacAddress.From(Frame.Mac(PodHostMac)),
            });
            foreach (var own in new[] { names.Gateway, names.Node })
                _endpoints.Set(EndpointKey.From(IpAddr.Parse(own)), new EndpointValue { Identity = 1, Flags = EndpointFlags.Host });
        }
    }

    internal void ForgetFlows()
    {
        Nat4.RemoveBatch([.. Nat4.Dump().Select(entry => entry.Key)]);
        Nat6.RemoveBatch([.. Nat6.Dump().Select(entry => entry.Key)]);
    }

    /// <summary>As if every flow had been silent for so many units of its clock, of 1.07 seconds.</summary>
    internal void Wait(uint units)
    {
        foreach (var (key, value) in Nat4.Dump())
            Nat4.Set(key, value with { LastSeen = value.LastSeen - units });
        foreach (var (key, value) in Nat6.Dump())
            Nat6.Set(key, value with { LastSeen = value.LastSeen - units });
    }

    internal void SetAddress(string address, uint identity, uint node)
    {
        var parsed = IpAddr.Parse(address);
        var value = new IPCacheValue { Identity = identity, Node = node };
        if (parsed.IsV6)
            Hosts6.Set(IPCache6Key.From(parsed), value);
        else
            Hosts4.Set(IPCache4Key.From(parsed), value);
    }

    internal void SetSendersKnown(bool known) => _agent[0].SendersKnown = known ? 1u : 0u;

    internal void ForgetSender() => _senders.Remove(EndpointKey.From(FromNode().Source));

    /// <summary>A service for outside with one backend.</summary>
    internal void Serve(string address, int port, byte protocol, string backend, int backendPort, bool dsr = false, bool random = false,
        byte kind = 2)
    {
        var id = Tables.Set(address, port, protocol, new Segment(2, 0, Backend.At(backend, backendPort)));
        Info(id) = new LbServiceInfo { Kind = kind, Forwarding = dsr ? (byte)1 : (byte)0, Algorithm = random ? (byte)1 : (byte)0 };
    }

    internal ref LbServiceInfo Info(uint service) =>
        ref Unsafe.As<LbBlock, LbServiceInfo>(ref Tables.Arena[Tables.Services.Observe(service).Block]);

    /// <summary>Clients in this range only.</summary>
    internal void AllowOnly(string address, int port, string range)
    {
        const uint set = 7;
        var prefix = IpPrefix.Parse(range);
        var id = Tables.IdOf(address, port, Frame.Tcp);
        Info(id).SourceRanges = set;
        Tables.Services.Publish(id, Tables.Services.Observe(id) with { Flags = LbServiceFlags.Present | LbServiceFlags.SourceRanges });
        if (prefix.Address.IsV6)
            _ranges6.Set(Lb6RangeKey.From(set, prefix), 1);
        else
            _ranges4.Set(Lb4RangeKey.From(set, prefix), 1);
    }

    /// <summary>Flows of another client on every port that may be taken towards a backend.</summary>
    internal void TakeAllPorts(string backend, ushort backendPort)
    {
        var other = new NatValue
        {
            Address = MeshAddress.From(IpAddr.Parse("192.0.2.200")),
            State = NatState.Answered,
            LastSeen = (uint)(Stopwatch.GetElapsedTime(0).Ticks * 100 >> 30),
        };
        var ports = Enumerable.Range(NatPortMin, NatPortMax - NatPortMin + 1).Select(port => BigEndianUInt16.FromHost((ushort)port)).ToArray();
        var values = Enumerable.Repeat(other, ports.Length).ToArray();
        var (from, to) = (IpAddr.Parse(backend), BigEndianUInt16.FromHost(backendPort));
        void Refuse(int _, BpfException cause) => throw cause;
        if (from.IsV6)
            Nat6.SetBatch([.. ports.Select(port => new Nat6Key
            {
                Source = MeshAddress.From(from), Destination = MeshAddress.From(IpAddr.Parse(Outside.V6.Gateway)),
                SourcePort = to, DestinationPort = port, Protocol = Frame.Tcp, Direction = NatDirection.Reverse,
            })], values, Refuse);
        else
            Nat4.SetBatch([.. ports.Select(port => new Nat4Key
            {
                Source = BigEndianUInt32.FromHost((uint)from.Value),
                Destination = BigEndianUInt32.FromHost((uint)IpAddr.Parse(Outside.V4.Gateway).Value),
                SourcePort = to, DestinationPort = port, Protocol = Frame.Tcp, Direction = NatDirection.Reverse,
            })], values, Refuse);
    }

    /// <summary>What is known of the flow that this frame of the client belongs to.</summary>
    internal NatState StateOf(Frame frame) => frame.IsV6
        ? Nat6.Dump().Single(entry => entry.Key.Direction == NatDirection.Forward
            && entry.Key.SourcePort == BigEndianUInt16.FromHost(frame.SourcePort)).Value.State
        : Nat4.Dump().Single(entry => entry.Key.Direction == NatDirection.Forward
            && entry.Key.SourcePort == BigEndianUInt16.FromHost(frame.SourcePort)).Value.State;

    internal int Flows => Nat4.Dump().Count + Nat6.Dump().Count;

    internal Outcome FromOutside(Hook hook, Frame frame) => FromOutside(hook, frame.Build());

    /// <summary>A frame on the uplink. A program that lets it go on counts nothing.</summary>
    internal Outcome FromOutside(Hook hook, byte[] frame) =>
        hook == Hook.Xdp ? Run(() => _xdp.TestRunXdp(frame, Uplink)) : RunTc(_tc, frame, Uplink);

    internal Outcome FromPod(Frame frame) => RunTc(_podIn, frame.Build(), _pod);

    /// <summary>Out of the tunnel device, from 172.30.1.2 with identity 0x10002.</summary>
    internal Outcome FromDevice(Frame frame) => RunTc(_vxlanIn, frame.Build(), _pod);

    /// <summary>Makes an address the tunnel endpoint of the other node too.</summary>
    internal void SetSender(string address) => _senders.Set(EndpointKey.From(IpAddr.Parse(address)), new NodeIndexValue { Index = 1 });

    internal void ForgetSender(string address) => _senders.Remove(EndpointKey.From(IpAddr.Parse(address)));

    internal Outcome FromHost(Frame frame) => RunTc(_out, frame.Build(), Uplink);

    /// <summary>Both hooks as they stand behind one another: what XDP lets pass goes to tc.</summary>
    internal Outcome Through(byte[] frame)
    {
        var first = FromOutside(Hook.Xdp, frame);
        return first.Verdict == XdpAction.Pass ? FromOutside(Hook.Tc, first.Packet) : first;
    }

    private Outcome RunTc(BpfProgram program, byte[] frame, uint interfaceIndex) => Run(() =>
    {
        var context = new SkBuff { InterfaceIndex = interfaceIndex };
        return program.TestRun(frame, ref context);
    });

    private Outcome Run(Func<TestRunResult> run) => _thread.Run(() =>
    {
        var before = Counters();
        var result = run();
        var after = Counters();
        var counted = Enumerable.Range(0, after.Length).Where(index => after[index] != before[index]).ToList();
        Assert.True(counted.Count <= 1, $"a packet is counted once, not in [{string.Join(", ", counted)}]");
        return new Outcome(result.ReturnValue, counted.Count == 0 ? DropReason.Forwarded : (DropReason)(counted[0] / 2), result.Packet)
        {
            Counted = counted.Count == 1,
        };
    });

    private ulong[] Counters() => [.. Enumerable.Range(0, 256).Select(index => PacketWorld.Sum(_counters.GetPerCpu((uint)index)!))];

    private uint IndexOf(string device) =>
        uint.Parse(_thread.Shell($"ip -o link show {device} | cut -d: -f1"), CultureInfo.InvariantCulture);

    /// <summary>Every map is the first object's that declares it.</summary>
    private BpfObject Load(string name, NodeConfig config)
    {
        var loaded = Own(BpfObject.Open(Objects.Path(name)));
        loaded.SetConstant("config", config);
        foreach (var map in loaded.MapNames)
        {
            if (!_homes.TryGetValue(map, out var home))
            {
                _homes[map] = loaded;
                continue;
            }
            using var fd = home.MapFd(map);
            loaded.Reuse(map, fd);
        }
        loaded.Load();
        return loaded;
    }

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
        _thread.Dispose();
    }
}

/// <summary>The same cast in both families.</summary>
public sealed record Outside(
    string Client, string Virtual, string Node, string Gateway, string Pod, string RemotePod, string RemoteGateway, string OtherNode,
    string Nowhere)
{
    public static readonly Outside V4 =
        new("192.0.2.1", "203.0.113.10", "172.30.0.1", "10.1.0.1", "10.1.0.2", "10.2.0.5", "10.2.0.1", "172.30.0.3", "203.0.113.99");

    public static readonly Outside V6 =
        new("2001:db8::1", "2001:db8:99::10", "fd00:30::1", "fd00:1::1", "fd00:1::2", "fd00:2::5", "fd00:2::1", "fd00:30::3",
            "2001:db8:99::99");

    public static Outside Of(int family) => family == 4 ? V4 : V6;
}

/// <summary>A world for each family of the tunnel, for all tests of the uplink, which therefore run one after another.</summary>
public sealed class NorthWorlds : IDisposable
{
    private readonly Lazy<NorthWorld> _over4 = new(() => new NorthWorld(underlayV6: false));
    private readonly Lazy<NorthWorld> _over6 = new(() => new NorthWorld(underlayV6: true));

    internal NorthWorld Over(int underlay)
    {
        var world = (underlay == 4 ? _over4 : _over6).Value;
        world.Reset();
        return world;
    }

    public void Dispose()
    {
        foreach (var world in new[] { _over4, _over6 })
            if (world.IsValueCreated)
                world.Value.Dispose();
    }
}

/// <summary>Tests of the uplink share their worlds.</summary>
[CollectionDefinition("north")]
public sealed class NorthCollection : ICollectionFixture<NorthWorlds>;
