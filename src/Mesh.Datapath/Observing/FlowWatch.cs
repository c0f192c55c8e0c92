using System.Globalization;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Mesh.Bpf;
using Mesh.Datapath.Liveness;
using Mesh.Datapath.Loader;
using Mesh.Datapath.Maps;
using Mesh.Model;

namespace Mesh.Datapath.Observing;

/// <summary>
/// Watches the packets of a node: turns the telling on, by a deadline in the map that must be pushed on, and reads the ring. Whatever
/// becomes of the watcher, the datapath stops telling seconds later by itself. One watcher a node, because a ring has one reader.
/// </summary>
public sealed class FlowWatch : IDisposable
{
    /// <summary>Events of one reading.</summary>
    private const int ReadMax = 4096;

    private static readonly TimeSpan Term = TimeSpan.FromSeconds(3);

    private readonly MmapArray<ObservingValue> _observing;
    private readonly RingBuffer _ring;
    private readonly BpfMap<Conntrack4Key, ConntrackValue> _conntrack4;
    private readonly BpfMap<Conntrack6Key, ConntrackValue> _conntrack6;
    private readonly ulong _lostBefore;

    private FlowWatch(PinDirectory pins, MmapArray<ObservingValue> observing)
    {
        _observing = observing;
        _conntrack4 = BpfMaps.OpenPinned<Conntrack4Key, ConntrackValue>(pins.Map("conntrack4"), readOnly: true);
        _conntrack6 = BpfMaps.OpenPinned<Conntrack6Key, ConntrackValue>(pins.Map("conntrack6"), readOnly: true);
        _ring = RingBuffer.OpenPinned(pins.Map("events"));
        _lostBefore = Volatile.Read(ref observing[0].Lost);
    }

    /// <summary>Events for which the ring had no room since this watch began.</summary>
    public ulong Lost => Volatile.Read(ref _observing[0].Lost) - _lostBefore;

    /// <param name="bpfRoot">The agent's --bpf-root; it need not live.</param>
    /// <exception cref="DatapathException">No datapath is pinned there, or somebody else watches.</exception>
    public static FlowWatch Begin(string bpfRoot)
    {
        // Says what is wrong with the pins, and refuses those of another layout.
        using (PinnedMaps.Open(bpfRoot))
        {
        }
        var pins = new PinDirectory(bpfRoot);
        var observing = BpfMaps.OpenPinnedArray<ObservingValue>(pins.Map("observing"));
        try
        {
            ref var watch = ref observing[0];
            var other = Volatile.Read(ref watch.Watcher);
            if (other != Environment.ProcessId && Volatile.Read(ref watch.UntilNs) > LivenessMap.NowNs && Directory.Exists(Path.Combine("/proc",
                other.ToString(CultureInfo.InvariantCulture))))
                throw new DatapathException($"process {other} watches this node already: end it, or watch there");
            Volatile.Write(ref watch.Watcher, (uint)Environment.ProcessId);
            var begun = new FlowWatch(pins, observing);
            begun._ring.Skip();
            begun.Extend();
            return begun;
        }
        catch
        {
            observing.Dispose();
            throw;
        }
    }

    /// <summary>Pushes the deadline on, and hands on what was told since.</summary>
    public IReadOnlyList<FlowEvent> Read()
    {
        Extend();
        var events = new List<FlowEvent>();
        var now = LivenessMap.NowNs;
        _ring.Read(
            record =>
            {
                if (record.Length >= Unsafe.SizeOf<EventValue>())
                    events.Add(FlowEvent.Of(MemoryMarshal.Read<EventValue>(record), now));
            },
            ReadMax);
        return events;
    }

    /// <summary>The virtual address behind which the peer of a translated flow stands: of a question the one that was asked for, of an
    /// answer the one that it seems to come from. Null for other flows, and for those translated at the socket.</summary>
    public L3n4Addr? ServiceOf(FlowEvent seen)
    {
        if (seen.Source is not { } source || seen.Destination is not { } destination)
            return null;
        var protocol = (L4Protocol)seen.Protocol;
        // A question has its backend's address by now, an answer the virtual one.
        if (Find(destination, seen.DestinationPort, source, seen.SourcePort, protocol, ConntrackDirection.Reverse) is { } asked)
            return asked;
        return Find(destination, seen.DestinationPort, source, seen.SourcePort, protocol, ConntrackDirection.Forward) is null
            ? null
            : new L3n4Addr(source, seen.SourcePort, protocol);
    }

    /// <summary>Ends the telling at once.</summary>
    public void Dispose()
    {
        if (Volatile.Read(ref _observing[0].Watcher) == Environment.ProcessId)
            Volatile.Write(ref _observing.Write(0).UntilNs, 0);
        _ring.Dispose();
        _conntrack4.Dispose();
        _conntrack6.Dispose();
        _observing.Dispose();
    }

    private L3n4Addr? Find(IpAddr source, ushort sourcePort, IpAddr destination, ushort destinationPort, L4Protocol protocol,
        ConntrackDirection direction)
    {
        ConntrackValue value;
        var found = source.IsV6
            ? _conntrack6.TryGet(
                new Conntrack6Key
                {
                    Source = MeshAddress.From(source),
                    Destination = MeshAddress.From(destination),
                    SourcePort = BigEndianUInt16.FromHost(sourcePort),
                    DestinationPort = BigEndianUInt16.FromHost(destinationPort),
                    Protocol = (byte)protocol,
                    Direction = direction,
                },
                out value)
            : _conntrack4.TryGet(
                new Conntrack4Key
                {
                    Source = BigEndianUInt32.FromHost((uint)source.Value),
                    Destination = BigEndianUInt32.FromHost((uint)destination.Value),
                    SourcePort = BigEndianUInt16.FromHost(sourcePort),
                    DestinationPort = BigEndianUInt16.FromHost(destinationPort),
                    Protocol = (byte)protocol,
                    Direction = direction,
                },
                out value);
        return found && value.Address.ToIpAddr(Family.Of(source)) is { } address ? new L3n4Addr(address, value.Port.Host, protocol) : null;
    }

    private void Extend() => Volatile.Write(ref _observing.Write(0).UntilNs, LivenessMap.NowNs + ((ulong)Term.Ticks * 100));
}
