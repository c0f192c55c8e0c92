using Mesh.Datapath.Maps;
using Mesh.Model;

namespace Mesh.Datapath.Tests.Packets;

/// <summary>A pod that is its own backend, by packets: its process runs where no socket hook is.</summary>
[Collection("packets")]
public sealed class HairpinTests
{
    private readonly PacketWorld _world;

    public HairpinTests(PacketWorld world)
    {
        _world = world;
        _world.Reset();
    }

    public static TheoryData<int, byte> FamiliesAndProtocols => new(
        from family in (int[])[4, 6] from protocol in (byte[])[Frame.Tcp, Frame.Udp] select (family, protocol));

    [Theory]
    [MemberData(nameof(FamiliesAndProtocols))]
    public void A_pod_reaches_itself_through_the_virtual_address_and_never_sees_its_own_as_peer(int family, byte protocol)
    {
        var names = Names.Of(family);
        _world.Tables.Set(names.Virtual, 80, protocol, new Segment(1, 0, Backend.At(names.Pod, 8080)));
        var question = Frame.Between(names.Pod, names.Virtual) with { Protocol = protocol };
        var met = question with { Source = Loopback(family), Destination = IpAddr.Parse(names.Pod), DestinationPort = 8080 };

        _world.FromPod(question).Redirected(met.Delivered(PacketWorld.PodMac, PacketWorld.PodHostMac));

        var answer = met.Reply();
        _world.FromPod(answer).Redirected((answer with
        {
            Source = IpAddr.Parse(names.Virtual),
            SourcePort = 80,
            Destination = IpAddr.Parse(names.Pod),
        }).Delivered(PacketWorld.PodMac, PacketWorld.PodHostMac));

        // And so on: the flow is known.
        var next = question with { TcpFlags = Frame.Ack };
        _world.FromPod(next).Redirected((next with { Source = Loopback(family), Destination = IpAddr.Parse(names.Pod), DestinationPort = 8080 })
            .Delivered(PacketWorld.PodMac, PacketWorld.PodHostMac));
        Assert.Equal(2, _world.Flows);
        var answered = protocol == Frame.Tcp ? ConntrackFlags.Answered : ConntrackFlags.None;
        Assert.All(_world.Conntrack.Values, value => Assert.Equal(ConntrackFlags.Hairpin | ConntrackFlags.Established | answered, value.Flags));
    }

    [Theory]
    [MemberData(nameof(FamiliesAndProtocols))]
    public void An_answer_without_a_question_goes_nowhere(int family, byte protocol)
    {
        var names = Names.Of(family);
        var stray = Frame.Between(names.Pod, Loopback(family).ToString()) with { Protocol = protocol };

        _world.FromPod(stray).Dropped(DropReason.Hairpin);
        _world.FromPod(stray with { Protocol = family == 4 ? Frame.Icmp : Frame.IcmpV6 }).Dropped(DropReason.Hairpin);
    }

    [Theory]
    [InlineData(4)]
    [InlineData(6)]
    public void Fragments_of_question_and_answer_take_the_same_way(int family)
    {
        var names = Names.Of(family);
        _world.Tables.Set(names.Virtual, 53, Frame.Udp, new Segment(1, 0, Backend.At(names.Pod, 5353)));
        var first = Frame.Between(names.Pod, names.Virtual) with
        {
            Protocol = Frame.Udp,
            DestinationPort = 53,
            PayloadLength = 64,
            DontFragment = false,
            Fragment = (0, true, 4711),
        };
        var met = first with { Source = Loopback(family), Destination = IpAddr.Parse(names.Pod), DestinationPort = 5353 };
        _world.FromPod(first).Redirected(met.Delivered(PacketWorld.PodMac, PacketWorld.PodHostMac));
        _world.FromPod(first with { Fragment = (72, false, 4711) })
            .Redirected((met with { Fragment = (72, false, 4711) }).Delivered(PacketWorld.PodMac, PacketWorld.PodHostMac));

        var answer = met.Reply() with { Fragment = (0, true, 815) };
        var seen = answer with { Source = IpAddr.Parse(names.Virtual), SourcePort = 53, Destination = IpAddr.Parse(names.Pod) };
        _world.FromPod(answer).Redirected(seen.Delivered(PacketWorld.PodMac, PacketWorld.PodHostMac));
        _world.FromPod(answer with { Fragment = (72, false, 815) })
            .Redirected((seen with { Fragment = (72, false, 815) }).Delivered(PacketWorld.PodMac, PacketWorld.PodHostMac));
    }

    [Theory]
    [InlineData(4)]
    [InlineData(6)]
    public void The_error_of_a_closed_port_comes_back_from_the_virtual_address(int family)
    {
        var names = Names.Of(family);
        _world.Tables.Set(names.Virtual, 53, Frame.Udp, new Segment(1, 0, Backend.At(names.Pod, 5353)));
        var question = Frame.Between(names.Pod, names.Virtual) with { Protocol = Frame.Udp, DestinationPort = 53 };
        var met = (question with { Source = Loopback(family), Destination = IpAddr.Parse(names.Pod), DestinationPort = 5353 })
            .Delivered(PacketWorld.PodMac, PacketWorld.PodHostMac);
        _world.FromPod(question);

        var error = met.Error(names.Pod, Loopback(family).ToString(), code: (byte)(family == 4 ? 3 : 4));

        _world.FromPod(error).Redirected((error with
        {
            Source = IpAddr.Parse(names.Virtual),
            Destination = IpAddr.Parse(names.Pod),
            // As the pod sent it, but for the hop that it has taken.
            Quoted = (question with { Ttl = 63 }, error.Quoted!.Value.Bytes),
        }).Delivered(PacketWorld.PodMac, PacketWorld.PodHostMac));
    }

    [Theory]
    [MemberData(nameof(FamiliesAndProtocols))]
    public void Its_error_about_its_own_answer_comes_back_from_the_loopback_address(int family, byte protocol)
    {
        var names = Names.Of(family);
        _world.Tables.Set(names.Virtual, 80, protocol, new Segment(1, 0, Backend.At(names.Pod, 8080)));
        var question = Frame.Between(names.Pod, names.Virtual) with { Protocol = protocol };
        _world.FromPod(question);
        var given = question.Reply() with { Source = IpAddr.Parse(names.Pod), SourcePort = 8080, Destination = Loopback(family) };

        var error = question.Reply().Error(names.Pod, names.Virtual, bytes: 500);

        _world.FromPod(error).Redirected((error with
        {
            Source = Loopback(family),
            Destination = IpAddr.Parse(names.Pod),
            Quoted = (given, error.Quoted!.Value.Bytes),
        }).Delivered(PacketWorld.PodMac, PacketWorld.PodHostMac));
    }

    [Fact]
    public void Another_pod_with_the_same_backend_is_no_hairpin()
    {
        _world.Tables.Set(Names.V4.Virtual, 80, Frame.Tcp, new Segment(1, 0, Backend.At(Names.V4.OtherPod, 8080)));
        var sent = Frame.Between(Names.V4.Pod, Names.V4.Virtual);

        _world.FromPod(sent).Redirected((sent with { Destination = IpAddr.Parse(Names.V4.OtherPod), DestinationPort = 8080 })
            .Delivered(PacketWorld.OtherPodMac, PacketWorld.OtherPodHostMac));
    }

    private static IpAddr Loopback(int family) => IpAddr.Parse(family == 4 ? "169.254.42.1" : "100::6d65:7368");
}
