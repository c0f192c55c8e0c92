using System.Runtime.InteropServices;
using Mesh.Bpf;
using Mesh.Datapath.Liveness;
using Mesh.Datapath.Maps;
using Mesh.Datapath.Observing;

namespace Mesh.Datapath.Tests.Packets;

/// <summary>What a watcher is told of packets, and that without one nothing is told.</summary>
[Collection("packets")]
public sealed class EventTests : IDisposable
{
    private readonly PacketWorld _world;
    private readonly MmapArray<ObservingValue> _observing;
    private readonly RingBuffer _ring;

    public EventTests(PacketWorld world)
    {
        _world = world;
        _world.Reset();
        _observing = world.Observing;
        _ring = world.Events;
        _ring.Skip();
    }

    public static TheoryData<int> Families => [4, 6];

    public void Dispose()
    {
        _observing[0] = default;
        _ring.Dispose();
        _observing.Dispose();
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void A_flow_and_a_drop_are_told_with_what_the_packet_said(int family)
    {
        var names = Names.Of(family);
        Watch(TimeSpan.FromMinutes(1));
        _world.FromPod(Flow(names.Pod, names.RemotePod, 41001));
        _world.FromPod(Flow(names.Pod, names.Stranded, 41002)).Dropped(DropReason.NoTunnel);
        _world.FromTunnel(Flow(names.RemotePod, names.Pod, 41003));
        var told = Told();
        Assert.Equal(
        [
            (DropReason.Forwarded, TrafficDirection.Egress, names.Pod, (ushort)41001, names.RemotePod, (ushort)80),
            (DropReason.NoTunnel, TrafficDirection.Egress, names.Pod, (ushort)41002, names.Stranded, (ushort)80),
            (DropReason.Forwarded, TrafficDirection.Ingress, names.RemotePod, (ushort)41003, names.Pod, (ushort)80),
        ], told.Select(one => (one.Reason, one.Direction, one.Source.ToString()!, one.SourcePort, one.Destination.ToString()!, one.DestinationPort)));
        Assert.All(told, one =>
        {
            Assert.Equal((Frame.Tcp, 1ul), (one.Protocol, one.Packets));
            Assert.InRange(one.Age, TimeSpan.Zero, TimeSpan.FromSeconds(30));
        });
        Assert.Equal(_world.PodInterface, told[0].Interface);
    }

    [Fact]
    public void Nobody_watches_and_nothing_is_told()
    {
        _world.FromPod(Flow(Names.V4.Pod, Names.V4.RemotePod, 42001));
        _world.FromPod(Flow(Names.V4.Pod, Names.V4.Stranded, 42002)).Dropped(DropReason.NoTunnel);
        Assert.Empty(Told());
    }

    [Fact]
    public void A_watcher_that_died_is_forgotten_at_its_deadline()
    {
        Watch(TimeSpan.FromMilliseconds(-1));
        _world.FromPod(Flow(Names.V4.Pod, Names.V4.RemotePod, 43001));
        Assert.Empty(Told());
        Assert.Equal(0ul, _observing[0].UntilNs);
    }

    [Fact]
    public void A_flow_is_told_once_a_second_and_says_how_many_packets_it_had()
    {
        Watch(TimeSpan.FromMinutes(1));
        for (var i = 0; i < 10; i++)
            _world.FromPod(Flow(Names.V4.Pod, Names.V4.RemotePod, 44001));
        var first = Assert.Single(Told());
        Assert.Equal(1ul, first.Packets);
        // The other direction, and another flow, are told by themselves.
        _world.FromTunnel(Flow(Names.V4.RemotePod, Names.V4.Pod, 44001));
        _world.FromPod(Flow(Names.V4.Pod, Names.V4.RemotePod, 44002));
        Assert.Equal(2, Told().Count);
        // Its second over, the flow is told again, with all that passed meanwhile.
        ulong packets = 0;
        Assert.True(SpinWait.SpinUntil(
            () =>
            {
                _world.FromPod(Flow(Names.V4.Pod, Names.V4.RemotePod, 44001));
                return Told() is [var again, ..] && (packets = again.Packets) > 0;
            }, TimeSpan.FromSeconds(10)));
        Assert.InRange(packets, 10ul, ulong.MaxValue);
    }

    [Fact]
    public void Drops_are_told_each_up_to_a_bound()
    {
        Watch(TimeSpan.FromMinutes(1));
        // A reason of its own: the bound would reach into the tests behind this one.
        _world.Tables.Nodes[1].State = NodeState.Down;
        for (var i = 0; i < 20; i++)
            _world.FromPod(Flow(Names.V4.Pod, Names.V4.RemotePod, 45001)).Dropped(DropReason.NodeDown);
        Assert.Equal(20, Told().Count);
        for (var i = 0; i < 3000; i++)
            _world.FromPodUncounted(Flow(Names.V4.Pod, Names.V4.RemotePod, 45002));
        // 200 a second and CPU; a machine that is slow has more seconds.
        Assert.InRange(Told().Count, 180, 2999);
    }

    [Fact]
    public void A_malformed_packet_is_told_as_such()
    {
        Watch(TimeSpan.FromMinutes(1));
        var frame = Flow(Names.V4.Pod, Names.V4.RemotePod, 46001).Build();
        frame[14] = 0x15;
        _world.FromPod(frame).Dropped(DropReason.InvalidPacket);
        Assert.Equal(DropReason.InvalidPacket, Assert.Single(Told()).Reason);
    }

    private static Frame Flow(string from, string to, ushort port) => Frame.Between(from, to) with { SourcePort = port, DestinationPort = 80 };

    private void Watch(TimeSpan length) =>
        Volatile.Write(ref _observing[0].UntilNs, (ulong)((long)LivenessMap.NowNs + (length.Ticks * 100)));

    private List<FlowEvent> Told()
    {
        var told = new List<FlowEvent>();
        var now = LivenessMap.NowNs;
        _ring.Read(record => told.Add(FlowEvent.Of(MemoryMarshal.Read<EventValue>(record), now)), int.MaxValue);
        return told;
    }
}
