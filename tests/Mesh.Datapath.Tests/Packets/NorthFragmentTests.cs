using Mesh.Bpf;
using Mesh.Datapath.Maps;
using Mesh.Model;

namespace Mesh.Datapath.Tests.Packets;

/// <summary>Fragments and large datagrams of clients outside.</summary>
[Collection("north")]
public sealed class NorthFragmentTests(NorthWorlds worlds)
{
    [Theory]
    [InlineData(4, Frame.Tcp, 8)]
    [InlineData(6, Frame.Tcp, 16)]
    [InlineData(4, Frame.Sctp, 8)]
    [InlineData(6, Frame.Sctp, 8)]
    public void A_later_one_over_the_header_of_the_first_is_dropped_wherever_the_backend_is(int family, byte protocol, int offset)
    {
        var world = worlds.Over(family == 4 ? 6 : 4);
        var names = Outside.Of(family);
        foreach (var backend in new[] { names.Pod, names.RemotePod, names.OtherNode })
        {
            world.Serve(names.Virtual, 80, protocol, backend, 80);
            world.ForgetFlows();
            var first = FromClient(names, protocol) with { Fragment = (0, true, 7), PayloadLength = 64, TcpFlags = Frame.Syn };
            Assert.Equal(PacketWorld.Redirect, world.Through(first.Build()).Verdict);
            world.Through((first with { Fragment = (offset, false, 7) }).Build()).DroppedAt(Hook.Tc, DropReason.FragmentOverlap);
            // The control.
            Assert.Equal(PacketWorld.Redirect, world.Through((first with { Fragment = (80, false, 7) }).Build()).Verdict);
        }
        var direct = FromClient(names, protocol) with { Destination = IpAddr.Parse(names.Pod), Fragment = (offset, false, 9) };
        world.Through(direct.Build()).DroppedAt(Hook.Tc, DropReason.FragmentOverlap);
        Assert.Equal(PacketWorld.Redirect, world.Through((direct with { Fragment = (80, false, 9) }).Build()).Verdict);
        // Not ours: the stack's.
        Assert.Equal(-1, world.Through((direct with { Destination = IpAddr.Parse(names.Nowhere) }).Build()).Verdict);
    }

    [Theory]
    [InlineData(4)]
    [InlineData(6)]
    public void A_flow_that_begins_without_room_for_the_virtual_address_goes_by_snat(int family)
    {
        var world = worlds.Over(family == 4 ? 6 : 4);
        var names = Outside.Of(family);
        world.Node.Flags = NodeFlags.TakesDsr;
        world.Serve(names.Virtual, 53, Frame.Udp, names.RemotePod, 5353, dsr: true);
        var small = FromClient(names, Frame.Udp) with { DestinationPort = 53 };
        var headers = family == 4 ? 28 : 48;
        var option = family == 4 ? 8 : 24;
        foreach (var (begins, dsr) in new[]
        {
            (small, true),
            (small with { PayloadLength = (int)NorthWorld.PodMtu - headers - option }, true),
            (small with { PayloadLength = (int)NorthWorld.PodMtu - headers - option + 1 }, false),
            (small with { PayloadLength = 64, Fragment = (0, true, 7) }, false),
        })
            foreach (var hook in new[] { Hook.Xdp, Hook.Tc })
            {
                world.ForgetFlows();
                var outcome = hook == Hook.Xdp ? world.Through(begins.Build()) : world.FromOutside(hook, begins);
                Assert.Equal(IpAddr.Parse(dsr ? names.Client : names.Gateway), Sender(world, outcome));
                // What follows goes the same way, large or small.
                Assert.Equal(IpAddr.Parse(dsr ? names.Client : names.Gateway), Sender(world, world.FromOutside(hook, small)));
            }
    }

    /// <summary>In the midst of a connection nothing but the way that it has had is of use, whatever was forgotten.</summary>
    [Theory]
    [InlineData(4)]
    [InlineData(6)]
    public void A_connection_by_dsr_stays_so_when_its_entry_is_lost(int family)
    {
        var world = worlds.Over(family == 4 ? 6 : 4);
        var names = Outside.Of(family);
        world.Node.Flags = NodeFlags.TakesDsr;
        world.Serve(names.Virtual, 80, Frame.Tcp, names.RemotePod, 8080, dsr: true);
        var large = FromClient(names, Frame.Tcp) with { TcpFlags = Frame.Ack, PayloadLength = (int)NorthWorld.PodMtu - (family == 4 ? 40 : 60) };
        Assert.Equal(IpAddr.Parse(names.Client), Sender(world, world.Through(large.Build())));
    }

    /// <summary>Of the inner packet.</summary>
    private static IpAddr Sender(NorthWorld world, Outcome outcome)
    {
        Assert.Contains(outcome.Verdict, (int[])[XdpAction.Transmit, PacketWorld.Redirect]);
        var inner = outcome.Packet.AsSpan(world.ToNode().HeaderLength);
        var v6 = inner[12] == 0x86;
        return IpAddr.FromBytes(inner.Slice(Frame.EthernetHeader + (v6 ? 8 : 12), v6 ? 16 : 4));
    }

    private static Frame FromClient(Outside names, byte protocol) => Frame.Between(names.Client, names.Virtual) with
    {
        Protocol = protocol,
        SourcePort = 20000,
        DontFragment = false,
        SourceMac = NorthWorld.RouterMac,
        DestinationMac = NorthWorld.UplinkMac,
    };
}
