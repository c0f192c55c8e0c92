using System.Net;
using System.Runtime.InteropServices;
using Mesh.Bpf;
using Mesh.Datapath.Maps;
using Mesh.Model;

namespace Mesh.Datapath.Tests.Packets;

internal sealed record Segment(ushort Cluster, byte Tier, params Backend[] Backends)
{
    public bool Wide { get; init; }
    public int TableSize { get; init; } = 251;

    /// <summary>0: as many as backends.</summary>
    public uint Weight { get; init; }
}

internal sealed record Backend(IpAddr Address, ushort Port)
{
    public byte State { get; init; }
    public uint Node { get; init; }

    public static Backend At(string address, int port) => new(IpAddr.Parse(address), (ushort)port);
}

/// <summary>What holds for a service as a whole.</summary>
internal sealed record Properties
{
    public uint AffinitySeconds { get; init; }
    public string[] SourceRanges { get; init; } = [];
    public bool Random { get; init; }

    /// <summary>What clients of the cluster are given; null: the same as others.</summary>
    public Segment[]? Internal { get; init; }
}

/// <summary>
/// Writes services by hand, as mesh/lb.h describes them, and answers from the same memory which backend the programs must choose:
/// a second implementation of lib/lb.h, from its description.
/// </summary>
internal sealed class ServiceTables(BpfObject owner) : IDisposable
{
    public const byte Active = 0;
    public const byte Draining = 1;
    public const byte Dead = 2;
    public const byte Maintenance = 3;

    private const uint HashStep = 0x9e3779b9;
    private const uint HashTable = 0x7feb352d;
    private const uint Probes = 8;
    private const int ScanMax = 64;

    private uint _nextService = 1;
    private uint _nextBlock = 1;
    private uint _nextSlot = 1;
    private readonly Dictionary<(IpAddr, ushort, byte), uint> _frontends = [];

    public BpfMap<Lb4Key, LbServiceId> Services4 { get; } = owner.Map<Lb4Key, LbServiceId>("lb4_services");
    public BpfMap<Lb6Key, LbServiceId> Services6 { get; } = owner.Map<Lb6Key, LbServiceId>("lb6_services");
    public MmapArray<LbService> Services { get; } = owner.Array<LbService>("lb_services");
    public MmapArray<LbBlock> Arena { get; } = owner.Array<LbBlock>("lb_arena");
    public MmapArray<LbBackend> Backends { get; } = owner.Array<LbBackend>("lb_backends");
    public MmapArray<ClusterLivenessValue> Liveness { get; } = owner.Array<ClusterLivenessValue>("cluster_liveness");
    public MmapArray<LbBackendHealth> Health { get; } = owner.Array<LbBackendHealth>("lb_backend_health");
    public MmapArray<FailoverValue> Failover { get; } = owner.Array<FailoverValue>("failover");
    public MmapArray<NodeValue> Nodes { get; } = owner.Array<NodeValue>("nodes");
    public BpfMap<Lb4RangeKey, uint> SourceRanges4 { get; } = owner.Map<Lb4RangeKey, uint>("lb4_source_ranges");
    public BpfMap<Lb6RangeKey, uint> SourceRanges6 { get; } = owner.Map<Lb6RangeKey, uint>("lb6_source_ranges");
    public BpfMap<LbNodeAddress, LbNodePlace> NodeAddresses { get; } = owner.Map<LbNodeAddress, LbNodePlace>("lb_node_addresses");
    public BpfMap<LbAffinityKey, LbAffinity> Affinity { get; } = owner.Map<LbAffinityKey, LbAffinity>("lb_affinity");

    public void Clear()
    {
        foreach (var (address, port, protocol) in _frontends.Keys)
            if (address.IsV6)
                Services6.Remove(Key6(address, port, protocol));
            else
                Services4.Remove(Key4(address, port, protocol));
        _frontends.Clear();
        Services.Span[..(int)_nextService].Clear();
        Backends.Span[..(int)_nextSlot].Clear();
        Arena.Span[..(int)_nextBlock].Clear();
        Health.Span[..(int)_nextSlot].Clear();
        (_nextService, _nextBlock, _nextSlot) = (1, 1, 1);
        Liveness[0] = default;
        for (var cluster = 0u; cluster < LbLimits.Clusters; cluster++)
        {
            ClusterBits.Set(ref Liveness[0].Up, cluster, on: true);
            ClusterBits.Set(ref Liveness[0].Alive, cluster, on: true);
            Liveness[0].Ramp[(int)cluster] = ClusterLivenessValue.RampFull;
        }
        Failover[0] = default;
        SourceRanges4.RemoveBatch([.. SourceRanges4.Dump().Select(entry => entry.Key)]);
        SourceRanges6.RemoveBatch([.. SourceRanges6.Dump().Select(entry => entry.Key)]);
        NodeAddresses.RemoveBatch([.. NodeAddresses.Dump().Select(entry => entry.Key)]);
        Affinity.RemoveBatch([.. Affinity.Dump().Select(entry => entry.Key)]);
    }

    /// <summary>Adds or replaces the service of a frontend. Returns its id.</summary>
    public uint Set(string address, int port, byte protocol, params Segment[] segments) =>
        Set(address, port, protocol, new Properties(), segments);

    public uint Set(string address, int port, byte protocol, Properties properties, params Segment[] segments)
    {
        var frontend = (IpAddr.Parse(address), (ushort)port, protocol);
        var known = _frontends.TryGetValue(frontend, out var id);
        if (!known)
            id = _nextService++;
        Publish(id, protocol, properties, segments);
        if (!known)
        {
            _frontends[frontend] = id;
            var ids = new LbServiceId { Id = id };
            if (properties.Internal is { } inside)
            {
                ids.InternalId = _nextService++;
                Publish(ids.InternalId, protocol, properties, inside);
            }
            if (frontend.Item1.IsV6)
                Services6.Set(Key6(frontend.Item1, frontend.Item2, protocol), ids);
            else
                Services4.Set(Key4(frontend.Item1, frontend.Item2, protocol), ids);
        }
        return id;
    }

    private void Publish(uint id, byte protocol, Properties properties, Segment[] segments)
    {
        var header = _nextBlock;
        _nextBlock += (uint)segments.Length / LbLimits.SlotsPerBlock + 1;
        for (var i = 0; i < segments.Length; i++)
            Arena[header + (uint)(i + 1) / LbLimits.SlotsPerBlock][(i + 1) % LbLimits.SlotsPerBlock] = Write(segments[i], protocol);
        foreach (var range in properties.SourceRanges.Select(IpPrefix.Parse))
            if (range.Address.IsV6)
                SourceRanges6.Set(Lb6RangeKey.From(id, range), 1);
            else
                SourceRanges4.Set(Lb4RangeKey.From(id, range), 1);
        System.Runtime.CompilerServices.Unsafe.As<LbBlock, LbServiceInfo>(ref Arena[header]) = new LbServiceInfo
        {
            AffinitySeconds = properties.AffinitySeconds,
            SourceRanges = id,
        };
        Services.Publish(id, new LbService
        {
            Block = header,
            Segments = (byte)segments.Length,
            Flags = LbServiceFlags.Present
                | (properties.AffinitySeconds > 0 ? LbServiceFlags.SessionAffinity : LbServiceFlags.None)
                | (properties.SourceRanges.Length > 0 ? LbServiceFlags.SourceRanges : LbServiceFlags.None)
                | (properties.Random ? LbServiceFlags.Random : LbServiceFlags.None),
        });
    }

    public uint IdOf(string address, int port, byte protocol) => _frontends[(IpAddr.Parse(address), (ushort)port, protocol)];

    public void SetNodeAddress(string address, LbNodePlace place) => NodeAddresses.Set(LbNodeAddress.From(IpAddr.Parse(address)), place);

    public void SetState(string backend, byte state)
    {
        var address = MeshAddress.From(IpAddr.Parse(backend));
        for (var slot = 1u; slot < _nextSlot; slot++)
            if (Backends[slot].Address == address)
                Backends[slot].State = state;
    }

    public void SetCluster(int cluster, bool up)
    {
        ClusterBits.Set(ref Liveness[0].Up, (uint)cluster, up);
    }

    /// <summary>What the prober would write.</summary>
    public void SetAlive(uint cluster, bool alive) => ClusterBits.Set(ref Liveness[0].Alive, cluster, alive);

    /// <summary>The slots of a backend.</summary>
    public IEnumerable<uint> SlotsOf(string backend)
    {
        var address = MeshAddress.From(IpAddr.Parse(backend));
        return Enumerable.Range(1, (int)_nextSlot - 1).Select(slot => (uint)slot).Where(slot => Backends[slot].Address == address);
    }

    /// <summary>The backend that this packet must be sent to, or null when none lives.</summary>
    public Backend? Expect(Frame frame)
    {
        var id = _frontends[(frame.Destination, frame.DestinationPort, frame.Protocol)];
        var slot = Select(id, FlowHash(frame));
        return slot == 0
            ? null
            : new Backend(Backends[slot].Address.ToIpAddr(Backends[slot].Family)!.Value, Backends[slot].Port.Host);
    }

    public uint Select(uint service, uint hash)
    {
        var committed = Services.Observe(service);
        foreach (var (worst, panic) in new[] { (Active, false), (Draining, false), (Draining, true) })
            for (var first = 0; first < committed.Segments;)
            {
                var tier = Enumerable.Range(first, committed.Segments - first).Select(i => At(committed.Block, i))
                    .TakeWhile(segment => segment.Tier == At(committed.Block, first).Tier).ToArray();
                if (SelectInTier(tier, hash, worst, panic) is not 0 and var slot)
                    return slot;
                first += tier.Length;
            }
        return 0;
    }

    private uint SelectInTier(LbSegment[] tier, uint hash, byte worst, bool panic)
    {
        var total = (uint)tier.Sum(segment => segment.EffectiveWeight);
        for (var probe = 0u; probe < Probes; probe++)
        {
            var drawn = Mix(hash + probe * HashStep);
            var (segment, _) = Draw(tier, drawn, total);
            if (!MayTake(tier[segment].ClusterId, hash, panic))
                continue;
            var slot = tier[segment].BackendBase + Entry(tier[segment], (int)(Mix(drawn ^ HashTable) % tier[segment].TableSize));
            if (Lives(slot, worst, panic))
                return slot;
        }
        var (at, position) = Draw(tier, Mix(hash + unchecked(Probes * HashStep)), total);
        position %= tier[at].Backends;
        for (int scanned = 0, steps = 0; scanned < ScanMax && steps < ScanMax + 2 * LbLimits.SegmentsMax; steps++)
        {
            if (position >= tier[at].Backends || !MayTake(tier[at].ClusterId, hash, panic))
            {
                (at, position) = ((at + 1) % tier.Length, 0);
                continue;
            }
            scanned++;
            var slot = tier[at].BackendBase + position++;
            if (Lives(slot, worst, panic))
                return slot;
        }
        return 0;
    }

    private static (int Segment, uint Position) Draw(LbSegment[] tier, uint hash, uint total)
    {
        var position = (uint)((ulong)hash * total >> 32);
        var segment = 0;
        while (position >= tier[segment].EffectiveWeight)
            position -= tier[segment++].EffectiveWeight;
        return (segment, position);
    }

    private bool MayTake(uint cluster, uint hash, bool panic)
    {
        if (panic || !ClusterBits.Has(ref Liveness[0].Up, cluster))
            return ClusterBits.Has(ref Liveness[0].Up, cluster);
        if (!ClusterBits.Has(ref Liveness[0].Alive, cluster) || Liveness[0].DrillUntilNs[(int)cluster] > MonotonicNs)
            return false;
        var share = Liveness[0].Ramp[(int)cluster];
        hash = (hash ^ cluster * HashStep) * 0x85ebca6b;
        return share == ClusterLivenessValue.RampFull || (hash ^ hash >> 15) % ClusterLivenessValue.RampFull < share;
    }

    internal static ulong MonotonicNs => (ulong)(System.Diagnostics.Stopwatch.GetTimestamp() * (1_000_000_000 / System.Diagnostics.Stopwatch.Frequency));

    private bool Lives(uint slot, byte worst, bool panic)
    {
        if (Backends[slot].State > worst || Backends[slot].Family == Family.None)
            return false;
        var node = Backends[slot].Node != 0 ? Backends[slot].Node : Health[slot].Node;
        return panic || (!Health[slot].IsEjected((uint)(MonotonicNs / 1_000_000)) && (node == 0 || Nodes[node].State == NodeState.Up));
    }

    private LbSegment At(uint block, int index) =>
        Arena[block + (uint)(index + 1) / LbLimits.SlotsPerBlock][(index + 1) % LbLimits.SlotsPerBlock];

    private uint Entry(LbSegment segment, int index) =>
        (segment.Flags & LbSegmentFlags.Wide) != 0
            ? MemoryMarshal.Read<ushort>(Arena.Bytes[((int)segment.Table + 2 * index)..])
            : Arena.Bytes[(int)segment.Table + index];

    private LbSegment Write(Segment segment, byte protocol)
    {
        var written = new LbSegment
        {
            BackendBase = _nextSlot,
            Table = _nextBlock * LbLimits.BlockBytes,
            Backends = (ushort)segment.Backends.Length,
            TableSize = (ushort)segment.TableSize,
            ClusterId = segment.Cluster,
            Tier = segment.Tier,
            Weight = segment.Weight,
            Flags = segment.Wide ? LbSegmentFlags.Wide : LbSegmentFlags.None,
        };
        for (var i = 0; i < segment.TableSize; i++)
        {
            var entry = (ushort)(Mix((uint)i) % (uint)segment.Backends.Length);
            if (segment.Wide)
                MemoryMarshal.Write(Arena.Bytes[((int)written.Table + 2 * i)..], entry);
            else
                Arena.Bytes[(int)written.Table + i] = (byte)entry;
        }
        _nextBlock += written.TableBlocks;
        foreach (var backend in segment.Backends)
            Backends[_nextSlot++] = new LbBackend
            {
                Address = MeshAddress.From(backend.Address),
                Port = BigEndianUInt16.FromHost(backend.Port),
                Protocol = protocol,
                State = backend.State,
                ClusterId = segment.Cluster,
                Family = Family.Of(backend.Address),
                Node = backend.Node,
            };
        return written;
    }

    private static uint FlowHash(Frame frame)
    {
        var hash = HashStep ^ frame.Protocol;
        foreach (var address in new[] { frame.Source, frame.Destination })
            foreach (var word in MemoryMarshal.Cast<byte, uint>(address.ToBytes()))
                hash = Mix(hash ^ word);
        var source = (ushort)IPAddress.HostToNetworkOrder((short)frame.SourcePort);
        var destination = (ushort)IPAddress.HostToNetworkOrder((short)frame.DestinationPort);
        return Mix(hash ^ ((uint)source << 16 | destination));
    }

    private static uint Mix(uint hash)
    {
        hash ^= hash >> 16;
        hash *= 0x85ebca6b;
        hash ^= hash >> 13;
        hash *= 0xc2b2ae35;
        return hash ^ hash >> 16;
    }

    private static Lb4Key Key4(IpAddr address, ushort port, byte protocol) =>
        new() { Address = BigEndianUInt32.FromHost((uint)address.Value), Port = BigEndianUInt16.FromHost(port), Protocol = protocol };

    private static Lb6Key Key6(IpAddr address, ushort port, byte protocol) =>
        new() { Address = MeshAddress.From(address), Port = BigEndianUInt16.FromHost(port), Protocol = protocol };

    public void Dispose()
    {
        Services4.Dispose();
        Services6.Dispose();
        Services.Dispose();
        Arena.Dispose();
        Backends.Dispose();
        Liveness.Dispose();
        Health.Dispose();
        Failover.Dispose();
        Nodes.Dispose();
        SourceRanges4.Dispose();
        SourceRanges6.Dispose();
        NodeAddresses.Dispose();
        Affinity.Dispose();
    }
}
