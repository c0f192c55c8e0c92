using CsCheck;
using Mesh.Datapath.Maps;
using Mesh.Model;

namespace Mesh.Datapath.Tests.Packets;

/// <summary>Which backend a new flow gets: always the one that the model names, and what that means for people.</summary>
[Collection("packets")]
public sealed class SelectionTests
{
    private readonly PacketWorld _world;

    public SelectionTests(PacketWorld world)
    {
        _world = world;
        _world.Reset();
    }

    [Fact]
    public void Shares_follow_the_number_of_backends_of_each_cluster()
    {
        SetThreeClusters();
        var counts = Choices(3000).GroupBy(choice => choice.Cluster).ToDictionary(group => group.Key, group => group.Count());

        Assert.InRange(counts[1], 850, 1150);
        Assert.InRange(counts[2], 850, 1150);
        Assert.InRange(counts[3], 850, 1150);
    }

    [Fact]
    public void Shares_follow_weights_where_there_are_any()
    {
        _world.Tables.Set(Names.V4.Virtual, 80, Frame.Tcp,
            new Segment(1, 0, Backend.At("10.3.1.1", 80)) { Weight = 90 },
            new Segment(2, 0, [.. Enumerable.Range(1, 10).Select(i => Backend.At($"10.3.2.{i}", 80))]));

        var counts = Choices(2000).GroupBy(choice => choice.Cluster).ToDictionary(group => group.Key, group => group.Count());

        Assert.InRange(counts[1], 1740, 1860);
        Assert.Equal(10, Choices(2000).Where(choice => choice.Cluster == 2).Distinct().Count());
    }

    [Fact]
    public void A_cluster_that_goes_down_moves_only_its_own_flows()
    {
        SetThreeClusters();
        var before = Choices(1000);

        _world.Tables.SetCluster(2, up: false);
        _world.ForgetFlows();
        var after = Choices(1000);

        foreach (var (was, now) in before.Zip(after))
        {
            Assert.NotEqual(2, now.Cluster);
            if (was.Cluster != 2)
                Assert.Equal(was, now);
        }
        Assert.Contains(before.Zip(after), pair => pair.First.Cluster == 2 && pair.Second.Cluster == 1);
        Assert.Contains(before.Zip(after), pair => pair.First.Cluster == 2 && pair.Second.Cluster == 3);
    }

    [Theory]
    [InlineData(ServiceTables.Dead)]
    [InlineData(ServiceTables.Draining)]
    [InlineData(ServiceTables.Maintenance)]
    public void A_backend_that_leaves_moves_only_its_own_flows(byte state)
    {
        SetThreeClusters();
        var before = Choices(600);

        _world.Tables.SetState("10.3.2.1", state);
        _world.ForgetFlows();

        foreach (var (was, now) in before.Zip(Choices(600)))
            if (was.Address == "10.3.2.1")
                Assert.NotEqual("10.3.2.1", now.Address);
            else
                Assert.Equal(was, now);
    }

    [Fact]
    public void A_node_that_is_down_takes_its_backends_with_it()
    {
        _world.Tables.Set(Names.V4.Virtual, 80, Frame.Tcp,
            new Segment(2, 0, Backend.At("10.3.2.1", 8080) with { Node = 1 }, Backend.At("10.3.2.2", 8080)));
        Assert.Equal(2, Choices(50).Distinct().Count());

        _world.Tables.Nodes[1].State = NodeState.Down;
        _world.ForgetFlows();

        Assert.All(Choices(50), choice => Assert.Equal("10.3.2.2", choice.Address));
    }

    [Fact]
    public void A_later_tier_is_used_only_when_no_earlier_one_lives()
    {
        _world.Tables.Set(Names.V4.Virtual, 80, Frame.Tcp, new Segment(1, 0, Backend.At("10.3.1.1", 80), Backend.At("10.3.1.2", 80)),
            new Segment(2, 1, Backend.At("10.3.2.1", 80)), new Segment(3, 1, Backend.At("10.3.3.1", 80)));
        Assert.All(Choices(100), choice => Assert.Equal(1, choice.Cluster));

        _world.Tables.SetState("10.3.1.1", ServiceTables.Draining);
        _world.Tables.SetState("10.3.1.2", ServiceTables.Dead);
        _world.ForgetFlows();
        Assert.Equal([2, 3], Choices(100).Select(choice => choice.Cluster).Distinct().Order());

        _world.Tables.SetCluster(2, up: false);
        _world.Tables.SetCluster(3, up: false);
        _world.ForgetFlows();
        Assert.All(Choices(100), choice => Assert.Equal("10.3.1.1", choice.Address));
    }

    [Fact]
    public void The_last_live_backend_is_found_among_many_dead()
    {
        var backends = Enumerable.Range(1, 60).Select(i => Backend.At($"10.3.9.{i}", 80) with { State = ServiceTables.Dead }).ToArray();
        backends[37] = backends[37] with { State = ServiceTables.Active };
        _world.Tables.Set(Names.V4.Virtual, 80, Frame.Tcp, new Segment(1, 0, backends[..20]), new Segment(2, 0, backends[20..]));

        Assert.All(Choices(100), choice => Assert.Equal("10.3.9.38", choice.Address));
    }

    [Fact]
    public void A_wide_table_reaches_backends_beyond_255()
    {
        var backends = Enumerable.Range(0, 600).Select(i => Backend.At($"10.3.{i / 200}.{i % 200 + 1}", 80)).ToArray();
        _world.Tables.Set(Names.V4.Virtual, 80, Frame.Tcp, new Segment(2, 0, backends) { Wide = true, TableSize = 6007 });

        Assert.Contains(Choices(300), choice => choice.Address.StartsWith("10.3.2.", StringComparison.Ordinal));
    }

    [Fact]
    public void A_corrupt_table_is_survived()
    {
        var id = _world.Tables.Set(Names.V4.Virtual, 80, Frame.Tcp, new Segment(2, 0, Backend.At("10.3.2.1", 80)));
        var good = _world.Tables.Services.Observe(id);
        var sent = Frame.Between(Names.V4.Pod, Names.V4.Virtual);

        _world.Tables.Services.Publish(id, good with { Block = uint.MaxValue });
        _world.FromPod(sent).Dropped(DropReason.NoServiceBackend);
        _world.Tables.Services.Publish(id, good with { Segments = 255 });
        Assert.Equal(PacketWorld.Redirect, _world.FromPod(sent).Verdict);
        _world.ForgetFlows();
        _world.Tables.Services.Publish(id, good);
        _world.Tables.Arena[good.Block][1].TableSize = 0;
        _world.Tables.Arena[good.Block][1].BackendBase = 600_000;
        _world.FromPod(sent).Dropped(DropReason.NoServiceBackend);
    }

    [Fact]
    public void The_programs_choose_what_the_model_chooses()
    {
        var state = Gen.Frequency((5, Gen.Const(ServiceTables.Active)), (2, Gen.Const(ServiceTables.Dead)),
            (1, Gen.Const(ServiceTables.Draining)), (1, Gen.Const(ServiceTables.Maintenance)));
        var segment = Gen.Select(Gen.Int[1, 511], Gen.Int[0, 2], state.Array[1, 20], Gen.Bool, Gen.OneOf(Gen.Const(0u), Gen.UInt[1, 400]));
        var sample = Gen.Select(segment.Array[0, 12], Gen.Int[0, 511].Array[0, 6], Gen.Bool, Gen.Bool, Gen.UInt);

        sample.Sample((segments, down, v6, udp, seed) =>
        {
            _world.Reset();
            var names = Names.Of(v6 ? 6 : 4);
            var protocol = udp ? Frame.Udp : Frame.Tcp;
            var number = 1;
            Backend Next(byte state) =>
                Backend.At(v6 ? $"fd00:3::{number++:x}" : $"10.3.{number / 200}.{number++ % 200 + 1}", 8080) with { State = state };
            var written = segments.OrderBy(one => one.Item2).Select(one =>
                new Segment((ushort)one.Item1, (byte)one.Item2, [.. one.Item3.Select(Next)]) { Wide = one.Item4, Weight = one.Item5 }).ToArray();
            _world.Tables.Set(names.Virtual, 80, protocol, written);
            foreach (var cluster in down.Concat(segments.Take(down.Length / 2).Select(one => one.Item1)))
                _world.Tables.SetCluster(cluster, up: false);
            for (var flow = 0; flow < 8; flow++)
            {
                var sent = Frame.Between(names.Pod, names.Virtual) with { Protocol = protocol, SourcePort = (ushort)(seed >> flow) };
                var expected = _world.Tables.Expect(sent);
                var outcome = _world.FromPod(sent);
                if (expected is null)
                    outcome.Dropped(DropReason.NoServiceBackend);
                else
                    outcome.Redirected(sent with { Destination = expected.Address, DestinationPort = expected.Port });
                _world.ForgetFlows();
            }
        }, iter: 150, threads: 1);
    }

    private void SetThreeClusters() =>
        _world.Tables.Set(Names.V4.Virtual, 80, Frame.Tcp, [.. Enumerable.Range(1, 3).Select(cluster =>
            new Segment((ushort)cluster, 0, [.. Enumerable.Range(1, 4).Select(i => Backend.At($"10.3.{cluster}.{i}", 8080))]))]);

    /// <summary>Where new connections from ports 10000 on go.</summary>
    private List<(int Cluster, string Address)> Choices(int flows) => [.. Enumerable.Range(0, flows).Select(flow =>
    {
        var outcome = _world.FromPodUncounted(Frame.Between(Names.V4.Pod, Names.V4.Virtual) with { SourcePort = (ushort)(10000 + flow) });
        Assert.Equal(PacketWorld.Redirect, outcome.Verdict);
        var address = outcome.Packet.AsSpan(Frame.EthernetHeader + 16, 4);
        return ((int)address[2], IpAddr.FromBytes(address).ToString());
    })];
}
