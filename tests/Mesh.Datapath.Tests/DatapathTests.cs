using Mesh.ControlPlane;
using Mesh.ControlPlane.Endpoints;
using Mesh.ControlPlane.IPCache;
using Mesh.ControlPlane.Nodes;
using Mesh.Datapath.Maps;
using Mesh.Datapath.Tests.Kernel;
using Mesh.Datapath.Tests.LoadBalancing;
using Mesh.Model;
using Mesh.StateDB;
using Mesh.StateDB.Reconciler;
using static Mesh.Datapath.Tests.LoadBalancing.Rows;

namespace Mesh.Datapath.Tests;

/// <summary>The whole of it on a node of its own: real devices, programs, links and maps in a network namespace.</summary>
public sealed class DatapathTests : IDisposable
{
    private readonly NetworkNamespace _space = new();
    private readonly BpfFileSystem _files = new();
    private readonly DesiredState _desired = new();

    private static string Version => "current";

    public DatapathTests()
    {
        _space.Shell("sh", "-c", "ip link set lo up; ip link add eth0 type veth peer name wire; ip link set eth0 mtu 1450 up; "
            + "ip link set wire up; ip addr add 172.30.0.1/24 dev eth0; "
            + "ip link add lxc1 type veth peer name pod1; ip link set lxc1 up; ip link set pod1 up");
    }

    private DatapathOptions Options => new()
    {
        BpfRoot = _files.Path,
        ClusterId = 1,
        IdentityNumbering = IdentityNumbering.Max255,
        NodeName = "node1",
        UnderlayAddress = IpAddr.Parse("172.30.0.1"),
        GatewayAddresses = [IpAddr.Parse("10.1.0.254"), IpAddr.Parse("fd00:1::fe")],
    };

    public void Dispose()
    {
        _files.Dispose();
        _space.Dispose();
    }

    [Fact]
    public void Starting_makes_devices_maps_and_links_and_starting_again_changes_nothing()
    {
        _space.Run(() =>
        {
            using var first = Datapath.Start(Options, _desired);
            Assert.Equal(1400u, first.PodMtu);
            Assert.Equal(1ul, first.Status().Generation);
        });
        var devices = _space.Shell("ip", "-d", "-o", "link");
        var addresses = _space.Shell("ip", "-o", "addr").Replace(" tentative", "");
        var neighbours = _space.Shell("ip", "neigh", "show", "dev", "mesh_host");
        Assert.Contains("vxlan external", devices);
        Assert.Contains("dstport 8472", devices);
        Assert.Contains("mesh_net@mesh_host", devices);
        Assert.Contains("10.1.0.254/32", addresses);
        Assert.Contains("fd00:1::fe/128", addresses);
        Assert.Contains("169.254.77.1 lladdr", neighbours);
        Assert.Contains("PERMANENT", neighbours);
        Assert.Equal(["mesh_net", "mesh_vxlan", "uplink_in_eth0", "uplink_out_eth0"], Links());

        _space.Run(() =>
        {
            using var second = Datapath.Start(Options, _desired);
            Assert.Equal(2ul, second.Status().Generation);
        });

        Assert.Equal(devices, _space.Shell("ip", "-d", "-o", "link"));
        Assert.Equal(addresses, _space.Shell("ip", "-o", "addr").Replace(" tentative", ""));
        Assert.Equal(["10.1.0.254", "172.30.0.1", "fd00:1::fe"], Addresses(host: true));
    }

    /// <summary>Verification is most of what a start costs, and all agents of a machine may start at once.</summary>
    [Fact]
    public void Programs_are_verified_once_and_again_only_when_a_constant_or_a_map_is_another()
    {
        uint[] first = Programs(Options), again = Programs(Options);
        uint[] otherConstant = Programs(Options with { GatewayAddresses = [IpAddr.Parse("10.1.0.253"), IpAddr.Parse("fd00:1::fe")] });
        uint[] otherMap = Programs(Options with { IPCacheMapMax = 4096 });
        foreach (var pins in Directory.GetDirectories(Path.Combine(_files.Path, Version, "programs"), "pod_in_*"))
            File.Delete(Path.Combine(pins, "pod_in"));
        var afterLoss = Programs(Options with { IPCacheMapMax = 4096 });

        Assert.Equal(first, again);
        Assert.Empty(first.Intersect(otherConstant));
        Assert.Empty(otherConstant.Intersect(otherMap));
        Assert.Single(otherMap.Except(afterLoss));
        Assert.Equal(7, Directory.GetDirectories(Path.Combine(_files.Path, Version, "programs")).Length);
    }

    [Fact]
    public void Rows_become_kernel_state_and_survive_a_restart_until_their_sources_have_spoken()
    {
        var frontend = Frontend("10.96.0.10:80/TCP", Backend("10.1.0.1:8080/TCP"), Backend("10.2.0.1:8080/TCP", 2));
        _desired.Frontends.Write(table => table.Upsert(frontend.Address, frontend));
        var pod = new IPCacheEntry(IpPrefix.Parse("10.2.0.1/32"), 131073, IpAddr.Parse("172.30.0.2"), 0,
            IPCacheSource.ClusterMesh, "osaka", 2, "default", "pod");
        _desired.IPCache.Write(table => table.Upsert(pod.Prefix, pod));
        _desired.Nodes.Write(table => table.Upsert(new NodeName("osaka", "node1"), Node("osaka", "node1", "10.2.0.0/24", "fd00:2::/64")));
        _space.Run(() =>
        {
            using var datapath = Datapath.Start(Options, _desired);
            Turn(datapath, _desired);
        });
        Assert.Equal(RowState.Done, Assert.Single(_desired.Frontends.Snapshot()).Value.Status.State);
        var frontends = Read(maps => maps.Frontends().Select(LbNode.Text).ToList());
        var ipcache = Read(maps => maps.IPCache());
        var routes = _space.Shell("ip", "route", "show", "dev", "mesh_host")
            + _space.Shell("ip", "-6", "route", "show", "dev", "mesh_host", "proto", "77");
        Assert.Equal([LbNode.Text(frontend)], frontends);
        Assert.Equal(["10.2.0.1/32 131073 172.30.0.2"], ipcache.Select(entry => $"{entry.Prefix} {entry.Identity} {entry.TunnelEndpoint}"));
        Assert.Contains("10.2.0.0/24 via 169.254.77.1", routes);
        Assert.Contains("src 10.1.0.254", routes);
        Assert.Contains("fd00:2::/64 via fe80::77:1", routes);

        var empty = new DesiredState();
        _space.Run(() =>
        {
            using var datapath = Datapath.Start(Options, empty);
            Turn(datapath, empty);
            Assert.Equal(frontends, Read(maps => maps.Frontends().Select(LbNode.Text).ToList()));
            Assert.Equal(ipcache, Read(maps => maps.IPCache()));
            Assert.Equal([1u, 2u], Read(maps => maps.ClustersUp()));

            // Now the sources say that there is nothing.
            empty.Frontends.SealInitializers();
            empty.IPCache.SealInitializers();
            empty.Nodes.SealInitializers();
            empty.RemoteClusters.SealInitializers();
            Turn(datapath, empty);
        });

        Assert.Empty(Read(maps => maps.Frontends()));
        Assert.Empty(Read(maps => maps.IPCache()));
        Assert.Equal([1u], Read(maps => maps.ClustersUp()));
        Assert.Equal("", _space.Shell("ip", "route", "show", "dev", "mesh_host", "proto", "77"));
    }

    [Fact]
    public void An_endpoint_is_attached_replaced_and_detached_with_its_row()
    {
        var index = IndexOf("lxc1");
        var row = new Endpoint(7, "default", "pod", "lxc1", index, 0x020000000001, 0x020000000002,
            new([IpAddr.Parse("10.1.0.7"), IpAddr.Parse("fd00:1::7")]), 65537);
        _desired.Endpoints.Write(table => table.Upsert(7, row));
        var lost = row with { Id = 8, InterfaceName = "lxc9", InterfaceIndex = 9999, Addresses = new([IpAddr.Parse("10.1.0.8")]) };
        _desired.Endpoints.Write(table => table.Upsert(8, lost));
        _space.Run(() =>
        {
            using var datapath = Datapath.Start(Options, _desired);
            Turn(datapath, _desired);
        });
        var statuses = _desired.Endpoints.Snapshot().ToDictionary(pair => pair.Key, pair => pair.Value.Status);
        Assert.Equal(RowState.Done, statuses[7].State);
        Assert.Equal("endpoint 8 (default/pod): interface lxc9 (index 9999) is gone from this network namespace", statuses[8].Error);
        Assert.Equal(
            new[] { "10.1.0.7", "fd00:1::7" }.Select(address => $"{address} 7 {index} 65537 02:00:00:00:00:01 02:00:00:00:00:02"),
            Read(maps => maps.Endpoints()).Where(endpoint => !endpoint.IsHost).Select(endpoint =>
                $"{endpoint.Address} {endpoint.Id} {endpoint.InterfaceIndex} {endpoint.Identity} {endpoint.Mac} {endpoint.HostMac}"));
        Assert.True(File.Exists(Path.Combine(_files.Path, Version, "links", $"endpoint_{index}")));

        _space.Run(() =>
        {
            using var datapath = Datapath.Start(Options, _desired);
            _desired.Endpoints.Write(table =>
            {
                table.Delete(8);
                table.Upsert(7, row with { Addresses = new([IpAddr.Parse("10.1.0.9")]) });
            });
            Turn(datapath, _desired);
            Assert.Equal(["10.1.0.9"], Addresses(host: false));
            using var feed = _desired.Endpoints.Subscribe();
            datapath.Loops.Endpoints.RunOnce(feed);
            _desired.Endpoints.Write(table => table.Delete(7));
            datapath.Loops.Endpoints.RunOnce(feed);
        });

        Assert.DoesNotContain(Read(maps => maps.Endpoints()), endpoint => !endpoint.IsHost);
        Assert.False(File.Exists(Path.Combine(_files.Path, Version, "links", $"endpoint_{index}")));
    }

    [Fact]
    public async Task The_loops_follow_the_tables_until_they_are_stopped()
    {
        var row = Frontend("10.96.0.10:80/TCP", Backend("10.1.0.1:8080/TCP"));
        using var datapath = _space.Run(() => Datapath.Start(Options, _desired));
        using var stop = new CancellationTokenSource();
        var loops = datapath.RunAsync(stop.Token);

        _desired.Frontends.Write(table => table.Upsert(row.Address, row));

        Assert.True(SpinWait.SpinUntil(
            () => _desired.Frontends.Snapshot()[0].Value.Status.State == RowState.Done, TimeSpan.FromSeconds(10)));
        await stop.CancelAsync();
        await loops.WaitAsync(TimeSpan.FromSeconds(10), TestContext.Current.CancellationToken);
        Assert.Equal([row.Address], Read(maps => maps.Frontends()).Select(frontend => frontend.Address));
        Assert.NotNull(Read(maps => maps.AgentState()).SinceHeartbeat);
        var usage = datapath.MapUsage().ToDictionary(map => map.Name);
        Assert.Equal(1, usage["lb_services"].Used);
        Assert.Equal(1, usage["lb_backends"].Used);
        Assert.True(usage["lb_arena"].MemoryBytes >= 16 << 20);
    }

    [Fact]
    public void Socket_hooks_are_attached_to_the_given_cgroup_and_leave_when_it_is_not_given()
    {
        var cgroup = CgroupRoot() + $"/datapath-{Environment.ProcessId}";
        Directory.CreateDirectory(cgroup);
        try
        {
            _space.Run(() =>
            {
                using var datapath = Datapath.Start(Options with { CgroupPath = cgroup }, _desired);
                Assert.Equal(9, datapath.Status().SocketHooks);
            });
            var attached = Command.Run("bpftool", "cgroup", "show", cgroup);
            Assert.Contains("connect4", attached);
            Assert.Contains("getpeername6", attached);
            _space.Run(() => Datapath.Start(Options with { CgroupPath = cgroup }, _desired).Dispose());
            _space.Run(() => Datapath.Start(Options, _desired).Dispose());
            Assert.DoesNotContain("connect4", Command.Run("bpftool", "cgroup", "show", cgroup));
        }
        finally
        {
            Directory.Delete(cgroup);
        }
    }

    [Fact]
    public void Maps_of_another_layout_are_left_alone_and_the_mend_is_named()
    {
        _space.Run(() => Datapath.Start(Options, _desired).Dispose());
        using (var state = Mesh.Bpf.BpfMaps.OpenPinnedArray<AgentStateValue>(Path.Combine(_files.Path, Version, "maps", "agent_state")))
            state[0].Abi ^= 1;

        var error = Assert.Throws<DatapathException>(() => _space.Run(() => Datapath.Start(Options, _desired).Dispose()));

        Assert.Contains("have layout", error.Message);
        Assert.Contains($"remove {_files.Path}/v{Abi.Version}-", error.Message);
    }

    [Fact]
    public void A_new_tunnel_port_remakes_the_tunnel_and_attaches_to_the_new_device()
    {
        _space.Run(() => Datapath.Start(Options, _desired).Dispose());
        _space.Run(() => Datapath.Start(Options with { TunnelPort = 8473 }, _desired).Dispose());

        Assert.Contains("dstport 8473", _space.Shell("ip", "-d", "link", "show", "mesh_vxlan"));
        var index = IndexOf("mesh_vxlan");
        using var link = Mesh.Bpf.BpfLink.TryOpenPinned(Path.Combine(_files.Path, Version, "links", "mesh_vxlan"))!;
        Assert.Equal(index, link.Info().InterfaceIndex);
    }

    [Fact]
    public void Impossible_surroundings_are_named()
    {
        var elsewhere = Options with { UnderlayAddress = IpAddr.Parse("172.30.9.9") };
        var noAddress = Assert.Throws<DatapathException>(() => _space.Run(() => Datapath.Start(elsewhere, _desired).Dispose()));
        var noPins = Assert.Throws<DatapathException>(() => PinnedMaps.Open(_files.Path + "/nowhere"));

        Assert.Equal("no device of this network namespace has the underlay address 172.30.9.9", noAddress.Message);
        Assert.Contains("no datapath is pinned", noPins.Message);
    }

    private static Node Node(string cluster, string name, params string[] ranges) =>
        new(new NodeName(cluster, name), 2, new([new NodeAddress("InternalIP", IpAddr.Parse("172.30.0.2"))]),
            new(ranges.Select(IpPrefix.Parse)), new([]), false);

    private static void Turn(Datapath datapath, DesiredState desired)
    {
        Once(datapath.Loops.Frontends, desired.Frontends);
        Once(datapath.Loops.IPCache, desired.IPCache);
        Once(datapath.Loops.Nodes, desired.Nodes);
        Once(datapath.Loops.Endpoints, desired.Endpoints);
        Once(datapath.Loops.Clusters, desired.RemoteClusters);
    }

    private static void Once<TKey, TRow>(Reconciler<TKey, TRow> reconciler, Table<TKey, TRow> table)
        where TKey : notnull
        where TRow : class
    {
        using var feed = table.Subscribe();
        reconciler.RunOnce(feed);
    }

    private static string CgroupRoot() =>
        File.ReadLines("/proc/mounts").Select(line => line.Split(' ')).First(fields => fields[2] == "cgroup2")[1];

    /// <summary>What is attached after a start, by the kernel's number, in the order of the links' names.</summary>
    private uint[] Programs(DatapathOptions options) => _space.Run(() =>
    {
        Datapath.Start(options, _desired).Dispose();
        return Links().Select(name =>
        {
            using var link = Mesh.Bpf.BpfLink.TryOpenPinned(Path.Combine(_files.Path, Version, "links", name!))!;
            return link.Info().ProgramId;
        }).ToArray();
    });

    private IEnumerable<string?> Links() =>
        Directory.EnumerateFileSystemEntries(Path.Combine(_files.Path, Version, "links")).Select(Path.GetFileName).Order();

    private IEnumerable<string> Addresses(bool host) =>
        Read(maps => maps.Endpoints()).Where(endpoint => endpoint.IsHost == host).Select(endpoint => endpoint.Address.ToString());

    private int IndexOf(string device) => _space.Run(() =>
    {
        using var netlink = new Mesh.Datapath.Devices.Rtnetlink();
        return netlink.Link(device)!.Index;
    });

    private TResult Read<TResult>(Func<PinnedMaps, TResult> read)
    {
        using var maps = PinnedMaps.Open(_files.Path);
        return read(maps);
    }
}
