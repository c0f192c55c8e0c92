using System.Globalization;
using System.Net.Sockets;
using Mesh.Bpf;
using Mesh.Datapath.Maps;
using Mesh.Model;

namespace Mesh.Datapath.Tests.Packets;

/// <summary>
/// One node as the programs see it: two pods, the host's interface, two other nodes, and the maps to fill. Frames are run through
/// the programs, not sent. Addresses exist in both families: <see cref="Names"/>.
/// </summary>
public sealed class PacketWorld : IDisposable
{
    internal const int Ok = 0;
    internal const int Shot = 2;
    internal const int Redirect = 7;
    internal const uint PodMtu = 1450;
    internal const string GatewayMac = "02:00:00:00:00:01";
    internal const string PodMac = "02:00:00:00:0a:02";
    internal const string OtherPodMac = "02:00:00:00:0a:03";
    internal const string PodHostMac = "02:00:00:00:0b:02";
    internal const string OtherPodHostMac = "02:00:00:00:0b:03";
    internal const string HostMac = "02:00:00:00:0c:01";
    internal const string NetMac = "02:00:00:00:0c:02";

    private readonly NamespaceThread _thread = new();
    private readonly uint _podEnd;
    private readonly uint _otherPodEnd;
    private readonly BpfObject _podObject;
    private readonly BpfObject _tunnelObject;
    private readonly BpfProgram _podIn;
    private readonly BpfProgram _vxlanIn;
    private readonly BpfProgram _vxlanInWithKey;
    private readonly BpfMap<EndpointKey, EndpointValue> _endpoints;
    private readonly BpfMap<uint, CounterValue> _counters;
    private readonly BpfMap<IPCache4Key, IPCacheValue> _ipcache4;
    private readonly BpfMap<IPCache6Key, IPCacheValue> _ipcache6;
    private readonly BpfMap<IPCache4PrefixKey, IPCacheValue> _prefixes4;
    private readonly BpfMap<IPCache6PrefixKey, IPCacheValue> _prefixes6;
    private readonly BpfMap<Conntrack4Key, ConntrackValue> _conntrack4;
    private readonly BpfMap<Conntrack6Key, ConntrackValue> _conntrack6;

    public PacketWorld()
        : this("pod_in.bpf.o")
    {
    }

    /// <param name="programs">pod_in, or what stands for it.</param>
    internal PacketWorld(string programs)
    {
        _thread.Shell("""
            ip link add pod type veth peer name pod0
            ip link add other type veth peer name other0
            ip link add mesh_net type veth peer name mesh_host
            echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6
            for device in pod pod0 other other0; do ip link set $device up; done
            """);
        PodInterface = IndexOf("pod");
        OtherPodInterface = IndexOf("other");
        HostInterface = IndexOf("mesh_net");
        _podEnd = IndexOf("pod0");
        _otherPodEnd = IndexOf("other0");
        var config = new NodeConfig
        {
            ClusterId = 1,
            TunnelInterface = OtherPodInterface,
            HostInterface = HostInterface,
            IdentityClusterShift = 16,
            UnderlayFamily = Family.IPv4,
            PodMtu = PodMtu,
            GatewayMac = MacAddress.From(Frame.Mac(GatewayMac)),
            NodePortFirst = 30000,
            NodePortLast = 32767,
        };
        _podObject = BpfObject.Open(Objects.Path(programs));
        _podObject.SetConstant("config", config);
        _podObject.Load();
        _tunnelObject = BpfObject.Open(Objects.Path("tests/vxlan_in_test.bpf.o"));
        _tunnelObject.SetConstant("config", config);
        foreach (var map in _tunnelObject.MapNames)
        {
            using var fd = _podObject.MapFd(map);
            _tunnelObject.Reuse(map, fd);
        }
        _tunnelObject.Load();
        _podIn = _podObject.Program("pod_in");
        _vxlanIn = _tunnelObject.Program("vxlan_in");
        _vxlanInWithKey = _tunnelObject.Program("vxlan_in_test");
        _endpoints = _podObject.Map<EndpointKey, EndpointValue>("endpoints");
        _counters = _podObject.Map<uint, CounterValue>("counters");
        _ipcache4 = _podObject.Map<IPCache4Key, IPCacheValue>("ipcache4");
        _ipcache6 = _podObject.Map<IPCache6Key, IPCacheValue>("ipcache6");
        _prefixes4 = _podObject.Map<IPCache4PrefixKey, IPCacheValue>("ipcache4_prefixes");
        _prefixes6 = _podObject.Map<IPCache6PrefixKey, IPCacheValue>("ipcache6_prefixes");
        _conntrack4 = _podObject.Map<Conntrack4Key, ConntrackValue>("conntrack4");
        _conntrack6 = _podObject.Map<Conntrack6Key, ConntrackValue>("conntrack6");
        DatagramBackends = _podObject.Map<LbDatagramBackend, uint>("lb_datagram_backends");
        Tables = new ServiceTables(_podObject);
        Policy = new PolicyTables(_podObject);
        foreach (var names in new[] { Names.V4, Names.V6 })
        {
            SetEndpoint(names.Pod, PodInterface, 0x10001, PodMac, PodHostMac, EndpointFlags.Policy, PolicyTables.Pod);
            SetEndpoint(names.OtherPod, OtherPodInterface, 0x10002, OtherPodMac, OtherPodHostMac, EndpointFlags.Policy, PolicyTables.OtherPod);
            SetEndpoint(names.Host, HostInterface, 1, HostMac, NetMac, EndpointFlags.Host);
        }
        Reset();
    }

    internal uint PodInterface { get; }

    internal uint OtherPodInterface { get; }

    internal uint HostInterface { get; }

    internal ServiceTables Tables { get; }

    internal PolicyTables Policy { get; }

    /// <summary>Forgets services, flows and nodes' states; each test begins with it.</summary>
    internal void Reset()
    {
        Tables.Clear();
        Policy.Clear();
        ForgetFlows();
        SetNode(1, "172.30.1.2");
        SetNode(2, "fd00:30::2");
        Tables.Nodes[3] = default;
        SetAddress(Names.V4.RemotePod, 0x20001, 1);
        SetAddress(Names.V6.RemotePod, 0x20001, 1);
        SetAddress(Names.V4.Stranded, 0x20002, 3);
        SetAddress(Names.V6.Stranded, 0x20002, 3);
        _prefixes4.Set(IPCache4PrefixKey.From(IpPrefix.Parse("10.3.0.0/16")), new IPCacheValue { Identity = 0x30001, Node = 2 });
        _prefixes6.Set(IPCache6PrefixKey.From(IpPrefix.Parse("fd00:3::/64")), new IPCacheValue { Identity = 0x30001, Node = 2 });
    }

    private void SetNode(uint index, string tunnelEndpoint)
    {
        var address = IpAddr.Parse(tunnelEndpoint);
        Tables.Nodes[index] = new NodeValue { TunnelEndpoint = MeshAddress.From(address), Family = Family.Of(address), ClusterId = 2 };
    }

    internal void ForgetFlows()
    {
        _conntrack4.RemoveBatch([.. _conntrack4.Dump().Select(entry => entry.Key)]);
        _conntrack6.RemoveBatch([.. _conntrack6.Dump().Select(entry => entry.Key)]);
    }

    internal void SetAddress(string address, uint identity, uint node)
    {
        var parsed = IpAddr.Parse(address);
        var value = new IPCacheValue { Identity = identity, Node = node };
        if (parsed.IsV6)
            _ipcache6.Set(IPCache6Key.From(parsed), value);
        else
            _ipcache4.Set(IPCache4Key.From(parsed), value);
    }

    /// <summary>Both entries of every flow, in words.</summary>
    internal IReadOnlyDictionary<ConntrackFlow, ConntrackValue> Conntrack => _conntrack4.Dump().Select(entry => (entry.Key.ToFlow(), entry.Value))
        .Concat(_conntrack6.Dump().Select(entry => (entry.Key.ToFlow(), entry.Value))).ToDictionary(entry => entry.Item1, entry => entry.Value);

    /// <summary>As if every flow had been silent for so long.</summary>
    internal void Wait(uint seconds)
    {
        Age(_conntrack4, seconds);
        Age(_conntrack6, seconds);
    }

    private static void Age<TKey>(BpfMap<TKey, ConntrackValue> map, uint seconds)
        where TKey : unmanaged
    {
        foreach (var (key, value) in map.Dump())
            map.Set(key, value with { LastSeen = value.LastSeen - seconds });
    }

    internal BpfMap<LbDatagramBackend, uint> DatagramBackends { get; }

    internal BpfMap<Conntrack4Key, ConntrackValue> Conntrack4 => _conntrack4;

    internal BpfMap<Conntrack6Key, ConntrackValue> Conntrack6 => _conntrack6;

    internal int Flows => _conntrack4.Dump().Count + _conntrack6.Dump().Count;

    internal Outcome FromPod(Frame frame) => FromPod(frame.Build());

    internal Outcome FromPod(byte[] frame, uint gsoSize = 0) => Run(_podIn, frame, PodInterface, TrafficDirection.Egress, gsoSize);

    /// <summary>Without looking at the counters: for many packets.</summary>
    internal Outcome FromPodUncounted(Frame frame) => _thread.Run(() =>
    {
        var context = new SkBuff { InterfaceIndex = PodInterface };
        var result = _podIn.TestRun(frame.Build(), ref context);
        return new Outcome(result.ReturnValue, DropReason.Forwarded, result.Packet);
    });

    /// <summary>Sends a frame out of the pod's end of its veth, with pod_in attached to the other end.</summary>
    /// <returns>True once a frame like <paramref name="awaited"/> has arrived on <paramref name="arrivesOn"/>; false after two
    /// seconds.</returns>
    internal bool SendLive(byte[] frame, string? arrivesOn = null, Predicate<byte[]>? awaited = null) => _thread.Run(() =>
    {
        using var link = BpfLink.AttachTcx(_podIn, (int)PodInterface);
        try
        {
            return SendHere(frame, arrivesOn == "other0" ? _otherPodEnd : _podEnd, awaited);
        }
        finally
        {
            // Not left to the descriptor: a process that another test is just starting may hold a copy of it for a moment.
            link.Detach();
        }
    });

    private bool SendHere(byte[] frame, uint arrivesOn, Predicate<byte[]>? awaited)
    {
        using var sender = NativeSocket.OnDevice(_podEnd);
        using var receiver = NativeSocket.OnDevice(arrivesOn);
        sender.Send(frame);
        var buffer = new byte[2048];
        var deadline = Environment.TickCount64 + 2000;
        while (awaited is not null && Environment.TickCount64 < deadline)
            if (receiver.Poll(10_000, SelectMode.SelectRead) && receiver.Receive(buffer) is var length && awaited(buffer[..length]))
                return true;
        return awaited is null;
    }

    /// <summary>What the kernel refuses: of tests/faults_pod_in only. The caller disposes it.</summary>
    internal MmapArray<ulong> Faults => _podObject.Array<ulong>("faults");

    /// <summary>The word that turns the telling of events on. The caller disposes it.</summary>
    internal MmapArray<ObservingValue> Observing => _podObject.Array<ObservingValue>("observing");

    /// <summary>Where events are told. The caller disposes it.</summary>
    internal RingBuffer Events => new("events", _podObject.MapFd("events"));

    internal ulong Count(DropReason reason) => Counters()[2 * (int)reason];

    internal Outcome FromOtherPod(Frame frame) => Run(_podIn, frame.Build(), OtherPodInterface, TrafficDirection.Egress);

    internal Outcome FromHost(Frame frame) => FromHost(frame.Build());

    internal Outcome FromHost(byte[] frame) => Run(_podIn, frame, HostInterface, TrafficDirection.Egress);

    internal Outcome FromTunnel(Frame frame) => FromTunnel(frame.Build());

    internal Outcome FromTunnel(byte[] frame) => Run(_vxlanInWithKey, frame, OtherPodInterface, TrafficDirection.Ingress);

    internal Outcome FromTunnelWithoutKey(Frame frame) => Run(_vxlanIn, frame.Build(), OtherPodInterface, TrafficDirection.Ingress);

    /// <summary>Mean nanoseconds of many runs; for packets that a run does not change.</summary>
    internal uint Time(Frame frame, bool fromTunnel) => _thread.Run(() =>
    {
        var context = new SkBuff { InterfaceIndex = fromTunnel ? OtherPodInterface : PodInterface };
        return (fromTunnel ? _vxlanInWithKey : _podIn).TestRun(frame.Build(), ref context, 200_000).NanosecondsPerRun;
    });

    private Outcome Run(BpfProgram program, byte[] frame, uint interfaceIndex, TrafficDirection direction, uint gsoSize = 0) =>
        _thread.Run(() => RunHere(program, frame, interfaceIndex, direction, gsoSize));

    private Outcome RunHere(BpfProgram program, byte[] frame, uint interfaceIndex, TrafficDirection direction, uint gsoSize)
    {
        var before = Counters();
        var context = new SkBuff { InterfaceIndex = interfaceIndex, GsoSize = gsoSize };
        var result = program.TestRun(frame, ref context);
        var after = Counters();
        // What passed in audit mode is counted beside its fate.
        var counted = Enumerable.Range(0, after.Length).Where(index => index / 2 != (int)DropReason.PolicyAudited && after[index] != before[index]).ToList();
        Assert.True(counted.Count == 1 && after[counted[0]] == before[counted[0]] + 1,
            $"a packet is counted once, not in [{string.Join(", ", counted)}]");
        Assert.Equal(direction, (TrafficDirection)(counted[0] % 2));
        return new Outcome(result.ReturnValue, (DropReason)(counted[0] / 2), result.Packet);
    }

    private ulong[] Counters() =>
        [.. Enumerable.Range(0, 256).Select(index => Sum(_counters.GetPerCpu((uint)index)!))];

    internal static ulong Sum(CounterValue[] copies) => copies.Aggregate(0ul, (sum, counter) => sum + counter.Packets);

    private uint IndexOf(string device) =>
        uint.Parse(_thread.Shell($"ip -o link show {device} | cut -d: -f1"), CultureInfo.InvariantCulture);

    private void SetEndpoint(string address, uint interfaceIndex, uint identity, string mac, string hostMac, EndpointFlags flags = 0,
        ushort id = 0) =>
        _endpoints.Set(EndpointKey.From(IpAddr.Parse(address)), new EndpointValue
        {
            InterfaceIndex = interfaceIndex,
            Identity = identity,
            Mac = MacAddress.From(Frame.Mac(mac)),
            HostMac = MacAddress.From(Frame.Mac(hostMac)),
            Id = id,
            Flags = flags,
        });

    public void Dispose()
    {
        DatagramBackends.Dispose();
        Tables.Dispose();
        Policy.Dispose();
        _endpoints.Dispose();
        _counters.Dispose();
        _ipcache4.Dispose();
        _ipcache6.Dispose();
        _prefixes4.Dispose();
        _prefixes6.Dispose();
        _conntrack4.Dispose();
        _conntrack6.Dispose();
        _podIn.Dispose();
        _vxlanIn.Dispose();
        _vxlanInWithKey.Dispose();
        _tunnelObject.Dispose();
        _podObject.Dispose();
        _thread.Dispose();
    }
}

/// <summary>What a program did with a frame. <paramref name="Reason"/> is what it counted.</summary>
internal sealed record Outcome(int Verdict, DropReason Reason, byte[] Packet)
{
    /// <summary>False when the program let the frame go on uncounted.</summary>
    public bool Counted { get; init; } = true;

    public void Dropped(DropReason reason) => Assert.Equal((PacketWorld.Shot, reason), (Verdict, Reason));

    public void PassedUp(Frame expected) => Is(PacketWorld.Ok, expected.Build());

    public void Redirected(Frame expected) => Is(PacketWorld.Redirect, expected.Build());

    public void Is(int verdict, byte[] packet)
    {
        Assert.Equal((verdict, DropReason.Forwarded), (Verdict, Reason));
        Assert.Equal(Convert.ToHexString(packet), Convert.ToHexString(Packet));
    }
}

/// <summary>The same cast in both families.</summary>
public sealed record Names(
    string Pod, string OtherPod, string Host, string RemotePod, string RemoteInRange, string Stranded, string Virtual, string Outside)
{
    public static readonly Names V4 =
        new("10.1.0.2", "10.1.0.3", "10.1.0.1", "10.2.0.5", "10.3.7.7", "10.2.0.66", "10.96.0.10", "192.0.2.1");

    public static readonly Names V6 =
        new("fd00:1::2", "fd00:1::3", "fd00:1::1", "fd00:2::5", "fd00:3::77", "fd00:2::66", "fd00:96::10", "2001:db8::1");

    public static Names Of(int family) => family == 4 ? V4 : V6;
}

/// <summary>The compiled objects of this checkout.</summary>
internal static class Objects
{
    public static string Path(string name)
    {
        for (var directory = new DirectoryInfo(AppContext.BaseDirectory); directory is not null; directory = directory.Parent)
            if (File.Exists(System.IO.Path.Combine(directory.FullName, "Mesh.sln")))
                return System.IO.Path.Combine(directory.FullName, "out", "bpf", name);
        throw new InvalidOperationException("these tests run from a checkout: no Mesh.sln above the test program");
    }
}
