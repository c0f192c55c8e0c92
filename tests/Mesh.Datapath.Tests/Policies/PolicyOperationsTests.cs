using System.Runtime.CompilerServices;
using Mesh.Bpf;
using Mesh.Datapath.LoadBalancing;
using Mesh.Datapath.Maps;
using Mesh.Datapath.Policies;
using Mesh.Model;
using Mesh.Policy;
using Mesh.StateDB.Reconciler;

namespace Mesh.Datapath.Tests.Policies;

/// <summary>Rows of the policies table on real maps: what reaches the kernel, in which order, and what stays when it refuses.</summary>
public sealed class PolicyOperationsTests : IDisposable
{
    private const uint Set = 10;
    private const uint NextSet = 11;
    private const ushort Endpoint = 5;

    private readonly BpfFileSystem _files = new();
    private readonly GracePeriod _grace = new();
    private PolicyMaps _maps;
    private PolicyOperations _operations;

    public PolicyOperationsTests()
    {
        Make<uint, PolicyEndpointValue>("policy_endpoints", MapInfo.TypeArray, 64, MapInfo.FlagMmapable);
        Make<PolicyRowKey, PolicyRowValue>("policy_rows", MapInfo.TypeHash, 8);
        Make<uint, PolicyRangeValue>("policy_ranges", MapInfo.TypeArray, 16, MapInfo.FlagMmapable);
        Make<uint, PolicyCounterValue>("policy_counters", MapInfo.TypePerCpuArray, 16);
        (_maps, _operations) = Open();
    }

    public void Dispose()
    {
        _operations.Dispose();
        _maps.Dispose();
        _grace.Dispose();
        _files.Dispose();
    }

    [Fact]
    public void A_set_that_does_not_fit_is_not_put_in_force_and_the_one_before_stays()
    {
        Update((PolicyKey.Verdict(Set, 0), Deny), (PolicyKey.Endpoint(Endpoint), Word(Set)));
        var faults = new List<string>();
        Update(faults, [.. Enumerable.Range(0, 20).Select(i => (PolicyKey.Verdict(NextSet, (uint)i), Allow)), (PolicyKey.Endpoint(Endpoint), Word(NextSet))]);

        Assert.Contains(faults, fault => fault.StartsWith("endpoint 5: the verdict of set 11", StringComparison.Ordinal));
        Assert.Contains(faults, fault => fault.Contains("policy_rows", StringComparison.Ordinal));
        Assert.Equal(Set, _maps.Word(Endpoint).Ingress);
        Assert.False(_maps.Find(Set, 77)!.Row.At(6, 80).Allowed);

        // The set before may be withdrawn in the table; while it is in force it stays.
        _operations.Delete([PolicyKey.Verdict(Set, 0)], Fail);
        _operations.Collect();
        Assert.NotNull(_maps.Find(Set, 77));
    }

    [Fact]
    public void What_is_withdrawn_leaves_after_the_word_has_changed()
    {
        Update((PolicyKey.Verdict(Set, 0), Deny), (PolicyKey.Verdict(Set, 9), Ports), (PolicyKey.Endpoint(Endpoint), Word(Set)));
        // As the reconciler has it: deletions first.
        _operations.Delete([PolicyKey.Verdict(Set, 0), PolicyKey.Verdict(Set, 9)], Fail);
        Assert.Equal(2, _maps.Verdicts().Count);
        Update((PolicyKey.Verdict(NextSet, 0), Allow), (PolicyKey.Endpoint(Endpoint), Word(NextSet)));
        Assert.Equal(NextSet, _maps.Word(Endpoint).Ingress);

        _operations.Collect();
        Assert.Equal([NextSet], _maps.Verdicts().Select(row => row.Set));
        _grace.Collect();
        Assert.Equal(0u, _operations.Allocator.Used);
    }

    [Fact]
    public void Rows_that_say_the_same_share_their_ranges_and_give_them_back()
    {
        Update((PolicyKey.Verdict(Set, 1), Ports), (PolicyKey.Verdict(Set, 2), Ports), (PolicyKey.Verdict(NextSet, 2), Ports));
        Assert.Equal((uint)Ports.Ranges.Count, _operations.Allocator.Used);

        Update((PolicyKey.Verdict(Set, 1), Allow), (PolicyKey.Verdict(Set, 2), Deny), (PolicyKey.Verdict(NextSet, 2), Allow));
        _grace.Collect();
        Assert.Equal(0u, _operations.Allocator.Used);
    }

    [Fact]
    public void A_successor_takes_over_and_prunes_only_what_nobody_wants()
    {
        Update((PolicyKey.Verdict(Set, 0), Deny), (PolicyKey.Verdict(Set, 9), Ports), (PolicyKey.Endpoint(Endpoint), Word(Set)),
            (PolicyKey.Endpoint(6), Word(Set)));
        _operations.Dispose();
        _maps.Dispose();
        (_maps, _operations) = Open();
        _operations.Adopt();
        Assert.Equal((uint)Ports.Ranges.Count, _operations.Allocator.Used);
        Assert.Equal(NextSet, _maps.NextSet());

        var wanted = new Dictionary<PolicyKey, PolicyRow>
        {
            [PolicyKey.Verdict(NextSet, 0)] = Ports,
            [PolicyKey.Endpoint(Endpoint)] = Word(NextSet),
        };
        Update([.. wanted.Select(pair => (pair.Key, pair.Value))]);
        Assert.Equal(3, _operations.Prune(wanted));
        Assert.Equal([(ushort)5], _maps.Endpoints().Select(word => word.Endpoint));
        Assert.Equal([(NextSet, 0u)], _maps.Verdicts().Select(row => (row.Set, row.Identity)));

        // Somebody else's hand is put right again.
        _maps.Rows.Set(new PolicyRowKey(NextSet, 0), new PolicyRowValue { Answer = PolicyLimits.VerdictAllow });
        Assert.Equal(0, _operations.Prune(wanted));
        Assert.Equal(Ports, _maps.Find(NextSet, 3)!.Row);
    }

    [Fact]
    public void A_range_is_shown_once_its_verdicts_are_written()
    {
        Assert.False(_operations.IsJudged(0x01000001));
        Update((PolicyKey.Verdict(Set, 0x01000001), Allow), (PolicyKey.Range(0x01000001), new RangeRow(IpPrefix.Parse("192.0.2.0/24"))));
        Assert.True(_operations.IsJudged(0x01000001));
        _operations.Delete([PolicyKey.Range(0x01000001)], Fail);
        Assert.False(_operations.IsJudged(0x01000001));
    }

    private static VerdictRow Allow { get; } = Row(new PortVerdict(0, true, 1));

    private static VerdictRow Deny { get; } = Row(new PortVerdict(0, false, 0));

    private static VerdictRow Ports { get; } =
        Row(new PortVerdict(0, false, 0), new PortVerdict(6 << 16 | 80, true, 2), new PortVerdict(6 << 16 | 81, false, 0));

    private static VerdictRow Row(params PortVerdict[] ranges) => new(new EquatableArray<PortVerdict>(ranges));

    private static EndpointPolicyRow Word(uint set) => new(set, EndpointPolicyRow.Unenforced, false);

    private static void Fail(int index, RowFault fault) => Assert.Fail(fault.Cause);

    private void Update(params (PolicyKey Key, PolicyRow Row)[] rows)
    {
        var faults = new List<string>();
        Update(faults, rows);
        Assert.Empty(faults);
    }

    private void Update(List<string> faults, (PolicyKey Key, PolicyRow Row)[] rows) =>
        _operations.Update([.. rows.Select(row => KeyValuePair.Create(row.Key, row.Row))], (_, fault) => faults.Add(fault.Cause));

    private (PolicyMaps, PolicyOperations) Open()
    {
        var maps = PolicyMaps.OpenPinned(_files.Path);
        return (maps, new PolicyOperations(maps, _grace));
    }

    private void Make<TKey, TValue>(string name, uint type, uint entries, uint flags = 0)
        where TKey : unmanaged
        where TValue : unmanaged
    {
        using var fd = BpfMaps.Create(name, type, (uint)Unsafe.SizeOf<TKey>(), (uint)Unsafe.SizeOf<TValue>(), entries, flags);
        fd.Pin(Path.Combine(_files.Path, name));
    }
}
