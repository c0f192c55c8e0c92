using System.Buffers.Binary;
using Mesh.Bpf;
using Mesh.Datapath.Maps;
using Mesh.Model;

namespace Mesh.Datapath.Tests.Packets;

/// <summary>Clients outside and services of the mesh: what the uplink's programs make of each packet, at XDP and at tc.</summary>
[Collection("north")]
public sealed class NorthTests(NorthWorlds worlds)
{
    private const byte LoadBalancer = 2;
    private const byte ClusterIP = 0;

    /// <summary>Hook, family of the packet, family of the tunnel.</summary>
    public static TheoryData<Hook, int, int> Everywhere
    {
        get
        {
            var all = new TheoryData<Hook, int, int>();
            foreach (var hook in new[] { Hook.Xdp, Hook.Tc })
                foreach (var family in new[] { 4, 6 })
                    foreach (var underlay in new[] { 4, 6 })
                        all.Add(hook, family, underlay);
            return all;
        }
    }

    [Theory]
    [MemberData(nameof(Everywhere))]
    public void A_client_reaches_a_backend_of_another_node_through_the_tunnel_and_back(Hook hook, int family, int underlay)
    {
        var world = worlds.Over(underlay);
        var names = Outside.Of(family);
        foreach (var protocol in new[] { Frame.Tcp, Frame.Udp })
        {
            world.Serve(names.Virtual, 80, protocol, names.RemotePod, 8080);
            var sent = FromClient(names, protocol) with { SourcePort = 40000 };
            var outcome = world.FromOutside(hook, sent);
            var (outer, inner) = Unwrap(world, outcome, hook);
            var port = BinaryPrimitives.ReadUInt16BigEndian(inner.AsSpan(TransportAt(family)));
            Assert.InRange(port, NorthWorld.NatPortMin, NorthWorld.NatPortMax);
            var expected = sent with
            {
                Source = IpAddr.Parse(names.Gateway),
                SourcePort = port,
                Destination = IpAddr.Parse(names.RemotePod),
                DestinationPort = 8080,
            };
            AssertInner(expected, inner);
            Assert.Equal(Vxlan.World, outer.Identity);

            var answer = expected.Reply() with { SourceMac = NorthWorld.GatewayMac, DestinationMac = NorthWorld.GatewayMac };
            var back = world.FromOutside(hook, world.FromNode().Around(answer));
            AssertToClient(hook, sent.Reply() with { Ttl = 63 }, back);
        }
    }

    [Theory]
    [MemberData(nameof(Everywhere))]
    public void A_flow_keeps_its_port_and_its_backend(Hook hook, int family, int underlay)
    {
        var world = worlds.Over(underlay);
        var names = Outside.Of(family);
        world.Serve(names.Virtual, 80, Frame.Tcp, names.RemotePod, 8080);
        var syn = FromClient(names, Frame.Tcp) with { SourcePort = 20000 };
        var first = Unwrap(world, world.FromOutside(hook, syn), hook).Inner;
        // The client's own port, where it is one that we may take.
        Assert.Equal(20000, BinaryPrimitives.ReadUInt16BigEndian(first.AsSpan(TransportAt(family))));
        Assert.Equal(2, world.Flows);

        // A new table that leads elsewhere: only what begins goes there.
        world.Serve(names.Virtual, 80, Frame.Tcp, names.OtherNode, 9090);
        var later = Unwrap(world, world.FromOutside(hook, syn with { TcpFlags = Frame.Ack }), hook).Inner;
        Assert.Equal(first[..(TransportAt(family) + 4)], later[..(TransportAt(family) + 4)]);
        Assert.Equal(2, world.Flows);
    }

    [Theory]
    [MemberData(nameof(Everywhere))]
    public void Two_clients_with_one_port_are_told_apart(Hook hook, int family, int underlay)
    {
        var world = worlds.Over(underlay);
        var names = Outside.Of(family);
        world.Serve(names.Virtual, 80, Frame.Tcp, names.RemotePod, 8080);
        var one = FromClient(names, Frame.Tcp) with { SourcePort = 20000 };
        var other = one with { Source = IpAddr.Parse(family == 4 ? "192.0.2.77" : "2001:db8::77") };
        var ports = new[] { one, other }.Select(frame =>
            BinaryPrimitives.ReadUInt16BigEndian(Unwrap(world, world.FromOutside(hook, frame), hook).Inner.AsSpan(TransportAt(family)))).ToArray();
        Assert.NotEqual(ports[0], ports[1]);

        foreach (var (frame, port) in new[] { one, other }.Zip(ports))
        {
            var answer = Frame.Between(names.RemotePod, names.Gateway) with { SourcePort = 8080, DestinationPort = port, TcpFlags = Frame.Ack };
            AssertToClient(hook, frame.Reply() with { Ttl = 63, TcpFlags = Frame.Ack }, world.FromOutside(hook, world.FromNode().Around(answer)));
        }
    }

    [Theory]
    [MemberData(nameof(Everywhere))]
    public void A_local_backend_sees_the_client_and_its_answer_leaves_from_the_virtual_address(Hook hook, int family, int underlay)
    {
        var world = worlds.Over(underlay);
        var names = Outside.Of(family);
        world.Serve(names.Virtual, 80, Frame.Tcp, names.Pod, 8080);
        var sent = FromClient(names, Frame.Tcp);
        var translated = sent with { Destination = IpAddr.Parse(names.Pod), DestinationPort = 8080 };
        var outcome = world.FromOutside(hook, sent);
        if (hook == Hook.Xdp)
        {
            Assert.Equal(XdpAction.Pass, outcome.Verdict);
            Assert.Equal(Convert.ToHexString(translated.Build()), Convert.ToHexString(outcome.Packet));
            outcome = world.FromOutside(Hook.Tc, outcome.Packet);
        }
        outcome.Redirected(translated.Delivered(NorthWorld.PodMac, NorthWorld.PodHostMac));

        var answer = translated.Reply() with { SourceMac = NorthWorld.PodMac, DestinationMac = NorthWorld.PodHostMac };
        var left = world.FromPod(answer);
        left.Redirected(sent.Reply() with { SourceMac = answer.SourceMac, DestinationMac = answer.DestinationMac, Ttl = 63 });
    }

    [Theory]
    [MemberData(nameof(Everywhere))]
    public void A_backend_with_a_nodes_own_address_is_reached_without_the_tunnel(Hook hook, int family, int underlay)
    {
        var world = worlds.Over(underlay);
        var names = Outside.Of(family);
        world.Serve(names.Virtual, 443, Frame.Tcp, names.OtherNode, 6443);
        var sent = FromClient(names, Frame.Tcp) with { DestinationPort = 443, SourcePort = 20001 };
        var expected = sent with
        {
            Source = IpAddr.Parse(names.Node),
            Destination = IpAddr.Parse(names.OtherNode),
            DestinationPort = 6443,
            Ttl = 63,
        };
        var outcome = world.FromOutside(hook, sent);
        AssertSent(hook, expected, NorthWorld.NodeMac, outcome);
        var answer = (expected.Reply() with { Ttl = 64 }) with { SourceMac = NorthWorld.NodeMac, DestinationMac = NorthWorld.UplinkMac };
        AssertToClient(hook, sent.Reply() with { Ttl = 63 }, world.FromOutside(hook, answer));
    }

    [Theory]
    [MemberData(nameof(Everywhere))]
    public void By_dsr_the_virtual_address_travels_with_what_begins_a_flow(Hook hook, int family, int underlay)
    {
        var world = worlds.Over(underlay);
        var names = Outside.Of(family);
        world.Serve(names.Virtual, 80, Frame.Tcp, names.RemotePod, 8080, dsr: true);
        world.Node.Flags = NodeFlags.TakesDsr;
        var syn = FromClient(names, Frame.Tcp);
        var inner = Unwrap(world, world.FromOutside(hook, syn), hook).Inner;
        var expected = Vxlan.Carrying(syn with { Destination = IpAddr.Parse(names.RemotePod), DestinationPort = 8080 },
            IpAddr.Parse(names.Virtual), 80);
        Assert.Equal(Convert.ToHexString(expected[14..]), Convert.ToHexString(inner[14..]));

        // The backend's node knows by then.
        var later = syn with { TcpFlags = Frame.Ack };
        AssertInner(later with { Destination = IpAddr.Parse(names.RemotePod), DestinationPort = 8080 },
            Unwrap(world, world.FromOutside(hook, later), hook).Inner);

        // A node that does not know the option gets the packet by SNAT.
        world.ForgetFlows();
        world.Node.Flags = NodeFlags.None;
        inner = Unwrap(world, world.FromOutside(hook, syn), hook).Inner;
        Assert.Equal(IpAddr.Parse(names.Gateway).ToBytes(), inner.AsSpan(family == 4 ? 26 : 22, family == 4 ? 4 : 16).ToArray());
    }

    [Theory]
    [InlineData(4, 4)]
    [InlineData(4, 6)]
    [InlineData(6, 4)]
    [InlineData(6, 6)]
    public void A_pod_whose_node_is_told_the_virtual_address_answers_the_client_from_it(int family, int underlay)
    {
        var world = worlds.Over(underlay);
        var names = Outside.Of(family);
        foreach (var protocol in new[] { Frame.Tcp, Frame.Udp })
        {
            var plain = Frame.Between(names.Client, names.Pod) with { Protocol = protocol, DestinationPort = 8080 };
            var arrived = Vxlan.Carrying(plain, IpAddr.Parse(names.Virtual), 80);
            var outcome = world.Through(world.FromNode(Vxlan.World).Around(arrived));
            outcome.Redirected(plain.Delivered(NorthWorld.PodMac, NorthWorld.PodHostMac));

            var answer = plain.Reply() with { SourceMac = NorthWorld.PodMac, DestinationMac = NorthWorld.PodHostMac };
            world.FromPod(answer).Redirected(answer with { Source = IpAddr.Parse(names.Virtual), SourcePort = 80, Ttl = 63 });
        }
    }

    [Theory]
    [MemberData(nameof(Everywhere))]
    public void What_is_not_for_a_service_goes_on_unchanged(Hook hook, int family, int underlay)
    {
        var world = worlds.Over(underlay);
        var names = Outside.Of(family);
        world.Serve(names.Virtual, 80, Frame.Tcp, names.RemotePod, 8080);
        world.Serve(names.Virtual, 81, Frame.Tcp, names.RemotePod, 8080, kind: ClusterIP);
        var ping = FromClient(names, family == 4 ? Frame.Icmp : Frame.IcmpV6);
        foreach (var frame in new[]
        {
            ping, ping with { Destination = IpAddr.Parse(names.Node) },
            FromClient(names, Frame.Tcp) with { DestinationPort = 81 }, // for inside only
            FromClient(names, Frame.Tcp) with { DestinationPort = 82 },
            FromClient(names, Frame.Udp),
            FromClient(names, Frame.Tcp) with { DestinationMac = NorthWorld.NodeMac }, // flooded by a switch
            FromClient(names, Frame.Tcp) with { Destination = IpAddr.Parse(names.Gateway), DestinationPort = 20000 }, // no answer of ours
            FromClient(names, Frame.Tcp) with { Destination = IpAddr.Parse(names.Node), DestinationPort = 20000 },
        })
        {
            if (hook == Hook.Tc && frame.DestinationMac == NorthWorld.NodeMac)
                continue; // a test run has no packet type
            AssertGoesOn(hook, frame.Build(), world.FromOutside(hook, frame));
        }
        Assert.Equal(0, world.Flows);
    }

    [Theory]
    [MemberData(nameof(Everywhere))]
    public void A_packet_cut_at_any_byte_goes_on_unchanged(Hook hook, int family, int underlay)
    {
        var world = worlds.Over(underlay);
        var names = Outside.Of(family);
        foreach (var protocol in new[] { Frame.Tcp, Frame.Udp, Frame.Sctp })
        {
            world.Serve(names.Virtual, 80, protocol, names.RemotePod, 80);
            var whole = (FromClient(names, protocol) with { PayloadLength = 5 }).Build();
            for (var length = hook == Hook.Tc ? TransportAt(family) : 14; length < whole.Length; length++)
                AssertGoesOn(hook, whole[..length], world.FromOutside(hook, whole[..length]));
        }
        Assert.Equal(0, world.Flows);
    }

    [Theory]
    [InlineData(4, 4)]
    [InlineData(6, 4)]
    [InlineData(4, 6)]
    [InlineData(6, 6)]
    public void Options_fragments_and_sctp_are_left_to_tc_which_knows_them(int family, int underlay)
    {
        var world = worlds.Over(underlay);
        var names = Outside.Of(family);
        world.Serve(names.Virtual, 80, Frame.Udp, names.RemotePod, 8080);
        world.Serve(names.Virtual, 80, Frame.Sctp, names.RemotePod, 80);
        var options = FromClient(names, Frame.Udp) with { OptionBytes = 8, Extensions = family == 6 ? [(byte)60] : [] };
        var first = FromClient(names, Frame.Udp) with { Fragment = (0, true, 7), PayloadLength = 64, Checksum = family == 6 };
        var later = first with { Fragment = (72, false, 7) };
        foreach (var frame in new[] { options, first, later, FromClient(names, Frame.Sctp) })
        {
            AssertGoesOn(Hook.Xdp, frame.Build(), world.FromOutside(Hook.Xdp, frame));
            var inner = Unwrap(world, world.FromOutside(Hook.Tc, frame), Hook.Tc).Inner;
            Assert.Equal(IpAddr.Parse(names.Gateway).ToBytes(), inner.AsSpan(family == 4 ? 26 : 22, family == 4 ? 4 : 16).ToArray());
            Assert.Equal(IpAddr.Parse(names.RemotePod).ToBytes(), inner.AsSpan(family == 4 ? 30 : 38, family == 4 ? 4 : 16).ToArray());
        }
    }

    [Theory]
    [MemberData(nameof(Everywhere))]
    public void Every_reason_to_drop_is_told(Hook hook, int family, int underlay)
    {
        var world = worlds.Over(underlay);
        var names = Outside.Of(family);
        var syn = FromClient(names, Frame.Tcp) with { SourcePort = 20000 };
        world.Info(world.Tables.Set(names.Virtual, 80, Frame.Tcp)) = new LbServiceInfo { Kind = LoadBalancer };
        world.FromOutside(hook, syn).DroppedAt(hook, DropReason.NoServiceBackend);

        world.Serve(names.Virtual, 80, Frame.Tcp, names.RemotePod, 8080);
        world.Node.Family = Family.None;
        world.FromOutside(hook, syn).DroppedAt(hook, DropReason.NoTunnel);
        world.Node.Family = (byte)underlay;
        // Established: the flow stays with its backend, whose node is down.
        world.FromOutside(hook, syn);
        world.Node.State = NodeState.Down;
        world.FromOutside(hook, syn with { TcpFlags = Frame.Ack }).DroppedAt(hook, DropReason.NodeDown);
        world.Node.State = NodeState.Up;

        // Every port towards the backend taken by others.
        world.TakeAllPorts(names.RemotePod, 8080);
        world.FromOutside(hook, syn with { SourcePort = 20002 }).DroppedAt(hook, DropReason.NatNoPort);
        world.ForgetFlows();

        // One client port, two virtual addresses, one local backend.
        world.Serve(names.Virtual, 80, Frame.Tcp, names.Pod, 8080);
        world.Serve(names.Virtual, 81, Frame.Tcp, names.Pod, 8080);
        Assert.Equal(hook == Hook.Xdp ? XdpAction.Pass : PacketWorld.Redirect, world.FromOutside(hook, syn).Verdict);
        world.FromOutside(hook, syn with { DestinationPort = 81 }).DroppedAt(hook, DropReason.PortCollision);

        // XDP leaves it to tc to say that there is no way.
        world.Serve(names.Virtual, 82, Frame.Tcp, names.Nowhere, 8080);
        world.Through((syn with { DestinationPort = 82 }).Build()).DroppedAt(Hook.Tc, DropReason.NoRoute);
        world.Through((syn with { DestinationPort = 82, Ttl = 1 }).Build()).DroppedAt(Hook.Tc, DropReason.NoRoute);
        world.Serve(names.Virtual, 83, Frame.Tcp, names.OtherNode, 8080);
        world.Through((syn with { DestinationPort = 83, Ttl = 1 }).Build()).DroppedAt(Hook.Tc, DropReason.Ttl);
    }

    [Theory]
    [MemberData(nameof(Everywhere))]
    public void A_connection_that_both_sides_have_closed_begins_anew(Hook hook, int family, int underlay)
    {
        var world = worlds.Over(underlay);
        var names = Outside.Of(family);
        world.Serve(names.Virtual, 80, Frame.Tcp, names.RemotePod, 8080);
        var syn = FromClient(names, Frame.Tcp) with { SourcePort = 20000 };
        Unwrap(world, world.FromOutside(hook, syn), hook);
        Assert.Equal(NatState.None, world.StateOf(syn));
        var answer = Frame.Between(names.RemotePod, names.Gateway) with { SourcePort = 8080, DestinationPort = 20000 };
        world.FromOutside(hook, world.FromNode().Around(answer with { TcpFlags = Frame.Syn | Frame.Ack }));
        Assert.Equal(NatState.Answered, world.StateOf(syn));
        world.FromOutside(hook, syn with { TcpFlags = Frame.Fin | Frame.Ack });
        world.FromOutside(hook, world.FromNode().Around(answer with { TcpFlags = Frame.Fin | Frame.Ack }));
        Assert.Equal(NatState.Answered | NatState.ClientFin | NatState.BackendFin, world.StateOf(syn));

        // What is still to come of the old connection goes where it went; a new one is led to where the table leads now.
        world.Serve(names.Virtual, 80, Frame.Tcp, names.Pod, 8080);
        Unwrap(world, world.FromOutside(hook, syn with { TcpFlags = Frame.Ack }), hook);
        var again = world.FromOutside(hook, syn);
        Assert.Equal(hook == Hook.Xdp ? XdpAction.Pass : PacketWorld.Redirect, again.Verdict);
        Assert.Equal(IpAddr.Parse(names.Pod).ToBytes(), again.Packet.AsSpan(family == 4 ? 30 : 38, family == 4 ? 4 : 16).ToArray());
    }

    [Theory]
    [MemberData(nameof(Everywhere))]
    public void A_client_outside_the_source_ranges_is_dropped(Hook hook, int family, int underlay)
    {
        var world = worlds.Over(underlay);
        var names = Outside.Of(family);
        world.Serve(names.Virtual, 80, Frame.Tcp, names.RemotePod, 8080);
        world.AllowOnly(names.Virtual, 80, family == 4 ? "192.0.2.0/24" : "2001:db8::/64");
        var inside = FromClient(names, Frame.Tcp);
        Unwrap(world, world.FromOutside(hook, inside), hook);
        world.FromOutside(hook, inside with { Source = IpAddr.Parse(family == 4 ? "198.51.100.1" : "2001:db8:1::1") })
            .DroppedAt(hook, DropReason.NotInSourceRange);
    }

    private static Frame FromClient(Outside names, byte protocol) => Frame.Between(names.Client, names.Virtual) with
    {
        Protocol = protocol,
        SourceMac = NorthWorld.RouterMac,
        DestinationMac = NorthWorld.UplinkMac,
    };

    private static int TransportAt(int family) => Frame.EthernetHeader + (family == 4 ? 20 : 40);

    /// <summary>Checks the outer headers, and gives back what is in them.</summary>
    private static (Vxlan Outer, byte[] Inner) Unwrap(NorthWorld world, Outcome outcome, Hook hook)
    {
        Assert.Equal((hook == Hook.Xdp ? XdpAction.Transmit : PacketWorld.Redirect, DropReason.Forwarded, true),
            (outcome.Verdict, outcome.Reason, outcome.Counted));
        var header = world.ToNode().HeaderLength;
        var udp = header - 16;
        var outer = world.ToNode() with { SourcePort = BinaryPrimitives.ReadUInt16BigEndian(outcome.Packet.AsSpan(udp)) };
        Assert.InRange(outer.SourcePort, 32768, 60999);
        var inner = outcome.Packet[header..];
        Assert.Equal(Convert.ToHexString(outer.Around(inner)), Convert.ToHexString(outcome.Packet));
        return (outer, inner);
    }

    /// <summary>All of it but the inner Ethernet addresses, which nobody reads.</summary>
    private static void AssertInner(Frame expected, byte[] inner) =>
        Assert.Equal(Convert.ToHexString(expected.Build()[12..]), Convert.ToHexString(inner[12..]));

    private static void AssertToClient(Hook hook, Frame expected, Outcome outcome) => AssertSent(hook, expected, NorthWorld.RouterMac, outcome);

    /// <summary>At tc the kernel writes the Ethernet header later, when it has the neighbour.</summary>
    private static void AssertSent(Hook hook, Frame expected, string nextHop, Outcome outcome)
    {
        Assert.Equal((hook == Hook.Xdp ? XdpAction.Transmit : PacketWorld.Redirect, DropReason.Forwarded), (outcome.Verdict, outcome.Reason));
        var bytes = (expected with { SourceMac = NorthWorld.UplinkMac, DestinationMac = nextHop }).Build();
        var from = hook == Hook.Xdp ? 0 : 12;
        Assert.Equal(Convert.ToHexString(bytes[from..]), Convert.ToHexString(outcome.Packet[from..]));
    }

    private static void AssertGoesOn(Hook hook, byte[] frame, Outcome outcome)
    {
        Assert.Equal((hook == Hook.Xdp ? XdpAction.Pass : -1, false), (outcome.Verdict, outcome.Counted));
        Assert.Equal(Convert.ToHexString(frame), Convert.ToHexString(outcome.Packet));
    }
}

internal static class UplinkOutcome
{
    public static void DroppedAt(this Outcome outcome, Hook hook, DropReason reason) =>
        Assert.Equal((hook == Hook.Xdp ? XdpAction.Drop : PacketWorld.Shot, reason), (outcome.Verdict, outcome.Reason));
}
