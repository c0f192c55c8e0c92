using Mesh.Datapath.Maps;
using Mesh.Model;

namespace Mesh.Datapath.Tests.Packets;

/// <summary>pod_in attached to a real device: where redirected frames come out, and frames that a test run does not accept.</summary>
[Collection("packets")]
public sealed class LivePacketTests
{
    private readonly PacketWorld _world;

    public LivePacketTests(PacketWorld world)
    {
        _world = world;
        _world.Reset();
    }

    [Theory]
    [InlineData(4)]
    [InlineData(6)]
    public void An_encapsulated_packet_leaves_by_the_tunnel_interface(int family)
    {
        var names = Names.Of(family);
        _world.Tables.Set(names.Virtual, 80, Frame.Tcp, new Segment(2, 0, Backend.At(names.RemotePod, 8080)));
        var sent = Frame.Between(names.Pod, names.Virtual);
        var expected = (sent with { Destination = IpAddr.Parse(names.RemotePod), DestinationPort = 8080 }).Build();

        Assert.True(_world.SendLive(sent.Build(), arrivesOn: "other0", frame => frame.AsSpan().SequenceEqual(expected)));
    }

    [Fact]
    public void An_arp_answer_goes_back_where_the_question_came_from()
    {
        var question = NeighbourTests.Arp(1, PacketWorld.PodMac, "ff:ff:ff:ff:ff:ff", Names.V4.Pod, "00:00:00:00:00:00", Names.V4.Host);
        var answer = NeighbourTests.Arp(2, PacketWorld.PodHostMac, PacketWorld.PodMac, Names.V4.Host, PacketWorld.PodMac, Names.V4.Pod);

        Assert.True(_world.SendLive(question, arrivesOn: "pod0", frame => frame.AsSpan().SequenceEqual(answer)));
    }

    [Theory]
    [InlineData(4)]
    [InlineData(6)]
    public void A_frame_with_less_than_an_ip_header_is_dropped(int family)
    {
        var whole = Frame.Between(Names.Of(family).Pod, Names.Of(family).RemotePod).Build();
        for (var length = Frame.EthernetHeader; length < Frame.EthernetHeader + (family == 4 ? 20 : 40); length++)
        {
            var before = _world.Count(DropReason.InvalidPacket);
            _world.SendLive(whole[..length]);
            Assert.Equal(before + 1, _world.Count(DropReason.InvalidPacket));
        }
    }
}
