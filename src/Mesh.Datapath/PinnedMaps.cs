using System.Diagnostics;
using System.Runtime.CompilerServices;
using Mesh.Bpf;
using Mesh.ControlPlane.LoadBalancing;
using Mesh.Datapath.IPCache;
using Mesh.Datapath.Liveness;
using Mesh.Datapath.LoadBalancing;
using Mesh.Datapath.Loader;
using Mesh.Datapath.Maps;
using Mesh.Datapath.Policies;
using Mesh.Model;

namespace Mesh.Datapath;

/// <summary>A frontend as the kernel has it.</summary>
/// <param name="Generation">Grows with each commit, modulo 65536.</param>
public sealed record PinnedFrontend(
    L3n4Addr Address, uint ServiceId, ushort Generation, ServiceAffinity Affinity, IReadOnlyList<PinnedSegment> Segments)
{
    /// <summary>Whom the backends are for. Null = all clients; a frontend with two scopes is listed twice.</summary>
    public LbScope? Scope { get; init; }

    public ServiceType Type { get; init; }

    /// <summary>Only backends of this node, by its traffic policy.</summary>
    public bool IsLocalOnly { get; init; }

    /// <summary>0 = no session affinity.</summary>
    public uint AffinitySeconds { get; init; }

    public ForwardingMode Forwarding { get; init; }

    public BackendAlgorithm Algorithm { get; init; }

    /// <summary>Empty = every source may use it.</summary>
    public IReadOnlyList<IpPrefix> SourceRanges { get; init; } = [];
}

/// <param name="Tier">0 is used first.</param>
/// <param name="Weight">Its share of the tier's flows is this against the sum of the tier's weights.</param>
/// <param name="TableSize">Entries of its table.</param>
/// <param name="Table">Index into <paramref name="Backends"/> per entry.</param>
public sealed record PinnedSegment(
    byte Tier, uint ClusterId, bool ClusterUp, uint Weight, int TableSize, IReadOnlyList<ushort> Table, IReadOnlyList<PinnedBackend> Backends);

/// <param name="Slot">Index into lb_backends.</param>
public sealed record PinnedBackend(uint Slot, L3n4Addr Address, uint ClusterId, BackendState State);

/// <param name="TunnelEndpoint">Null = no tunnel.</param>
/// <param name="Node">Index into nodes; 0 = no tunnel.</param>
/// <param name="ClusterId">Cluster of the node; 0 when there is none.</param>
public sealed record PinnedIPCacheEntry(IpPrefix Prefix, uint Identity, IpAddr? TunnelEndpoint, uint Node, uint ClusterId);

public sealed record PinnedNode(uint Index, IpAddr TunnelEndpoint, uint ClusterId, bool IsUp);

/// <param name="Id">0 for the node's own addresses.</param>
public sealed record PinnedEndpoint(IpAddr Address, ushort Id, uint InterfaceIndex, uint Identity, string Mac, string HostMac, bool IsHost);

/// <summary>A cluster as choices of a backend see it.</summary>
/// <param name="Alive">Not proved silent by traffic.</param>
/// <param name="DrillLeft">Null outside of a drill.</param>
/// <param name="Share">Chance of a new flow, of 255.</param>
public sealed record PinnedCluster(uint ClusterId, bool Up, bool Alive, TimeSpan? DrillLeft, byte Share);

/// <summary>What connections from this node have met at a backend.</summary>
/// <param name="EjectedFor">Null when it is not ejected.</param>
/// <param name="Node">Index into nodes; 0 = unknown.</param>
/// <param name="Failures">In a row.</param>
public sealed record PinnedHealth(TimeSpan? EjectedFor, uint Node, int Failures);

/// <summary>What has been done about lost clusters, nodes and backends since the maps were made.</summary>
/// <param name="Panics">Choices of a backend not known to live, because none was.</param>
/// <param name="Recovered">Ejected backends that a connection or a probe proved to be well.</param>
/// <param name="Repicked">Established flows given another backend because theirs was lost.</param>
public sealed record FailoverCounters(ulong Panics, ulong Refused, ulong Unanswered, ulong Ejections, ulong Recovered, ulong Repicked,
    ulong SocketsClosed)
{
    internal static FailoverCounters Read(MmapArray<FailoverValue> map)
    {
        var value = map[0];
        return new FailoverCounters(value.Panics, value.Refused, value.Unanswered, value.Ejections, value.Recovered, value.Repicked,
            value.SocketsClosed);
    }
}

/// <param name="SinceHeartbeat">Age of the agent's last sign of life; null when no agent has run on these maps.</param>
public sealed record PinnedAgentState(uint AbiVersion, ulong Generation, TimeSpan? SinceHeartbeat);

/// <summary>
/// Reads a node's pinned maps and writes nothing: for the CLI, which must tell the truth with the agent dead or busy, and for tests.
/// A frontend that is being changed while it is read is read again.
/// </summary>
public sealed class PinnedMaps : IDisposable
{
    private const int ReadAttempts = 100;

    private readonly PinDirectory _pins;
    private readonly LbMaps _lb;
    private readonly IPCacheMaps _ipcache;
    private readonly MmapArray<NodeValue> _nodes;
    private readonly BpfMap<EndpointKey, EndpointValue> _endpoints;
    private readonly BpfMap<uint, CounterValue> _counters;
    private readonly MmapArray<AgentStateValue> _agentState;
    private PolicyMaps? _policy;
    private readonly MmapArray<FailoverValue> _failover;
    private readonly BpfMap<uint, ulong> _choices;

    private PinnedMaps(PinDirectory pins)
    {
        _pins = pins;
        _agentState = BpfMaps.OpenPinnedArray<AgentStateValue>(pins.Map("agent_state"), readOnly: true);
        Datapath.RequireSameAbi(pins, _agentState[0].Abi);
        _lb = LbMaps.OpenPinned(pins.Maps, readOnly: true);
        _ipcache = IPCacheMaps.OpenPinned(pins.Maps, readOnly: true);
        _nodes = BpfMaps.OpenPinnedArray<NodeValue>(pins.Map("nodes"), readOnly: true);
        _endpoints = BpfMaps.OpenPinned<EndpointKey, EndpointValue>(pins.Map("endpoints"), readOnly: true);
        _counters = BpfMaps.OpenPinned<uint, CounterValue>(pins.Map("counters"), readOnly: true);
        _failover = BpfMaps.OpenPinnedArray<FailoverValue>(pins.Map("failover"), readOnly: true);
        _choices = BpfMaps.OpenPinned<uint, ulong>(pins.Map("cluster_choices"), readOnly: true);
    }

    /// <param name="bpfRoot">The agent's --bpf-root.</param>
    /// <exception cref="DatapathException">No datapath has been made there, or not wholly, or one of another layout.</exception>
    public static PinnedMaps Open(string bpfRoot)
    {
        var pins = new PinDirectory(bpfRoot);
        if (!pins.Exists)
            throw new DatapathException($"no datapath is pinned in {pins.Maps}: start the agent with --bpf-root {bpfRoot}");
        try
        {
            return new PinnedMaps(pins);
        }
        catch (BpfException exception)
        {
            throw new DatapathException($"the datapath pinned in {pins.Maps} cannot be read: {exception.Message}", exception);
        }
    }

    /// <summary>Sorted by address; of one with two scopes the external first.</summary>
    /// <param name="wanted">Which; null = all.</param>
    public IReadOnlyList<PinnedFrontend> Frontends(Predicate<L3n4Addr>? wanted = null)
    {
        var frontends = _lb.Services4.Dump().Select(pair => (Address: pair.Key.ToL3n4Addr(), Ids: pair.Value))
            .Concat(_lb.Services6.Dump().Select(pair => (Address: pair.Key.ToL3n4Addr(), Ids: pair.Value)))
            .Where(pair => wanted is null || wanted(pair.Address));
        var ranges = _lb.SourceRanges4.Dump().Select(pair => (pair.Key.Id, Range: pair.Key.ToPrefix()))
            .Concat(_lb.SourceRanges6.Dump().Select(pair => (pair.Key.Id, Range: pair.Key.ToPrefix()))).ToLookup(pair => pair.Id, pair => pair.Range);
        return
        [
            .. frontends.OrderBy(pair => pair.Address).SelectMany(pair => pair.Ids.InternalId == 0
                ? (PinnedFrontend?[])[Read(pair.Address, pair.Ids.Id, null, ranges)]
                : [Read(pair.Address, pair.Ids.Id, LbScope.External, ranges), Read(pair.Address, pair.Ids.InternalId, LbScope.Internal, ranges)])
                .OfType<PinnedFrontend>(),
        ];
    }

    /// <summary>The maps of policy; disposed with these.</summary>
    public PolicyMaps Policy => _policy ??= PolicyMaps.OpenPinned(_pins.Maps, readOnly: true);

    /// <summary>Sorted by prefix.</summary>
    public IReadOnlyList<PinnedIPCacheEntry> IPCache()
    {
        var entries = new List<PinnedIPCacheEntry>();
        entries.AddRange(_ipcache.Hosts4.Dump().Select(pair => Entry(pair.Key.ToPrefix(), pair.Value)));
        entries.AddRange(_ipcache.Hosts6.Dump().Select(pair => Entry(pair.Key.ToPrefix(), pair.Value)));
        entries.AddRange(_ipcache.Ranges4.Dump().Select(pair => Entry(pair.Key.ToPrefix(), pair.Value)));
        entries.AddRange(_ipcache.Ranges6.Dump().Select(pair => Entry(pair.Key.ToPrefix(), pair.Value)));
        entries.Sort((left, right) => left.Prefix.CompareTo(right.Prefix));
        return entries;
    }

    /// <summary>What packets to and from the address meet: its own entry, else that of the range it is in; null when there is neither.</summary>
    public PinnedIPCacheEntry? Find(IpAddr address)
    {
        var prefix = IpPrefix.Host(address);
        var found = address.IsV6
            ? _ipcache.Hosts6.TryGet(IPCache6Key.From(address), out var value) || _ipcache.Ranges6.TryGet(IPCache6PrefixKey.From(prefix), out value)
            : _ipcache.Hosts4.TryGet(IPCache4Key.From(address), out value) || _ipcache.Ranges4.TryGet(IPCache4PrefixKey.From(prefix), out value);
        return found ? Entry(prefix, value) : null;
    }

    /// <summary>Identity of a pod of this node, or of the node itself; null for other addresses.</summary>
    public uint? EndpointIdentity(IpAddr address) => _endpoints.TryGet(EndpointKey.From(address), out var endpoint) ? endpoint.Identity : null;

    /// <summary>May the tunnel endpoint at this index be chosen?</summary>
    public bool IsNodeUp(uint index) => index < _nodes.Info.MaxEntries && _nodes[index].State == NodeState.Up;

    /// <summary>Tunnel endpoints by index.</summary>
    public IReadOnlyList<PinnedNode> Nodes()
    {
        var nodes = new List<PinnedNode>();
        for (uint index = 1; index < _nodes.Info.MaxEntries; index++)
        {
            var node = _nodes[index];
            if (node.TunnelEndpoint.ToIpAddr(node.Family) is { } endpoint)
                nodes.Add(new PinnedNode(index, endpoint, node.ClusterId, node.State == NodeState.Up));
        }
        return nodes;
    }

    /// <summary>Sorted by address.</summary>
    public IReadOnlyList<PinnedEndpoint> Endpoints() =>
    [
        .. _endpoints.Dump().Where(pair => pair.Key.ToIpAddr() is not null).Select(pair => new PinnedEndpoint(
            pair.Key.ToIpAddr()!.Value, pair.Value.Id, pair.Value.InterfaceIndex, pair.Value.Identity, pair.Value.Mac.ToString(),
            pair.Value.HostMac.ToString(), (pair.Value.Flags & EndpointFlags.Host) != 0)).OrderBy(endpoint => endpoint.Address),
    ];

    /// <summary>Clusters that are configured, or that something is said of.</summary>
    public IReadOnlyList<PinnedCluster> Clusters() =>
    [
        .. Enumerable.Range(0, LbLimits.Clusters).Select(id => new PinnedCluster((uint)id, IsUp((uint)id),
            ClusterBits.Has(ref _lb.Clusters[0].Alive, (uint)id), Drill.Left(_lb.Clusters, (uint)id), _lb.Clusters[0].Ramp[id]))
            .Where(cluster => cluster.Up || cluster.DrillLeft is not null),
    ];

    /// <summary>Of the backend in this slot.</summary>
    public PinnedHealth Health(uint slot)
    {
        var health = _lb.Health[slot];
        var now = LivenessMap.NowMs;
        return new PinnedHealth(health.IsEjected(now) ? TimeSpan.FromMilliseconds((int)(health.EjectedUntilMs - now)) : null,
            health.Node, health.Failures);
    }

    public FailoverCounters Failover() => FailoverCounters.Read(_failover);

    /// <summary>New flows given to each cluster since the maps were made; clusters that got none are left out.</summary>
    public IReadOnlyDictionary<uint, ulong> Choices() => Choices(_choices);

    internal static IReadOnlyDictionary<uint, ulong> Choices(BpfMap<uint, ulong> map) => Enumerable.Range(0, LbLimits.Clusters)
        .Select(id => (Id: (uint)id, Count: (map.GetPerCpu((uint)id) ?? []).Aggregate(0ul, (sum, copy) => sum + copy)))
        .Where(cluster => cluster.Count > 0).ToDictionary(cluster => cluster.Id, cluster => cluster.Count);

    /// <summary>Clusters that are configured.</summary>
    public IReadOnlyList<uint> ClustersUp() => [.. Enumerable.Range(0, LbLimits.Clusters).Select(id => (uint)id).Where(IsUp)];

    /// <summary>Reasons never met are left out.</summary>
    public IReadOnlyList<PacketCounter> Counters() => PacketCounter.Read(_counters);

    public PinnedAgentState AgentState()
    {
        var state = _agentState[0];
        var now = (ulong)(Stopwatch.GetTimestamp() * 1000 / Stopwatch.Frequency);
        var age = now > state.HeartbeatMs ? now - state.HeartbeatMs : 0;
        return new PinnedAgentState((uint)(state.Abi >> 32), state.Generation,
            state.HeartbeatMs == 0 ? null : TimeSpan.FromMilliseconds(age));
    }

    /// <summary>Capacity and memory of every pinned map; Used is -1.</summary>
    public IReadOnlyList<MapUsage> Usage() => MapUsage.Of(_pins);

    public void Dispose()
    {
        _policy?.Dispose();
        _lb.Dispose();
        _ipcache.Dispose();
        _nodes.Dispose();
        _endpoints.Dispose();
        _counters.Dispose();
        _agentState.Dispose();
        _failover.Dispose();
        _choices.Dispose();
    }

    private bool IsUp(uint cluster) => ClusterBits.Has(ref _lb.Clusters[0].Up, cluster);

    private PinnedIPCacheEntry Entry(IpPrefix prefix, IPCacheValue value)
    {
        var node = value.Node < _nodes.Info.MaxEntries ? _nodes[value.Node] : default;
        return new PinnedIPCacheEntry(prefix, value.Identity, node.TunnelEndpoint.ToIpAddr(node.Family), value.Node, node.ClusterId);
    }

    /// <summary>Null when the service has gone. What is read counts only if the commit word is the same before and after.</summary>
    private PinnedFrontend? Read(L3n4Addr address, uint id, LbScope? scope, ILookup<uint, IpPrefix> ranges)
    {
        for (var attempt = 0; attempt < ReadAttempts; attempt++)
        {
            var word = _lb.Services.Observe(id);
            if ((word.Flags & LbServiceFlags.Present) == 0)
                return null;
            var segments = new List<PinnedSegment>();
            var info = word.Block == 0 ? default : Unsafe.As<LbBlock, LbServiceInfo>(ref _lb.Arena[word.Block]);
            for (var i = 0; i < word.Segments; i++)
                segments.Add(ReadSegment(_lb.Arena[word.Block + (uint)((i + 1) / LbLimits.SlotsPerBlock)][(i + 1) % LbLimits.SlotsPerBlock]));
            var affinity = (word.Flags & LbServiceFlags.AffinityLocal) != 0 ? ServiceAffinity.Local
                : (word.Flags & LbServiceFlags.AffinityRemote) != 0 ? ServiceAffinity.Remote : ServiceAffinity.None;
            Thread.MemoryBarrier();
            if (Unsafe.BitCast<LbService, ulong>(_lb.Services.Observe(id)) == Unsafe.BitCast<LbService, ulong>(word))
                return new PinnedFrontend(address, id, word.Generation, affinity, segments)
                {
                    Scope = scope,
                    Type = (ServiceType)info.Kind,
                    IsLocalOnly = (info.Flags & LbInfoFlags.LocalOnly) != 0,
                    AffinitySeconds = info.AffinitySeconds,
                    Forwarding = (ForwardingMode)info.Forwarding,
                    Algorithm = (BackendAlgorithm)info.Algorithm,
                    SourceRanges = [.. ranges[info.SourceRanges].Order()],
                };
        }
        throw new DatapathException($"frontend {address} changed {ReadAttempts} times while it was read");
    }

    private PinnedSegment ReadSegment(LbSegment segment)
    {
        var bytes = _lb.Arena.Bytes.Slice((int)segment.Table, segment.TableBytes);
        var wide = (segment.Flags & LbSegmentFlags.Wide) != 0;
        var table = new ushort[segment.TableSize];
        for (var i = 0; i < table.Length; i++)
            table[i] = wide ? BitConverter.ToUInt16(bytes.Slice(i * 2, 2)) : bytes[i];
        var backends = new List<PinnedBackend>();
        for (uint i = 0; i < segment.Backends; i++)
        {
            var backend = _lb.Backends[segment.BackendBase + i];
            if (backend.ToL3n4Addr() is { } address)
                backends.Add(new PinnedBackend(segment.BackendBase + i, address, backend.ClusterId, (BackendState)backend.State));
        }
        return new PinnedSegment(segment.Tier, segment.ClusterId, IsUp(segment.ClusterId), segment.EffectiveWeight, segment.TableSize, table, backends);
    }
}
