using Mesh.Model;

namespace Mesh.Datapath.Tests.Packets;

/// <summary>ICMP errors about translated flows: each side is told about the packets that it knows. All checksums are compared.</summary>
[Collection("packets")]
public sealed class IcmpErrorTests
{
    private const string Router4 = "10.2.0.254";
    private const string Router6 = "fd00:2::fe";
    private readonly PacketWorld _world;

    public IcmpErrorTests(PacketWorld world)
    {
        _world = world;
        _world.Reset();
    }

    /// <summary>Family, protocol of the flow, type and code of the error, bytes quoted.</summary>
    public static TheoryData<int, byte, byte, byte, int> Errors => new(
        from family in (int[])[4, 6]
        from protocol in (byte[])[Frame.Tcp, Frame.Udp, Frame.Sctp]
        from error in family == 4
            ? ((byte, byte)[])[(3, 0), (3, 1), (3, 3), (3, 4), (3, 13), (4, 0), (11, 0), (12, 0)]
            : [(1, 0), (1, 4), (2, 0), (3, 0), (4, 1)]
            // Only the ports; with the checksum; all of it.
        from quoted in (int[])[28, 40, 500]
        select (family, protocol, error.Item1, error.Item2, quoted));

    [Theory]
    [MemberData(nameof(Errors))]
    public void A_router_on_the_way_to_the_backend_complains_to_the_client(int family, byte protocol, byte type, byte code, int bytes)
    {
        var (names, question, met) = Open(family, protocol);
        var error = met.Error(family == 4 ? Router4 : Router6, names.Pod, type, code, bytes);

        _world.FromTunnel(error).Redirected((error with { Quoted = (question, error.Quoted!.Value.Bytes) })
            .Delivered(PacketWorld.PodMac, PacketWorld.PodHostMac));
    }

    [Theory]
    [MemberData(nameof(Errors))]
    public void What_the_backend_itself_complains_about_comes_from_the_virtual_address(int family, byte protocol, byte type, byte code, int bytes)
    {
        var (names, question, met) = Open(family, protocol);
        var error = met.Error(names.RemotePod, names.Pod, type, code, bytes);

        _world.FromTunnel(error).Redirected((error with { Source = IpAddr.Parse(names.Virtual), Quoted = (question, error.Quoted!.Value.Bytes) })
            .Delivered(PacketWorld.PodMac, PacketWorld.PodHostMac));
    }

    [Theory]
    [MemberData(nameof(Errors))]
    public void A_client_complains_to_the_virtual_address_and_the_backend_is_told(int family, byte protocol, byte type, byte code, int bytes)
    {
        var (names, question, met) = Open(family, protocol);
        var error = question.Reply().Error(names.Pod, names.Virtual, type, code, bytes);

        _world.FromPod(error).Redirected(error with
        {
            Destination = IpAddr.Parse(names.RemotePod),
            Quoted = (met.Reply(), error.Quoted!.Value.Bytes),
        });
    }

    [Theory]
    [InlineData(4)]
    [InlineData(6)]
    public void An_error_about_a_flow_that_nobody_translated_is_left_alone(int family)
    {
        var (names, _, met) = Open(family, Frame.Tcp);
        var direct = (met with { SourcePort = 555 }).Error(names.RemotePod, names.Pod);
        _world.FromTunnel(direct).Redirected(direct.Delivered(PacketWorld.PodMac, PacketWorld.PodHostMac));

        var unknown = (met with { SourcePort = 555 }).Reply().Error(names.Pod, names.RemotePod);
        _world.FromPod(unknown).Redirected(unknown);
    }

    [Theory]
    [InlineData(4)]
    [InlineData(6)]
    public void An_error_that_tells_one_pod_of_anothers_flow_is_left_alone(int family)
    {
        var (names, _, met) = Open(family, Frame.Tcp);
        var astray = met.Error(names.RemotePod, names.OtherPod);

        _world.FromTunnel(astray).Redirected(astray.Delivered(PacketWorld.OtherPodMac, PacketWorld.OtherPodHostMac));
    }

    [Theory]
    [InlineData(4)]
    [InlineData(6)]
    public void A_quotation_cut_at_any_byte_is_delivered_and_translated_only_when_it_shows_the_ports(int family)
    {
        var (names, question, met) = Open(family, Frame.Udp);
        var header = family == 4 ? 20 : 40;
        for (var bytes = 1; bytes <= header + 8; bytes++)
        {
            // Half of a transport checksum cannot be mended, and nobody can check it.
            if (bytes == header + 7)
                continue;
            var error = met.Error(names.RemotePod, names.Pod) with { Quoted = (met, bytes) };
            var expected = bytes < header + 4 ? error : error with { Source = IpAddr.Parse(names.Virtual), Quoted = (question, bytes) };
            _world.FromTunnel(error).Redirected(expected.Delivered(PacketWorld.PodMac, PacketWorld.PodHostMac));
        }
    }

    [Theory]
    [InlineData(4)]
    [InlineData(6)]
    public void An_echo_is_no_error(int family)
    {
        var (names, _, met) = Open(family, Frame.Udp);
        var echo = met.Error(names.RemotePod, names.Pod, type: (byte)(family == 4 ? 0 : 129));

        _world.FromTunnel(echo).Redirected(echo.Delivered(PacketWorld.PodMac, PacketWorld.PodHostMac));
    }

    [Fact]
    public void A_quoted_datagram_without_a_checksum_stays_without_one()
    {
        var names = Names.V4;
        _world.Tables.Set(names.Virtual, 80, Frame.Udp, new Segment(2, 0, Backend.At(names.RemotePod, 8080)));
        var question = Frame.Between(names.Pod, names.Virtual) with { Protocol = Frame.Udp, Checksum = false };
        _world.FromPod(question);
        var met = question with { Destination = IpAddr.Parse(names.RemotePod), DestinationPort = 8080 };
        var error = met.Error(names.RemotePod, names.Pod);

        _world.FromTunnel(error).Redirected((error with { Source = IpAddr.Parse(names.Virtual), Quoted = (question, 28) })
            .Delivered(PacketWorld.PodMac, PacketWorld.PodHostMac));
    }

    /// <summary>A flow from the pod to the virtual address: the packet as the pod sent it, and as the other side met it.</summary>
    private (Names Names, Frame Question, Frame Met) Open(int family, byte protocol)
    {
        var names = Names.Of(family);
        var port = protocol == Frame.Sctp ? 80 : 8080;
        _world.Tables.Set(names.Virtual, 80, protocol, new Segment(2, 0, Backend.At(names.RemotePod, port)));
        var question = Frame.Between(names.Pod, names.Virtual) with { Protocol = protocol };
        Assert.Equal(PacketWorld.Redirect, _world.FromPod(question).Verdict);
        return (names, question, question with { Destination = IpAddr.Parse(names.RemotePod), DestinationPort = (ushort)port });
    }
}
