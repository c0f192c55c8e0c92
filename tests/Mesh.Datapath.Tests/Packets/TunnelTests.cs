using Mesh.Datapath.Maps;
using Mesh.Model;

namespace Mesh.Datapath.Tests.Packets;

/// <summary>VXLAN frames on the uplink: taken apart there, and asked who sent them.</summary>
[Collection("north")]
public sealed class TunnelTests(NorthWorlds worlds)
{
    /// <summary>Family of the packet, family of the tunnel.</summary>
    public static TheoryData<int, int> Families => new() { { 4, 4 }, { 4, 6 }, { 6, 4 }, { 6, 6 } };

    [Theory]
    [MemberData(nameof(Families))]
    public void A_pods_packet_is_unwrapped_and_delivered_and_its_node_has_been_seen(int family, int underlay)
    {
        var world = worlds.Over(underlay);
        var inner = Inner(Outside.Of(family));
        world.Through(world.FromNode().Around(inner)).Redirected(inner.Delivered(NorthWorld.PodMac, NorthWorld.PodHostMac));
        Assert.NotEqual(0u, world.Node.LastSeenMs);
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void A_frame_from_nobodys_node_is_dropped_once_all_nodes_are_known(int family, int underlay)
    {
        var world = worlds.Over(underlay);
        var inner = Inner(Outside.Of(family));
        world.ForgetSender();
        world.FromOutside(Hook.Tc, world.FromNode().Around(inner)).Dropped(DropReason.UnknownSender);
        Assert.Equal(0u, world.Node.LastSeenMs);

        // Before that nobody is held for a stranger.
        world.SetSendersKnown(false);
        Assert.Equal(PacketWorld.Redirect, world.FromOutside(Hook.Tc, world.FromNode().Around(inner)).Verdict);
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void An_identity_that_the_node_may_not_use_is_dropped(int family, int underlay)
    {
        var world = worlds.Over(underlay);
        var names = Outside.Of(family);
        foreach (var (identity, source, allowed) in new[]
        {
            (0x20001u, names.RemotePod, true), (0x2ffffu, names.RemotePod, true), (0u, names.RemotePod, true),
            (6u, names.RemoteGateway, true), (2u, names.Client, true),
            (0x10001u, names.RemotePod, false), (0x30001u, names.RemotePod, false), // of other clusters
            (1u, names.RemoteGateway, false), // only we are this node's host
            (6u, names.RemotePod, false), (2u, names.RemotePod, false), // a pod that claims to be less than one
        })
        {
            var frame = world.FromNode(identity).Around(Inner(names) with { Source = IpAddr.Parse(source) });
            var outcome = world.FromOutside(Hook.Tc, frame);
            if (allowed)
                Assert.Equal((PacketWorld.Redirect, DropReason.Forwarded), (outcome.Verdict, outcome.Reason));
            else
                outcome.Dropped(DropReason.ForeignIdentity);
        }
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void A_source_address_that_is_ours_or_of_another_cluster_is_dropped(int family, int underlay)
    {
        var world = worlds.Over(underlay);
        var names = Outside.Of(family);
        var elsewhere = family == 4 ? "10.3.0.9" : "fd00:3::9";
        world.SetAddress(elsewhere, 0x30001, 0);
        foreach (var source in new[] { names.Pod, names.Gateway, elsewhere })
            world.FromOutside(Hook.Tc, world.FromNode().Around(Inner(names) with { Source = IpAddr.Parse(source) }))
                .Dropped(DropReason.ForeignSource);

        // A pod that we have not heard of yet may speak.
        var young = family == 4 ? "10.2.7.7" : "fd00:2::77";
        Assert.Equal(PacketWorld.Redirect,
            world.FromOutside(Hook.Tc, world.FromNode().Around(Inner(names) with { Source = IpAddr.Parse(young) })).Verdict);
    }

    [Fact]
    public void What_comes_by_the_device_is_asked_the_same()
    {
        var world = worlds.Over(4);
        const string sender = "172.30.1.2";
        var inner = Inner(Outside.V4);
        world.FromDevice(inner).Dropped(DropReason.UnknownSender);
        world.SetSender(sender);
        world.FromDevice(inner).Dropped(DropReason.ForeignIdentity);
        world.Node.ClusterId = 1;
        world.SetAddress(Outside.V4.RemotePod, 0x20001, 0);
        world.FromDevice(inner).Dropped(DropReason.ForeignSource);
        world.SetAddress(Outside.V4.RemotePod, 0x10002, 0);
        world.FromDevice(inner).Redirected(inner.Delivered(NorthWorld.PodMac, NorthWorld.PodHostMac));
        world.ForgetSender(sender);
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void A_header_that_is_no_vxlan_is_dropped(int family, int underlay)
    {
        var world = worlds.Over(underlay);
        var inner = Inner(Outside.Of(family)).Build();
        foreach (var flags in new[] { 0u, 0x08000001u, 0x88000000u, 0x0c000000u })
            world.FromOutside(Hook.Tc, (world.FromNode() with { Flags = flags }).Around(inner)).Dropped(DropReason.TunnelHeader);
        var arp = inner.ToArray();
        (arp[12], arp[13]) = (0x08, 0x06);
        world.FromOutside(Hook.Tc, world.FromNode().Around(arp)).Dropped(DropReason.TunnelHeader);

        // Whole outside, cut inside at every byte.
        for (var length = 0; length < inner.Length; length++)
        {
            world.FromOutside(Hook.Tc, world.FromNode().Around(inner[..length])).Dropped(DropReason.TunnelHeader);
            var cut = world.FromNode().Around(inner[..length]);
            Assert.Equal(cut, world.FromOutside(Hook.Xdp, cut).Packet);
        }

        // A checksum is for the device to verify; another port or address is not the tunnel's.
        foreach (var frame in new[]
        {
            world.FromNode() with { Checksum = 0x1234 }, world.FromNode() with { Port = 4789 },
            world.FromNode() with { Destination = IpAddr.Parse(underlay == 4 ? "172.30.0.9" : "fd00:30::9") },
        })
        {
            var outcome = world.FromOutside(Hook.Tc, frame.Around(inner));
            Assert.Equal((-1, false), (outcome.Verdict, outcome.Counted));
        }
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void Congestion_outside_is_told_inside(int family, int underlay)
    {
        var world = worlds.Over(underlay);
        var able = Marked(Inner(Outside.Of(family)), 2);
        var outcome = world.FromOutside(Hook.Tc, (world.FromNode() with { Congestion = 3 }).Around(able));
        Assert.Equal(PacketWorld.Redirect, outcome.Verdict);
        Assert.Equal(3, CongestionOf(outcome.Packet, family));

        var unable = Inner(Outside.Of(family)).Build();
        world.FromOutside(Hook.Tc, (world.FromNode() with { Congestion = 3 }).Around(unable)).Dropped(DropReason.CongestionMark);
        Assert.Equal(PacketWorld.Redirect, world.FromOutside(Hook.Tc, (world.FromNode() with { Congestion = 2 }).Around(unable)).Verdict);
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void A_virtual_address_that_is_not_whole_is_dropped(int family, int underlay)
    {
        var world = worlds.Over(underlay);
        var names = Outside.Of(family);
        var plain = Frame.Between(names.Client, names.Pod) with { DestinationPort = 8080 };
        var carrying = Vxlan.Carrying(plain, IpAddr.Parse(names.Virtual), 80);
        carrying[family == 4 ? 35 : 57]--;
        if (family == 4)
        {
            carrying.AsSpan(24, 2).Clear();
            System.Buffers.Binary.BinaryPrimitives.WriteUInt16BigEndian(carrying.AsSpan(24), Frame.InternetChecksum(carrying[14..42]));
        }
        world.FromOutside(Hook.Tc, world.FromNode(Vxlan.World).Around(carrying)).Dropped(DropReason.DsrNotApplied);
        Assert.Equal(0, world.Flows);
    }

    private static Frame Inner(Outside names) => Frame.Between(names.RemotePod, names.Pod) with { SourcePort = 40000, DestinationPort = 8080 };

    private static byte[] Marked(Frame frame, byte congestion)
    {
        var bytes = frame.Build();
        if (frame.IsV6)
        {
            bytes[15] |= (byte)(congestion << 4);
            return bytes;
        }
        bytes[15] |= congestion;
        bytes.AsSpan(24, 2).Clear();
        System.Buffers.Binary.BinaryPrimitives.WriteUInt16BigEndian(bytes.AsSpan(24), Frame.InternetChecksum(bytes[14..34]));
        return bytes;
    }

    private static int CongestionOf(byte[] frame, int family) => family == 4 ? frame[15] & 3 : frame[15] >> 4 & 3;
}
