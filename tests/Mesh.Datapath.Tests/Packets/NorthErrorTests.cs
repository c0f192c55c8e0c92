using System.Buffers.Binary;
using Mesh.Datapath.Maps;
using Mesh.Model;

namespace Mesh.Datapath.Tests.Packets;

/// <summary>
/// ICMP errors about flows of clients outside, from where the backend is: the client is told about the packet that it sent, by the address
/// that it sent it to. All checksums are compared. Frames pass XDP, which leaves such errors to tc, and then tc.
/// </summary>
[Collection("north")]
public sealed class NorthErrorTests(NorthWorlds worlds)
{
    private const ushort ClientPort = 40000;
    private const uint RemoteNode = 6;

    /// <summary>Family, protocol of the flow, type and code of the error, bytes quoted.</summary>
    public static TheoryData<int, byte, byte, byte, int> Errors => new(
        from family in (int[])[4, 6]
        from protocol in (byte[])[Frame.Tcp, Frame.Udp]
        // Unreachable port, packet too big, time exceeded.
        from error in family == 4 ? ((byte, byte)[])[(3, 3), (3, 4), (11, 0)] : [(1, 4), (2, 0), (3, 0)]
        from quoted in (int[])[28, 500]
        select (family, protocol, error.Item1, error.Item2, quoted));

    [Theory]
    [MemberData(nameof(Errors))]
    public void Of_a_backend_in_the_tunnel_the_error_reaches_the_client_from_the_virtual_address(int family, byte protocol, byte type, byte code, int bytes)
    {
        var world = worlds.Over(family == 4 ? 6 : 4);
        var (names, sent, met) = Tunnelled(world, family, protocol);
        // The backend's own, and that of a router before it, whose address nobody outside knows.
        foreach (var (sender, identity) in new[] { (names.RemotePod, 0x20001u), (names.RemoteGateway, RemoteNode) })
        {
            var error = met.Error(sender, names.Gateway, type, code, bytes);
            ToClient(sent, error, world.Through(world.FromNode(identity).Around(error)));
        }
    }

    [Theory]
    [MemberData(nameof(Errors))]
    public void Of_a_backend_on_a_nodes_own_address_too(int family, byte protocol, byte type, byte code, int bytes)
    {
        var world = worlds.Over(4);
        var names = Outside.Of(family);
        world.Serve(names.Virtual, 443, protocol, names.OtherNode, 6443);
        var sent = FromClient(names, protocol) with { DestinationPort = 443 };
        var left = world.FromOutside(Hook.Tc, sent);
        var met = sent with
        {
            Source = IpAddr.Parse(names.Node),
            SourcePort = SourcePort(left.Packet, family, 0),
            Destination = IpAddr.Parse(names.OtherNode),
            DestinationPort = 6443,
        };
        var error = met.Error(names.OtherNode, names.Node, type, code, bytes) with { SourceMac = NorthWorld.NodeMac, DestinationMac = NorthWorld.UplinkMac };
        ToClient(sent, error, world.Through(error.Build()));
    }

    [Theory]
    [MemberData(nameof(Errors))]
    public void Of_a_pod_here_too(int family, byte protocol, byte type, byte code, int bytes)
    {
        var world = worlds.Over(4);
        var names = Outside.Of(family);
        world.Serve(names.Virtual, 80, protocol, names.Pod, 8080);
        var sent = FromClient(names, protocol);
        Assert.Equal(PacketWorld.Redirect, world.FromOutside(Hook.Tc, sent).Verdict);
        var error = (sent with { Destination = IpAddr.Parse(names.Pod), DestinationPort = 8080 }).Error(names.Pod, names.Client, type, code, bytes)
            with
        { SourceMac = NorthWorld.PodMac, DestinationMac = NorthWorld.PodHostMac };
        ToClient(sent, error, world.FromPod(error));
    }

    [Theory]
    [MemberData(nameof(Errors))]
    public void Of_a_pod_here_that_another_node_took_the_client_in_for_by_dsr_too(int family, byte protocol, byte type, byte code, int bytes)
    {
        var world = worlds.Over(4);
        var names = Outside.Of(family);
        var met = Frame.Between(names.Client, names.Pod) with { Protocol = protocol, SourcePort = ClientPort, DestinationPort = 8080 };
        var arrived = Vxlan.Carrying(met, IpAddr.Parse(names.Virtual), 80);
        Assert.Equal(PacketWorld.Redirect, world.Through(world.FromNode(Vxlan.World).Around(arrived)).Verdict);
        var error = met.Error(names.Pod, names.Client, type, code, bytes) with { SourceMac = NorthWorld.PodMac, DestinationMac = NorthWorld.PodHostMac };
        ToClient(met with { Destination = IpAddr.Parse(names.Virtual), DestinationPort = 80 }, error, world.FromPod(error));
    }

    [Theory]
    [InlineData(4)]
    [InlineData(6)]
    public void Of_a_process_of_this_node_too(int family)
    {
        var world = worlds.Over(4);
        var names = Outside.Of(family);
        world.Serve(names.Virtual, 80, Frame.Udp, names.Node, 8080);
        var sent = FromClient(names, Frame.Udp);
        Assert.Equal(DropReason.Forwarded, world.FromOutside(Hook.Tc, sent).Reason);
        var error = (sent with { Destination = IpAddr.Parse(names.Node), DestinationPort = 8080 }).Error(names.Node, names.Client);
        var left = world.FromHost(error);
        var expected = error with { Source = IpAddr.Parse(names.Virtual), Quoted = (sent, error.Quoted!.Value.Bytes) };
        Assert.Equal((-1, Convert.ToHexString(expected.Build())), (left.Verdict, Convert.ToHexString(left.Packet)));
    }

    [Theory]
    [InlineData(4)]
    [InlineData(6)]
    public void What_is_about_no_flow_that_was_taken_in_is_as_before(int family)
    {
        var world = worlds.Over(4);
        var (names, _, met) = Tunnelled(world, family, Frame.Tcp);
        var other = (met with { SourcePort = (ushort)(met.SourcePort ^ 1) }).Error(names.RemotePod, names.Gateway);
        var outcome = world.Through(world.FromNode().Around(other));
        Assert.Equal(Convert.ToHexString(other.Build()[12..]), Convert.ToHexString(outcome.Packet[12..]));

        // Over the underlay: the node's own business.
        var own = (met with { Source = IpAddr.Parse(names.Node) }).Error(names.OtherNode, names.Node)
            with
        { SourceMac = NorthWorld.NodeMac, DestinationMac = NorthWorld.UplinkMac };
        var passed = world.Through(own.Build());
        Assert.Equal((-1, Convert.ToHexString(own.Build())), (passed.Verdict, Convert.ToHexString(passed.Packet)));
    }

    [Theory]
    [InlineData(4)]
    [InlineData(6)]
    public void A_pod_that_is_not_the_backend_cannot_speak_to_the_client(int family)
    {
        var world = worlds.Over(4);
        var (names, _, met) = Tunnelled(world, family, Frame.Tcp);
        var stranger = family == 4 ? "10.2.0.77" : "fd00:2::77";
        world.SetAddress(stranger, 0x20001, 1);
        var error = met.Error(stranger, names.Gateway);
        var outcome = world.Through(world.FromNode().Around(error));
        Assert.Equal(Convert.ToHexString(error.Build()[12..]), Convert.ToHexString(outcome.Packet[12..]));
    }

    [Theory]
    [InlineData(4)]
    [InlineData(6)]
    public void A_quotation_cut_before_the_ports_goes_to_nobody_outside(int family)
    {
        var world = worlds.Over(4);
        var (names, _, met) = Tunnelled(world, family, Frame.Udp);
        for (var bytes = 1; bytes < (family == 4 ? 20 : 40) + 4; bytes++)
        {
            var error = met.Error(names.RemotePod, names.Gateway) with { Quoted = (met, bytes) };
            var outcome = world.Through(world.FromNode().Around(error));
            Assert.Equal(Convert.ToHexString(error.Build()[12..]), Convert.ToHexString(outcome.Packet[12..]));
        }
    }

    /// <summary>A flow to a backend of another node: the packet as the client sent it, and as it was met in the tunnel.</summary>
    private static (Outside Names, Frame Sent, Frame Met) Tunnelled(NorthWorld world, int family, byte protocol)
    {
        var names = Outside.Of(family);
        world.Serve(names.Virtual, 80, protocol, names.RemotePod, 8080);
        var sent = FromClient(names, protocol);
        var left = world.FromOutside(Hook.Tc, sent);
        return (names, sent, sent with
        {
            Source = IpAddr.Parse(names.Gateway),
            SourcePort = SourcePort(left.Packet, family, world.ToNode().HeaderLength),
            Destination = IpAddr.Parse(names.RemotePod),
            DestinationPort = 8080,
        });
    }

    /// <summary>Of the client's packet as it left: another than the client's own.</summary>
    private static ushort SourcePort(byte[] packet, int family, int at)
    {
        var port = BinaryPrimitives.ReadUInt16BigEndian(packet.AsSpan(at + Frame.EthernetHeader + (family == 4 ? 20 : 40)));
        Assert.InRange(port, NorthWorld.NatPortMin, NorthWorld.NatPortMax);
        return port;
    }

    private static void ToClient(Frame sent, Frame error, Outcome outcome)
    {
        Assert.Equal((PacketWorld.Redirect, DropReason.Forwarded), (outcome.Verdict, outcome.Reason));
        var expected = error with { Source = sent.Destination, Destination = sent.Source, Quoted = (sent, error.Quoted!.Value.Bytes), Ttl = 63 };
        Assert.Equal(Convert.ToHexString(expected.Build()[12..]), Convert.ToHexString(outcome.Packet[12..]));
    }

    private static Frame FromClient(Outside names, byte protocol) => Frame.Between(names.Client, names.Virtual) with
    {
        Protocol = protocol,
        SourcePort = ClientPort,
        SourceMac = NorthWorld.RouterMac,
        DestinationMac = NorthWorld.UplinkMac,
    };
}
