using System.Globalization;
using System.Text;
using Mesh.Bpf;
using Mesh.Datapath.Maps;
using Mesh.Model;

namespace Mesh.Datapath.Tests.Packets;

/// <summary>
/// Every program loads with every combination of what a node may be told (struct node_config), and none has become more than a tenth
/// larger, or harder to verify, than verifier.txt says. Numbers are the highest of all combinations. A change that is wanted is recorded:
/// run the test with MESH_RECORD_VERIFIER=1 in the environment. How far the verifier goes is the kernel's affair, so the file
/// holds for the kernel that it names; on another one only the sizes are compared, which follow the compiler.
/// </summary>
public sealed class VerifierTests(ITestOutputHelper output)
{
    private const double Jump = 1.1;
    private const string Record = "MESH_RECORD_VERIFIER";

    private static readonly string[] Objects = ["pod_in", "vxlan_in", "uplink_in", "xdp_lb", "socket", "outcome", "close"];

    [Fact]
    public void Every_program_loads_with_every_combination_of_options_and_is_no_harder_to_verify_than_recorded()
    {
        var found = new SortedDictionary<string, (int Size, int Verified)>(StringComparer.Ordinal);
        var combinations = 0;
        using var homes = new Homes();
        foreach (var name in Objects)
            foreach (var config in Combinations(name))
            {
                combinations++;
                foreach (var (program, info) in homes.Load(name + ".bpf.o", config))
                {
                    var (size, verified) = found.GetValueOrDefault(program);
                    found[program] = (Math.Max(size, info.Instructions), Math.Max(verified, info.Verified));
                }
            }
        output.WriteLine($"{combinations} loads");
        var path = Path.Combine(Packets.Objects.Path("../.."), "tests", "Mesh.Datapath.Tests", "Packets", "verifier.txt");
        if (Environment.GetEnvironmentVariable(Record) is not null)
            File.WriteAllText(path, Write(found));
        var lines = File.ReadAllLines(path);
        var sameKernel = lines[0].EndsWith(' ' + Kernel, StringComparison.Ordinal);
        var recorded = lines.Skip(2).Select(line => line.Split(' ', StringSplitOptions.RemoveEmptyEntries))
            .ToDictionary(cells => cells[0], cells => (Size: Number(cells[1]), Verified: Number(cells[2])), StringComparer.Ordinal);

        Assert.Equal(recorded.Keys.Order(StringComparer.Ordinal), found.Keys);
        Assert.All(found, program =>
        {
            var before = recorded[program.Key];
            Assert.True(program.Value.Size <= before.Size * Jump,
                $"{program.Key}: {program.Value.Size} instructions, recorded {before.Size} ({Record}=1 records)");
            Assert.True(!sameKernel || program.Value.Verified <= before.Verified * Jump,
                $"{program.Key}: {program.Value.Verified} instructions verified, recorded {before.Verified} ({Record}=1 records)");
        });
    }

    private static string Kernel => string.Join('.', File.ReadAllText("/proc/sys/kernel/osrelease").Split('.').Take(2));

    private static int Number(string text) => int.Parse(text, CultureInfo.InvariantCulture);

    private static string Write(SortedDictionary<string, (int Size, int Verified)> found)
    {
        var text = new StringBuilder($"clang 14, kernel {Kernel}\n");
        text.Append(CultureInfo.InvariantCulture, $"{"program",-16}{"instructions",14}{"verified",14}\n");
        foreach (var (program, (size, verified)) in found)
            text.Append(CultureInfo.InvariantCulture, $"{program,-16}{size,14}{verified,14}\n");
        return text.ToString();
    }

    /// <summary>The options that the object's programs look at.</summary>
    private static IEnumerable<NodeConfig> Combinations(string name) => name switch
    {
        "pod_in" or "uplink_in" =>
            from family in (byte[])[Family.IPv4, Family.IPv6]
            from tunnel in (uint[])[0, 2]
            from host in (uint[])[0, 3]
            from mtu in (uint[])[0, 1450]
            from flags in (NodeConfigFlags[])[NodeConfigFlags.None, NodeConfigFlags.BuiltHeaders]
            select Node(family, tunnel, host, mtu, flags),
        "xdp_lb" =>
            from family in (byte[])[Family.IPv4, Family.IPv6]
            from mtu in (uint[])[0, 1450]
            from flags in (NodeConfigFlags[])[NodeConfigFlags.None, NodeConfigFlags.SendByRedirect]
            from own in (bool[])[true, false]
            select own
                ? Node(family, 2, 3, mtu, flags)
                : Node(family, 2, 3, mtu, flags) with { UplinkInterface = 0, UplinkMac = default, Direct4 = default, Gateway4 = default },
        "vxlan_in" =>
            from family in (byte[])[Family.IPv4, Family.IPv6]
            from host in (uint[])[0, 3]
            from shift in (uint[])[15, 16]
            select Node(family, 2, host, 1450, NodeConfigFlags.None) with { IdentityClusterShift = shift },
        _ =>
            from ports in (ushort[])[0, 30000]
            select Node(Family.IPv4, 2, 3, 1450, NodeConfigFlags.None) with { NodePortFirst = ports, NodePortLast = ports },
    };

    private static NodeConfig Node(byte family, uint tunnel, uint host, uint mtu, NodeConfigFlags flags) => new()
    {
        ClusterId = 1,
        TunnelInterface = tunnel,
        HostInterface = host,
        IdentityClusterShift = 16,
        UnderlayFamily = family,
        PodMtu = mtu,
        GatewayMac = MacAddress.From(0x020000000001ul),
        TunnelPort = 8472,
        Flags = flags,
        UplinkInterface = 4,
        Underlay = MeshAddress.From(IpAddr.Parse(family == Family.IPv4 ? "172.30.0.1" : "fd00:30::1")),
        Gateway4 = BigEndianUInt32.FromHost((uint)IpAddr.Parse("10.1.0.254").Value),
        Gateway6 = MeshAddress.From(IpAddr.Parse("fd00:1::fe")),
        Direct4 = BigEndianUInt32.FromHost((uint)IpAddr.Parse("172.30.0.1").Value),
        Direct6 = MeshAddress.From(IpAddr.Parse("fd00:30::1")),
        NatPortMin = 1024,
        NatPortMax = 32767,
        SourcePortMin = 32768,
        SourcePortMax = 61000,
        NodePortFirst = 30000,
        NodePortLast = 32767,
        UplinkMac = MacAddress.From(0x020000001e01ul),
    };

    /// <summary>Loads objects again and again onto one set of maps: making them takes longer than the programs.</summary>
    private sealed class Homes : IDisposable
    {
        private readonly Dictionary<string, BpfObject> _homes = [];
        private readonly List<BpfObject> _objects = [];

        public IEnumerable<(string Program, ProgramInfo Info)> Load(string name, NodeConfig config)
        {
            var loaded = BpfObject.Open(Packets.Objects.Path(name));
            var isHome = false;
            try
            {
                if (loaded.HasConstant("config"))
                    loaded.SetConstant("config", config);
                foreach (var map in loaded.MapNames)
                {
                    if (_homes.TryAdd(map, loaded))
                    {
                        isHome = true;
                        continue;
                    }
                    using var fd = _homes[map].MapFd(map);
                    loaded.Reuse(map, fd);
                }
                loaded.Load();
                return [.. loaded.ProgramNames.Select(program =>
                {
                    using var one = loaded.Program(program);
                    return (program, one.Info());
                })];
            }
            finally
            {
                if (isHome)
                    _objects.Add(loaded);
                else
                    loaded.Dispose();
            }
        }

        public void Dispose() => _objects.ForEach(one => one.Dispose());
    }
}
