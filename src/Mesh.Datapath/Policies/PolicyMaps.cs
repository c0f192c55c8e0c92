using Mesh.Bpf;
using Mesh.Datapath.Maps;
using Mesh.Model;
using Mesh.Policy;

namespace Mesh.Datapath.Policies;

/// <summary>A row of policy_rows with its ranges, as the kernel holds it.</summary>
public sealed record PinnedVerdict(uint Set, uint Identity, VerdictRow Row);

/// <param name="Ingress">Number of the rule set, or what stands in its place (<see cref="PolicyLimits"/>).</param>
public sealed record PinnedPolicyWord(ushort Endpoint, uint Ingress, uint Egress, bool Audit);

/// <summary>The maps of policy. Owns them. Reading is safe beside a writer: each row is read as it was at one moment.</summary>
public sealed class PolicyMaps : IDisposable
{
    private PolicyMaps(string directory, bool readOnly)
    {
        Words = BpfMaps.OpenPinnedArray<PolicyEndpointValue>(Path.Combine(directory, "policy_endpoints"), readOnly);
        Rows = BpfMaps.OpenPinned<PolicyRowKey, PolicyRowValue>(Path.Combine(directory, "policy_rows"), readOnly);
        Ranges = BpfMaps.OpenPinnedArray<PolicyRangeValue>(Path.Combine(directory, "policy_ranges"), readOnly);
        Counters = BpfMaps.OpenPinned<uint, PolicyCounterValue>(Path.Combine(directory, "policy_counters"), readOnly);
    }

    internal MmapArray<PolicyEndpointValue> Words { get; }

    internal BpfMap<PolicyRowKey, PolicyRowValue> Rows { get; }

    internal MmapArray<PolicyRangeValue> Ranges { get; }

    internal BpfMap<uint, PolicyCounterValue> Counters { get; }

    internal static PolicyMaps OpenPinned(string directory, bool readOnly = false) => new(directory, readOnly);

    /// <summary>What a packet of this peer finds: its own row, else that of everybody; null when there is neither.</summary>
    public PinnedVerdict? Find(uint set, uint identity)
    {
        foreach (var who in (uint[])[identity, 0])
            if (Rows.TryGet(new PolicyRowKey(set, who), out var value))
                return new PinnedVerdict(set, who, RowOf(value));
        return null;
    }

    /// <summary>Every row, by set and identity.</summary>
    public IReadOnlyList<PinnedVerdict> Verdicts() =>
    [
        .. Rows.Dump().Select(pair => new PinnedVerdict(pair.Key.Set, pair.Key.Identity, RowOf(pair.Value)))
            .OrderBy(row => row.Set).ThenBy(row => row.Identity),
    ];

    /// <summary>Of the endpoints that have been decided.</summary>
    public IReadOnlyList<PinnedPolicyWord> Endpoints()
    {
        var words = new List<PinnedPolicyWord>();
        for (uint id = 1; id < Words.Info.MaxEntries; id++)
            if (Word((ushort)id) is { Ingress: not PolicyLimits.Undecided } word)
                words.Add(word);
        return words;
    }

    public PinnedPolicyWord Word(ushort endpoint)
    {
        var word = Words.Observe(endpoint);
        return new PinnedPolicyWord(endpoint, word.Ingress & PolicyLimits.SetMask, word.Egress & PolicyLimits.SetMask,
            ((word.Ingress | word.Egress) & PolicyLimits.Audit) != 0);
    }

    /// <summary>What a rule has decided, summed over CPUs, since the maps were made.</summary>
    public (ulong Packets, ulong Bytes) Counted(uint rule)
    {
        var copies = Counters.GetPerCpu(rule) ?? [];
        return (copies.Aggregate(0ul, (sum, copy) => sum + copy.Packets), copies.Aggregate(0ul, (sum, copy) => sum + copy.Bytes));
    }

    /// <summary>Above every number of a set that a row or a word still names.</summary>
    public uint NextSet() => Math.Max(PolicyLimits.FirstSet, Rows.Dump().Select(pair => pair.Key.Set)
        .Concat(Endpoints().SelectMany(word => (uint[])[word.Ingress, word.Egress])).DefaultIfEmpty(0u).Max() + 1);

    public void Dispose()
    {
        Words.Dispose();
        Rows.Dispose();
        Ranges.Dispose();
        Counters.Dispose();
    }

    internal VerdictRow RowOf(PolicyRowValue value)
    {
        if (value.Ranges == 0)
            return new VerdictRow(new EquatableArray<PortVerdict>([VerdictOf(0, value.Answer)]));
        var ranges = new PortVerdict[value.Ranges];
        for (uint i = 0; i < ranges.Length; i++)
            ranges[i] = VerdictOf(Ranges[value.Answer + i].Start, Ranges[value.Answer + i].Verdict);
        return new VerdictRow(new EquatableArray<PortVerdict>(ranges));
    }

    internal static uint WordOf(PortVerdict verdict) => (verdict.Allowed ? PolicyLimits.VerdictAllow : 0) | (verdict.Rule & PolicyLimits.VerdictRule);

    private static PortVerdict VerdictOf(uint start, uint word) => new(start, (word & PolicyLimits.VerdictAllow) != 0, word & PolicyLimits.VerdictRule);
}
