using Mesh.Datapath.Maps;
using Mesh.Model;

namespace Mesh.Datapath.Tests.Packets;

/// <summary>NodePorts, scopes, source ranges, session affinity: who is given which backend.</summary>
[Collection("packets")]
public sealed class ServiceKindPacketTests
{
    private const string OtherNode4 = "172.30.1.9";
    private const string OtherNode6 = "fd00:30::9";
    private readonly PacketWorld _world;

    public ServiceKindPacketTests(PacketWorld world)
    {
        _world = world;
        _world.Reset();
    }

    public static TheoryData<int, byte> FamiliesAndProtocols => new(
        from family in (int[])[4, 6] from protocol in (byte[])[Frame.Tcp, Frame.Udp] select (family, protocol));

    [Theory]
    [MemberData(nameof(FamiliesAndProtocols))]
    public void A_node_port_answers_on_every_node_of_the_cluster(int family, byte protocol)
    {
        var names = Names.Of(family);
        var other = family == 4 ? OtherNode4 : OtherNode6;
        _world.Tables.SetNodeAddress(names.Host, LbNodePlace.Here);
        _world.Tables.SetNodeAddress(other, LbNodePlace.Elsewhere);
        _world.Tables.Set(family == 4 ? "0.0.0.0" : "::", 30080, protocol, new Segment(2, 0, Backend.At(names.RemotePod, 8080)));

        foreach (var node in new[] { names.Host, other })
        {
            var sent = Frame.Between(names.Pod, node) with { Protocol = protocol, DestinationPort = 30080 };
            var translated = sent with { Destination = IpAddr.Parse(names.RemotePod), DestinationPort = 8080 };
            _world.FromPod(sent).Redirected(translated);
            var reply = translated.Reply();
            _world.FromTunnel(reply).Redirected(
                (reply with { Source = IpAddr.Parse(node), SourcePort = 30080 }).Delivered(PacketWorld.PodMac, PacketWorld.PodHostMac));
            _world.ForgetFlows();
        }
    }

    [Theory]
    [InlineData(4)]
    [InlineData(6)]
    public void A_node_port_is_not_on_other_addresses_nor_on_nodes_of_other_clusters(int family)
    {
        var names = Names.Of(family);
        _world.Tables.Set(family == 4 ? "0.0.0.0" : "::", 30080, Frame.Tcp, new Segment(2, 0, Backend.At(names.RemotePod, 8080)));
        var strange = Frame.Between(names.Pod, family == 4 ? OtherNode4 : OtherNode6) with { DestinationPort = 30080 };

        _world.FromPod(strange).PassedUp(strange);
        Assert.Equal(0, _world.Flows);
    }

    [Theory]
    [InlineData(29999, false)]
    [InlineData(30000, true)]
    [InlineData(32767, true)]
    [InlineData(32768, false)]
    public void Only_the_range_of_node_ports_is_looked_for(int port, bool served)
    {
        var names = Names.V4;
        _world.Tables.SetNodeAddress(OtherNode4, LbNodePlace.Elsewhere);
        _world.Tables.Set("0.0.0.0", port, Frame.Tcp, new Segment(2, 0, Backend.At(names.RemotePod, 8080)));

        Assert.Equal(served ? PacketWorld.Redirect : PacketWorld.Ok,
            _world.FromPod(Frame.Between(names.Pod, OtherNode4) with { DestinationPort = (ushort)port }).Verdict);
    }

    [Theory]
    [MemberData(nameof(FamiliesAndProtocols))]
    public void Clients_of_the_cluster_and_others_may_be_given_different_backends(int family, byte protocol)
    {
        var names = Names.Of(family);
        _world.Tables.Set(names.Virtual, 80, protocol,
            new Properties { Internal = [new Segment(2, 0, Backend.At(names.RemotePod, 8080))] },
            new Segment(1, 0, Backend.At(names.OtherPod, 8080)));
        var inside = Frame.Between(names.Pod, names.Virtual) with { Protocol = protocol };
        var outside = Frame.Between(names.Outside, names.Virtual) with { Protocol = protocol };

        _world.FromPod(inside).Redirected(inside with { Destination = IpAddr.Parse(names.RemotePod), DestinationPort = 8080 });
        _world.FromHost(outside).Redirected((outside with { Destination = IpAddr.Parse(names.OtherPod), DestinationPort = 8080 })
            .Delivered(PacketWorld.OtherPodMac, PacketWorld.OtherPodHostMac));
    }

    [Theory]
    [InlineData(4)]
    [InlineData(6)]
    public void Sources_outside_the_ranges_are_dropped_with_their_reason_and_the_cluster_is_not_asked(int family)
    {
        var names = Names.Of(family);
        var ranges = new Properties { SourceRanges = [family == 4 ? "192.0.2.0/24" : "2001:db8::/32"] };
        _world.Tables.Set(names.Virtual, 80, Frame.Tcp, ranges, new Segment(1, 0, Backend.At(names.OtherPod, 8080)));
        var welcome = Frame.Between(names.Outside, names.Virtual);
        var unwelcome = Frame.Between(family == 4 ? "198.51.100.1" : "2001:db9::1", names.Virtual);

        Assert.Equal(PacketWorld.Redirect, _world.FromHost(welcome).Verdict);
        _world.FromHost(unwelcome).Dropped(DropReason.NotInSourceRange);
        Assert.Equal(PacketWorld.Redirect, _world.FromPod(Frame.Between(names.Pod, names.Virtual)).Verdict);

        _world.Tables.Set(names.Virtual, 80, Frame.Tcp, new Segment(1, 0, Backend.At(names.OtherPod, 8080)));
        Assert.Equal(PacketWorld.Redirect, _world.FromHost(unwelcome).Verdict);
    }

    [Theory]
    [MemberData(nameof(FamiliesAndProtocols))]
    public void A_client_stays_with_its_backend_through_every_change_of_the_others(int family, byte protocol)
    {
        var names = Names.Of(family);
        Publish(family, protocol, Enumerable.Range(1, 20));
        var chosen = Choose(family, protocol, 0);
        Assert.All(Enumerable.Range(1, 40), port => Assert.Equal(chosen, Choose(family, protocol, port)));

        // Others come and go, and every slot changes.
        _world.ForgetFlows();
        Publish(family, protocol, Enumerable.Range(1, 40).Where(i => i == chosen || i % 3 != 0));
        Assert.All(Enumerable.Range(1, 40), port => Assert.Equal(chosen, Choose(family, protocol, port)));

        // Another client is none of its business.
        Assert.Contains(Enumerable.Range(1, 40), i => Choose(family, protocol, 1, names.Outside + (family == 4 ? "" : $":{i:x}"), i) != chosen);
    }

    [Theory]
    [InlineData(ServiceTables.Dead)]
    [InlineData(ServiceTables.Draining)]
    [InlineData(ServiceTables.Maintenance)]
    public void A_client_leaves_a_backend_that_takes_no_new_flows(byte state)
    {
        Publish(4, Frame.Tcp, Enumerable.Range(1, 5));
        var chosen = Choose(4, Frame.Tcp, 0);
        _world.Tables.SetState(Address(4, chosen), state);
        _world.ForgetFlows();

        var next = Choose(4, Frame.Tcp, 0);
        Assert.NotEqual(chosen, next);
        // And does not run back when it is well again: its sessions are elsewhere by now.
        _world.Tables.SetState(Address(4, chosen), ServiceTables.Active);
        _world.ForgetFlows();
        Assert.All(Enumerable.Range(1, 20), port => Assert.Equal(next, Choose(4, Frame.Tcp, port)));
    }

    [Fact]
    public void Silence_longer_than_the_timeout_ends_the_affinity()
    {
        Publish(4, Frame.Tcp, Enumerable.Range(1, 5));
        var chosen = Choose(4, Frame.Tcp, 0);
        // The tables would choose another now.
        Publish(4, Frame.Tcp, Enumerable.Range(1, 5).Select(i => i == chosen ? i : i + 10));
        Age(599);
        Assert.Equal(chosen, Choose(4, Frame.Tcp, 1));

        var others = Enumerable.Range(11, 200).Append(chosen).Order();
        Publish(4, Frame.Tcp, others);
        Age(602);
        Assert.NotEqual(chosen, Choose(4, Frame.Tcp, 2));
    }

    [Fact]
    public void With_all_draining_a_client_still_keeps_to_one()
    {
        Publish(4, Frame.Tcp, Enumerable.Range(1, 5));
        foreach (var i in Enumerable.Range(1, 5))
            _world.Tables.SetState(Address(4, i), ServiceTables.Draining);

        Assert.Single(Enumerable.Range(1, 30).Select(port => Choose(4, Frame.Tcp, port)).Distinct());
    }

    [Fact]
    public void Chance_spreads_what_the_hash_would_keep_together()
    {
        var backends = Enumerable.Range(1, 4).Select(i => Backend.At(Address(4, i), 8080)).ToArray();
        _world.Tables.Set(Names.V4.Virtual, 80, Frame.Tcp, new Properties { Random = true }, new Segment(3, 0, backends));
        var seen = new HashSet<int>();
        for (var i = 0; i < 60; i++)
        {
            _world.ForgetFlows();
            seen.Add(Choose(4, Frame.Tcp, 0));
        }
        Assert.Equal(4, seen.Count);

        _world.Tables.Set(Names.V4.Virtual, 80, Frame.Tcp, new Segment(3, 0, backends));
        seen.Clear();
        for (var i = 0; i < 10; i++)
        {
            _world.ForgetFlows();
            seen.Add(Choose(4, Frame.Tcp, 0));
        }
        Assert.Single(seen);
    }

    private void Publish(int family, byte protocol, IEnumerable<int> hosts) =>
        _world.Tables.Set(Names.Of(family).Virtual, 80, protocol, new Properties { AffinitySeconds = 600 },
            new Segment(3, 0, [.. hosts.Select(i => Backend.At(Address(family, i), 8080))]));

    private static string Address(int family, int host) => family == 4 ? $"10.3.0.{host}" : $"fd00:3::{host:x}";

    /// <summary>The host number of the backend that a new flow is sent to.</summary>
    private int Choose(int family, byte protocol, int flow, string? client = null, int other = 0)
    {
        var names = Names.Of(family);
        var frame = Frame.Between(names.Pod, names.Virtual) with { Protocol = protocol, SourcePort = (ushort)(20000 + flow) };
        if (client is not null)
            frame = frame with { Source = family == 4 ? IpAddr.Parse($"192.0.2.{other}") : IpAddr.Parse($"2001:db8::{other:x}") };
        var outcome = client is null ? _world.FromPod(frame) : _world.FromHost(frame);
        Assert.Equal(PacketWorld.Redirect, outcome.Verdict);
        return family == 4 ? outcome.Packet[Frame.EthernetHeader + 19] : outcome.Packet[Frame.EthernetHeader + 39];
    }

    private void Age(uint seconds)
    {
        _world.ForgetFlows();
        foreach (var (key, value) in _world.Tables.Affinity.Dump())
            _world.Tables.Affinity.Set(key, value with { LastUsed = value.LastUsed - seconds });
    }
}
