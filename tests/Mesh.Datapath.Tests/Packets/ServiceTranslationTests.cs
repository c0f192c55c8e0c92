using Mesh.Datapath.Maps;
using Mesh.Model;

namespace Mesh.Datapath.Tests.Packets;

/// <summary>Packets to virtual addresses from clients whose sockets nobody translated, and the replies to them.</summary>
[Collection("packets")]
public sealed class ServiceTranslationTests
{
    private readonly PacketWorld _world;

    public ServiceTranslationTests(PacketWorld world)
    {
        _world = world;
        _world.Reset();
    }

    public static TheoryData<int, byte> FamiliesAndProtocols =>
        new() { { 4, Frame.Tcp }, { 4, Frame.Udp }, { 6, Frame.Tcp }, { 6, Frame.Udp } };

    [Theory]
    [MemberData(nameof(FamiliesAndProtocols))]
    public void A_virtual_address_becomes_a_remote_backend(int family, byte protocol)
    {
        var names = Names.Of(family);
        _world.Tables.Set(names.Virtual, 80, protocol, new Segment(2, 0, Backend.At(names.RemotePod, 8080)));
        var sent = Frame.Between(names.Pod, names.Virtual) with { Protocol = protocol };

        var outcome = _world.FromPod(sent);

        outcome.Redirected(sent with { Destination = IpAddr.Parse(names.RemotePod), DestinationPort = 8080 });
    }

    [Theory]
    [MemberData(nameof(FamiliesAndProtocols))]
    public void A_virtual_address_becomes_a_backend_of_this_node_and_its_reply_comes_from_the_virtual_address(int family, byte protocol)
    {
        var names = Names.Of(family);
        _world.Tables.Set(names.Virtual, 80, protocol, new Segment(1, 0, Backend.At(names.OtherPod, 8080)));
        var sent = Frame.Between(names.Pod, names.Virtual) with { Protocol = protocol };
        var translated = sent with { Destination = IpAddr.Parse(names.OtherPod), DestinationPort = 8080 };

        _world.FromPod(sent).Redirected(translated.Delivered(PacketWorld.OtherPodMac, PacketWorld.OtherPodHostMac));

        var reply = translated.Reply();
        _world.FromOtherPod(reply).Redirected((reply with { Source = IpAddr.Parse(names.Virtual), SourcePort = 80 })
            .Delivered(PacketWorld.PodMac, PacketWorld.PodHostMac));
    }

    [Theory]
    [MemberData(nameof(FamiliesAndProtocols))]
    public void A_reply_from_the_tunnel_comes_from_the_virtual_address(int family, byte protocol)
    {
        var names = Names.Of(family);
        _world.Tables.Set(names.Virtual, 80, protocol, new Segment(2, 0, Backend.At(names.RemotePod, 8080)));
        var sent = Frame.Between(names.Pod, names.Virtual) with { Protocol = protocol };
        var reply = (sent with { Destination = IpAddr.Parse(names.RemotePod), DestinationPort = 8080 }).Reply();

        // Before the flow exists the same packet is delivered as it is.
        _world.FromTunnel(reply).Redirected(reply.Delivered(PacketWorld.PodMac, PacketWorld.PodHostMac));
        _world.FromPod(sent);

        _world.FromTunnel(reply).Redirected((reply with { Source = IpAddr.Parse(names.Virtual), SourcePort = 80 })
            .Delivered(PacketWorld.PodMac, PacketWorld.PodHostMac));
    }

    [Fact]
    public void A_datagram_without_a_checksum_stays_without_one()
    {
        var names = Names.V4;
        _world.Tables.Set(names.Virtual, 53, Frame.Udp, new Segment(2, 0, Backend.At(names.RemotePod, 5353)));
        var sent = Frame.Between(names.Pod, names.Virtual) with { Protocol = Frame.Udp, DestinationPort = 53, Checksum = false };

        _world.FromPod(sent).Redirected(sent with { Destination = IpAddr.Parse(names.RemotePod), DestinationPort = 5353 });
    }

    [Theory]
    [InlineData(4)]
    [InlineData(6)]
    public void A_port_that_no_service_has_is_not_translated(int family)
    {
        var names = Names.Of(family);
        _world.Tables.Set(names.Virtual, 80, Frame.Tcp, new Segment(2, 0, Backend.At(names.RemotePod, 8080)));

        foreach (var other in new[]
        {
            Frame.Between(names.Pod, names.Virtual) with { DestinationPort = 81 },
            Frame.Between(names.Pod, names.Virtual) with { Protocol = Frame.Udp },
            Frame.Between(names.Pod, names.Outside),
            Frame.Between(names.Pod, names.Virtual) with { Protocol = family == 4 ? Frame.Icmp : Frame.IcmpV6 },
        })
            _world.FromPod(other).PassedUp(other);
        Assert.Equal(0, _world.Flows);
    }

    [Theory]
    [InlineData(4)]
    [InlineData(6)]
    public void A_service_without_live_backends_drops_with_its_reason(int family)
    {
        var names = Names.Of(family);
        var sent = Frame.Between(names.Pod, names.Virtual);

        _world.Tables.Set(names.Virtual, 80, Frame.Tcp);
        _world.FromPod(sent).Dropped(DropReason.NoServiceBackend);

        var dead = Backend.At(names.RemotePod, 80) with { State = ServiceTables.Dead };
        _world.Tables.Set(names.Virtual, 80, Frame.Tcp, new Segment(2, 0, dead));
        _world.FromPod(sent).Dropped(DropReason.NoServiceBackend);

        _world.Tables.Set(names.Virtual, 80, Frame.Tcp, new Segment(2, 0, Backend.At(names.RemotePod, 80)));
        Assert.Equal(PacketWorld.Redirect, _world.FromPod(sent).Verdict);
    }

    [Theory]
    [MemberData(nameof(FamiliesAndProtocols))]
    public void A_flow_keeps_its_backend_when_the_table_changes(int family, byte protocol)
    {
        var names = Names.Of(family);
        var old = Backend.At(names.RemotePod, 8080);
        _world.Tables.Set(names.Virtual, 80, protocol, new Segment(2, 0, old));
        var first = Frame.Between(names.Pod, names.Virtual) with { Protocol = protocol };
        var later = first with { TcpFlags = Frame.Ack };
        _world.FromPod(first);

        _world.Tables.Set(names.Virtual, 80, protocol, new Segment(2, 0, Backend.At(names.RemoteInRange, 9090)));

        _world.FromPod(later).Redirected(later with { Destination = old.Address, DestinationPort = old.Port });
        var another = first with { SourcePort = 40001 };
        _world.FromPod(another).Redirected(another with { Destination = IpAddr.Parse(names.RemoteInRange), DestinationPort = 9090 });
    }

    [Theory]
    [InlineData(4)]
    [InlineData(6)]
    public void An_open_connection_stays_with_a_dead_backend_but_a_new_one_on_the_same_ports_does_not(int family)
    {
        var names = Names.Of(family);
        _world.Tables.Set(names.Virtual, 80, Frame.Tcp, new Segment(2, 0, Backend.At(names.RemotePod, 8080)),
            new Segment(3, 1, Backend.At(names.RemoteInRange, 9090)));
        var opening = Frame.Between(names.Pod, names.Virtual);
        var established = opening with { TcpFlags = Frame.Ack };
        _world.FromPod(opening);

        _world.Tables.SetState(names.RemotePod, ServiceTables.Dead);

        _world.FromPod(established).Redirected(established with { Destination = IpAddr.Parse(names.RemotePod), DestinationPort = 8080 });
        _world.FromPod(opening).Redirected(opening with { Destination = IpAddr.Parse(names.RemoteInRange), DestinationPort = 9090 });
        _world.FromPod(established)
            .Redirected(established with { Destination = IpAddr.Parse(names.RemoteInRange), DestinationPort = 9090 });
    }

    [Fact]
    public void Datagrams_move_when_their_backend_dies_and_stay_when_it_drains()
    {
        var names = Names.V4;
        _world.Tables.Set(names.Virtual, 53, Frame.Udp, new Segment(2, 0, Backend.At(names.RemotePod, 53)),
            new Segment(3, 1, Backend.At(names.RemoteInRange, 53)));
        var sent = Frame.Between(names.Pod, names.Virtual) with { Protocol = Frame.Udp, DestinationPort = 53 };
        _world.FromPod(sent);

        _world.Tables.SetState(names.RemotePod, ServiceTables.Draining);
        _world.FromPod(sent).Redirected(sent with { Destination = IpAddr.Parse(names.RemotePod) });

        _world.Tables.SetState(names.RemotePod, ServiceTables.Dead);
        _world.FromPod(sent).Redirected(sent with { Destination = IpAddr.Parse(names.RemoteInRange) });
    }

    [Fact]
    public void A_connection_after_a_finished_one_on_the_same_ports_chooses_anew()
    {
        var names = Names.V4;
        _world.Tables.Set(names.Virtual, 80, Frame.Tcp, new Segment(2, 0, Backend.At(names.RemotePod, 8080)));
        var opening = Frame.Between(names.Pod, names.Virtual);
        _world.FromPod(opening);
        _world.FromPod(opening with { TcpFlags = Frame.Fin | Frame.Ack });
        _world.Tables.Set(names.Virtual, 80, Frame.Tcp, new Segment(2, 0, Backend.At(names.RemoteInRange, 9090)));

        _world.FromPod(opening).Redirected(opening with { Destination = IpAddr.Parse(names.RemoteInRange), DestinationPort = 9090 });
    }

    [Theory]
    [InlineData(4)]
    [InlineData(6)]
    public void A_direct_connection_on_the_ports_of_an_old_translated_one_sees_its_peer_as_it_is(int family)
    {
        var names = Names.Of(family);
        _world.Tables.Set(names.Virtual, 80, Frame.Tcp, new Segment(2, 0, Backend.At(names.RemotePod, 8080)));
        _world.FromPod(Frame.Between(names.Pod, names.Virtual));
        var direct = Frame.Between(names.Pod, names.RemotePod) with { DestinationPort = 8080 };

        _world.FromPod(direct).Redirected(direct);

        _world.FromTunnel(direct.Reply()).Redirected(direct.Reply().Delivered(PacketWorld.PodMac, PacketWorld.PodHostMac));
    }

    [Fact]
    public void Sctp_keeps_its_port_or_is_dropped()
    {
        var names = Names.V4;
        var sent = Frame.Between(names.Pod, names.Virtual) with { Protocol = Frame.Sctp };

        _world.Tables.Set(names.Virtual, 80, Frame.Sctp, new Segment(2, 0, Backend.At(names.RemotePod, 80)));
        _world.FromPod(sent).Redirected(sent with { Destination = IpAddr.Parse(names.RemotePod) });

        _world.Reset();
        _world.Tables.Set(names.Virtual, 80, Frame.Sctp, new Segment(2, 0, Backend.At(names.RemotePod, 8080)));
        _world.FromPod(sent).Dropped(DropReason.SctpPort);
    }

    [Theory]
    [InlineData(4)]
    [InlineData(6)]
    public void All_fragments_of_a_datagram_go_to_one_backend(int family)
    {
        var names = Names.Of(family);
        _world.Tables.Set(names.Virtual, 53, Frame.Udp, new Segment(2, 0, Backend.At(names.RemotePod, 5353)));
        var first = Frame.Between(names.Pod, names.Virtual) with
        {
            Protocol = Frame.Udp,
            DestinationPort = 53,
            PayloadLength = 64,
            DontFragment = false,
            Fragment = (0, true, 777),
        };
        var later = first with { Fragment = (72, false, 777) };

        _world.FromPod(first).Redirected(first with { Destination = IpAddr.Parse(names.RemotePod), DestinationPort = 5353 });
        _world.FromPod(later).Redirected(later with { Destination = IpAddr.Parse(names.RemotePod) });

        // The flow is forgotten, the fragment is not: its other parts went to a backend that nobody knows any more.
        _world.Reset();
        _world.Tables.Set(names.Virtual, 53, Frame.Udp, new Segment(2, 0, Backend.At(names.RemotePod, 5353)));
        _world.FromPod(later).Dropped(DropReason.Fragment);
    }

    [Fact]
    public void Extension_headers_before_the_ports_do_not_hide_them()
    {
        var names = Names.V6;
        _world.Tables.Set(names.Virtual, 80, Frame.Tcp, new Segment(2, 0, Backend.At(names.RemotePod, 8080)));
        var sent = Frame.Between(names.Pod, names.Virtual) with { Extensions = [0, 60, 43, 60] };

        _world.FromPod(sent).Redirected(sent with { Destination = IpAddr.Parse(names.RemotePod), DestinationPort = 8080 });
    }

    [Fact]
    public void Options_before_the_ports_do_not_hide_them()
    {
        var names = Names.V4;
        _world.Tables.Set(names.Virtual, 80, Frame.Tcp, new Segment(2, 0, Backend.At(names.RemotePod, 8080)));
        var sent = Frame.Between(names.Pod, names.Virtual) with { OptionBytes = 40 };

        _world.FromPod(sent).Redirected(sent with { Destination = IpAddr.Parse(names.RemotePod), DestinationPort = 8080 });
    }
}
