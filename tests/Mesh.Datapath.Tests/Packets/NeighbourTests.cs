using Mesh.Datapath.Maps;
using Mesh.Model;

namespace Mesh.Datapath.Tests.Packets;

/// <summary>ARP and neighbour discovery of pods and of the host.</summary>
[Collection("packets")]
public sealed class NeighbourTests
{
    private readonly PacketWorld _world;

    public NeighbourTests(PacketWorld world)
    {
        _world = world;
        _world.Reset();
    }

    [Theory]
    [InlineData("10.1.0.1")]
    [InlineData("10.1.0.3")]
    [InlineData("192.0.2.99")]
    public void Every_arp_question_of_a_pod_is_answered_with_the_host_side_of_its_veth(string target) =>
        _world.FromPod(Arp(1, PacketWorld.PodMac, "ff:ff:ff:ff:ff:ff", Names.V4.Pod, "00:00:00:00:00:00", target))
            .Is(PacketWorld.Redirect, Arp(2, PacketWorld.PodHostMac, PacketWorld.PodMac, target, PacketWorld.PodMac, Names.V4.Pod));

    [Fact]
    public void The_host_is_answered_with_the_gateway_address() =>
        _world.FromHost(Arp(1, PacketWorld.HostMac, "ff:ff:ff:ff:ff:ff", Names.V4.Host, "00:00:00:00:00:00", Names.V4.RemotePod))
            .Is(PacketWorld.Redirect,
                Arp(2, PacketWorld.GatewayMac, PacketWorld.HostMac, Names.V4.RemotePod, PacketWorld.HostMac, Names.V4.Host));

    [Theory]
    [InlineData("0.0.0.0", "10.1.0.2")]
    [InlineData("10.1.0.2", "10.1.0.2")]
    public void A_question_about_the_own_address_is_not_answered(string sender, string target)
    {
        var probe = Arp(1, PacketWorld.PodMac, "ff:ff:ff:ff:ff:ff", sender, "00:00:00:00:00:00", target);
        _world.FromPod(probe).Is(PacketWorld.Ok, probe);
    }

    [Fact]
    public void A_question_in_another_pods_name_is_dropped() =>
        _world.FromPod(Arp(1, PacketWorld.PodMac, "ff:ff:ff:ff:ff:ff", Names.V4.OtherPod, "00:00:00:00:00:00", Names.V4.Host))
            .Dropped(DropReason.InvalidSource);

    [Theory]
    [InlineData("fd00:1::2", "fd00:1::1", PacketWorld.PodHostMac)]
    [InlineData("fd00:1::2", "fe80::1", PacketWorld.PodHostMac)]
    [InlineData("fe80::2", "fd00:1::1", PacketWorld.GatewayMac)]
    public void Every_solicitation_of_a_pod_is_answered(string asker, string target, string mac)
    {
        var question = Question(asker, target);
        var answer = Neighbour(136, mac, PacketWorld.PodMac, target, asker, target, 2, mac);

        _world.FromPod(question).Is(PacketWorld.Redirect, answer);
    }

    [Fact]
    public void A_solicitation_without_option_is_answered_with_one()
    {
        var (host, pod) = (Names.V6.Host, Names.V6.RemotePod);
        var question = Neighbour(135, PacketWorld.HostMac, "33:33:ff:00:00:05", host, pod, pod, 0, null);
        var answer = Neighbour(136, PacketWorld.GatewayMac, PacketWorld.HostMac, pod, host, pod, 2, PacketWorld.GatewayMac);

        _world.FromHost(question).Is(PacketWorld.Redirect, answer);
    }

    [Fact]
    public void Duplicate_address_detection_finds_no_duplicate()
    {
        var probe = Neighbour(135, PacketWorld.PodMac, "33:33:ff:00:00:02", "::", "ff02::1:ff00:2", Names.V6.Pod, 0, null);
        _world.FromPod(probe).Is(PacketWorld.Ok, probe);
    }

    [Fact]
    public void A_solicitation_from_beyond_the_link_or_in_another_pods_name_is_dropped()
    {
        var far = Question(Names.V6.Pod, Names.V6.Host);
        far[14 + 7] = 254;
        _world.FromPod(far).Dropped(DropReason.InvalidPacket);
        _world.FromPod(Question(Names.V6.OtherPod, Names.V6.Host)).Dropped(DropReason.InvalidSource);
    }

    internal static byte[] Arp(byte operation, string sourceMac, string destinationMac, string sender, string targetMac, string target) =>
    [
        .. Frame.Mac(destinationMac), .. Frame.Mac(sourceMac), 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, operation,
        .. Frame.Mac(sourceMac), .. IpAddr.Parse(sender).ToBytes(), .. Frame.Mac(targetMac), .. IpAddr.Parse(target).ToBytes(),
    ];

    /// <summary>The solicitation that a pod's stack sends.</summary>
    internal static byte[] Question(string asker, string target) =>
        Neighbour(135, PacketWorld.PodMac, "33:33:ff:00:00:01", asker, "ff02::1:ff00:1", target, 1, PacketWorld.PodMac);

    private static byte[] Neighbour(byte type, string sourceMac, string destinationMac, string source, string destination,
        string target, byte option, string? optionMac)
    {
        byte[] body =
        [
            type, 0, 0, 0, type == 136 ? (byte)0x60 : (byte)0, 0, 0, 0, .. IpAddr.Parse(target).ToBytes(),
            .. optionMac is null ? Array.Empty<byte>() : [option, 1, .. Frame.Mac(optionMac)],
        ];
        var checksum = Frame.InternetChecksum(
            Frame.PseudoHeader(IpAddr.Parse(source), IpAddr.Parse(destination), Frame.IcmpV6, body.Length), body);
        (body[2], body[3]) = ((byte)(checksum >> 8), (byte)checksum);
        return
        [
            .. Frame.Mac(destinationMac), .. Frame.Mac(sourceMac), 0x86, 0xdd, 6 << 4, 0, 0, 0, 0, (byte)body.Length, Frame.IcmpV6, 255,
            .. IpAddr.Parse(source).ToBytes(), .. IpAddr.Parse(destination).ToBytes(), .. body,
        ];
    }
}
