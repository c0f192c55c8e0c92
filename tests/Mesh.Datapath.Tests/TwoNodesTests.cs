using Mesh.ControlPlane;
using Mesh.ControlPlane.Endpoints;
using Mesh.ControlPlane.IPCache;
using Mesh.ControlPlane.Nodes;
using Mesh.ControlPlane.Policies;
using Mesh.ControlPlane.RemoteClusters;
using Mesh.Datapath.Maps;
using Mesh.Datapath.Masquerade;
using Mesh.Datapath.Uplinks;
using Mesh.Model;
using Mesh.Policy;
using Mesh.Policy.Engine;
using Mesh.StateDB;
using Mesh.StateDB.Reconciler;
using static Mesh.Datapath.Tests.LoadBalancing.Rows;

namespace Mesh.Datapath.Tests;

/// <summary>Two nodes of two clusters on a wire, a pod on each: packets really cross, with no socket hook to help them.</summary>
public sealed class TwoNodesTests : IDisposable
{
    private readonly LiveNode _tokyo = new(cluster: 1);
    private readonly LiveNode _osaka = new(cluster: 2);

    public TwoNodesTests()
    {
        _tokyo.Space.Shell("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", _osaka.Space.Name);
        foreach (var node in (LiveNode[])[_tokyo, _osaka])
            node.Start(_tokyo, _osaka);
    }

    public void Dispose()
    {
        _tokyo.Dispose();
        _osaka.Dispose();
    }

    [Fact]
    public void Pods_reach_each_other_through_the_tunnel_over_both_families()
    {
        _tokyo.Pod.Shell("ping", "-c", "2", "-W", "2", "10.2.0.1");
        _tokyo.Pod.Shell("ping", "-c", "2", "-W", "2", "fd00:2::1");
        // As large as the tunnel takes, unfragmented.
        _tokyo.Pod.Shell("ping", "-c", "1", "-W", "2", "-M", "do", "-s", "1422", "10.2.0.1");

        Assert.Contains(_tokyo.Counters(), counter => counter is { Reason: DropReason.Forwarded, Direction: TrafficDirection.Egress });
        Assert.Contains(_osaka.Counters(), counter => counter is { Reason: DropReason.Forwarded, Direction: TrafficDirection.Ingress });
        Assert.Throws<InvalidOperationException>(() => _tokyo.Pod.Shell("ping", "-c", "1", "-W", "1", "10.2.0.99"));
        Assert.Contains(_osaka.Counters(), counter => counter.Reason == DropReason.NoEndpoint);
    }

    [Fact]
    public void A_host_reaches_pods_of_both_nodes_and_pods_reach_their_gateway()
    {
        _tokyo.Space.Shell("ping", "-c", "1", "-W", "2", "10.1.0.1");
        _tokyo.Space.Shell("ping", "-c", "1", "-W", "2", "10.2.0.1");
        _tokyo.Space.Shell("ping", "-c", "1", "-W", "2", "fd00:2::1");
        _tokyo.Pod.Shell("ping", "-c", "1", "-W", "2", "10.1.0.254");
        _tokyo.Pod.Shell("ping", "-c", "1", "-W", "2", "fd00:1::fe");
        _tokyo.Pod.Shell("ping", "-c", "1", "-W", "2", "10.2.0.254");
    }

    [Fact]
    public void A_service_is_answered_by_the_other_cluster_and_stops_when_its_row_goes()
    {
        using var listener = _osaka.Pod.Run(() =>
        {
            var socket = new System.Net.Sockets.TcpListener(System.Net.IPAddress.Any, 8080);
            socket.Start();
            return socket;
        });

        Assert.True(Connects());
        _tokyo.Desired.Frontends.Write(table => table.Delete(Address(LiveNode.Vip)));
        _tokyo.Turn();

        Assert.False(Connects());

        bool Connects() => _tokyo.Pod.Run(() =>
        {
            using var client = new System.Net.Sockets.Socket(System.Net.Sockets.AddressFamily.InterNetwork,
                System.Net.Sockets.SocketType.Stream, System.Net.Sockets.ProtocolType.Tcp);
            try
            {
                using var deadline = new CancellationTokenSource(TimeSpan.FromSeconds(3));
                client.ConnectAsync("10.96.0.10", 80, deadline.Token).AsTask().GetAwaiter().GetResult();
                return true;
            }
            catch (Exception exception) when (exception is OperationCanceledException or System.Net.Sockets.SocketException)
            {
                return false;
            }
        });
    }

    [Fact]
    public async Task No_ping_is_lost_while_the_agent_dies_and_its_successor_takes_over()
    {
        var ping = Task.Run(() => _tokyo.Pod.Shell("ping", "-q", "-i", "0.01", "-c", "300", "-W", "1", "10.2.0.1"));
        for (var i = 0; i < 3; i++)
        {
            _tokyo.Restart();
            _osaka.Restart();
        }

        Assert.Contains("300 packets transmitted, 300 received", await ping);
        Assert.Equal(4ul, _tokyo.Status().Generation);
    }
}

/// <summary>A node with a pod, its datapath running on it.</summary>
internal sealed class LiveNode : IDisposable
{
    internal const string Vip = "10.96.0.10:80/TCP";

    private readonly BpfFileSystem? _files;
    private readonly uint _cluster;
    private Datapath? _datapath;
    private ChangeFeed<PolicyKey, PolicyRow>? _policyChanges;

    /// <summary>Taken up by a second process: what is there was made, and is removed, by the first.</summary>
    internal LiveNode(uint cluster, string space, string pod, string bpfRoot, bool policy = false)
    {
        _cluster = cluster;
        Space = NetworkNamespace.Existing(space);
        Pod = NetworkNamespace.Existing(pod);
        BpfRoot = bpfRoot;
        Policies = policy ? Writer() : null;
    }

    /// <param name="policy">Packets of the pod are judged.</param>
    internal LiveNode(uint cluster, bool policy = false)
    {
        _cluster = cluster;
        Space = new();
        Pod = new();
        _files = new BpfFileSystem();
        BpfRoot = _files.Path;
        Policies = policy ? Writer() : null;
    }

    private PolicyWriter Writer() => new(Desired, new IPCacheWriter(Desired.IPCache), new ClusterIdentity($"cluster{_cluster}", _cluster),
        new PolicyEngineOptions { Cluster = $"cluster{_cluster}" }, [], TimeProvider.System, _ => { });

    /// <summary>Null when nothing is judged.</summary>
    internal PolicyWriter? Policies { get; }

    internal Mesh.Datapath.Policies.PolicyMaps PolicyMaps => _datapath!.Policy;

    internal NetworkNamespace Space { get; }

    internal NetworkNamespace Pod { get; }

    internal string BpfRoot { get; }

    internal string? Cgroup { get; set; }

    internal Mesh.Datapath.Loader.LayoutVariant? Variant { get; set; }

    internal DesiredState Desired { get; } = new();

    internal UplinkOptions Uplink { get; set; } = new();

    internal MasqueradeOptions Masquerade { get; set; } = new();

    private IpAddr Underlay => IpAddr.Parse($"172.30.0.{_cluster}");

    internal IReadOnlyList<PacketCounter> Counters() => _datapath!.Counters();

    internal DatapathStatus Status() => _datapath!.Status();

    internal void Start(params LiveNode[] all)
    {
        Space.Shell("sh", "-c", $"ip link set lo up; ip addr add 172.30.0.{_cluster}/24 dev eth0; ip link set eth0 up; "
            + $"ip link add lxc1 type veth peer name eth0 netns {Pod.Name}; ip link set lxc1 up");
        Pod.Shell("sh", "-c", $"ip link set lo up; ip link set eth0 mtu 1450 up; ip addr add 10.{_cluster}.0.1/32 dev eth0; "
            + $"ip route add 10.{_cluster}.0.254 dev eth0; ip route add default via 10.{_cluster}.0.254; "
            + $"ip addr add fd00:{_cluster}::1/128 dev eth0 nodad; "
            + $"ip -6 route add fd00:{_cluster}::fe dev eth0; ip -6 route add default via fd00:{_cluster}::fe");
        Restart();
        Want(all);
        Turn();
    }

    /// <summary>What the tables say: the pod, all nodes with their pods, one service.</summary>
    /// <param name="all">By cluster.</param>
    internal void Want(params LiveNode[] all)
    {
        Desired.Endpoints.Write(table => table.Upsert(1, Endpoint()));
        foreach (var node in all)
        {
            var (id, name) = (node._cluster, new NodeName($"cluster{node._cluster}", "node"));
            if (node != this)
                Desired.RemoteClusters.Write(table => table.Upsert(name.Cluster, new RemoteClusterRow(name.Cluster, id, true, true, "")));
            Desired.Nodes.Write(table => table.Upsert(name, new Node(name, id, new([new NodeAddress("InternalIP", node.Underlay)]),
                new([IpPrefix.Parse($"10.{id}.0.0/24"), IpPrefix.Parse($"fd00:{id}::/64")]), new([]), node == this)
            { TakesDsr = true }));
            foreach (var address in (string[])[$"10.{id}.0.0/24", $"10.{id}.0.1", $"10.{id}.0.254", $"fd00:{id}::/64", $"fd00:{id}::1"])
            {
                var prefix = IpPrefix.Parse(address);
                // The gateway is the node itself: no pod.
                var identity = address.EndsWith(".254", StringComparison.Ordinal) ? NumericIdentity.RemoteNode : id << 16 | 1;
                var row = new IPCacheEntry(prefix, identity, node == this ? null : node.Underlay, 0,
                    IPCacheSource.ClusterMesh, name.Cluster, id, "", "");
                Desired.IPCache.Write(table => table.Upsert(prefix, row));
            }
        }
        Desired.Frontends.Write(table => table.Upsert(Address(Vip), Frontend(Vip, Backend("10.2.0.1:8080/TCP", 2))));
    }

    internal void Restart()
    {
        _datapath?.Dispose();
        _policyChanges?.Dispose();
        _policyChanges = Desired.Policies.Subscribe();
        _datapath = Space.Run(() => Datapath.Start(new DatapathOptions
        {
            BpfRoot = BpfRoot,
            CgroupPath = Cgroup,
            Variant = Variant,
            ClusterId = _cluster,
            IdentityNumbering = IdentityNumbering.Max255,
            NodeName = "node",
            UnderlayAddress = Underlay,
            Uplink = Uplink,
            Masquerade = Masquerade,
            GatewayAddresses = [IpAddr.Parse($"10.{_cluster}.0.254"), IpAddr.Parse($"fd00:{_cluster}::fe")],
            EnforcePolicy = Policies is not null,
        }, Desired));
    }

    /// <summary>Until the next hop of every other node is known.</summary>
    internal void FindPaths()
    {
        Assert.True(SpinWait.SpinUntil(
            () =>
            {
                Space.Run(_datapath!.Paths.Turn);
                return _datapath.Status().ResolvedNodes > 0;
            }, TimeSpan.FromSeconds(5)), "no next hop");
    }

    /// <summary>One turn of every loop, inside the node's namespace.</summary>
    internal void Turn() => Space.Run(() =>
    {
        TurnPolicies();
        Once(_datapath!.Loops.Nodes, Desired.Nodes);
        Once(_datapath.Loops.IPCache, Desired.IPCache);
        Once(_datapath.Loops.Endpoints, Desired.Endpoints);
        Once(_datapath.Loops.Frontends, Desired.Frontends);
        // A row that is gone is in no feed that begins now.
        Desired.Frontends.SealInitializers();
        _datapath.Loops.Frontends.RequestPrune();
        Once(_datapath.Loops.Frontends, Desired.Frontends);
    });

    /// <summary>Every table is whole: what is wanted is in the maps, what is not has left, and our programs serve.</summary>
    internal void Settle() => Space.Run(() =>
    {
        Desired.Frontends.SealInitializers();
        Desired.IPCache.SealInitializers();
        Desired.Nodes.SealInitializers();
        Desired.Endpoints.SealInitializers();
        Desired.RemoteClusters.SealInitializers();
        Desired.Policies.SealInitializers();
        TurnPolicies();
        Once(_datapath!.Loops.Clusters, Desired.RemoteClusters);
        Once(_datapath.Loops.Nodes, Desired.Nodes);
        Once(_datapath.Loops.IPCache, Desired.IPCache);
        Once(_datapath.Loops.Frontends, Desired.Frontends);
        Once(_datapath.Loops.Endpoints, Desired.Endpoints);
        Assert.True(_datapath.TrySwitch(), _datapath.Status().Switching);
        _datapath.CollectGarbage();
    });

    /// <summary>No agent any more; the datapath stays.</summary>
    internal void Stop()
    {
        _datapath?.Dispose();
        _datapath = null;
    }

    /// <summary>Which layout serves.</summary>
    internal string Layout => new FileInfo(Path.Combine(BpfRoot, "current")).LinkTarget!;

    /// <summary>What has changed of policies, down to the kernel.</summary>
    internal void TurnPolicies()
    {
        Policies?.Turn();
        _datapath!.Loops.Policies.RunOnce(_policyChanges!);
        _datapath.CollectGarbage();
        Assert.All(Desired.Policies.Snapshot(), pair => Assert.True(pair.Value.Status.State == RowState.Done, pair.Value.Status.Error));
    }

    /// <summary>Nodes whose rows are gone leave the kernel.</summary>
    internal void PruneNodes() => Space.Run(() =>
    {
        _datapath!.Loops.Nodes.RequestPrune();
        Once(_datapath.Loops.Nodes, Desired.Nodes);
    });

    public void Dispose()
    {
        _policyChanges?.Dispose();
        Policies?.Dispose();
        _datapath?.Dispose();
        if (_files is null)
            return;
        _files.Dispose();
        Pod.Dispose();
        Space.Dispose();
    }

    private Endpoint Endpoint()
    {
        using var netlink = Space.Run(() => new Mesh.Datapath.Devices.Rtnetlink());
        using var inside = Pod.Run(() => new Mesh.Datapath.Devices.Rtnetlink());
        var host = netlink.Link("lxc1")!;
        return new Endpoint(1, "default", "pod", "lxc1", host.Index, inside.Link("eth0")!.Mac.Value, host.Mac.Value,
            new([IpAddr.Parse($"10.{_cluster}.0.1"), IpAddr.Parse($"fd00:{_cluster}::1")]), _cluster << 16 | 1);
    }

    private static void Once<TKey, TRow>(Reconciler<TKey, TRow> reconciler, Table<TKey, TRow> table)
        where TKey : notnull
        where TRow : class
    {
        using var feed = table.Subscribe();
        reconciler.RunOnce(feed);
        Assert.All(table.Snapshot(), pair => Assert.True(pair.Value.Status.State == RowState.Done, pair.Value.Status.Error));
    }
}
