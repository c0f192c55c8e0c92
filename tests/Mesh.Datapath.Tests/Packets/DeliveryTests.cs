using System.Buffers.Binary;
using Mesh.Datapath.Maps;
using Mesh.Model;

namespace Mesh.Datapath.Tests.Packets;

/// <summary>Which way a packet takes that needs no translation.</summary>
[Collection("packets")]
public sealed class DeliveryTests
{
    private readonly PacketWorld _world;

    public DeliveryTests(PacketWorld world)
    {
        _world = world;
        _world.Reset();
    }

    public static TheoryData<int> Families => [4, 6];

    [Theory]
    [MemberData(nameof(Families))]
    public void A_pod_of_this_node_is_one_hop_away(int family)
    {
        var names = Names.Of(family);
        foreach (var protocol in new[] { Frame.Tcp, Frame.Udp, Frame.Sctp, family == 4 ? Frame.Icmp : Frame.IcmpV6, (byte)99 })
        {
            var sent = Frame.Between(names.Pod, names.OtherPod) with { Protocol = protocol };
            _world.FromPod(sent).Redirected(sent.Delivered(PacketWorld.OtherPodMac, PacketWorld.OtherPodHostMac));
        }
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void A_pod_of_another_node_is_reached_through_the_tunnel(int family)
    {
        var names = Names.Of(family);
        foreach (var destination in new[] { names.RemotePod, names.RemoteInRange })
        {
            var sent = Frame.Between(names.Pod, destination);
            _world.FromPod(sent).Redirected(sent);
        }
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void A_node_without_tunnel_or_down_is_named_in_the_drop(int family)
    {
        var names = Names.Of(family);
        _world.FromPod(Frame.Between(names.Pod, names.Stranded)).Dropped(DropReason.NoTunnel);

        _world.Tables.Nodes[1].State = NodeState.Down;
        _world.FromPod(Frame.Between(names.Pod, names.RemotePod)).Dropped(DropReason.NodeDown);
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void The_node_itself_is_reached_out_of_its_own_interface(int family)
    {
        var names = Names.Of(family);
        var sent = Frame.Between(names.Pod, names.Host);

        _world.FromPod(sent).Redirected(sent with { DestinationMac = PacketWorld.HostMac, SourceMac = PacketWorld.NetMac });
        _world.FromTunnel(sent).Redirected(sent with { DestinationMac = PacketWorld.HostMac, SourceMac = PacketWorld.NetMac });
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void The_host_reaches_pods_here_and_elsewhere_but_nobody_unknown(int family)
    {
        var names = Names.Of(family);
        var here = Frame.Between(names.Host, names.Pod);
        _world.FromHost(here).Redirected(here.Delivered(PacketWorld.PodMac, PacketWorld.PodHostMac));
        var elsewhere = Frame.Between(names.Host, names.RemotePod);
        _world.FromHost(elsewhere).Redirected(elsewhere);
        _world.FromHost(Frame.Between(names.Host, names.Outside)).Dropped(DropReason.NoTunnel);
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void A_pod_that_speaks_with_an_address_not_its_own_is_dropped(int family)
    {
        var names = Names.Of(family);
        foreach (var lie in new[] { names.OtherPod, names.Host, names.RemotePod, names.Outside, family == 4 ? "0.0.0.0" : "::" })
            _world.FromPod(Frame.Between(lie, names.RemotePod)).Dropped(DropReason.InvalidSource);
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void The_last_hop_is_not_delivered(int family)
    {
        var names = Names.Of(family);
        _world.FromPod(Frame.Between(names.Pod, names.OtherPod) with { Ttl = 1 }).Dropped(DropReason.Ttl);
        _world.FromTunnel(Frame.Between(names.RemotePod, names.Pod) with { Ttl = 0 }).Dropped(DropReason.Ttl);
        var enough = Frame.Between(names.Pod, names.OtherPod) with { Ttl = 2 };
        _world.FromPod(enough).Redirected(enough.Delivered(PacketWorld.OtherPodMac, PacketWorld.OtherPodHostMac));
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void The_tunnel_delivers_to_pods_of_this_node_only_and_only_with_a_key(int family)
    {
        var names = Names.Of(family);
        var sent = Frame.Between(names.RemotePod, names.Pod);
        _world.FromTunnel(sent).Redirected(sent.Delivered(PacketWorld.PodMac, PacketWorld.PodHostMac));
        _world.FromTunnel(Frame.Between(names.RemotePod, names.RemoteInRange)).Dropped(DropReason.NoEndpoint);
        _world.FromTunnelWithoutKey(sent).Dropped(DropReason.NoTunnelKey);
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void Fragments_between_pods_pass(int family)
    {
        var names = Names.Of(family);
        foreach (var fragment in new[] { (0, true, 5u), (64, true, 5u), (128, false, 5u) })
        {
            var sent = Frame.Between(names.Pod, names.RemotePod) with { Protocol = Frame.Udp, PayloadLength = 56, Fragment = fragment };
            _world.FromPod(sent).Redirected(sent);
            _world.FromTunnel(sent.Reply() with { Destination = sent.Source }).Redirected(
                (sent.Reply() with { Destination = sent.Source }).Delivered(PacketWorld.PodMac, PacketWorld.PodHostMac));
        }
    }

    [Fact]
    public void A_packet_larger_than_the_tunnel_is_answered_with_fragmentation_needed()
    {
        var names = Names.V4;
        var fits = Frame.Between(names.Pod, names.RemotePod) with { PayloadLength = (int)PacketWorld.PodMtu - 40 };
        _world.FromPod(fits).Redirected(fits);
        var large = fits with { PayloadLength = fits.PayloadLength + 1 };

        var outcome = _world.FromPod(large);

        Assert.Equal((PacketWorld.Redirect, DropReason.TooBig), (outcome.Verdict, outcome.Reason));
        var answer = outcome.Packet;
        Assert.Equal(14 + 20 + 8 + 68, answer.Length);
        Assert.Equal(Frame.Mac(large.SourceMac), answer[..6]);
        Assert.Equal(0, Frame.InternetChecksum(answer[14..34]));
        Assert.Equal(0, Frame.InternetChecksum(answer[34..]));
        Assert.Equal([3, 4], answer[34..36]);
        Assert.Equal(PacketWorld.PodMtu, BinaryPrimitives.ReadUInt32BigEndian(answer.AsSpan(38)));
        Assert.Equal((large.Destination, large.Source), (IpAddr.FromBytes(answer.AsSpan(26, 4)), IpAddr.FromBytes(answer.AsSpan(30, 4))));
        Assert.Equal(large.Build()[14..82], answer[42..]);

        var breakable = large with { DontFragment = false };
        _world.FromPod(breakable).Redirected(breakable);
        var local = large with { Destination = IpAddr.Parse(names.OtherPod) };
        _world.FromPod(local).Redirected(local.Delivered(PacketWorld.OtherPodMac, PacketWorld.OtherPodHostMac));
    }

    [Fact]
    public void A_packet_larger_than_the_tunnel_is_answered_with_packet_too_big()
    {
        var names = Names.V6;
        _world.Tables.Set(names.Virtual, 80, Frame.Tcp, new Segment(2, 0, Backend.At(names.RemotePod, 8080)));
        var fits = Frame.Between(names.Pod, names.Virtual) with { PayloadLength = (int)PacketWorld.PodMtu - 60 };
        _world.FromPod(fits).Redirected(fits with { Destination = IpAddr.Parse(names.RemotePod), DestinationPort = 8080 });
        var large = fits with { PayloadLength = fits.PayloadLength + 1 };

        var outcome = _world.FromPod(large);

        Assert.Equal((PacketWorld.Redirect, DropReason.TooBig), (outcome.Verdict, outcome.Reason));
        var answer = outcome.Packet;
        Assert.Equal(14 + 40 + 8 + 128, answer.Length);
        Assert.Equal([2, 0], answer[54..56]);
        Assert.Equal(PacketWorld.PodMtu, BinaryPrimitives.ReadUInt32BigEndian(answer.AsSpan(58)));
        // From the virtual address, which is the only one the client knows, and with its packet as the client sent it.
        Assert.Equal((large.Destination, large.Source), (IpAddr.FromBytes(answer.AsSpan(22, 16)), IpAddr.FromBytes(answer.AsSpan(38, 16))));
        Assert.Equal(large.Build()[14..142], answer[62..]);
        Assert.Equal(0, Frame.InternetChecksum(Frame.PseudoHeader(large.Destination, large.Source, Frame.IcmpV6, 136), answer[54..]));
    }

    [Fact]
    public void A_large_packet_that_the_device_will_segment_is_judged_by_its_segments()
    {
        var sent = Frame.Between(Names.V4.Pod, Names.V4.RemotePod) with { PayloadLength = 2900, TcpFlags = Frame.Ack };
        _world.FromPod(sent.Build(), gsoSize: 1410).Is(PacketWorld.Redirect, sent.Build());
        _world.FromPod(sent.Build(), gsoSize: 1411).Dropped(DropReason.TooBig);
    }
}
