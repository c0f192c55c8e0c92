using System.Buffers.Binary;
using Mesh.Bpf;
using Mesh.Datapath.Maps;
using Mesh.Model;

namespace Mesh.Datapath.Tests.Packets;

/// <summary>
/// What flows of clients outside say of single backends, at XDP and at tc, as <see cref="EjectionTests"/> for pods: refused and unanswered
/// questions eject, an answer proves; a connection to a backend that is proved lost is given to another, which resets it.
/// </summary>
[Collection("north")]
public sealed class NorthEjectionTests(NorthWorlds worlds)
{
    /// <summary>Hook and family.</summary>
    public static TheoryData<Hook, int> Everywhere => new(
        from hook in (Hook[])[Hook.Xdp, Hook.Tc]
        from family in (int[])[4, 6]
        select (hook, family));

    [Theory]
    [MemberData(nameof(Everywhere))]
    public void A_reset_in_answer_to_the_first_packet_ejects_that_backend_alone_and_the_next_flow_goes_elsewhere(Hook hook, int family)
    {
        var (world, question, answer) = Open(hook, family, Frame.Tcp);
        world.FromOutside(hook, world.FromNode().Around(answer with { TcpFlags = Frame.Rst | Frame.Ack }));

        Assert.Equal((true, false), Ejected(world, family));
        Assert.Equal((1ul, 0ul, 1ul), (world.Tables.Failover[0].Refused, world.Tables.Failover[0].Unanswered, world.Tables.Failover[0].Ejections));
        foreach (var port in Enumerable.Range(20000, 30))
            Assert.Equal(Other(family), Receiver(world, world.FromOutside(hook, question with { SourcePort = (ushort)port })));
    }

    /// <summary>The control: a connection that was answered may be reset by either side.</summary>
    [Theory]
    [MemberData(nameof(Everywhere))]
    public void A_reset_in_a_conversation_ejects_nobody(Hook hook, int family)
    {
        var (world, _, answer) = Open(hook, family, Frame.Tcp);
        world.FromOutside(hook, world.FromNode().Around(answer with { TcpFlags = Frame.Syn | Frame.Ack }));
        world.FromOutside(hook, world.FromNode().Around(answer with { TcpFlags = Frame.Rst }));
        (world, var question, answer) = Open(hook, family, Frame.Tcp);
        world.FromOutside(hook, question with { TcpFlags = Frame.Rst });
        world.FromOutside(hook, world.FromNode().Around(answer with { TcpFlags = Frame.Rst | Frame.Ack }));

        Assert.Equal((false, false), Ejected(world, family));
        Assert.Equal((0ul, 0ul), (world.Tables.Failover[0].Refused, world.Tables.Failover[0].Ejections));
    }

    [Theory]
    [MemberData(nameof(Everywhere))]
    public void A_question_that_has_to_be_repeated_ejects_the_backend_and_chooses_another(Hook hook, int family)
    {
        var (world, question, _) = Open(hook, family, Frame.Tcp);
        world.Wait(1);

        Assert.Equal(Other(family), Receiver(world, world.FromOutside(hook, question)));
        Assert.Equal((true, false), Ejected(world, family));
        Assert.Equal((0ul, 1ul, 1ul), (world.Tables.Failover[0].Refused, world.Tables.Failover[0].Unanswered, world.Tables.Failover[0].Ejections));
    }

    /// <summary>The controls: repeated after its answer, and by DSR, where the answers do not pass here.</summary>
    [Theory]
    [MemberData(nameof(Everywhere))]
    public void A_question_repeated_after_its_answer_or_by_dsr_ejects_nobody(Hook hook, int family)
    {
        var (world, question, answer) = Open(hook, family, Frame.Tcp);
        world.FromOutside(hook, world.FromNode().Around(answer with { TcpFlags = Frame.Syn | Frame.Ack }));
        world.Wait(1);
        Assert.Equal(Bad(family), Receiver(world, world.FromOutside(hook, question)));
        Assert.Equal((false, false), Ejected(world, family));

        (world, question, _) = Open(hook, family, Frame.Tcp, dsr: true);
        world.Wait(1);
        Assert.Equal(Bad(family), Receiver(world, world.FromOutside(hook, question)));
        Assert.Equal((false, false), Ejected(world, family));
    }

    [Theory]
    [MemberData(nameof(Everywhere))]
    public void An_answer_forgets_what_was_held_against_a_backend(Hook hook, int family)
    {
        var (world, _, answer) = Open(hook, family, Frame.Tcp);
        var slot = world.Tables.SlotsOf(Bad(family)).Single();
        world.Tables.Health[slot].Failures = 3;
        world.FromOutside(hook, world.FromNode().Around(answer with { TcpFlags = Frame.Syn | Frame.Ack }));
        Assert.Equal(0, world.Tables.Health[slot].Failures);
    }

    [Theory]
    [InlineData(4)]
    [InlineData(6)]
    public void A_datagram_that_nobody_listens_for_ejects_that_backend(int family)
    {
        var (world, question, answer) = Open(Hook.Tc, family, Frame.Udp);
        // It has answered before: it may have died since.
        world.Through(world.FromNode().Around(answer));
        world.Through(world.FromNode().Around(Unreachable(family, answer)));

        Assert.Equal((true, false), Ejected(world, family));
        Assert.Equal(Other(family), Receiver(world, world.FromOutside(Hook.Tc, question)));
    }

    /// <summary>The controls: another error, a router's word, and of a connection one that was answered.</summary>
    [Theory]
    [InlineData(4)]
    [InlineData(6)]
    public void Other_errors_eject_nobody(int family)
    {
        var (world, _, answer) = Open(Hook.Tc, family, Frame.Udp);
        var error = Unreachable(family, answer);
        world.Through(world.FromNode().Around(error with { Message = family == 4 ? ((byte)3, (byte)1) : ((byte)1, (byte)0) }));
        world.Through(world.FromNode(6).Around(error with { Source = IpAddr.Parse(Outside.Of(family).RemoteGateway) }));
        (world, _, answer) = Open(Hook.Tc, family, Frame.Tcp);
        world.Through(world.FromNode().Around(answer with { TcpFlags = Frame.Syn | Frame.Ack }));
        world.Through(world.FromNode().Around(Unreachable(family, answer)));
        Assert.Equal((false, false), Ejected(world, family));
    }

    [Theory]
    [MemberData(nameof(Everywhere))]
    public void A_connection_to_a_node_that_is_proved_silent_is_given_to_another_backend_within_a_second(Hook hook, int family)
    {
        var (world, question, answer) = Open(hook, family, Frame.Tcp);
        world.FromOutside(hook, world.FromNode().Around(answer with { TcpFlags = Frame.Syn | Frame.Ack }));
        var later = question with { TcpFlags = Frame.Ack };
        world.Wait(1);
        // The control: nothing is lost.
        Assert.Equal(Bad(family), Receiver(world, world.FromOutside(hook, later)));

        world.Tables.SetAlive(2, alive: false);
        world.Wait(1);
        Assert.Equal(Other(family), Receiver(world, world.FromOutside(hook, later)));
        Assert.Equal(1ul, world.Tables.Failover[0].Repicked);
    }

    [Theory]
    [MemberData(nameof(Everywhere))]
    public void Where_no_other_lives_it_stays(Hook hook, int family)
    {
        var (world, question, answer) = Open(hook, family, Frame.Tcp);
        world.FromOutside(hook, world.FromNode().Around(answer with { TcpFlags = Frame.Syn | Frame.Ack }));
        world.Tables.SetAlive(2, alive: false);
        world.Tables.SetAlive(3, alive: false);
        world.Wait(1);
        Assert.Equal(Bad(family), Receiver(world, world.FromOutside(hook, question with { TcpFlags = Frame.Ack })));
    }

    private static string Bad(int family) => Outside.Of(family).RemotePod;

    private static string Other(int family) => family == 4 ? "10.2.0.6" : "fd00:2::6";

    private static Frame Unreachable(int family, Frame answer) => answer.Reply().Error(answer.Source.ToString(), answer.Destination.ToString(),
        family == 4 ? (byte)3 : (byte)1, family == 4 ? (byte)3 : (byte)4, bytes: 60);

    /// <summary>Whom the inner packet is for.</summary>
    private static string Receiver(NorthWorld world, Outcome outcome)
    {
        Assert.Contains(outcome.Verdict, (int[])[XdpAction.Transmit, PacketWorld.Redirect]);
        var inner = outcome.Packet.AsSpan(world.ToNode().HeaderLength);
        var v6 = inner[12] == 0x86;
        return IpAddr.FromBytes(inner.Slice(Frame.EthernetHeader + (v6 ? 24 : 16), v6 ? 16 : 4)).ToString();
    }

    private static (bool Bad, bool Other) Ejected(NorthWorld world, int family)
    {
        var now = (uint)(ServiceTables.MonotonicNs / 1_000_000);
        bool Is(string backend) => world.Tables.Health[world.Tables.SlotsOf(backend).Single()].IsEjected(now);
        return (Is(Bad(family)), Is(Other(family)));
    }

    /// <summary>A flow that has gone to the bad one of two backends: its first packet, and an answer to it, as it comes out of the tunnel.</summary>
    private (NorthWorld World, Frame Question, Frame Answer) Open(Hook hook, int family, byte protocol, bool dsr = false)
    {
        var world = worlds.Over(family == 4 ? 6 : 4);
        var names = Outside.Of(family);
        world.SetAddress(Other(family), 0x20001, 1);
        world.Node.Flags = NodeFlags.TakesDsr;
        var id = world.Tables.Set(names.Virtual, 80, protocol, new Segment(2, 0, Backend.At(Bad(family), 8080)),
            new Segment(3, 0, Backend.At(Other(family), 8080)));
        world.Info(id) = world.Info(id) with { Kind = 2, Forwarding = dsr ? (byte)1 : (byte)0 };
        for (ushort port = 10000; ; port++)
        {
            var question = Frame.Between(names.Client, names.Virtual) with
            {
                Protocol = protocol,
                SourcePort = port,
                SourceMac = NorthWorld.RouterMac,
                DestinationMac = NorthWorld.UplinkMac,
            };
            var outcome = world.FromOutside(hook, question);
            if (Receiver(world, outcome) != Bad(family))
                continue;
            var taken = BinaryPrimitives.ReadUInt16BigEndian(outcome.Packet.AsSpan(
                world.ToNode().HeaderLength + Frame.EthernetHeader + (family == 4 ? 20 : 40)));
            return (world, question, Frame.Between(Bad(family), names.Gateway) with
            {
                Protocol = protocol,
                SourcePort = 8080,
                DestinationPort = taken,
                SourceMac = NorthWorld.GatewayMac,
                DestinationMac = NorthWorld.GatewayMac,
            });
        }
    }
}
