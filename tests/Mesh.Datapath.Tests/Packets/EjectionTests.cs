using Mesh.Datapath.Maps;
using Mesh.Model;

namespace Mesh.Datapath.Tests.Packets;

/// <summary>What packets of translated flows say of single backends: refused and unanswered questions eject, an answer proves.</summary>
[Collection("packets")]
public sealed class EjectionTests
{
    private readonly PacketWorld _world;

    public EjectionTests(PacketWorld world)
    {
        _world = world;
        _world.Reset();
    }

    public static TheoryData<int> Families => [4, 6];

    [Theory]
    [MemberData(nameof(Families))]
    public void A_reset_in_answer_to_the_first_packet_ejects_that_backend_alone_and_the_next_flow_goes_elsewhere(int family)
    {
        var (question, answer) = Open(family, Frame.Tcp);
        _world.FromTunnel(answer with { TcpFlags = Frame.Rst | Frame.Ack });

        Assert.Equal((true, false), Ejected(family));
        Assert.Equal((1ul, 0ul, 1ul), (Failover.Refused, Failover.Unanswered, Failover.Ejections));
        foreach (var port in Enumerable.Range(50000, 30))
            Assert.Equal(Other(family), Receiver(_world.FromPod(question with { SourcePort = (ushort)port })));
        Assert.Equal(0ul, Failover.Panics);
    }

    /// <summary>The control: a connection that was answered may be reset by either side.</summary>
    [Theory]
    [MemberData(nameof(Families))]
    public void A_reset_in_a_conversation_ejects_nobody(int family)
    {
        var (question, answer) = Open(family, Frame.Tcp);
        _world.FromTunnel(answer with { TcpFlags = Frame.Syn | Frame.Ack });
        _world.FromTunnel(answer with { TcpFlags = Frame.Rst });
        (question, answer) = Open(family, Frame.Tcp, port: 40001);
        _world.FromPod(question with { TcpFlags = Frame.Rst });
        _world.FromTunnel(answer with { TcpFlags = Frame.Rst | Frame.Ack });

        Assert.Equal((false, false), Ejected(family));
        Assert.Equal((0ul, 0ul), (Failover.Refused, Failover.Ejections));
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void A_question_that_has_to_be_repeated_ejects_the_backend_and_chooses_another(int family)
    {
        var (question, _) = Open(family, Frame.Tcp);
        _world.Wait(1);

        Assert.Equal(Other(family), Receiver(_world.FromPod(question)));
        Assert.Equal((true, false), Ejected(family));
        Assert.Equal((0ul, 1ul, 1ul), (Failover.Refused, Failover.Unanswered, Failover.Ejections));
    }

    /// <summary>The controls: repeated within its time, and repeated because the client did not get the answer.</summary>
    [Theory]
    [MemberData(nameof(Families))]
    public void A_question_repeated_at_once_or_after_its_answer_ejects_nobody(int family)
    {
        var (question, _) = Open(family, Frame.Tcp);
        var repeated = question;
        // The clock may strike between the two.
        Assert.Contains(Enumerable.Range(0, 3), i =>
        {
            repeated = question with { SourcePort = (ushort)(41000 + i) };
            (repeated, _) = Open(family, Frame.Tcp, repeated.SourcePort);
            _world.FromPod(repeated);
            return Failover.Unanswered == 0;
        });

        var (late, answer) = Open(family, Frame.Tcp, port: 42000);
        _world.FromTunnel(answer with { TcpFlags = Frame.Syn | Frame.Ack });
        _world.Wait(1);
        Assert.Equal(Bad(family), Receiver(_world.FromPod(late)));
        Assert.Equal((false, false), Ejected(family));
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void An_answer_forgets_what_was_held_against_a_backend(int family)
    {
        var (_, answer) = Open(family, Frame.Tcp);
        var slot = _world.Tables.SlotsOf(Bad(family)).Single();
        _world.Tables.Health[slot].Failures = 3;
        _world.FromTunnel(answer with { TcpFlags = Frame.Syn | Frame.Ack });
        Assert.Equal(0, _world.Tables.Health[slot].Failures);
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void A_datagram_that_nobody_listens_for_ejects_that_backend(int family)
    {
        var (question, answer) = Open(family, Frame.Udp);
        // It has answered before: it may have died since.
        _world.FromTunnel(answer);
        _world.FromTunnel(Unreachable(family, question, Bad(family)));

        Assert.Equal((true, false), Ejected(family));
        Assert.Equal(Other(family), Receiver(_world.FromPod(question)));
    }

    /// <summary>The controls: another error, a router's word, and what a client says of an answer.</summary>
    [Theory]
    [MemberData(nameof(Families))]
    public void Other_errors_eject_nobody(int family)
    {
        var (question, answer) = Open(family, Frame.Udp);
        _world.FromTunnel(Unreachable(family, question, Bad(family)) with { Message = family == 4 ? ((byte)3, (byte)1) : ((byte)1, (byte)0) });
        _world.FromTunnel(Unreachable(family, question, family == 4 ? "10.2.0.254" : "fd00:2::fe"));
        _world.FromPod(question.Reply().Error(Names.Of(family).Pod, Names.Of(family).Virtual,
            family == 4 ? (byte)3 : (byte)1, family == 4 ? (byte)3 : (byte)4));
        Assert.Equal((false, false), Ejected(family));
        Assert.NotNull(answer);
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void An_error_about_a_datagram_that_was_translated_at_the_socket_ejects_the_backend_that_the_socket_was_given(int family)
    {
        var (_, _) = Open(family, Frame.Udp);
        _world.ForgetFlows();
        var direct = Frame.Between(Names.Of(family).Pod, Bad(family)) with { Protocol = Frame.Udp, DestinationPort = 8080, SourcePort = 43000 };
        var error = direct.Error(Bad(family), Names.Of(family).Pod, family == 4 ? (byte)3 : (byte)1, family == 4 ? (byte)3 : (byte)4, bytes: 60);
        // The control: no socket was given it.
        _world.FromTunnel(error);
        Assert.Equal((false, false), Ejected(family));

        _world.DatagramBackends.Set(LbDatagramBackend.From(IpAddr.Parse(Bad(family)), 8080), _world.Tables.SlotsOf(Bad(family)).Single());
        _world.FromTunnel(error);
        _world.FromTunnel(error);
        Assert.Equal((true, false), Ejected(family));
        Assert.Equal(1ul, Failover.Refused);

        // A slot that was given to another since is left alone.
        _world.Tables.Health[_world.Tables.SlotsOf(Bad(family)).Single()] = default;
        _world.DatagramBackends.Set(LbDatagramBackend.From(IpAddr.Parse(Bad(family)), 8080), _world.Tables.SlotsOf(Other(family)).Single());
        _world.FromTunnel(error);
        Assert.Equal((false, false), Ejected(family));
        _world.DatagramBackends.Remove(LbDatagramBackend.From(IpAddr.Parse(Bad(family)), 8080));
    }

    private ref FailoverValue Failover => ref _world.Tables.Failover[0];

    private static string Bad(int family) => Names.Of(family).RemotePod;

    private static string Other(int family) => Names.Of(family).RemoteInRange;

    private static string Receiver(Outcome outcome)
    {
        Assert.Equal(PacketWorld.Redirect, outcome.Verdict);
        var v6 = outcome.Packet[12] == 0x86;
        return IpAddr.FromBytes(outcome.Packet.AsSpan(Frame.EthernetHeader + (v6 ? 24 : 16), v6 ? 16 : 4)).ToString();
    }

    private static Frame Unreachable(int family, Frame question, string sender) =>
        (question with { Destination = IpAddr.Parse(Bad(family)), DestinationPort = 8080 }).Error(
            sender, Names.Of(family).Pod, family == 4 ? (byte)3 : (byte)1, family == 4 ? (byte)3 : (byte)4, bytes: 60);

    private (bool Bad, bool Other) Ejected(int family)
    {
        var now = (uint)(ServiceTables.MonotonicNs / 1_000_000);
        bool Is(string backend) => _world.Tables.Health[_world.Tables.SlotsOf(backend).Single()].IsEjected(now);
        return (Is(Bad(family)), Is(Other(family)));
    }

    /// <summary>A flow that has gone to the bad one of two backends: its first packet, and an answer to it.</summary>
    private (Frame Question, Frame Answer) Open(int family, byte protocol, ushort port = 40000)
    {
        var names = Names.Of(family);
        if (_world.Tables.SlotsOf(Bad(family)).FirstOrDefault() == 0)
            _world.Tables.Set(names.Virtual, 80, protocol, new Segment(2, 0, Backend.At(Bad(family), 8080)),
                new Segment(3, 0, Backend.At(Other(family), 8080)));
        for (var i = 0; ; i++)
        {
            var question = Frame.Between(names.Pod, names.Virtual) with { Protocol = protocol, SourcePort = (ushort)(port + 100 * i) };
            if (Receiver(_world.FromPod(question)) == Bad(family))
                return (question, (question with { Destination = IpAddr.Parse(Bad(family)), DestinationPort = 8080 }).Reply());
        }
    }
}
