using System.Diagnostics;
using Mesh.Bpf;
using Mesh.ControlPlane;
using Mesh.Datapath.Conntrack;
using Mesh.Datapath.Devices;
using Mesh.Datapath.Endpoints;
using Mesh.Datapath.IPCache;
using Mesh.Datapath.Liveness;
using Mesh.Datapath.LoadBalancing;
using Mesh.Datapath.Loader;
using Mesh.Datapath.Maps;
using Mesh.Datapath.Nodes;
using Mesh.Datapath.Policies;
using Mesh.Datapath.Uplinks;
using Mesh.Model;
using Mesh.StateDB.Reconciler;

namespace Mesh.Datapath;

/// <summary>
/// The user-space half of one node's datapath: desired-state tables in, kernel maps out. <see cref="Start"/> makes or adopts
/// devices, maps, programs and links; <see cref="RunAsync"/> lets one reconciler per table follow it. Nothing is withdrawn when it
/// stops: the kernel goes on forwarding with what it has, and the next start takes over without losing a packet.
/// </summary>
public sealed class Datapath : IDisposable
{
    private static readonly TimeSpan HeartbeatInterval = TimeSpan.FromSeconds(1);

    /// <summary>Between two batches of a sweep: most of the time is the packets'.</summary>
    private static readonly TimeSpan SweepStep = TimeSpan.FromMilliseconds(20);

    /// <summary>Between two sweeps.</summary>
    private static readonly TimeSpan SweepInterval = TimeSpan.FromSeconds(5);

    private readonly DesiredState _desired;
    private readonly Reconcilers _reconcilers;
    private readonly List<IDisposable> _owned;
    private readonly GracePeriod _grace;
    private readonly MmapArray<AgentStateValue> _agentState;
    private readonly BpfMap<uint, CounterValue> _counters;
    private readonly FrontendOperations _frontends;
    private readonly ServiceStore _store;
    private readonly NodeIndexes _nodes;
    private readonly ConntrackSweeper _sweeper;
    private readonly PolicyOperations _policies;
    private readonly NodePaths _paths;
    private readonly MmapArray<FailoverValue> _failover;
    private readonly BackendNodes _backendNodes;
    private readonly LayoutSwitch _layout;
    private readonly Action _activate;
    private readonly PinDirectory _pins;
    private readonly DeviceSet _devices;
    private IReadOnlyList<UplinkStatus> _uplinks = [];
    private int _socketHooks;
    private bool _active;
    private DateTimeOffset _removeOthersAt = DateTimeOffset.MaxValue;
    private readonly DateTimeOffset _startedAt;
    private readonly bool _tcx;
    private readonly TimeProvider _time;

    private Datapath(DatapathOptions options, DesiredState desired, TimeProvider time, List<IDisposable> owned)
    {
        _desired = desired;
        _time = time;
        _startedAt = time.GetUtcNow();
        _owned = owned;
        _layout = LayoutSwitch.Prepare(options.BpfRoot, options.Variant);
        _pins = _layout.Pins;
        // What the kernel holds of another ABI must not be read, far less written.
        RequireSameAbi(_pins);

        var features = BpfFeatures.Probe();
        _tcx = features.Tcx;
        var netlink = Own(new Rtnetlink());
        _devices = new NodeDevices(netlink)
            .Ensure(options.UnderlayAddress, options.UnderlayMtu, options.TunnelPort, options.GatewayAddresses);

        var uplink = new Uplink(options.Uplink, netlink, options.UnderlayAddress);

        var objects = Own(DatapathObjects.Load(_pins, uplink.Describe(Configuration(options, _devices), options), options.IPCacheMapMax, options.Variant));
        _layout.Fill();
        _layout.TakeLinks();
        _agentState = Own(BpfMaps.OpenPinnedArray<AgentStateValue>(_pins.Map("agent_state")));
        _counters = Own(BpfMaps.OpenPinned<uint, CounterValue>(_pins.Map("counters"), readOnly: true));
        var lb = Own(LbMaps.OpenPinned(_pins.Maps));
        var ipcache = Own(IPCacheMaps.OpenPinned(_pins.Maps));
        var nodes = Own(BpfMaps.OpenPinnedArray<NodeValue>(_pins.Map("nodes")));
        var endpointMap = Own(BpfMaps.OpenPinned<EndpointKey, EndpointValue>(_pins.Map("endpoints")));
        var nodeAddresses = Own(BpfMaps.OpenPinned<LbNodeAddress, LbNodePlace>(_pins.Map("lb_node_addresses")));
        _sweeper = new ConntrackSweeper(
            Own(BpfMaps.OpenPinned<Conntrack4Key, ConntrackValue>(_pins.Map("conntrack4"))),
            Own(BpfMaps.OpenPinned<Conntrack6Key, ConntrackValue>(_pins.Map("conntrack6"))));
        _grace = Own(new GracePeriod());

        _store = new ServiceStore(lb, _grace);
        var clusters = new ClusterLiveness(lb.Clusters, options.ClusterId);
        Liveness = new LivenessMap(lb.Clusters, nodes);
        _failover = Own(BpfMaps.OpenPinnedArray<FailoverValue>(_pins.Map("failover")));
        Backends = new BackendHealth(lb, _failover);
        var choices = Own(BpfMaps.OpenPinned<uint, ulong>(_pins.Map("cluster_choices"), readOnly: true));
        Drills = new DrillGuard(lb.Clusters, _failover, () => new NewFlows(
            PinnedMaps.Choices(choices).Values.Aggregate(0ul, (sum, count) => sum + count), NewFlows.FailedOf(Failover(), Counters())));
        _frontends = new FrontendOperations(lb, _store, clusters, new SourceRanges(lb, _grace)) { Complete = options.Uplink.Complete };
        _frontends.Adopt();
        var senders = Own(BpfMaps.OpenPinned<EndpointKey, NodeIndexValue>(_pins.Map("tunnel_senders")));
        _nodes = new NodeIndexes(nodes, _grace, senders) { WhenComplete = () => Volatile.Write(ref _agentState.Write(0).SendersKnown, 1) };
        _nodes.Adopt();
        Policy = Own(PolicyMaps.OpenPinned(_pins.Maps));
        _policies = Own(new PolicyOperations(Policy, _grace));
        _policies.Adopt();
        _paths = Own(new NodePaths(_nodes, netlink, new NetlinkEvents(), options.UnderlayAddress));
        _backendNodes = new BackendNodes(desired, lb, _store.Slots, _nodes);

        var attachments = new Attachments(_pins, features, options.Variant?.Failpoint);
        var endpoints = new EndpointOperations(endpointMap, attachments, objects.PodIn, netlink, options.EnforcePolicy);
        endpoints.SetHostAddresses([.. options.GatewayAddresses, options.UnderlayAddress],
            _devices.Host, _devices.StackMac, _devices.GatewayMac);

        Sockets = Own(new SocketCloser(objects.ClosingPrograms));

        // Programs last, when everything they look up is in place. Sockets first: a connection that its socket has translated means
        // the same to the old programs of devices.
        _activate = () =>
        {
            _socketHooks = AttachSocketHooks(attachments, objects, options.CgroupPath);
            endpoints.Adopt();
            attachments.ToInterface("mesh_net", objects.PodIn, _devices.Host);
            attachments.ToInterface("mesh_vxlan", objects.VxlanIn, _devices.Tunnel);
            _uplinks = uplink.Attach(attachments, objects);
            attachments.RemoveForeign();
        };
        if (_layout.Tables.Count > 0)
            endpoints.WaitForSwitch();

        _reconcilers = new Reconcilers(
            new(desired.Frontends, _frontends, time: time),
            new(desired.IPCache, new IPCacheOperations(ipcache, _nodes, _policies.IsJudged), time: time),
            new(desired.Nodes, new NodeOperations(netlink, _devices, options.GatewayAddresses,
                new NodeAddresses(nodeAddresses, options.ClusterId), _nodes, options.UnderlayAddress.IsV6), time: time),
            new(desired.Endpoints, endpoints, time: time),
            new(desired.RemoteClusters, clusters, time: time),
            // One batch: the words of endpoints come behind all verdicts.
            new(desired.Policies, _policies, new ReconcilerOptions { BatchSize = int.MaxValue }, time));
        _agentState.Write(0).Abi = Abi.Word;
        _agentState.Write(0).Generation++;
        Beat();
        TrySwitch();
    }

    /// <summary>Loads, adopts, attaches. Whatever fails leaves the kernel as the last agent left it, or with parts that the next
    /// start takes over.</summary>
    /// <exception cref="DatapathException">The environment: devices, cgroup, bpffs.</exception>
    /// <exception cref="BpfException">The kernel refused; <see cref="VerifierException"/> carries the verifier's log.</exception>
    /// <exception cref="InvalidDataException">Programs and agent are of different builds.</exception>
    public static Datapath Start(DatapathOptions options, DesiredState desired, TimeProvider? time = null)
    {
        Devices.Sysctl.Procfs = options.Procfs;
        var owned = new List<IDisposable>();
        try
        {
            return new Datapath(options, desired, time ?? TimeProvider.System, owned);
        }
        catch
        {
            DisposeAll(owned);
            throw;
        }
    }

    /// <summary>Where the proof of traffic is written.</summary>
    public LivenessMap Liveness { get; }

    /// <summary>The maps of policy, for looking at.</summary>
    public PolicyMaps Policy { get; }

    /// <summary>Backends that connections have found dead.</summary>
    public BackendHealth Backends { get; }

    /// <summary>Ends drills that cost too much.</summary>
    public DrillGuard Drills { get; }

    /// <summary>Closes what is connected to lost backends.</summary>
    public SocketCloser Sockets { get; }

    /// <summary>Largest IP packet of a pod, in bytes.</summary>
    public uint PodMtu => _devices.PodMtu;

    /// <summary>Follows the tables until cancelled, and beats the heart once a second. A loop that fails, which none should, ends
    /// the others and comes out here.</summary>
    public async Task RunAsync(CancellationToken cancellation)
    {
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        Func<CancellationToken, Task>[] loops =
        [
            _reconcilers.Frontends.RunAsync, _reconcilers.IPCache.RunAsync, _reconcilers.Nodes.RunAsync,
            _reconcilers.Endpoints.RunAsync, _reconcilers.Clusters.RunAsync,
            _reconcilers.Policies.RunAsync, BeatAsync, SweepAsync,
            _paths.RunAsync,
            stopping => _backendNodes.RunAsync(_time, stopping),
        ];
        // Each on a task of its own: a turn is synchronous and may take a second for a large table.
        var running = loops.Select(loop => Task.Run(() => loop(stop.Token), CancellationToken.None)).ToArray();
        await Task.WhenAny(running);
        await stop.CancelAsync();
        await Task.WhenAll(running);
    }

    public DatapathStatus Status() => new(
        _agentState[0].Generation,
        _socketHooks,
        _tcx ? "tcx" : "clsact",
        _devices.PodMtu,
        _frontends.Count,
        _nodes.Count,
        _grace.Pending,
        _uplinks,
        _paths.Resolved,
        [
            StatusOf(_desired.Frontends.Name, _reconcilers.Frontends),
            StatusOf(_desired.IPCache.Name, _reconcilers.IPCache),
            StatusOf(_desired.Nodes.Name, _reconcilers.Nodes),
            StatusOf(_desired.Endpoints.Name, _reconcilers.Endpoints),
            StatusOf(_desired.RemoteClusters.Name, _reconcilers.Clusters),
            StatusOf(_desired.Policies.Name, _reconcilers.Policies),
        ])
    {
        Switching = _active ? null : $"programs of layout {_layout.From} serve until the maps of {_pins.Layout} hold {string.Join(", ", Awaited())}",
    };

    /// <summary>Packets forwarded and dropped, by reason and direction; reasons never met are left out.</summary>
    public IReadOnlyList<PacketCounter> Counters() => PacketCounter.Read(_counters);

    /// <summary>What has been done about lost clusters, nodes and backends since the maps were made.</summary>
    public FailoverCounters Failover() => FailoverCounters.Read(_failover);

    /// <summary>Index of the node with this tunnel endpoint; 0 when the datapath does not know it.</summary>
    public uint NodeIndex(IpAddr tunnelEndpoint) => _nodes.Find(tunnelEndpoint);

    /// <summary>The indexes by which the kernel knows tunnel endpoints.</summary>
    public IReadOnlyList<KeyValuePair<IpAddr, uint>> NodeIndexes() => _nodes.All();

    /// <summary>How full the maps are that this process hands out.</summary>
    public IReadOnlyList<MapUsage> MapUsage()
    {
        var used = new Dictionary<string, long>
        {
            [_store.Ids.Map] = _store.Ids.Used,
            [_store.Blocks.Map] = _store.Blocks.Used,
            [_store.Slots.Map] = _store.Slots.Used,
            [_nodes.Indexes.Map] = _nodes.Indexes.Used,
            ["conntrack4"] = _sweeper.Entries4,
            ["conntrack6"] = _sweeper.Entries6,
            [_policies.Allocator.Map] = _policies.Allocator.Used,
            [Policy.Rows.Name] = _policies.Rows,
        };
        return
        [
            .. Mesh.Datapath.MapUsage.Of(_pins).Select(map => used.TryGetValue(map.Name, out var count) ? map with { Used = count } : map),
        ];
    }

    /// <summary>Closes descriptors and mappings. Devices, pins and attachments stay. Call after <see cref="RunAsync"/> has ended.</summary>
    public void Dispose() => DisposeAll(_owned);

    /// <summary>For tests and benchmarks: crashes the writer before a store.</summary>
    internal ServiceStore Store => _store;

    internal NodePaths Paths => _paths;

    internal Reconcilers Loops => _reconcilers;

    /// <summary>Frees what no program can be looking at any more.</summary>
    internal void CollectGarbage()
    {
        _policies.Collect();
        _grace.Collect();
    }

    /// <summary>Lets our programs serve as soon as what they look up is there; at most once. In the node's network namespace.</summary>
    /// <returns>True when they do.</returns>
    internal bool TrySwitch()
    {
        if (_active || Awaited().Any())
            return _active;
        _activate();
        _layout.Complete();
        _removeOthersAt = _time.GetUtcNow() + LayoutSwitch.Grace;
        return _active = true;
    }

    /// <summary>Unpins what other layouts have left, once we serve.</summary>
    internal void RemoveOtherLayouts()
    {
        if (_active)
            _layout.RemoveOthers();
        _removeOthersAt = DateTimeOffset.MaxValue;
    }

    /// <summary>Tables that have not been written whole to the maps made anew.</summary>
    private IEnumerable<string> Awaited()
    {
        (string Table, bool IsThere)[] tables =
        [
            ("frontends", IsThere(_reconcilers.Frontends)), ("clusters", IsThere(_reconcilers.Clusters)),
            ("ipcache", IsThere(_reconcilers.IPCache)), ("nodes", IsThere(_reconcilers.Nodes)),
            // A pod that is new waits for us.
            ("endpoints", _reconcilers.Endpoints.HasPruned), ("policies", IsThere(_reconcilers.Policies)),
        ];
        return tables.Where(table => !table.IsThere && _layout.Tables.Contains(table.Table)).Select(table => table.Table);
    }

    /// <summary>A row that is refused is waited for, but not for ever: the programs that serve may have found no room for it either.</summary>
    private bool IsThere<TKey, TRow>(Reconciler<TKey, TRow> reconciler)
        where TKey : notnull
        where TRow : class
        => reconciler.HasPruned && (reconciler.Failing == 0 || _time.GetUtcNow() - _startedAt > LayoutSwitch.Grace);

    private static NodeConfig Configuration(DatapathOptions options, DeviceSet devices) => new()
    {
        ClusterId = options.ClusterId,
        TunnelInterface = (uint)devices.Tunnel,
        HostInterface = (uint)devices.Host,
        IdentityClusterShift = (uint)options.IdentityNumbering.LocalBits,
        UnderlayFamily = Family.Of(options.UnderlayAddress),
        PodMtu = devices.PodMtu,
        GatewayMac = devices.GatewayMac,
        NodePortFirst = options.NodePorts.First,
        NodePortLast = options.NodePorts.Last,
        Flags = (options.Masquerade.IPv4 ? NodeConfigFlags.MasqueradesIPv4 : NodeConfigFlags.None)
            | (options.Masquerade.IPv6 ? NodeConfigFlags.MasqueradesIPv6 : NodeConfigFlags.None),
    };

    private static void RequireSameAbi(PinDirectory pins)
    {
        using var fd = BpfFd.TryOpenPinned(pins.Map("agent_state"));
        if (fd is null)
            return;
        using var state = BpfMaps.OpenPinnedArray<AgentStateValue>(pins.Map("agent_state"), readOnly: true);
        RequireSameAbi(pins, state[0].Abi);
    }

    /// <param name="abi">0: made by a start that did not live to write it.</param>
    internal static void RequireSameAbi(PinDirectory pins, ulong abi)
    {
        if (abi != 0 && abi != Abi.Word)
            throw new DatapathException($"the maps pinned in {pins.Maps} have layout {abi:x}, this program has {Abi.Word:x}: "
                + $"remove {Path.GetDirectoryName(pins.Maps)} (flows through this node stop until the tables are filled again)");
    }

    private static int AttachSocketHooks(Attachments attachments, DatapathObjects objects, string? cgroupPath)
    {
        const string prefix = "cgroup_";
        var hooks = 0;
        if (cgroupPath is not null)
        {
            foreach (var program in objects.SocketPrograms)
            {
                attachments.ToCgroup(prefix + program.Name, program, cgroupPath);
                hooks++;
            }
            return hooks;
        }
        foreach (var link in attachments.Names.Where(name => name.StartsWith(prefix, StringComparison.Ordinal)).ToList())
            attachments.Remove(link);
        return hooks;
    }

    private async Task BeatAsync(CancellationToken cancellation)
    {
        using var timer = new PeriodicTimer(HeartbeatInterval, _time);
        try
        {
            while (await timer.WaitForNextTickAsync(cancellation))
            {
                Beat();
                TrySwitch();
                if (_time.GetUtcNow() >= _removeOthersAt)
                    RemoveOtherLayouts();
                _policies.Collect();
                _grace.Collect();
            }
        }
        catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
        {
            // The normal end.
        }
    }

    private async Task SweepAsync(CancellationToken cancellation)
    {
        try
        {
            while (true)
                await Task.Delay(_sweeper.Turn() ? SweepInterval : SweepStep, _time, cancellation);
        }
        catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
        {
            // The normal end.
        }
    }

    private void Beat() => Volatile.Write(ref _agentState.Write(0).HeartbeatMs, (ulong)(Stopwatch.GetTimestamp() * 1000 / Stopwatch.Frequency));

    private static ReconcilerStatus StatusOf<TKey, TRow>(string table, Reconciler<TKey, TRow> reconciler)
        where TKey : notnull
        where TRow : class
        => new(table, reconciler.Failing, reconciler.Failures, reconciler.Pruned, reconciler.Full);

    private TResource Own<TResource>(TResource resource)
        where TResource : IDisposable
    {
        _owned.Add(resource);
        return resource;
    }

    private static void DisposeAll(List<IDisposable> owned)
    {
        for (var i = owned.Count - 1; i >= 0; i--)
            owned[i].Dispose();
        owned.Clear();
    }
}

/// <summary>One per table.</summary>
internal sealed record Reconcilers(
    Reconciler<L3n4Addr, Mesh.ControlPlane.LoadBalancing.Frontend> Frontends,
    Reconciler<IpPrefix, Mesh.ControlPlane.IPCache.IPCacheEntry> IPCache,
    Reconciler<NodeName, Mesh.ControlPlane.Nodes.Node> Nodes,
    Reconciler<ushort, Mesh.ControlPlane.Endpoints.Endpoint> Endpoints,
    Reconciler<string, Mesh.ControlPlane.RemoteClusters.RemoteClusterRow> Clusters,
    Reconciler<Mesh.Policy.PolicyKey, Mesh.Policy.PolicyRow> Policies);
