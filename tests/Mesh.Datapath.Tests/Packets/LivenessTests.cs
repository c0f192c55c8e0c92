using CsCheck;
using Mesh.Datapath.Maps;
using Mesh.Model;

namespace Mesh.Datapath.Tests.Packets;

/// <summary>What traffic has proved, and what choices and flows make of it.</summary>
[Collection("packets")]
public sealed class LivenessTests
{
    private const ulong Second = 1_000_000_000;
    private readonly PacketWorld _world;

    public LivenessTests(PacketWorld world)
    {
        _world = world;
        _world.Reset();
    }

    [Fact]
    public void One_store_takes_a_cluster_out_of_every_service()
    {
        SetThreeClusters();
        var before = Choices(300);
        Assert.Contains(before, choice => choice.Cluster == 2);

        _world.Tables.SetAlive(2, alive: false);

        foreach (var (was, now) in before.Zip(Choices(300)))
            if (was.Cluster == 2)
                Assert.NotEqual(2, now.Cluster);
            else
                Assert.Equal(was, now);
        _world.Tables.SetAlive(2, alive: true);
        Assert.Equal(before, Choices(300));
        Assert.Equal(0ul, _world.Tables.Failover[0].Panics);
    }

    [Fact]
    public void The_last_one_standing_is_used_dead_or_alive_and_counted()
    {
        SetThreeClusters();
        foreach (var cluster in new[] { 1u, 2u, 3u })
            _world.Tables.SetAlive(cluster, alive: false);
        Assert.Equal(3, Choices(300).Select(choice => choice.Cluster).Distinct().Count());
        Assert.Equal(300ul, _world.Tables.Failover[0].Panics);

        // What is not configured stays out, and so does what the tables call dead.
        _world.Tables.SetCluster(1, up: false);
        foreach (var i in Enumerable.Range(1, 4))
            _world.Tables.SetState($"10.3.3.{i}", ServiceTables.Dead);
        Assert.All(Choices(100), choice => Assert.Equal(2, choice.Cluster));
    }

    [Fact]
    public void A_drill_ends_by_itself()
    {
        SetThreeClusters();
        _world.Tables.Liveness[0].DrillUntilNs[2] = ServiceTables.MonotonicNs + 100 * Second;
        Assert.DoesNotContain(Choices(200), choice => choice.Cluster == 2);
        _world.Tables.Liveness[0].DrillUntilNs[2] = ServiceTables.MonotonicNs;
        Assert.Contains(Choices(200), choice => choice.Cluster == 2);
    }

    [Fact]
    public void A_cluster_on_its_way_back_takes_its_share_and_always_the_same_flows()
    {
        SetThreeClusters();
        var full = Choices(2000).Count(choice => choice.Cluster == 2);
        HashSet<int> taken = [];
        foreach (var share in new byte[] { 25, 64, 128, 200, 255 })
        {
            _world.Tables.Liveness[0].Ramp[2] = share;
            var now = Choices(2000).Select((choice, flow) => (choice.Cluster, flow)).Where(one => one.Cluster == 2)
                .Select(one => one.flow).ToHashSet();
            Assert.InRange(now.Count, full * share / 255 * 0.7, full * share / 255 * 1.3 + 5);
            Assert.Subset(now, taken);
            taken = now;
        }
    }

    [Fact]
    public void A_tier_whose_only_cluster_is_on_its_way_back_shares_with_the_next()
    {
        _world.Tables.Set(Names.V4.Virtual, 80, Frame.Tcp, new Segment(1, 0, Backend.At("10.3.1.1", 80)), new Segment(2, 1, Backend.At("10.3.2.1", 80)));
        _world.Tables.Liveness[0].Ramp[1] = 64;
        Assert.InRange(Choices(1000).Count(choice => choice.Cluster == 1), 180, 330);
    }

    [Theory]
    [InlineData(NodeState.Down)]
    [InlineData(NodeState.Silent)]
    public void A_silent_node_takes_its_backends_with_it(NodeState state)
    {
        SetThreeClusters();
        _world.Tables.Health[_world.Tables.SlotsOf("10.3.2.1").Single()].Node = 1;
        var before = Choices(500);
        Assert.Contains(before, choice => choice.Address == "10.3.2.1");

        _world.Tables.Nodes[1].State = state;

        foreach (var (was, now) in before.Zip(Choices(500)))
            if (was.Address == "10.3.2.1")
                Assert.NotEqual("10.3.2.1", now.Address);
            else
                Assert.Equal(was, now);
    }

    [Fact]
    public void Packets_sent_to_a_silent_node_by_name_still_go_there()
    {
        _world.Tables.Nodes[1].State = NodeState.Silent;
        Assert.Equal(PacketWorld.Redirect, _world.FromPod(Frame.Between(Names.V4.Pod, Names.V4.RemotePod)).Verdict);
        // The control: one that was taken out is another matter.
        _world.Tables.Nodes[1].State = NodeState.Down;
        _world.FromPod(Frame.Between(Names.V4.Pod, Names.V4.RemotePod)).Dropped(DropReason.NodeDown);
    }

    [Fact]
    public void An_ejected_backend_is_left_alone_until_its_time_is_over()
    {
        SetThreeClusters();
        var slot = _world.Tables.SlotsOf("10.3.2.1").Single();
        var now = (uint)(ServiceTables.MonotonicNs / 1_000_000);
        _world.Tables.Health[slot].EjectedUntilMs = now + 100_000;
        Assert.DoesNotContain(Choices(500), choice => choice.Address == "10.3.2.1");
        _world.Tables.Health[slot].EjectedUntilMs = now;
        Assert.Contains(Choices(500), choice => choice.Address == "10.3.2.1");
    }

    [Fact]
    public void An_established_flow_to_a_lost_cluster_gets_another_backend_which_will_reset_it()
    {
        SetThreeClusters();
        var first = FlowTo(2);
        var later = first with { TcpFlags = Frame.Ack };
        Assert.Equal(2, ClusterOf(_world.FromPod(later)));

        // A drill only keeps new flows away.
        _world.Tables.Liveness[0].DrillUntilNs[2] = ServiceTables.MonotonicNs + 100 * Second;
        Assert.Equal(2, ClusterOf(_world.FromPod(later)));
        Assert.NotEqual(2, ClusterOf(_world.FromPod(first with { SourcePort = 9 })));
        _world.Tables.Liveness[0].DrillUntilNs[2] = 0;

        _world.Tables.SetAlive(2, alive: false);
        Assert.NotEqual(2, ClusterOf(_world.FromPod(later)));
        Assert.Equal(1ul, _world.Tables.Failover[0].Repicked);
    }

    [Fact]
    public void An_established_flow_stays_when_there_is_nowhere_else_to_go()
    {
        _world.Tables.Set(Names.V4.Virtual, 80, Frame.Tcp, new Segment(2, 0, Backend.At("10.3.2.1", 80), Backend.At("10.3.2.2", 80)));
        var first = Frame.Between(Names.V4.Pod, Names.V4.Virtual) with { TcpFlags = Frame.Syn };
        var address = AddressOf(_world.FromPod(first));
        _world.Tables.SetAlive(2, alive: false);
        Assert.Equal(address, AddressOf(_world.FromPod(first with { TcpFlags = Frame.Ack })));
        Assert.Equal(0ul, _world.Tables.Failover[0].Repicked);
    }

    [Fact]
    public void The_programs_choose_what_the_model_chooses_whatever_is_proved()
    {
        var segment = Gen.Select(Gen.Int[1, 511], Gen.Int[0, 2], Gen.Int[1, 12], Gen.Byte);
        var sample = Gen.Select(segment.Array[1, 10], Gen.Int[0, 63], Gen.Int[0, 63], Gen.Int[0, 4095], Gen.UInt);
        sample.Sample((segments, dead, drilled, ejected, seed) =>
        {
            _world.Reset();
            var number = 1;
            Backend Next() => Backend.At($"10.3.{number / 200}.{number++ % 200 + 1}", 8080);
            var written = segments.OrderBy(one => one.Item2).Select(one =>
                new Segment((ushort)one.Item1, (byte)one.Item2, [.. Enumerable.Range(0, one.Item3).Select(_ => Next())])).ToArray();
            _world.Tables.Set(Names.V4.Virtual, 80, Frame.Udp, written);
            for (var i = 0; i < segments.Length; i++)
            {
                var cluster = segments[i].Item1;
                _world.Tables.SetAlive((uint)cluster, (dead >> i % 6 & 1) == 0);
                _world.Tables.Liveness[0].DrillUntilNs[cluster] = (drilled >> i % 6 & 1) != 0 ? ulong.MaxValue : 0;
                _world.Tables.Liveness[0].Ramp[cluster] = segments[i].Item4;
            }
            for (var slot = 1u; slot < number; slot++)
                _world.Tables.Health[slot] = new LbBackendHealth
                {
                    EjectedUntilMs = (ejected >> (int)(slot % 12) & 1) != 0 ? (uint)(ServiceTables.MonotonicNs / 1_000_000) + 1_000_000 : 0,
                    Node = (ushort)(slot % 3),
                };
            _world.Tables.Nodes[1].State = (NodeState)(seed % 3);
            for (var flow = 0; flow < 8; flow++)
            {
                var sent = Frame.Between(Names.V4.Pod, Names.V4.Virtual) with { Protocol = Frame.Udp, SourcePort = (ushort)(seed >> flow) };
                var expected = _world.Tables.Expect(sent)!;
                Assert.Equal(expected.Address.ToString(), AddressOf(_world.FromPodUncounted(sent)));
                _world.ForgetFlows();
            }
        }, iter: 100, threads: 1);
    }

    private void SetThreeClusters() =>
        _world.Tables.Set(Names.V4.Virtual, 80, Frame.Tcp, [.. Enumerable.Range(1, 3).Select(cluster =>
            new Segment((ushort)cluster, 0, [.. Enumerable.Range(1, 4).Select(i => Backend.At($"10.3.{cluster}.{i}", 8080))]))]);

    /// <summary>The first packet of a connection that has gone to this cluster.</summary>
    private Frame FlowTo(int cluster)
    {
        for (ushort port = 20000; ; port++)
            if (Frame.Between(Names.V4.Pod, Names.V4.Virtual) with { SourcePort = port, TcpFlags = Frame.Syn } is var frame
                && ClusterOf(_world.FromPod(frame)) == cluster)
                return frame;
    }

    private static string AddressOf(Outcome outcome)
    {
        Assert.Equal(PacketWorld.Redirect, outcome.Verdict);
        return IpAddr.FromBytes(outcome.Packet.AsSpan(Frame.EthernetHeader + 16, 4)).ToString();
    }

    private static int ClusterOf(Outcome outcome) => int.Parse(AddressOf(outcome).Split('.')[2], System.Globalization.CultureInfo.InvariantCulture);

    private List<(int Cluster, string Address)> Choices(int flows)
    {
        _world.ForgetFlows();
        var choices = Enumerable.Range(0, flows).Select(flow => AddressOf(
            _world.FromPodUncounted(Frame.Between(Names.V4.Pod, Names.V4.Virtual) with { SourcePort = (ushort)(10000 + flow) })))
            .Select(address => (int.Parse(address.Split('.')[2], System.Globalization.CultureInfo.InvariantCulture), address)).ToList();
        _world.ForgetFlows();
        return choices;
    }
}
