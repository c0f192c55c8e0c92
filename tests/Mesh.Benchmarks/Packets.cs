using System.Globalization;
using System.Runtime.CompilerServices;
using Mesh.Benchmarks.Surroundings;
using Mesh.Bpf;
using Mesh.ControlPlane;
using Mesh.ControlPlane.Endpoints;
using Mesh.ControlPlane.IPCache;
using Mesh.ControlPlane.LoadBalancing;
using Mesh.Datapath.Loader;
using Mesh.Datapath.Maps;
using Mesh.Datapath.Tests.Packets;
using Mesh.Model;
using Mesh.StateDB;
using Mesh.StateDB.Reconciler;
using Backend = Mesh.ControlPlane.LoadBalancing.Backend;

namespace Mesh.Benchmarks;

/// <summary>
/// Nanoseconds per packet of the tc programs, by BPF_PROG_TEST_RUN, on maps that the real datapath has filled: 2,000 services of 20
/// backends in two other clusters, and 20,000 addresses.
///
/// A repeated test run goes on with the frame as the last run left it, and a translated frame is not translated again. So what runs
/// is bpf/tests/replay.bpf.c: it writes the frame anew each time and enters the program by a tail call. What it costs alone is
/// measured right before, with its table of programs empty, and taken off. Frames have 96 bytes; a redirect is decided, not
/// done. Figures are medians of the rounds.
/// </summary>
internal static class Packets
{
    private const int Rounds = 9;
    private const int Runs = 200_000;
    private const int Flows = 60_000;
    private const int FrameBytes = 96;
    private const int Services = 1000;
    private const int Addresses = 10_000;
    private const int Redirect = 7; // TC_ACT_REDIRECT
    private const int Ok = 0; // TC_ACT_OK
    private const uint TunnelKey = 1;
    private const uint NewFlow = 2;

    public static Task RunAsync(Report report, CancellationToken cancellation)
    {
        using var node = new Node();
        Node.Shell("for i in 1 2; do ip link add lxc$i type veth peer name pod$i; ip link set lxc$i up; ip link set pod$i up; done");
        var desired = Desired();
        using var datapath = Mesh.Datapath.Datapath.Start(node.DatapathOptions, desired);
        Turn(datapath.Loops.Endpoints, desired.Endpoints);
        Turn(datapath.Loops.IPCache, desired.IPCache);
        Turn(datapath.Loops.Frontends, desired.Frontends);
        Turn(datapath.Loops.Clusters, desired.RemoteClusters);
        using var bench = new Bench(node);

        Case[] cases =
        [
            new("reading the headers only", bench.ParseOnly, Ok, Direct, Direct6),
            new("pod_in: to a pod of this node", bench.PodIn, Redirect, Local, Local6),
            new("pod_in: to a pod of another cluster, by tunnel", bench.PodIn, Redirect, Direct, Direct6),
            new("pod_in: to a service, known flow", bench.PodIn, Redirect, Later(Service), Later(Service6)),
            new("pod_in: to a service, new flow each time", bench.PodIn, Redirect, Service, Service6)
            {
                Flags = NewFlow, Runs = Flows, Forget = true,
            },
            // These are the flows of the line before.
            new($"pod_in: to a service, {Flows:N0} known flows", bench.PodIn, Redirect, Later(Service), Later(Service6))
            {
                Flags = NewFlow, Runs = Flows,
            },
            new("vxlan_in: to a pod of this node", bench.VxlanIn, Redirect, Arriving, Arriving6) { Flags = TunnelKey },
        ];
        var times = cases.ToDictionary(one => one, _ => (V4: new List<double>(), V6: new List<double>()));
        for (var round = 0; round < Rounds; round++)
        {
            foreach (var one in cases)
            {
                cancellation.ThrowIfCancellationRequested();
                if (one.Forget)
                    bench.ForgetFlows();
                times[one].V4.Add(bench.Net(one, one.V4));
                times[one].V6.Add(bench.Net(one, one.V6));
            }
        }
        foreach (var one in cases)
        {
            report.Add(one.What, string.Create(CultureInfo.InvariantCulture,
                $"IPv4 {new Sample(times[one].V4).P50} ns, IPv6 {new Sample(times[one].V6).P50} ns"));
        }
        return Task.CompletedTask;
    }

    private static Frame Local => Whole(Frame.Between("10.1.0.7", "10.1.0.8"));

    private static Frame Local6 => Whole(Frame.Between("fd00:1::7", "fd00:1::8"));

    private static Frame Direct => Whole(Frame.Between("10.1.0.7", "10.2.0.5"));

    private static Frame Direct6 => Whole(Frame.Between("fd00:1::7", "fd00:2::5"));

    private static Frame Service => Whole(Frame.Between("10.1.0.7", "10.96.0.10"));

    private static Frame Service6 => Whole(Frame.Between("fd00:1::7", "fd00:96::10"));

    private static Frame Arriving => Whole(Frame.Between("10.2.0.5", "10.1.0.7"));

    private static Frame Arriving6 => Whole(Frame.Between("fd00:2::5", "fd00:1::7"));

    private static Frame Whole(Frame frame) =>
        frame with { PayloadLength = FrameBytes - Frame.EthernetHeader - (frame.IsV6 ? 40 : 20) - 20 };

    /// <summary>A packet of a conversation that has begun.</summary>
    private static Frame Later(Frame frame) => frame with { TcpFlags = Frame.Ack };

    private static DesiredState Desired()
    {
        var desired = new DesiredState();
        desired.Endpoints.Write(table =>
        {
            for (ushort pod = 1; pod <= 2; pod++)
            {
                table.Upsert(pod, new Endpoint(pod, "default", $"pod{pod}", $"lxc{pod}", Native.InterfaceIndex($"lxc{pod}"),
                    0x020000000a00u + pod, 0x020000000b00u + pod, new([V4(1, 6u + pod), V6(1, 6u + pod)]),
                    IdentityNumbering.Max255.MinOf(1) + pod));
            }
        });
        desired.IPCache.Write(table =>
        {
            for (uint i = 0; i < Addresses; i++)
            {
                foreach (var address in (IpAddr[])[V4(2, i), V6(2, i)])
                {
                    var prefix = IpPrefix.Host(address);
                    table.Upsert(prefix, new IPCacheEntry(prefix, PeerCluster.Identity((int)i), IpAddr.Parse(PeerCluster.NodeAddress), 0,
                        IPCacheSource.ClusterMesh, PeerCluster.Name, PeerCluster.Id, "default", $"pod{i}"));
                }
            }
        });
        desired.Frontends.Write(table =>
        {
            for (uint i = 0; i < Services; i++)
            {
                AddFrontend(table, V4(96, i), V4);
                AddFrontend(table, IpAddr.V6(((UInt128)0xfd000096 << 96) + ToDecimalDigits(i)), V6);
            }
        });
        return desired;
    }

    /// <summary>fd00:96::10 is number 10: the address looks as its number does.</summary>
    private static uint ToDecimalDigits(uint number) =>
        uint.Parse(number.ToString(CultureInfo.InvariantCulture), NumberStyles.HexNumber, CultureInfo.InvariantCulture);

    private static IpAddr V4(uint cluster, uint number) => IpAddr.V4((10 << 24) + (cluster << 16) + number);

    private static IpAddr V6(uint cluster, uint number) => IpAddr.V6(((UInt128)(0xfd000000 + cluster) << 96) + number);

    private static void AddFrontend(Table<L3n4Addr, Frontend>.WriteTransaction table, IpAddr address, Func<uint, uint, IpAddr> backend)
    {
        var frontend = new L3n4Addr(address, 80, L4Protocol.TCP);
        // All of them remote, so that every new flow takes the same way.
        var backends = Enumerable.Range(0, 20).Select(i => new Backend(new L3n4Addr(backend(2, 100u + (uint)i), 8080, L4Protocol.TCP),
            PeerCluster.Id + (uint)i / 10, i < 10 ? PeerCluster.Name : "nagoya", "", "", BackendState.Active, 0));
        table.Upsert(frontend, new Frontend(frontend, new ServiceName("default", $"service-{address}"), "", ServiceType.ClusterIP,
            ServiceAffinity.None, new([.. backends])));
    }

    private static void Turn<TKey, TRow>(Reconciler<TKey, TRow> reconciler, Table<TKey, TRow> table)
        where TKey : notnull
        where TRow : class
    {
        using var feed = table.Subscribe();
        reconciler.RunOnce(feed);
        if (reconciler.Failing > 0)
        {
            var error = table.Snapshot().Select(pair => pair.Value.Status.Error).First(error => error is not null);
            throw new InvalidOperationException($"table {table.Name}: {error}");
        }
    }

    private sealed record Case(string What, BpfProgram Program, int Verdict, Frame V4, Frame V6)
    {
        public uint Flags { get; init; }

        public int Runs { get; init; } = Packets.Runs;

        /// <summary>Without the flows of earlier rounds.</summary>
        public bool Forget { get; init; }
    }

    /// <summary>The programs on the node's maps, and the replayer in front of them.</summary>
    private sealed class Bench : IDisposable
    {
        private readonly DatapathObjects _objects;
        private readonly BpfObject _replay;
        private readonly BpfProgram _replayer;
        private readonly BpfMap<uint, Replay> _frame;
        private readonly BpfMap<uint, uint> _program;
        private readonly BpfMap<Conntrack4Key, ConntrackValue> _conntrack4;
        private readonly BpfMap<Conntrack6Key, ConntrackValue> _conntrack6;
        private readonly uint _pod = (uint)Native.InterfaceIndex("lxc1");
        private readonly uint _tunnel = (uint)Native.InterfaceIndex("mesh_vxlan");

        public Bench(Node node)
        {
            var pins = new PinDirectory(node.BpfRoot);
            var config = new NodeConfig
            {
                ClusterId = 1,
                TunnelInterface = _tunnel,
                HostInterface = (uint)Native.InterfaceIndex("mesh_net"),
                IdentityClusterShift = 16,
                UnderlayFamily = Family.IPv4,
                PodMtu = 1400,
                GatewayMac = MacAddress.From(0x020000000001ul),
            };
            _objects = DatapathObjects.Load(pins, config);
            _replay = BpfObject.Open(Path.Combine(Command.Root, "out", "bpf", "tests", "replay.bpf.o"));
            _replay.SetConstant("config", config);
            _replay.Load();
            _replayer = _replay.Program("replay");
            ParseOnly = _replay.Program("parse_only");
            _frame = _replay.Map<uint, Replay>("replay_frame");
            _program = _replay.Map<uint, uint>("replay_program");
            _conntrack4 = BpfMaps.OpenPinned<Conntrack4Key, ConntrackValue>(pins.Map("conntrack4"));
            _conntrack6 = BpfMaps.OpenPinned<Conntrack6Key, ConntrackValue>(pins.Map("conntrack6"));
        }

        public BpfProgram ParseOnly { get; }

        public BpfProgram PodIn => _objects.PodIn;

        public BpfProgram VxlanIn => _objects.VxlanIn;

        /// <summary>Nanoseconds per run without those of the replayer.</summary>
        public double Net(Case one, Frame frame)
        {
            var bytes = frame.Build();
            if (bytes.Length != FrameBytes)
                throw new InvalidOperationException($"a frame of {bytes.Length} bytes, and the replayer has {FrameBytes}");
            var replay = new Replay { Flags = one.Flags, Port = 0, SourcePort = (ushort)(Frame.EthernetHeader + (frame.IsV6 ? 40 : 20)) };
            bytes.CopyTo(replay.Frame);
            _program.Remove(0);
            var empty = Run(one, bytes, replay, -1);
            _program.Set(0, (uint)one.Program.Fd.Number);
            return Math.Max(0, Run(one, bytes, replay, one.Verdict) - empty);
        }

        public void ForgetFlows()
        {
            _conntrack4.RemoveBatch([.. _conntrack4.Dump().Select(entry => entry.Key)]);
            _conntrack6.RemoveBatch([.. _conntrack6.Dump().Select(entry => entry.Key)]);
        }

        public void Dispose()
        {
            _conntrack4.Dispose();
            _conntrack6.Dispose();
            _frame.Dispose();
            _program.Dispose();
            _replayer.Dispose();
            ParseOnly.Dispose();
            _replay.Dispose();
            _objects.Dispose();
        }

        private double Run(Case one, byte[] frame, Replay replay, int verdict)
        {
            _frame.Set(0, replay);
            var context = new SkBuff { InterfaceIndex = (one.Flags & TunnelKey) != 0 ? _tunnel : _pod };
            var result = _replayer.TestRun(frame, ref context, one.Runs);
            return result.ReturnValue == verdict
                ? result.NanosecondsPerRun
                : throw new InvalidOperationException($"{one.What}: verdict {result.ReturnValue}, not {verdict}");
        }

        /// <summary>struct replay.</summary>
        private struct Replay
        {
            public FrameMemory Frame;
            public uint Flags;

            /// <summary>The last one used: the program counts it up.</summary>
            public ushort Port;

            /// <summary>Its offset in the frame.</summary>
            public ushort SourcePort;
        }

        [InlineArray(FrameBytes)]
        private struct FrameMemory
        {
            private byte _first;
        }
    }
}
