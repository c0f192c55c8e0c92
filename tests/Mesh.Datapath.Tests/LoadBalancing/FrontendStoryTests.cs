using Mesh.ControlPlane.LoadBalancing;
using Mesh.ControlPlane.RemoteClusters;
using Mesh.Datapath.LoadBalancing;
using Mesh.Datapath.Maps;
using Mesh.Model;
using static Mesh.Datapath.Tests.LoadBalancing.Rows;

namespace Mesh.Datapath.Tests.LoadBalancing;

public sealed class FrontendStoryTests : IDisposable
{
    private const string Vip = "10.96.0.10:80/TCP";

    private readonly LbNode _node = new();

    public void Dispose() => _node.Dispose();

    [Fact]
    public void A_service_of_three_clusters_stands_in_the_kernel_as_asked()
    {
        var errors = _node.Update(Frontend(Vip,
            Backend("10.1.0.1:8080/TCP"), Backend("10.1.0.2:8080/TCP"), Backend("10.2.0.1:8080/TCP", 2),
            Backend("10.3.0.1:8080/TCP", 3, tier: 1)));

        Assert.Empty(errors);
        Assert.Equal(
            "None | tier 0 cluster 1: 10.1.0.1:8080/TCP(Active) 10.1.0.2:8080/TCP(Active) | tier 0 cluster 2: 10.2.0.1:8080/TCP(Active)"
            + " | tier 1 cluster 3: 10.3.0.1:8080/TCP(Active)", _node.Read()[Address(Vip)]);
        Assert.Equal([1u, 2u, 3u], _node.Reader.ClustersUp());
    }

    [Fact]
    public void An_IPv6_service_stands_there_too()
    {
        var row = Frontend("[fd00:96::10]:53/UDP", Backend("[fd00:1::1]:53/UDP"), Backend("[fd00:2::1]:53/UDP", 2));

        Assert.Empty(_node.Update(row));
        Assert.Equal(LbNode.Text(row), _node.Read()[row.Address]);
        _node.Delete(row.Address);
        Assert.Empty(_node.Read());
    }

    [Fact]
    public void A_service_without_backends_is_there_to_be_refused()
    {
        _node.Update(Frontend(Vip));

        Assert.Empty(Assert.Single(_node.Reader.Frontends()).Segments);
    }

    [Fact]
    public void Two_tiers_with_the_same_backends_share_them_until_both_are_gone()
    {
        var id = _node.Store.AllocateId();
        var (blocks, slots) = (_node.Store.Blocks.Used, _node.Store.Slots.Used);
        LbBackend[] backends = [Encoded("10.1.0.1"), Encoded("10.1.0.2")];

        _node.Store.Commit(id, Plan(new(0, 2, backends, 10), new(1, 2, backends, 5)), isNew: true);

        var shared = _node.Store.Segments(_node.Kernel.Services.Observe(id));
        Assert.Equal((2, shared[0].BackendBase, shared[0].Table), (shared.Length, shared[1].BackendBase, shared[1].Table));
        Assert.Equal([(0, 10u), (1, 5u)], shared.Select(segment => ((int)segment.Tier, segment.Weight)));
        Assert.Equal(slots + 2, _node.Store.Slots.Used);

        _node.Store.Commit(id, Plan(new PlannedSegment(1, 2, backends, 5)), isNew: false);
        _node.Grace.Collect();
        Assert.Equal(shared[0].BackendBase, _node.Store.Segments(_node.Kernel.Services.Observe(id))[0].BackendBase);
        Assert.Equal(slots + 2, _node.Store.Slots.Used);

        _node.Store.Remove(id);
        _node.Grace.Collect();
        Assert.Equal((blocks, slots), (_node.Store.Blocks.Used, _node.Store.Slots.Used));

        static SegmentPlan Plan(params PlannedSegment[] segments) => new(LbServiceFlags.Present, default, segments);

        static LbBackend Encoded(string address) => new()
        {
            Address = MeshAddress.From(IpAddr.Parse(address)),
            Port = BigEndianUInt16.FromHost(80),
            ClusterId = 2,
            Family = Family.IPv4,
        };
    }

    [Fact]
    public void A_restart_adopts_backends_that_two_segments_share()
    {
        _node.Update(Frontend(Vip, Backend("10.2.0.1:8080/TCP", 2)));
        var id = _node.Reader.Frontends()[0].ServiceId;
        var first = _node.Store.Segments(_node.Kernel.Services.Observe(id))[0];
        var block = _node.Kernel.Services.Observe(id).Block;
        var used = (_node.Store.Blocks.Used, _node.Store.Slots.Used);
        // As another version of the agent may have left it: a second tier on the same backends.
        _node.Kernel.Arena[block + 1][0] = first with { Tier = 1 };
        _node.Kernel.Services.Publish(id, _node.Kernel.Services.Observe(id) with { Segments = 2 });
        _node.Store.Blocks.TryReserve(block + 1, 1);

        _node.Restart();

        Assert.Equal(1, _node.Operations.Count);
        Assert.Equal(2, _node.Reader.Frontends()[0].Segments.Count);
        _node.Delete(Address(Vip));
        _node.Grace.Collect();
        Assert.Equal((0u, 0u), (_node.Store.Blocks.Used, _node.Store.Slots.Used));
        Assert.NotEqual(used, (0u, 0u));
    }

    [Fact]
    public void Policies_that_differ_make_one_service_for_each_kind_of_client_and_the_same_ones_make_one_again()
    {
        var here = Backend("10.1.0.1:8080/TCP") with { IsHere = true };
        var elsewhere = Backend("10.1.0.2:8080/TCP");
        var row = Frontend(Vip, here, elsewhere) with { ExternalLocal = true, Type = ServiceType.NodePort };

        Assert.Empty(_node.Update(row));
        var frontends = _node.Reader.Frontends();
        Assert.Equal([(LbScope.External, 1, true), (LbScope.Internal, 2, false)],
            frontends.Select(frontend => (frontend.Scope!.Value, frontend.Segments[0].Backends.Count, frontend.IsLocalOnly)));
        Assert.All(frontends, frontend => Assert.Equal(ServiceType.NodePort, frontend.Type));

        _node.Restart();
        Assert.Empty(_node.Update(row with { InternalLocal = true }));
        _node.Grace.Collect();
        var one = Assert.Single(_node.Reader.Frontends());
        Assert.Equal((null, 1), (one.Scope, one.Segments[0].Backends.Count));

        Assert.Empty(_node.Update(row with { ExternalLocal = false }));
        Assert.Equal(2, Assert.Single(_node.Reader.Frontends()).Segments[0].Backends.Count);
        _node.Delete(Address(Vip));
        _node.Grace.Collect();
        Assert.Equal((0u, 0u, 0u), (_node.Store.Ids.Used, _node.Store.Blocks.Used, _node.Store.Slots.Used));
    }

    [Fact]
    public void A_policy_of_local_without_a_backend_here_serves_nobody()
    {
        _node.Update(Frontend(Vip, Backend("10.1.0.2:8080/TCP")) with { ExternalLocal = true });

        Assert.Equal([0, 1], _node.Reader.Frontends().Select(frontend => frontend.Segments.Count));
    }

    [Fact]
    public void All_frontends_of_a_service_share_its_backends_and_one_store_drains_one_for_all()
    {
        string[] addresses = [Vip, "0.0.0.0:30080/TCP", "192.0.2.80:80/TCP"];
        Frontend[] rows = [.. addresses.Select(address => Frontend(address, Backend("10.1.0.1:8080/TCP"), Backend("10.1.0.2:8080/TCP")))];
        Assert.Empty(_node.Update(rows));
        Assert.Equal(2u, _node.Store.Slots.Used);

        _node.Restart();
        Assert.Equal((3, 2u), (_node.Operations.Count, _node.Store.Slots.Used));
        Assert.Empty(_node.Update(rows));
        var stores = new List<string>();
        _node.Store.Failpoint = stores.Add;
        Assert.Empty(_node.Update([.. addresses.Select(address => Frontend(address, Backend("10.1.0.1:8080/TCP"),
            Backend("10.1.0.2:8080/TCP", state: BackendState.Draining)))]));
        Assert.Single(stores);
        Assert.All(_node.Reader.Frontends(), frontend => Assert.Equal(BackendState.Draining, frontend.Segments[0].Backends[1].State));

        _node.Store.Failpoint = null;
        _node.Delete([.. addresses.Select(Address)]);
        _node.Grace.Collect();
        Assert.Equal((0u, 0u), (_node.Store.Slots.Used, _node.Store.Blocks.Used));
    }

    [Fact]
    public void Source_ranges_change_with_the_service_and_leave_with_it()
    {
        var row = Frontend(Vip, Backend("10.1.0.1:8080/TCP")) with { SourceRanges = Ranges("192.0.2.0/24", "2001:db8::/32") };
        var twin = Frontend("10.96.0.11:80/TCP", Backend("10.1.0.1:8080/TCP")) with { SourceRanges = Ranges("192.0.2.0/24", "2001:db8::/32") };
        Assert.Empty(_node.Update(row, twin));
        Assert.Equal(2, Entries());

        Assert.Empty(_node.Update(row with { SourceRanges = Ranges("198.51.100.0/24") }));
        _node.Grace.Collect();
        Assert.Equal(["198.51.100.0/24", "192.0.2.0/24 2001:db8::/32"], _node.Reader.Frontends().Select(frontend => string.Join(' ', frontend.SourceRanges)));

        _node.Restart();
        Assert.Empty(_node.Update(row with { SourceRanges = Ranges("198.51.100.0/24") }, twin));
        _node.Delete(twin.Address);
        _node.Grace.Collect();
        Assert.Equal(1, Entries());
        _node.Update(row with { SourceRanges = default });
        _node.Grace.Collect();
        Assert.Equal(0, Entries());

        int Entries() => _node.Kernel.SourceRanges4.Dump().Count + _node.Kernel.SourceRanges6.Dump().Count;

        static EquatableArray<IpPrefix> Ranges(params string[] ranges) => new(ranges.Select(IpPrefix.Parse));
    }

    [Fact]
    public void Ranges_that_a_crash_left_without_a_service_are_pruned()
    {
        var row = Frontend(Vip, Backend("10.1.0.1:8080/TCP")) with { SourceRanges = new([IpPrefix.Parse("192.0.2.0/24")]) };
        _node.Kernel.SourceRanges4.Set(Lb4RangeKey.From(7, IpPrefix.Parse("203.0.113.0/24")), 1);
        _node.Restart();
        Assert.Empty(_node.Update(row));

        _node.Operations.Prune(new Dictionary<L3n4Addr, Frontend> { [row.Address] = row });
        _node.Grace.Collect();

        Assert.Equal(["192.0.2.0/24"], _node.Kernel.SourceRanges4.Dump().Select(entry => entry.Key.ToPrefix().ToString()));
    }

    [Fact]
    public void The_same_row_again_writes_nothing()
    {
        var row = Frontend(Vip, Backend("10.1.0.1:8080/TCP"), Backend("10.2.0.1:8080/TCP", 2));
        _node.Update(row);
        var before = _node.Bytes();
        var stores = 0;
        _node.Store.Failpoint = _ => stores++;

        _node.Update(row);
        _node.Restart();
        _node.Store.Failpoint = _ => stores++;
        _node.Update(row);

        Assert.Equal(0, stores);
        Assert.Equal(before, _node.Bytes());
    }

    [Fact]
    public void A_changed_cluster_leaves_the_other_segments_where_they_are()
    {
        _node.Update(Frontend(Vip, Backend("10.1.0.1:8080/TCP"), Backend("10.2.0.1:8080/TCP", 2)));
        var before = Assert.Single(_node.Reader.Frontends());

        _node.Update(Frontend(Vip, Backend("10.1.0.1:8080/TCP"), Backend("10.2.0.1:8080/TCP", 2), Backend("10.2.0.2:8080/TCP", 2)));
        var after = Assert.Single(_node.Reader.Frontends());

        Assert.Equal(before.ServiceId, after.ServiceId);
        Assert.Equal(before.Segments[0].Backends, after.Segments[0].Backends);
        Assert.NotEqual(before.Segments[1].Backends[0].Slot, after.Segments[1].Backends[0].Slot);
    }

    [Fact]
    public void One_backends_new_state_is_one_store_in_place()
    {
        _node.Update(Frontend(Vip, Backend("10.1.0.1:8080/TCP"), Backend("10.1.0.2:8080/TCP")));
        var before = Assert.Single(_node.Reader.Frontends());
        var stores = new List<string>();
        _node.Store.Failpoint = stores.Add;

        _node.Update(Frontend(Vip, Backend("10.1.0.1:8080/TCP"), Backend("10.1.0.2:8080/TCP", state: BackendState.Draining)));
        var after = Assert.Single(_node.Reader.Frontends());

        Assert.Equal([$"state of backend {before.Segments[0].Backends[1].Slot}"], stores);
        Assert.Equal(before.Generation, after.Generation);
        Assert.Equal(BackendState.Draining, after.Segments[0].Backends[1].State);
    }

    [Fact]
    public void Freed_places_wait_for_a_grace_period_before_they_are_used_again()
    {
        _node.Update(Frontend(Vip, Backend("10.1.0.1:8080/TCP")));
        var first = Slot();

        _node.Update(Frontend(Vip, Backend("10.1.0.2:8080/TCP")));
        var second = Slot();
        _node.Update(Frontend(Vip, Backend("10.1.0.3:8080/TCP")));
        var third = Slot();
        Assert.Equal(3, new[] { first, second, third }.Distinct().Count());
        Assert.True(_node.Grace.Collect() > 0);
        _node.Update(Frontend(Vip, Backend("10.1.0.4:8080/TCP")));

        Assert.Equal(first, Slot());

        uint Slot() => _node.Reader.Frontends()[0].Segments[0].Backends[0].Slot;
    }

    [Fact]
    public void A_full_map_fails_the_row_that_does_not_fit_and_no_other()
    {
        using var small = new LbNode(services: 4, blocks: 64, backends: 16);
        // Each takes 4 blocks of table and 1 of header; ids 1 to 3 are all there are.
        var rows = Enumerable.Range(1, 5).Select(i => Frontend($"10.96.0.{i}:80/TCP", Backend($"10.1.0.{i}:80/TCP"))).ToArray();

        var errors = small.Update(rows);

        Assert.Equal(
            ["map lb_services is full: 3 of 3 in use, 1 more in a row wanted", "map lb_services is full: 3 of 3 in use, 1 more in a row wanted"], errors);
        Assert.Equal(3, small.Read().Count);
        small.Delete(rows[0].Address);
        Assert.Empty(small.Update(rows[3]));
        Assert.Contains(rows[3].Address, small.Read().Keys);
    }

    [Fact]
    public void Too_many_backends_for_the_slots_are_refused_and_the_old_ones_stay()
    {
        using var small = new LbNode(services: 8, blocks: 256, backends: 8);
        var before = Frontend(Vip, Backend("10.1.0.1:80/TCP"));
        small.Update(before);

        var errors = small.Update(Frontend(Vip, [.. Enumerable.Range(1, 9).Select(i => Backend($"10.1.0.{i}:80/TCP"))]));

        Assert.Contains("map lb_backends is full", Assert.Single(errors));
        Assert.Equal(LbNode.Text(before), small.Read()[before.Address]);
        Assert.Equal(1u, small.Store.Slots.Used);
    }

    [Fact]
    public void More_than_255_backends_get_a_wide_table()
    {
        using var big = new LbNode(blocks: 2048);
        var row = Frontend(Vip, [.. Enumerable.Range(0, 300).Select(i => Backend($"10.1.{i / 250}.{i % 250 + 1}:80/TCP"))]);

        Assert.Empty(big.Update(row));
        Assert.Equal(LbNode.Text(row), big.Read()[row.Address]);
    }

    [Fact]
    public void A_backend_of_the_other_family_fails_its_row_in_words() =>
        Assert.Equal(["frontend 10.96.0.10:80/TCP: backend [fd00::1]:80/TCP is of the other IP family"],
            _node.Update(Frontend(Vip, Backend("[fd00::1]:80/TCP"))));

    [Fact]
    public void A_restart_adopts_without_changing_a_byte_and_prune_removes_what_nobody_wants()
    {
        var kept = Frontend(Vip, Backend("10.1.0.1:8080/TCP"), Backend("10.2.0.1:8080/TCP", 2));
        var left = Frontend("10.96.0.11:80/TCP", Backend("10.1.0.9:8080/TCP"));
        _node.Update(kept, left);
        var before = _node.Bytes();

        _node.Restart();

        Assert.Equal(before, _node.Bytes());
        Assert.Equal(2, _node.Operations.Count);
        Assert.Equal(1, _node.Operations.Prune(new Dictionary<L3n4Addr, Frontend> { [kept.Address] = kept }));
        Assert.Equal([kept.Address], _node.Read().Keys);
        _node.Grace.Collect();
        Assert.Equal(2u, _node.Store.Slots.Used);
    }

    [Fact]
    public void An_entry_removed_behind_our_back_is_put_back()
    {
        var row = Frontend(Vip, Backend("10.1.0.1:8080/TCP"));
        _node.Update(row);
        _node.Kernel.Services4.Remove(Mesh.Datapath.Maps.Lb4Key.From(row.Address));
        Assert.Empty(_node.Read());

        _node.Operations.Prune(new Dictionary<L3n4Addr, Frontend> { [row.Address] = row });

        Assert.Equal([row.Address], _node.Read().Keys);
    }

    [Fact]
    public void A_damaged_service_is_not_adopted_but_written_anew()
    {
        var row = Frontend(Vip, Backend("10.1.0.1:8080/TCP"));
        var other = Frontend("10.96.0.11:80/TCP", Backend("10.1.0.9:8080/TCP"));
        _node.Update(row, other);
        var id = _node.Reader.Frontends()[0].ServiceId;
        _node.Kernel.Services.Publish(id, _node.Kernel.Services.Observe(id) with { Block = 1_000_000 });

        _node.Restart();

        Assert.Equal(1, _node.Operations.Count);
        _node.Update(row);
        Assert.Equal(LbNode.Text(row), _node.Read()[row.Address]);
        Assert.Equal(LbNode.Text(other), _node.Read()[other.Address]);
    }

    [Fact]
    public void A_removed_cluster_goes_dark_by_one_bit_and_stays_dark_while_its_rows_leave()
    {
        _node.Update(Frontend(Vip, Backend("10.1.0.1:80/TCP"), Backend("10.2.0.1:80/TCP", 2)));
        Peer("osaka", 2, ready: true);

        _node.Clusters.Delete(["osaka"], (_, fault) => Assert.Fail(fault.Cause));
        _node.Update(Frontend("10.96.0.11:80/TCP", Backend("10.2.0.1:80/TCP", 2)));
        Assert.Equal([1u], _node.Reader.ClustersUp());

        Peer("osaka", 2, ready: true);
        Assert.Equal([1u, 2u], _node.Reader.ClustersUp());
    }

    [Fact]
    public void A_peer_that_is_merely_unreachable_keeps_its_bit_even_over_a_restart()
    {
        Peer("osaka", 2, ready: true);
        Peer("osaka", 0, ready: false);
        _node.Restart();
        var rows = new Dictionary<string, RemoteClusterRow> { ["osaka"] = new("osaka", 0, false, false, "connecting") };

        Assert.Equal(0, _node.Clusters.Prune(rows));
        Assert.Equal([1u, 2u], _node.Reader.ClustersUp());
        // The negative: once every peer has said its ID, a cluster that is none of them is left over.
        Assert.Equal(1, _node.Clusters.Prune(new Dictionary<string, RemoteClusterRow>()));
        Assert.Equal([1u], _node.Reader.ClustersUp());
    }

    private void Peer(string name, uint id, bool ready) =>
        _node.Clusters.Update(
            [KeyValuePair.Create(name, new RemoteClusterRow(name, id, ready, ready, ""))], (_, fault) => Assert.Fail(fault.Cause));
}
