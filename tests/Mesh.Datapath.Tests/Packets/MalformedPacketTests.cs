using CsCheck;
using Mesh.Datapath.Maps;

namespace Mesh.Datapath.Tests.Packets;

/// <summary>Packets that no honest stack sends: refused for their reason, unchanged, and never a surprise.</summary>
[Collection("packets")]
public sealed class MalformedPacketTests
{
    private readonly PacketWorld _world;

    public MalformedPacketTests(PacketWorld world)
    {
        _world = world;
        _world.Reset();
        foreach (var names in new[] { Names.V4, Names.V6 })
            foreach (var protocol in new[] { Frame.Tcp, Frame.Udp, Frame.Sctp })
                _world.Tables.Set(names.Virtual, 80, protocol, new Segment(2, 0, Backend.At(names.RemotePod, 80)));
    }

    public static TheoryData<string> Kinds => [.. Samples.Keys];

    private static Dictionary<string, byte[]> Samples { get; } = new()
    {
        ["tcp4"] = (Frame.Between(Names.V4.Pod, Names.V4.Virtual)).Build(),
        ["udp4"] = (Frame.Between(Names.V4.Pod, Names.V4.Virtual) with { Protocol = Frame.Udp }).Build(),
        ["sctp4"] = (Frame.Between(Names.V4.Pod, Names.V4.Virtual) with { Protocol = Frame.Sctp }).Build(),
        ["icmp4"] = (Frame.Between(Names.V4.Pod, Names.V4.OtherPod) with { Protocol = Frame.Icmp }).Build(),
        ["options4"] = (Frame.Between(Names.V4.Pod, Names.V4.Virtual) with { OptionBytes = 24 }).Build(),
        ["fragment4"] = (Frame.Between(Names.V4.Pod, Names.V4.RemotePod) with { Fragment = (64, true, 9) }).Build(),
        ["tcp6"] = (Frame.Between(Names.V6.Pod, Names.V6.Virtual)).Build(),
        ["udp6"] = (Frame.Between(Names.V6.Pod, Names.V6.Virtual) with { Protocol = Frame.Udp }).Build(),
        ["icmp6"] = (Frame.Between(Names.V6.Pod, Names.V6.OtherPod) with { Protocol = Frame.IcmpV6 }).Build(),
        ["extensions6"] = (Frame.Between(Names.V6.Pod, Names.V6.Virtual) with { Extensions = [0, 60, 43] }).Build(),
        ["fragment6"] = (Frame.Between(Names.V6.Pod, Names.V6.RemotePod) with { Fragment = (0, true, 9), Extensions = [0] }).Build(),
        ["arp"] = NeighbourTests.Arp(1, PacketWorld.PodMac, "ff:ff:ff:ff:ff:ff", Names.V4.Pod, "00:00:00:00:00:00", Names.V4.Host),
        ["solicitation"] = NeighbourTests.Question(Names.V6.Pod, Names.V6.Host),
    };

    [Theory]
    [MemberData(nameof(Kinds))]
    public void A_packet_cut_at_any_byte_is_dropped_and_unchanged(string kind)
    {
        var whole = Samples[kind];
        Assert.NotEqual(PacketWorld.Shot, _world.FromPod(whole).Verdict);
        for (var length = ShortestRunnable(whole); length < whole.Length; length++)
        {
            var cut = whole[..length];
            foreach (var outcome in kind is "arp" ? [_world.FromPod(cut)] : new[] { _world.FromPod(cut), _world.FromTunnel(cut) })
            {
                outcome.Dropped(DropReason.InvalidPacket);
                Assert.Equal(cut, outcome.Packet);
            }
        }
    }

    /// <summary>The kernel runs no test on an IP frame without a whole IP header; LivePacketTests send such frames instead.</summary>
    private static int ShortestRunnable(byte[] frame) => Frame.EthernetHeader + (frame[12], frame[13]) switch
    {
        (0x08, 0x00) => 20,
        (0x86, 0xdd) => 40,
        _ => 0,
    };

    [Theory]
    [MemberData(nameof(Kinds))]
    public void Ethernet_padding_behind_a_packet_changes_nothing(string kind)
    {
        var whole = Samples[kind];
        var plain = _world.FromPod(whole);
        _world.ForgetFlows();
        var padded = _world.FromPod([.. whole, .. new byte[18]]);

        Assert.Equal((plain.Verdict, plain.Reason), (padded.Verdict, padded.Reason));
        Assert.Equal(plain.Packet, padded.Packet[..plain.Packet.Length]);
    }

    [Theory]
    [InlineData(14, 0x65, "version 6 in an IPv4 frame")]
    [InlineData(14, 0x44, "header of 16 bytes")]
    [InlineData(14, 0x4f, "header longer than the packet")]
    [InlineData(16, 0xff, "total length longer than the frame")]
    [InlineData(46, 0x40, "TCP header of 16 bytes")]
    [InlineData(46, 0xf0, "TCP header longer than the packet")]
    public void A_lying_ipv4_length_is_dropped(int offset, byte value, string what)
    {
        var frame = (Frame.Between(Names.V4.Pod, Names.V4.Virtual) with { PayloadLength = 10 }).Build();
        frame[offset] = value;
        var outcome = _world.FromPod(frame);
        Assert.True((outcome.Verdict, outcome.Reason) == (PacketWorld.Shot, DropReason.InvalidPacket), what);
        Assert.Equal(frame, outcome.Packet);
    }

    [Fact]
    public void A_total_length_shorter_than_the_headers_is_dropped()
    {
        foreach (var length in new byte[] { 0, 19, 20, 39 })
        {
            var frame = Frame.Between(Names.V4.Pod, Names.V4.Virtual).Build();
            frame[17] = length;
            _world.FromPod(frame).Dropped(DropReason.InvalidPacket);
        }
    }

    [Fact]
    public void A_chain_of_extension_headers_has_an_end()
    {
        var sent = Frame.Between(Names.V6.Pod, Names.V6.Virtual) with { Extensions = [.. Enumerable.Repeat((byte)60, 8)] };
        Assert.Equal(PacketWorld.Redirect, _world.FromPod(sent).Verdict);
        _world.FromPod(sent with { Extensions = [60, .. sent.Extensions] }).Dropped(DropReason.InvalidPacket);
    }

    [Fact]
    public void An_extension_header_longer_than_the_packet_is_dropped()
    {
        var frame = (Frame.Between(Names.V6.Pod, Names.V6.Virtual) with { Extensions = [60] }).Build();
        frame[14 + 40 + 1] = 200;
        _world.FromPod(frame).Dropped(DropReason.InvalidPacket);
    }

    [Fact]
    public void Noise_gets_a_verdict_and_one_count()
    {
        var samples = Samples.Values.ToArray();
        var damaged = Gen.Select(Gen.Int[0, samples.Length - 1], Gen.Select(Gen.Int[12, 120], Gen.Byte).Array[1, 6], Gen.Int[14, 140]);

        damaged.Sample((which, changes, length) =>
        {
            var frame = samples[which].ToArray();
            foreach (var (offset, value) in changes)
                if (offset < frame.Length)
                    frame[offset] = value;
            frame = frame[..Math.Clamp(length, ShortestRunnable(frame), frame.Length)];
            foreach (var outcome in new[] { _world.FromPod(frame), _world.FromTunnel(frame) })
            {
                Assert.Contains(outcome.Verdict, new[] { PacketWorld.Ok, PacketWorld.Shot, PacketWorld.Redirect });
                if (outcome.Verdict == PacketWorld.Shot)
                    Assert.NotEqual(DropReason.Forwarded, outcome.Reason);
            }
        }, iter: 2000, threads: 1);
    }
}
