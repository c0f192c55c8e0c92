using CsCheck;
using Mesh.ControlPlane.LoadBalancing;
using Mesh.Datapath.LoadBalancing;
using Mesh.Datapath.Maps;
using Mesh.Model;
using static Mesh.Datapath.Tests.LoadBalancing.Rows;

namespace Mesh.Datapath.Tests.LoadBalancing;

/// <summary>A backend that leaves takes no flow along but its own.</summary>
public sealed class RepaintTests
{
    private const string Vip = "10.96.0.10:80/TCP";
    private const double Balance = 1.05;

    [Fact]
    public void Whoever_leaves_and_in_whatever_order_nobody_elses_entry_moves_and_shares_stay_even() =>
        Gen.Select(Gen.Int[2, 300], Gen.Int[0, int.MaxValue]).Sample((count, seed) =>
        {
            var random = new Random(seed);
            var present = Enumerable.Range(0, count).ToArray();
            var owners = Fresh(count).Select(index => present[index]).ToArray();
            while (present.Length > 1)
            {
                var staying = present.Where(_ => random.Next(4) > 0).ToArray();
                if (staying.Length == 0 || !Maglev.MayKeep(owners.Length, staying.Length))
                    return;
                var places = present.Select(one => Array.IndexOf(staying, one)).ToArray();
                var before = owners.Select(owner => (ushort)Array.IndexOf(present, owner)).ToArray();
                var after = new ushort[before.Length];
                Maglev.Repaint(before, places, staying.Length, after);

                var now = after.Select(index => staying[index]).ToArray();
                Assert.All(owners.Zip(now), pair => Assert.True(pair.First == pair.Second || !staying.Contains(pair.First)));
                var shares = now.CountBy(owner => owner).Select(pair => pair.Value).ToArray();
                Assert.Equal(staying.Length, shares.Length);
                Assert.InRange(shares.Max() - shares.Min(), 0, 1);
                Assert.InRange(shares.Max() * (double)staying.Length / now.Length, 1, Balance);
                (present, owners) = (staying, now);
            }
        }, iter: 60, threads: 1);

    [Fact]
    public void A_service_that_loses_backends_keeps_its_table_but_for_their_entries_also_after_a_restart()
    {
        using var node = new LbNode();
        Update(node, Enumerable.Range(1, 10));
        var before = Owners(node);
        Update(node, Enumerable.Range(1, 10).Where(i => i != 4));
        before = OnlyOf(before, Owners(node), "10.1.0.4");
        node.Restart();
        Update(node, [1, 2, 3, 5, 6, 7, 8, 9]);
        before = OnlyOf(before, Owners(node), "10.1.0.10");

        // One that comes back is an arrival: the table is the one that any other node would make.
        Update(node, Enumerable.Range(1, 9));
        Assert.Equal(Fresh(9), Segment(node).Table);
        Assert.NotEqual(before, Owners(node));
    }

    [Fact]
    public void States_that_change_together_move_nothing_and_a_departure_beside_them_only_its_own()
    {
        using var node = new LbNode();
        Update(node, Enumerable.Range(1, 10));
        Update(node, Enumerable.Range(2, 9));
        var before = Owners(node);
        var states = Enumerable.Range(2, 9).Select(Backend)
            .Select((backend, i) => i < 3 ? backend with { State = BackendState.Draining } : backend).ToArray();
        Assert.Empty(node.Update(Frontend(Vip, states)));
        Assert.Equal(before, Owners(node));
        Assert.Equal(3, Segment(node).Backends.Count(backend => backend.State == BackendState.Draining));

        Assert.Empty(node.Update(Frontend(Vip, states[..^1])));
        OnlyOf(before, Owners(node), "10.1.0.10");
    }

    [Fact]
    public void A_table_of_a_service_that_has_shrunk_far_is_made_anew_and_small()
    {
        using var node = new LbNode();
        Update(node, Enumerable.Range(1, 100));
        Assert.Equal(4093, Segment(node).TableSize);
        Update(node, Enumerable.Range(1, 10));
        Assert.Equal(Fresh(10), Segment(node).Table);

        // The largest that is kept for ten, with the header: 1.1 KB.
        Update(node, Enumerable.Range(1, 40));
        Update(node, Enumerable.Range(1, 10));
        Assert.Equal(1021, Segment(node).TableSize);
        Assert.InRange(Segment(node).TableSize + LbLimits.BlockBytes, 0, 1126);
    }

    /// <summary>A segment of another cluster is another table: nothing of it moves.</summary>
    [Fact]
    public void Each_cluster_has_a_table_of_its_own()
    {
        using var node = new LbNode();
        Backend[] near = [.. Enumerable.Range(1, 10).Select(Backend)];
        Backend[] far = [.. Enumerable.Range(1, 10).Select(i => Rows.Backend($"10.2.0.{i}:8080/TCP", 2))];
        Assert.Empty(node.Update(Frontend(Vip, [.. near, .. far])));
        var before = node.Reader.Frontends().Single().Segments;
        Assert.Empty(node.Update(Frontend(Vip, [.. near[1..], .. far])));
        var after = node.Reader.Frontends().Single().Segments;
        Assert.Equal(before[1].Table, after[1].Table);
        OnlyOf(Owners(before[0]), Owners(after[0]), "10.1.0.1");
    }

    private static void Update(LbNode node, IEnumerable<int> backends) => Assert.Empty(node.Update(Frontend(Vip, [.. backends.Select(Backend)])));

    private static Backend Backend(int i) => Rows.Backend($"10.1.0.{i}:8080/TCP", 1);

    private static PinnedSegment Segment(LbNode node) => node.Reader.Frontends().Single().Segments.Single();

    private static string[] Owners(LbNode node) => Owners(Segment(node));

    private static string[] Owners(PinnedSegment segment) => [.. segment.Table.Select(index => segment.Backends[index].Address.Address.ToString())];

    private static string[] OnlyOf(string[] before, string[] after, string gone)
    {
        Assert.All(before.Zip(after), pair => Assert.True(pair.First == pair.Second ^ pair.First == gone, $"{pair.First} → {pair.Second}"));
        return after;
    }

    private static ushort[] Fresh(int count)
    {
        var table = new ushort[Maglev.TableSize(count)];
        Maglev.Fill([.. Enumerable.Range(1, count).Select(i => new LbBackend
        {
            Address = MeshAddress.From(IpAddr.V4(0x0a010000u + (uint)i)),
            Port = BigEndianUInt16.FromHost(8080),
            Protocol = 6,
            Family = Family.IPv4,
        })], table);
        return table;
    }
}
