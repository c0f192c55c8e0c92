using System.Globalization;
using System.Runtime.CompilerServices;
using Mesh.Benchmarks.Surroundings;
using Mesh.Bpf;
using Mesh.Datapath.Maps;
using Mesh.Datapath.Tests.Packets;
using Mesh.Model;

namespace Mesh.Benchmarks;

/// <summary>
/// Nanoseconds per packet of the XDP load balancer, complete with flows, ports, checksums, VXLAN header and counters, by
/// BPF_PROG_TEST_RUN: packets of known flows to services outside, 10 backends each on another node. Frames have 80 bytes and are
/// written anew each time by bpf/tests/replay_xdp.bpf.c, whose own cost is measured right before, with its table of programs empty,
/// and taken off; that it also takes the last run's headers off again is not, and counts against us. The floors are a program that
/// reads the headers and one that looks up one hash and redirects, over the same frames. Figures are medians of the rounds.
/// </summary>
internal static class North
{
    private const int Rounds = 9;
    private const int Runs = 300_000;
    private const int FrameBytes = 80;
    private const int Backends = 10;
    private const int TableSize = 1021;
    private const int SmallTableSize = 251; // where the arena would not hold so many large ones
    private const uint Device = 1; // the loopback device of the benchmark's own namespace
    private const int AimServices = 512;

    private static readonly int[] FlowCounts = [1, 1024, 65536];

    public static Task RunAsync(Report report, CancellationToken cancellation)
    {
        foreach (var services in (int[])[1, 10, AimServices, 10_000, 25_000])
        {
            using var bench = new Bench(services);
            Measure(report, bench, services, v6: false, dsr: false, cancellation);
            Measure(report, bench, services, v6: true, dsr: false, cancellation);
            if (services == AimServices)
            {
                Measure(report, bench, services, v6: false, dsr: true, cancellation);
                Observed(report, bench);
            }
        }
        return Task.CompletedTask;
    }

    /// <summary>What it costs that somebody watches.</summary>
    private static void Observed(Report report, Bench bench)
    {
        bench.Prepare(v6: false, dsr: false);
        bench.Cycle(FlowCounts[1]);
        var (off, on) = (new List<double>(), new List<double>());
        for (var round = 0; round < Rounds; round++)
        {
            off.Add(bench.Net(bench.LoadBalancer));
            bench.Observe(on: true);
            on.Add(bench.Net(bench.LoadBalancer));
            bench.Observe(on: false);
        }
        report.Add("  the same, 1k flows, while somebody observes", string.Create(CultureInfo.InvariantCulture, $"{new Sample(on).P50} ns"),
            string.Create(CultureInfo.InvariantCulture, $"nobody: {new Sample(off).P50} ns"), new Sample(on).P50 / new Sample(off).P50);
    }

    private static void Measure(Report report, Bench bench, int services, bool v6, bool dsr, CancellationToken cancellation)
    {
        var mode = dsr ? "DSR" : "SNAT";
        var family = v6 ? "IPv6" : "IPv4";
        bench.Prepare(v6, dsr);
        var cells = new List<(double Floor, double Hash, double Ours)>();
        foreach (var flows in FlowCounts)
        {
            cancellation.ThrowIfCancellationRequested();
            bench.Cycle(flows);
            var (floor, hash, ours) = (new List<double>(), new List<double>(), new List<double>());
            for (var round = 0; round < Rounds; round++)
            {
                floor.Add(bench.Net(bench.Parse));
                hash.Add(bench.Net(bench.Redirect));
                ours.Add(bench.Net(bench.LoadBalancer));
            }
            cells.Add((new Sample(floor).P50, new Sample(hash).P50, new Sample(ours).P50));
        }
        bool? met = services == AimServices && !v6 ? cells[0].Ours <= 120 && cells[^1].Ours <= 200 : null;
        report.Add($"XDP LB + VXLAN, {mode}, {family}, {services:N0} services, 1 | 1k | 64k flows",
            string.Create(CultureInfo.InvariantCulture, $"{cells[0].Ours} | {cells[1].Ours} | {cells[2].Ours} ns"),
            string.Create(CultureInfo.InvariantCulture,
                $"parse {cells[0].Floor} | {cells[1].Floor} | {cells[2].Floor}, hash+redirect {cells[0].Hash} | {cells[1].Hash} | {cells[2].Hash} ns"),
            aim: met is null ? "" : "≤ 120 ns at 1 flow, ≤ 200 ns at 64k", met: met);
    }

    /// <summary>The program on maps of its own, filled by hand.</summary>
    internal sealed class Bench : IDisposable
    {
        private readonly int _services;
        private readonly uint _device;
        private readonly BpfObject _object;
        private readonly BpfObject _replay;
        private readonly BpfProgram _replayer;
        private readonly ServiceTables _tables;
        private readonly BpfMap<uint, Template> _templates;
        private readonly BpfMap<uint, State> _state;
        private readonly BpfMap<uint, uint> _program;
        private readonly BpfMap<Nat4Key, NatValue> _nat4;
        private readonly BpfMap<Nat6Key, NatValue> _nat6;
        private readonly uint[] _ids;
        private byte[] _frame = [];

        /// <param name="services">With ten backends each.</param>
        /// <param name="device">The uplink.</param>
        public Bench(int services, uint device = Device)
        {
            _device = device;
            const uint flowEntries = 262144; // room for twice the two entries of each flow: the LRU takes none away
            _services = services;
            _ids = new uint[2 * services];
            var config = new NodeConfig
            {
                ClusterId = 1,
                IdentityClusterShift = 16,
                UnderlayFamily = Family.IPv4,
                PodMtu = 1450,
                GatewayMac = MacAddress.From(0x020000000001ul),
                TunnelPort = 8472,
                Flags = NodeConfigFlags.BuiltHeaders,
                UplinkInterface = device,
                Underlay = MeshAddress.From(IpAddr.Parse("172.30.0.1")),
                Gateway4 = BigEndianUInt32.FromHost((uint)IpAddr.Parse("10.1.0.254").Value),
                Gateway6 = MeshAddress.From(IpAddr.Parse("fd00:1::fe")),
                Direct4 = BigEndianUInt32.FromHost((uint)IpAddr.Parse("172.30.0.1").Value),
                NatPortMin = 1024,
                NatPortMax = 32767,
                SourcePortMin = 32768,
                SourcePortMax = 61000,
            };
            _object = BpfObject.Open(Path.Combine(Command.Root, "out", "bpf", "xdp_lb.bpf.o"));
            _object.SetConstant("config", config);
            _object.SetMaxEntries("nat4", flowEntries);
            _object.SetMaxEntries("nat6", flowEntries);
            _object.Load();
            _replay = BpfObject.Open(Path.Combine(Command.Root, "out", "bpf", "tests", "replay_xdp.bpf.o"));
            if (_replay.HasConstant("config"))
                _replay.SetConstant("config", config);
            foreach (var map in _replay.MapNames.Where(_object.HasMap))
            {
                using var fd = _object.MapFd(map);
                _replay.Reuse(map, fd);
            }
            _replay.Load();
            _replayer = _replay.Program("replay_xdp");
            Parse = _replay.Program("parse_xdp");
            Redirect = _replay.Program("redirect_xdp");
            LoadBalancer = _object.Program("xdp_lb");
            _templates = _replay.Map<uint, Template>("templates");
            _state = _replay.Map<uint, State>("replay_state");
            _program = _replay.Map<uint, uint>("replay_program");
            _nat4 = _object.Map<Nat4Key, NatValue>("nat4");
            _nat6 = _object.Map<Nat6Key, NatValue>("nat6");
            _tables = new ServiceTables(_object);
            Fill();
        }

        public BpfProgram Parse { get; }

        public BpfProgram Redirect { get; }

        public BpfProgram LoadBalancer { get; }

        public BpfProgram Transmit => _replay.Program("transmit_xdp");

        public BpfProgram Counter => _replay.Program("count_xdp");

        public BpfMap<uint, ulong> Counted => _replay.Map<uint, ulong>("counted");

        /// <summary>Frames in turn, really sent out of a device.</summary>
        public void Send(BpfProgram transmit, uint wire, int frames)
        {
            _program.Set(0, (uint)transmit.Fd.Number);
            _replayer.RunLive(_frame, wire, frames);
        }

        /// <summary>Events of flows are told, or not.</summary>
        public void Observe(bool on)
        {
            using var watch = _object.Array<ObservingValue>("observing");
            watch[0].UntilNs = on ? ulong.MaxValue : 0;
        }

        /// <summary>Flows begin anew, in one family.</summary>
        public void Prepare(bool v6, bool dsr)
        {
            _nat4.RemoveBatch([.. _nat4.Dump().Select(entry => entry.Key)]);
            _nat6.RemoveBatch([.. _nat6.Dump().Select(entry => entry.Key)]);
            _tables.Nodes[1].Flags = dsr ? NodeFlags.TakesDsr : NodeFlags.None;
            for (var i = 0; i < _services; i++)
                Info(_ids[v6 ? _services + i : i]) = new LbServiceInfo { Kind = 2, Forwarding = (byte)(dsr ? 1 : 0) };
            var random = new Random(1);
            var keys = new uint[FlowCounts[^1]];
            var templates = new Template[keys.Length];
            for (var i = 0; i < keys.Length; i++)
            {
                var service = random.Next(_services);
                var client = v6 ? IpAddr.V6(((UInt128)0x20010db8 << 96) + (uint)random.Next()) : IpAddr.V4(0x64400000 + (uint)random.Next(1 << 22));
                var bytes = new Frame(client, Virtual(v6, service))
                {
                    SourcePort = (ushort)random.Next(1024, 65536),
                    TcpFlags = Frame.Ack,
                    PayloadLength = FrameBytes - Frame.EthernetHeader - (v6 ? 40 : 20) - 20,
                }.Build();
                keys[i] = (uint)i;
                bytes.CopyTo(templates[i]);
                if (i == 0)
                    _frame = bytes;
            }
            _templates.SetBatch(keys, templates, (_, cause) => throw cause);
        }

        /// <summary>So many flows in turn, all of them known.</summary>
        public void Cycle(int flows)
        {
            _state.Set(0, new State { Next = 0, Mask = (uint)flows - 1 });
            _program.Set(0, (uint)LoadBalancer.Fd.Number);
            Run(XdpAction.Transmit, Math.Max(flows, 1000));
        }

        /// <summary>Nanoseconds per run without those of the replayer.</summary>
        public double Net(BpfProgram program)
        {
            _program.Remove(0);
            var empty = Run(XdpAction.Pass, Runs);
            _program.Set(0, (uint)program.Fd.Number);
            return Math.Max(0, Run(program == Redirect ? XdpAction.Redirect : XdpAction.Transmit, Runs) - empty);
        }

        public void Dispose()
        {
            foreach (var one in (IDisposable[])[_nat4, _nat6, _program, _state, _templates, _tables, LoadBalancer, Redirect, Parse, _replayer,
                _replay, _object])
                one.Dispose();
        }

        private double Run(int verdict, int runs)
        {
            var result = _replayer.TestRunXdp(_frame, _device, runs);
            return result.ReturnValue == verdict
                ? result.NanosecondsPerRun
                : throw new InvalidOperationException($"verdict {result.ReturnValue}, not {verdict}");
        }

        private void Fill()
        {
            using var ranges4 = _object.Map<IPCache4PrefixKey, IPCacheValue>("ipcache4_prefixes");
            using var ranges6 = _object.Map<IPCache6PrefixKey, IPCacheValue>("ipcache6_prefixes");
            ranges4.Set(IPCache4PrefixKey.From(IpPrefix.Parse("10.128.0.0/9")), new IPCacheValue { Identity = 0x20001, Node = 1 });
            ranges6.Set(IPCache6PrefixKey.From(IpPrefix.Parse("fd00:2::/32")), new IPCacheValue { Identity = 0x20001, Node = 1 });
            _tables.Clear();
            _tables.Nodes[1] = new NodeValue
            {
                TunnelEndpoint = MeshAddress.From(IpAddr.Parse("172.30.0.2")),
                Family = Family.IPv4,
                ClusterId = 2,
                NextHopMac = MacAddress.From(0x020000001e02ul),
                SourceMac = MacAddress.From(0x020000001e01ul),
                InterfaceIndex = _device,
            };
            for (var i = 0; i < _services; i++)
                foreach (var v6 in (bool[])[false, true])
                {
                    var backends = Enumerable.Range(0, Backends).Select(b => new Mesh.Datapath.Tests.Packets.Backend(
                        v6 ? IpAddr.V6(((UInt128)0xfd000002 << 96) + (uint)(i * Backends + b)) : IpAddr.V4(0x0a800000 + (uint)(i * Backends + b)), 8080));
                    _ids[v6 ? _services + i : i] = _tables.Set(Virtual(v6, i).ToString(), 80, Frame.Tcp,
                        new Segment(2, 0, [.. backends]) { TableSize = _services > 2000 ? SmallTableSize : TableSize });
                }
        }

        private static IpAddr Virtual(bool v6, int service) =>
            v6 ? IpAddr.V6(((UInt128)0x20010db80099 << 80) + (uint)service) : IpAddr.V4(0xcb000000 + (uint)service);

        private ref LbServiceInfo Info(uint service) =>
            ref Unsafe.As<LbBlock, LbServiceInfo>(ref _tables.Arena[_tables.Services.Observe(service).Block]);

        /// <summary>struct template.</summary>
        [InlineArray(FrameBytes)]
        private struct Template
        {
            private byte _first;
        }

        /// <summary>struct replay_state.</summary>
        private struct State
        {
            public uint Next;
            public uint Mask;
        }
    }
}
