using System.Net;
using Mesh.Bpf;
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
/// A node whose agent is exchanged for one with another layout of the maps, and back, while sockets of the node go on connecting
/// to a service: nothing fails, whatever is shared, copied or filled anew, and wherever a start dies.
/// </summary>
[Collection("sockets")]
public sealed class LayoutSwitchTests : IDisposable
{
    private readonly NetworkNamespace _space = new();
    private readonly BpfFileSystem _files = new();
    private readonly DesiredState _desired = new();
    private OwnCgroup? _cgroup;

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

    /// <summary>Only the room differs: what the map holds, and all that has numbers into it, is copied.</summary>
    private static LayoutVariant Wider => new() { MaxEntries = new Dictionary<string, uint> { ["lb4_services"] = 131_072 } };

    /// <summary>Nothing of these maps can be read by the other build: the tables fill them.</summary>
    private static LayoutVariant Different => new() { OtherTypes = new HashSet<string> { "lb_backends", "ipcache4" } };

    /// <summary>Something to share, to copy and to fill.</summary>
    private static LayoutVariant Both => new() { MaxEntries = Wider.MaxEntries, OtherTypes = new HashSet<string> { "ipcache4" } };

    public void Dispose()
    {
        _cgroup?.Dispose();
        _files.Dispose();
        _space.Dispose();
    }

    [Fact]
    public void Agents_of_other_layouts_follow_each_other_and_no_client_notices()
    {
        var options = Options();
        Agent(options);
        using var traffic = Clients();
        var (conntrack, services, first) = (IdOf("conntrack4"), IdOf("lb_services"), Serving());

        foreach (var variant in new[] { Wider, null, Different, null })
        {
            var before = Serving();
            var connections = traffic.Connections;
            Agent(options with { Variant = variant }, datapath =>
            {
                // A narrower map takes no copy.
                Assert.Equal(variant?.MaxEntries.Count is null or 0, !datapath.TrySwitch());
                if (!datapath.TrySwitch())
                    Assert.Contains($"programs of layout {before} serve until", datapath.Status().Switching);
            });

            Assert.NotEqual(before, Serving());
            Assert.Equal([PinDirectory.Current, Serving()], Layouts());
            Assert.Equal(conntrack, IdOf("conntrack4"));
            Assert.NotEqual(services, IdOf("lb_services"));
            services = IdOf("lb_services");
            Assert.True(SpinWait.SpinUntil(() => traffic.Connections > connections, TimeSpan.FromSeconds(10)));
        }

        Assert.Equal(first, Serving());
        Report(traffic, "4 switches of layout");
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

    /// <summary>What the tests above would see if the switch came before the maps are filled.</summary>
    [Fact]
    public void Programs_on_maps_not_filled_yet_are_noticed_at_once()
    {
        var options = Options();
        Agent(options);
        using var traffic = Clients();
        _space.Run(() => Datapath.Start(options with { BpfRoot = Directory.CreateDirectory(_files.Path + "/empty").FullName }, _desired).Dispose());
        foreach (var link in Directory.EnumerateFiles(_files.Path + "/current/links", "cgroup_*"))
            File.Delete(link);

        Assert.True(SpinWait.SpinUntil(() => !traffic.Faults.IsEmpty, TimeSpan.FromSeconds(10)));
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
    private void Agent(DatapathOptions options, Action<Datapath>? started = null) => _space.Run(() =>
    {
        using var datapath = Datapath.Start(options, _desired);
        started?.Invoke(datapath);
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

    private Traffic Clients() => new(IPEndPoint.Parse("10.96.0.10:80"), IPEndPoint.Parse("10.1.0.254:8080"), _space.Run,
        _space.Run, longOnes: 200);

    private static void Report(Traffic traffic, string what)
    {
        TestContext.Current.TestOutputHelper?.WriteLine(
            $"{what}: {traffic.Connections} new connections, slowest {traffic.Slowest.TotalMilliseconds:F0} ms, {traffic.Exchanges} exchanges on 200 long ones");
        Assert.Empty(traffic.Faults);
        Assert.True(traffic.Connections > 0 && traffic.Exchanges > 0);
    }

    /// <summary>Without the kernel's own files.</summary>
    private IEnumerable<string?> Layouts() => Directory.EnumerateFileSystemEntries(_files.Path).Select(Path.GetFileName)
        .Where(name => !name!.EndsWith(".debug", StringComparison.Ordinal)).Order();

    private string Serving() => new FileInfo(Path.Combine(_files.Path, PinDirectory.Current)).LinkTarget!;

    private uint IdOf(string map)
    {
        using var fd = BpfFd.OpenPinned(new PinDirectory(_files.Path).Map(map), readOnly: true);
        return MapInfo.Of(fd, map).Id;
    }

    private int IndexOf(string device) => _space.Run(() =>
    {
        using var netlink = new Mesh.Datapath.Devices.Rtnetlink();
        return netlink.Link(device)!.Index;
    });

    private sealed class CrashException(string step) : Exception(step);
}
