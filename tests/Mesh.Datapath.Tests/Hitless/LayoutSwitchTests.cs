using System.Net;
using Mesh.ControlPlane;
using Mesh.ControlPlane.Endpoints;
using Mesh.Datapath.Loader;
using Mesh.Datapath.Tests.Kernel;
using Mesh.Model;
using Mesh.StateDB;
using Mesh.StateDB.Reconciler;
using static Mesh.Datapath.Tests.LoadBalancing.Rows;

namespace Mesh.Datapath.Tests.Hitless;

/// <summary>
/// A node whose agent is exchanged for one with another layout of the maps, which dies at every step, while sockets of the node go on
/// connecting to a service: nothing fails.
/// </summary>
[Collection("sockets")]
public sealed class LayoutSwitchTests : IDisposable
{
    private readonly NetworkNamespace _space = new();
    private readonly BpfFileSystem _files = new();
    private readonly DesiredState _desired = new();
    private OwnCgroup? _cgroup;
    private Echo? _echo;

    public LayoutSwitchTests()
    {
        _space.Shell("sh", "-c", "ip link set lo up; ip link add eth0 type veth peer name wire; ip link set eth0 mtu 1450 up; "
            + "ip link set wire up; ip addr add 172.30.0.1/24 dev eth0; "
            + "ip link add lxc1 address 02:00:00:00:00:02 type veth peer name pod1 address 02:00:00:00:00:01; ip link set lxc1 up; ip link set pod1 up");
        var frontend = Frontend("10.96.0.10:80/TCP", Backend("10.1.0.254:8080/TCP"));
        var pod = new Endpoint(7, "default", "pod", "lxc1", IndexOf("lxc1"), 0x020000000001, 0x020000000002, new([IpAddr.Parse("10.1.0.7")]), 65537);
        _desired.Frontends.Write(table => table.Upsert(frontend.Address, frontend));
        _desired.Endpoints.Write(table => table.Upsert(7, pod));
        _desired.Frontends.SealInitializers();
        _desired.IPCache.SealInitializers();
        _desired.Nodes.SealInitializers();
        _desired.Endpoints.SealInitializers();
        _desired.RemoteClusters.SealInitializers();
        _desired.Policies.SealInitializers();
    }

    /// <summary>Something to share, to copy and to fill.</summary>
    private static LayoutVariant Both => new()
    {
        MaxEntries = new Dictionary<string, uint> { ["lb4_services"] = 131_072 },
        OtherTypes = new HashSet<string> { "ipcache4" },
    };

    public void Dispose()
    {
        _echo?.Dispose();
        _cgroup?.Dispose();
        _files.Dispose();
        _space.Dispose();
    }

    [Fact]
    public void A_start_that_dies_at_any_step_leaves_the_old_layout_serving_and_the_next_start_goes_on()
    {
        string[] deaths =
            ["share ", "fill", "copy ", "take endpoint_", "switch cgroup_connect4", "switch uplink_out_eth0", "turn", "remove "];
        var options = Options();
        Agent(options);
        var first = Serving();
        using var traffic = Clients();

        foreach (var death in deaths)
        {
            var dying = Both with { Failpoint = step => _ = step.StartsWith(death, StringComparison.Ordinal) ? throw new CrashException(step) : 0 };
            Assert.Throws<CrashException>(() => Agent(options with { Variant = dying }));
            Assert.Equal(death == "remove ", Serving() != first);
            // The old build may come back, half of whose programs are the other's; else the other goes on over what it has left.
            if (death != "switch cgroup_connect4")
                continue;
            Agent(options);
            Assert.Equal([PinDirectory.Current, first], Layouts());
        }
        var steps = new List<string>();
        Agent(options with { Variant = Both with { Failpoint = steps.Add } });

        Assert.Equal([PinDirectory.Current, Serving()], Layouts());
        // To a layout that serves there is nothing to share, copy or turn.
        Assert.Equal(["fill", "remove", "switch", "take"], steps.Select(step => step.Split(' ')[0]).Distinct().Order());
        Report(traffic, $"deaths at {string.Join(", ", deaths)}");
    }

    private DatapathOptions Options() => new()
    {
        BpfRoot = _files.Path,
        CgroupPath = (_cgroup = new OwnCgroup("mesh-layouts")).Path,
        ClusterId = 1,
        IdentityNumbering = IdentityNumbering.Max255,
        NodeName = "node1",
        UnderlayAddress = IpAddr.Parse("172.30.0.1"),
        GatewayAddresses = [IpAddr.Parse("10.1.0.254")],
    };

    /// <summary>One life of an agent: starts, follows the tables, serves, ends.</summary>
    private void Agent(DatapathOptions options) => _space.Run(() =>
    {
        using var datapath = Datapath.Start(options, _desired);
        Once(datapath.Loops.Frontends, _desired.Frontends);
        Once(datapath.Loops.IPCache, _desired.IPCache);
        Once(datapath.Loops.Nodes, _desired.Nodes);
        Once(datapath.Loops.Endpoints, _desired.Endpoints);
        Once(datapath.Loops.Clusters, _desired.RemoteClusters);
        Once(datapath.Loops.Policies, _desired.Policies);
        Assert.True(datapath.TrySwitch());
        Assert.Null(datapath.Status().Switching);
        datapath.RemoveOtherLayouts();
    });

    private static void Once<TKey, TRow>(Reconciler<TKey, TRow> reconciler, Table<TKey, TRow> table)
        where TKey : notnull
        where TRow : class
    {
        using var feed = table.Subscribe();
        reconciler.RunOnce(feed);
    }

    private Traffic Clients()
    {
        _echo = new Echo(IPEndPoint.Parse("10.1.0.254:8080"), _space.Run);
        return new Traffic(IPEndPoint.Parse("10.96.0.10:80"), _space.Run, longOnes: 200, perSecond: 1000);
    }

    private static void Report(Traffic traffic, string what)
    {
        TestContext.Current.TestOutputHelper?.WriteLine(
            $"{what}: {traffic.Connections} new connections, slowest {traffic.Slowest.TotalMilliseconds:F0} ms, "
            + $"{traffic.Exchanges} exchanges on 200 long ones");
        Assert.Empty(traffic.Faults);
        Assert.True(traffic.Connections > 0 && traffic.Exchanges > 0);
    }

    /// <summary>Without the kernel's own files.</summary>
    private IEnumerable<string?> Layouts() => Directory.EnumerateFileSystemEntries(_files.Path).Select(Path.GetFileName)
        .Where(name => !name!.EndsWith(".debug", StringComparison.Ordinal)).Order();

    private string Serving() => new FileInfo(Path.Combine(_files.Path, PinDirectory.Current)).LinkTarget!;

    private int IndexOf(string device) => _space.Run(() =>
    {
        using var netlink = new Mesh.Datapath.Devices.Rtnetlink();
        return netlink.Link(device)!.Index;
    });

    private sealed class CrashException(string step) : Exception(step);
}
