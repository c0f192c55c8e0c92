using System.Buffers.Binary;
using Mesh.Datapath.Maps;
using Mesh.Model;

namespace Mesh.Datapath.Tests.Packets;

/// <summary>
/// ICMP errors about answers that clients outside got from a virtual address, of the client itself and of routers before it: the backend is
/// told about the answer that it gave, whatever way the flow takes. All checksums are compared. Frames pass XDP, then tc.
/// </summary>
[Collection("north")]
public sealed class NorthClientErrorTests(NorthWorlds worlds)
{
    private const ushort ClientPort = 40000;

    /// <summary>Family, protocol of the flow, type and code of the error, bytes quoted, and whether a router says it.</summary>
    public static TheoryData<int, byte, byte, byte, int, bool> Errors => new(
        from family in (int[])[4, 6]
        from protocol in (byte[])[Frame.Tcp, Frame.Udp]
        from error in family == 4 ? ((byte, byte)[])[(3, 3), (3, 4), (11, 0)] : [(1, 4), (2, 0), (3, 0)]
        from quoted in (int[])[28, 500]
        from router in (bool[])[false, true]
        select (family, protocol, error.Item1, error.Item2, quoted, router));

    [Theory]
    [MemberData(nameof(Errors))]
    public void About_a_backend_in_the_tunnel_it_comes_from_our_gateway(int family, byte protocol, byte type, byte code, int bytes, bool router)
    {
        var world = worlds.Over(family == 4 ? 6 : 4);
        var names = Outside.Of(family);
        world.Serve(names.Virtual, 80, protocol, names.RemotePod, 8080);
        var sent = FromClient(names, protocol);
        var left = world.FromOutside(Hook.Tc, sent);
        var met = Met(sent, names.Gateway, SourcePort(left.Packet, family, world.ToNode().HeaderLength), names.RemotePod, 8080);
        var error = FromOutside(sent.Reply().Error(Speaker(names, router), names.Virtual, type, code, bytes));

        AssertTunnelled(world, error with
        {
            Source = IpAddr.Parse(names.Gateway),
            Destination = IpAddr.Parse(names.RemotePod),
            Quoted = (met.Reply(), error.Quoted!.Value.Bytes),
        }, world.Through(error.Build()));
    }

    [Theory]
    [MemberData(nameof(Errors))]
    public void About_a_dsr_answer_it_goes_to_the_backends_node_as_it_is(int family, byte protocol, byte type, byte code, int bytes, bool router)
    {
        var world = worlds.Over(family == 4 ? 6 : 4);
        var names = Outside.Of(family);
        world.Serve(names.Virtual, 80, protocol, names.RemotePod, 8080, dsr: true);
        world.Node.Flags = NodeFlags.TakesDsr;
        var sent = FromClient(names, protocol);
        world.FromOutside(Hook.Tc, sent);
        var met = Met(sent, names.Client, ClientPort, names.RemotePod, 8080);
        var error = FromOutside(sent.Reply().Error(Speaker(names, router), names.Virtual, type, code, bytes));

        AssertTunnelled(world, error with
        {
            Destination = IpAddr.Parse(names.RemotePod),
            Quoted = (met.Reply(), error.Quoted!.Value.Bytes),
        }, world.Through(error.Build()));
    }

    [Theory]
    [MemberData(nameof(Errors))]
    public void About_a_backend_on_a_nodes_own_address_it_comes_from_ours(int family, byte protocol, byte type, byte code, int bytes, bool router)
    {
        var world = worlds.Over(4);
        var names = Outside.Of(family);
        world.Serve(names.Virtual, 80, protocol, names.OtherNode, 6443);
        var sent = FromClient(names, protocol);
        var left = world.FromOutside(Hook.Tc, sent);
        var met = Met(sent, names.Node, SourcePort(left.Packet, family, 0), names.OtherNode, 6443);
        var error = FromOutside(sent.Reply().Error(Speaker(names, router), names.Virtual, type, code, bytes));

        var expected = error with
        {
            Source = IpAddr.Parse(names.Node),
            Destination = IpAddr.Parse(names.OtherNode),
            Quoted = (met.Reply(), error.Quoted!.Value.Bytes),
            Ttl = 63,
        };
        var outcome = world.Through(error.Build());
        Assert.Equal((PacketWorld.Redirect, DropReason.Forwarded), (outcome.Verdict, outcome.Reason));
        Assert.Equal(Convert.ToHexString(expected.Build()[12..]), Convert.ToHexString(outcome.Packet[12..]));
    }

    [Theory]
    [MemberData(nameof(Errors))]
    public void About_the_answer_of_a_pod_here_it_comes_to_the_pod(int family, byte protocol, byte type, byte code, int bytes, bool router)
    {
        var world = worlds.Over(4);
        var names = Outside.Of(family);
        world.Serve(names.Virtual, 80, protocol, names.Pod, 8080);
        var sent = FromClient(names, protocol);
        world.FromOutside(Hook.Tc, sent);
        var met = Met(sent, names.Client, ClientPort, names.Pod, 8080);
        var error = FromOutside(sent.Reply().Error(Speaker(names, router), names.Virtual, type, code, bytes));

        world.Through(error.Build()).Redirected((error with
        {
            Destination = IpAddr.Parse(names.Pod),
            Quoted = (met.Reply(), error.Quoted!.Value.Bytes),
        }).Delivered(NorthWorld.PodMac, NorthWorld.PodHostMac));
    }

    [Theory]
    [InlineData(4)]
    [InlineData(6)]
    public void About_the_answer_of_a_process_here_it_comes_to_the_stack(int family)
    {
        var world = worlds.Over(4);
        var names = Outside.Of(family);
        // A NodePort: the virtual address is the node's own.
        world.Serve(names.Node, 30080, Frame.Udp, names.Node, 8080);
        var sent = FromClient(names, Frame.Udp) with { Destination = IpAddr.Parse(names.Node), DestinationPort = 30080 };
        world.FromOutside(Hook.Tc, sent);
        var error = FromOutside(sent.Reply().Error(names.Client, names.Node, bytes: 500));
        var met = Met(sent, names.Client, ClientPort, names.Node, 8080);

        var outcome = world.Through(error.Build());
        var expected = error with { Quoted = (met.Reply(), error.Quoted!.Value.Bytes) };
        Assert.Equal((-1, Convert.ToHexString(expected.Build())), (outcome.Verdict, Convert.ToHexString(outcome.Packet)));
    }

    /// <summary>The controls: about no flow that was taken in, not sent to whom the answer came from, and no error at all.</summary>
    [Theory]
    [InlineData(4)]
    [InlineData(6)]
    public void What_is_about_no_answer_of_ours_is_the_stacks(int family)
    {
        var world = worlds.Over(4);
        var names = Outside.Of(family);
        world.Serve(names.Virtual, 80, Frame.Udp, names.RemotePod, 8080);
        var sent = FromClient(names, Frame.Udp);
        world.FromOutside(Hook.Tc, sent);
        var answer = sent.Reply();
        foreach (var frame in new[]
        {
            (answer with { DestinationPort = 40001 }).Error(names.Client, names.Virtual),
            (answer with { Protocol = Frame.Tcp }).Error(names.Client, names.Virtual),
            answer.Error(names.Client, names.Node),
            answer.Error(names.Client, names.Virtual, type: (byte)(family == 4 ? 0 : 129)),
        })
        {
            var passed = world.Through(FromOutside(frame).Build());
            Assert.Equal((-1, Convert.ToHexString(FromOutside(frame).Build())), (passed.Verdict, Convert.ToHexString(passed.Packet)));
        }
    }

    [Theory]
    [InlineData(4)]
    [InlineData(6)]
    public void A_message_cut_at_any_byte_is_translated_only_when_it_shows_the_ports(int family)
    {
        var world = worlds.Over(4);
        var names = Outside.Of(family);
        world.Serve(names.Virtual, 80, Frame.Tcp, names.Pod, 8080);
        var sent = FromClient(names, Frame.Tcp);
        world.FromOutside(Hook.Tc, sent);
        var met = Met(sent, names.Client, ClientPort, names.Pod, 8080);
        var header = family == 4 ? 20 : 40;
        for (var bytes = 1; bytes <= header + 16; bytes++)
        {
            var error = FromOutside(sent.Reply().Error(names.Client, names.Virtual)) with { Quoted = (sent.Reply(), bytes) };
            var outcome = world.Through(error.Build());
            if (bytes < header + 4)
                Assert.Equal((-1, Convert.ToHexString(error.Build())), (outcome.Verdict, Convert.ToHexString(outcome.Packet)));
            else
                outcome.Redirected((error with { Destination = IpAddr.Parse(names.Pod), Quoted = (met.Reply(), bytes) })
                    .Delivered(NorthWorld.PodMac, NorthWorld.PodHostMac));
        }
        // And the frame itself.
        var whole = FromOutside(sent.Reply().Error(names.Client, names.Virtual)).Build();
        for (var length = Frame.EthernetHeader + header; length < whole.Length; length++)
            Assert.NotEqual(PacketWorld.Redirect, world.Through(whole[..length]).Verdict);
    }

    private static string Speaker(Outside names, bool router) =>
        !router ? names.Client : names == Outside.V4 ? "198.51.100.254" : "2001:db8:5::fe";

    private static void AssertTunnelled(NorthWorld world, Frame expected, Outcome outcome)
    {
        Assert.Equal((PacketWorld.Redirect, DropReason.Forwarded), (outcome.Verdict, outcome.Reason));
        var outer = world.ToNode();
        var inner = outcome.Packet[outer.HeaderLength..];
        outer = outer with { SourcePort = BinaryPrimitives.ReadUInt16BigEndian(outcome.Packet.AsSpan(outer.HeaderLength - 16)) };
        Assert.Equal(Convert.ToHexString(outer.Around(inner)), Convert.ToHexString(outcome.Packet));
        Assert.Equal(Convert.ToHexString(expected.Build()[12..]), Convert.ToHexString(inner[12..]));
    }

    private static Frame Met(Frame sent, string source, ushort sourcePort, string destination, ushort port) => sent with
    {
        Source = IpAddr.Parse(source),
        SourcePort = sourcePort,
        Destination = IpAddr.Parse(destination),
        DestinationPort = port,
    };

    private static ushort SourcePort(byte[] packet, int family, int at) =>
        BinaryPrimitives.ReadUInt16BigEndian(packet.AsSpan(at + Frame.EthernetHeader + (family == 4 ? 20 : 40)));

    private static Frame FromClient(Outside names, byte protocol) =>
        FromOutside(Frame.Between(names.Client, names.Virtual) with { Protocol = protocol, SourcePort = ClientPort });

    private static Frame FromOutside(Frame frame) => frame with { SourceMac = NorthWorld.RouterMac, DestinationMac = NorthWorld.UplinkMac };
}
