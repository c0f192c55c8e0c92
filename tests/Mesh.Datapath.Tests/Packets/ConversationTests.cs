using Mesh.Datapath.Conntrack;
using Mesh.Datapath.Maps;
using Mesh.Model;

namespace Mesh.Datapath.Tests.Packets;

/// <summary>How far conntrack thinks a conversation is, how long it remembers it, and the sweep that forgets.</summary>
[Collection("packets")]
public sealed class ConversationTests
{
    private const ConntrackFlags Open = ConntrackFlags.Established;
    private readonly PacketWorld _world;

    public ConversationTests(PacketWorld world)
    {
        _world = world;
        _world.Reset();
    }

    /// <summary>What client (c) and backend (b) send after the first SYN, and the state that both entries are in then.</summary>
    public static TheoryData<int, string, ConntrackFlags, uint> Conversations => new(
        from family in (int[])[4, 6]
        from conversation in ((string, ConntrackFlags, uint)[])
        [
            ("", ConntrackFlags.None, 60),
            ("b:SA", ConntrackFlags.None, 60),
            ("c:S", ConntrackFlags.None, 60),
            ("b:SA c:A", Open, 21600),
            ("b:SA c:A b:A", Open, 21600),
            ("b:RA", ConntrackFlags.Reset, 10),
            ("b:SA c:A c:FA", Open | ConntrackFlags.ClientFin, 3600),
            ("b:SA c:A b:FA", Open | ConntrackFlags.ServerFin, 3600),
            ("b:SA c:A c:FA b:A b:A c:A", Open | ConntrackFlags.ClientFin, 3600),
            ("b:SA c:A c:FA b:FA c:A", Open | ConntrackFlags.ClientFin | ConntrackFlags.ServerFin, 60),
            ("b:SA c:A b:FA c:FA b:A", Open | ConntrackFlags.ClientFin | ConntrackFlags.ServerFin, 60),
            ("b:SA c:A b:R", Open | ConntrackFlags.Reset, 10),
            ("b:SA c:A c:R", Open | ConntrackFlags.Reset, 10),
            ("b:SA c:A c:FA b:R", Open | ConntrackFlags.ClientFin | ConntrackFlags.Reset, 10),
        ]
        select (family, conversation.Item1, conversation.Item2, conversation.Item3));

    [Theory]
    [MemberData(nameof(Conversations))]
    public void Both_entries_know_how_far_a_connection_is(int family, string packets, ConntrackFlags state, uint timeout)
    {
        var (opening, answer) = Begin(family, Frame.Tcp);
        foreach (var packet in packets.Split(' ', StringSplitOptions.RemoveEmptyEntries))
            if (packet[0] == 'c')
                _world.FromPod(opening with { TcpFlags = Flags(packet[2..]) });
            else
                _world.FromTunnel(answer with { TcpFlags = Flags(packet[2..]) });

        if (packets.Split(' ').Any(packet => packet is ['b', ':', not 'R', ..]))
            state |= ConntrackFlags.Answered;
        Assert.Equal([state, state], _world.Conntrack.Values.Select(value => value.Flags));
        Assert.All(_world.Conntrack.Values, value => Assert.Equal(timeout, value.TimeoutSeconds(Frame.Tcp)));

        // Until then the flow is known: its answers come from the virtual address. Afterwards they do not.
        _world.Wait(timeout - 1);
        Assert.Equal(Names.Of(family).Virtual, Sender(_world.FromTunnel(answer with { TcpFlags = Frame.Ack })));
        _world.Wait(timeout + 21600);
        Assert.Equal(Names.Of(family).RemotePod, Sender(_world.FromTunnel(answer with { TcpFlags = Frame.Ack })));
    }

    [Theory]
    [InlineData(4, Frame.Udp)]
    [InlineData(6, Frame.Udp)]
    [InlineData(4, Frame.Sctp)]
    public void An_answer_makes_a_datagram_flow_last_longer(int family, byte protocol)
    {
        var (question, answer) = Begin(family, protocol);
        Assert.All(_world.Conntrack.Values, value => Assert.Equal((ConntrackFlags.None, 60u), (value.Flags, value.TimeoutSeconds(protocol))));

        _world.FromTunnel(answer);

        Assert.All(_world.Conntrack.Values, value => Assert.Equal((Open, 180u), (value.Flags, value.TimeoutSeconds(protocol))));
        _world.Wait(170);
        Assert.Equal(Names.Of(family).Virtual, Sender(_world.FromTunnel(answer)));
        Assert.Equal(PacketWorld.Redirect, _world.FromPod(question).Verdict);
        Assert.Equal(2, _world.Flows);
    }

    [Theory]
    [InlineData(4)]
    [InlineData(6)]
    public void A_datagram_flow_keeps_its_backend_when_the_others_of_the_service_change(int family)
    {
        var names = Names.Of(family);
        Publish(names, Frame.Udp, 1, 2, 3, 4, 5, 6);
        var sent = Frame.Between(names.Pod, names.Virtual) with { Protocol = Frame.Udp };
        var chosen = Receiver(_world.FromPod(sent));
        var number = int.Parse(chosen.Split('.', ':')[^1], System.Globalization.CultureInfo.InvariantCulture);

        // Every slot is another's now, and after a grace period the old ones are empty.
        Publish(names, Frame.Udp, [.. Enumerable.Range(1, 9).Where(i => i == number || i > 6)]);
        _world.Tables.Backends.Span[1..7].Clear();
        Assert.Equal(chosen, Receiver(_world.FromPod(sent)));

        Publish(names, Frame.Udp, [.. Enumerable.Range(1, 9).Where(i => i != number)]);
        _world.Tables.Backends.Span[1..11].Clear();
        Assert.NotEqual(chosen, Receiver(_world.FromPod(sent)));
    }

    [Fact]
    public void A_reset_connection_begins_anew_on_the_same_ports()
    {
        var (opening, answer) = Begin(4, Frame.Tcp);
        _world.FromTunnel(answer with { TcpFlags = Frame.Rst | Frame.Ack });
        _world.Tables.Set(Names.V4.Virtual, 80, Frame.Tcp, new Segment(3, 0, Backend.At(Names.V4.RemoteInRange, 9090)));

        _world.FromPod(opening).Redirected(opening with { Destination = IpAddr.Parse(Names.V4.RemoteInRange), DestinationPort = 9090 });
    }

    [Theory]
    [InlineData(4, Frame.Tcp)]
    [InlineData(4, Frame.Udp)]
    [InlineData(6, Frame.Tcp)]
    [InlineData(6, Frame.Udp)]
    public void Two_virtual_addresses_never_share_the_ports_towards_one_backend(int family, byte protocol)
    {
        var names = Names.Of(family);
        var second = family == 4 ? "10.96.0.20" : "fd00:96::20";
        var (opening, _) = Begin(family, protocol);
        _world.Tables.Set(second, 80, protocol, new Segment(2, 0, Backend.At(names.RemotePod, protocol == Frame.Sctp ? 80 : 8080)));
        var other = opening with { Destination = IpAddr.Parse(second) };

        _world.FromPod(other).Dropped(DropReason.PortCollision);
        Assert.Equal(PacketWorld.Redirect, _world.FromPod(other with { SourcePort = 40001 }).Verdict);
        // With another backend to choose, that one is chosen.
        _world.Tables.Set(second, 80, protocol, new Segment(2, 0, Backend.At(names.RemotePod, 8080), Backend.At(names.RemoteInRange, 8080)));
        Assert.Equal(names.RemoteInRange, Receiver(_world.FromPod(other)));
        _world.Tables.Set(second, 80, protocol, new Segment(2, 0, Backend.At(names.RemotePod, 8080)));
        // The first flow over, the second may have them.
        _world.Wait(100);
        Assert.Equal(PacketWorld.Redirect, _world.FromPod(other).Verdict);
    }

    [Theory]
    [InlineData(4, Frame.Tcp, 8)]
    [InlineData(4, Frame.Tcp, 16)]
    [InlineData(6, Frame.Tcp, 8)]
    [InlineData(6, Frame.Tcp, 16)]
    [InlineData(4, Frame.Sctp, 8)]
    [InlineData(6, Frame.Sctp, 8)]
    public void A_later_fragment_over_the_ports_of_the_first_is_dropped(int family, byte protocol, int offset)
    {
        var names = Names.Of(family);
        var evil = Frame.Between(names.Pod, names.RemotePod) with { Protocol = protocol, DontFragment = false, Fragment = (offset, false, 7) };

        _world.FromPod(evil).Dropped(DropReason.FragmentOverlap);
        _world.FromTunnel(evil with { Source = IpAddr.Parse(names.RemotePod), Destination = IpAddr.Parse(names.Pod) }).Dropped(DropReason.FragmentOverlap);
        Assert.Equal(PacketWorld.Redirect, _world.FromPod(evil with { Fragment = (24, false, 7) }).Verdict);
    }

    [Theory]
    [InlineData(4)]
    [InlineData(6)]
    public void Fragments_of_an_answer_come_from_the_virtual_address(int family)
    {
        var (_, answer) = Begin(family, Frame.Udp);
        var first = answer with { PayloadLength = 64, DontFragment = false, Fragment = (0, true, 9) };
        var later = first with { Fragment = (72, false, 9) };
        var names = Names.Of(family);

        _world.FromTunnel(first).Redirected((first with { Source = IpAddr.Parse(names.Virtual), SourcePort = 80 })
            .Delivered(PacketWorld.PodMac, PacketWorld.PodHostMac));
        _world.FromTunnel(later).Redirected((later with { Source = IpAddr.Parse(names.Virtual) }).Delivered(PacketWorld.PodMac, PacketWorld.PodHostMac));
    }

    [Fact]
    public void The_sweep_takes_out_what_has_expired_and_nothing_else()
    {
        var names = Names.V4;
        _world.Tables.Set(names.Virtual, 80, Frame.Tcp, new Segment(2, 0, Backend.At(names.RemotePod, 8080)));
        _world.Tables.Set(Names.V6.Virtual, 80, Frame.Udp, new Segment(2, 0, Backend.At(Names.V6.RemotePod, 8080)));
        for (var port = 0; port < 1500; port++)
        {
            _world.FromPodUncounted(Frame.Between(names.Pod, names.Virtual) with { SourcePort = (ushort)(1024 + port) });
            _world.FromPodUncounted(Frame.Between(Names.V6.Pod, Names.V6.Virtual) with { Protocol = Frame.Udp, SourcePort = (ushort)(1024 + port) });
        }
        var sweeper = new ConntrackSweeper(_world.Conntrack4, _world.Conntrack6);
        Assert.InRange(Turns(sweeper), 2, 10);
        Assert.Equal((3000, 3000, 0L), (sweeper.Entries4, sweeper.Entries6, sweeper.Removed));

        _world.Wait(80);
        _world.FromPodUncounted(Frame.Between(names.Pod, names.Virtual) with { SourcePort = 1024 });
        Turns(sweeper);

        Assert.Equal((2, 0), (_world.Conntrack4.Dump().Count, _world.Conntrack6.Dump().Count));
        Assert.Equal(5998, sweeper.Removed);
    }

    private static int Turns(ConntrackSweeper sweeper)
    {
        for (var turns = 1; turns < 1000; turns++)
            if (sweeper.Turn())
                return turns;
        throw new TimeoutException("the sweep has no end");
    }

    /// <summary>The first packet of a flow, sent, and the answer as the backend gives it.</summary>
    private (Frame Opening, Frame Answer) Begin(int family, byte protocol)
    {
        var names = Names.Of(family);
        var port = protocol == Frame.Sctp ? 80 : 8080;
        _world.Tables.Set(names.Virtual, 80, protocol, new Segment(2, 0, Backend.At(names.RemotePod, port)));
        var opening = Frame.Between(names.Pod, names.Virtual) with { Protocol = protocol };
        Assert.Equal(PacketWorld.Redirect, _world.FromPod(opening).Verdict);
        return (opening, (opening with { Destination = IpAddr.Parse(names.RemotePod), DestinationPort = (ushort)port }).Reply());
    }

    private void Publish(Names names, byte protocol, params int[] hosts) =>
        _world.Tables.Set(names.Virtual, 80, protocol, new Segment(3, 0,
            [.. hosts.Select(i => Backend.At(names == Names.V4 ? $"10.3.0.{i}" : $"fd00:3::{i}", 8080))]));

    private static byte Flags(string letters) => (byte)letters.Sum(letter => letter switch
    {
        'S' => Frame.Syn,
        'A' => Frame.Ack,
        'F' => Frame.Fin,
        'R' => Frame.Rst,
        _ => 0,
    });

    private static string Sender(Outcome outcome) => Address(outcome, 12, 8);

    private static string Receiver(Outcome outcome) => Address(outcome, 16, 24);

    private static string Address(Outcome outcome, int at4, int at6)
    {
        Assert.Equal(PacketWorld.Redirect, outcome.Verdict);
        return IpAddr.FromBytes(outcome.Packet[12] == 0x08
            ? outcome.Packet.AsSpan(Frame.EthernetHeader + at4, 4)
            : outcome.Packet.AsSpan(Frame.EthernetHeader + at6, 16)).ToString();
    }
}
