using Mesh.Bpf;
using Mesh.Datapath.LoadBalancing;
using Mesh.Datapath.Maps;
using Mesh.Policy;
using Mesh.StateDB.Reconciler;

namespace Mesh.Datapath.Policies;

/// <summary>
/// Policies rows → kernel. Verdicts first, where no packet asks for them yet; then the words of the endpoints, one store each, but only
/// of sets that are whole; deleted rows leave after a grace period, when no packet can still be under an old word. So a packet meets
/// the old policy or the new one, wherever we die; and what cannot be written leaves the old one in force, or, for a new pod, nothing.
/// </summary>
internal sealed class PolicyOperations : IOperations<PolicyKey, PolicyRow>, IDisposable
{
    private readonly Lock _lock = new();
    private readonly PolicyMaps _maps;
    private readonly GracePeriod _grace;
    private readonly RcuBarrier _barrier = new();

    /// <summary>Runs in policy_ranges by what they say: rows that say the same share one.</summary>
    private readonly Dictionary<VerdictRow, Run> _runs = [];
    private readonly Dictionary<PolicyRowKey, (PolicyRowValue Value, Run? Run)> _held = [];

    /// <summary>Wanted rows that the kernel has not taken.</summary>
    private readonly HashSet<PolicyRowKey> _missing = [];
    private readonly HashSet<PolicyRowKey> _retired = [];
    private readonly HashSet<uint> _judged = [];

    internal PolicyOperations(PolicyMaps maps, GracePeriod grace)
    {
        _maps = maps;
        _grace = grace;
        Allocator = new RangeAllocator("policy_ranges", 0, maps.Ranges.Info.MaxEntries);
    }

    internal RangeAllocator Allocator { get; }

    /// <summary>Rows in the kernel.</summary>
    internal int Rows
    {
        get
        {
            lock (_lock)
                return _held.Count;
        }
    }

    /// <summary>Takes over what an earlier run left: words and rows stay in force until others take their place.</summary>
    internal void Adopt()
    {
        lock (_lock)
            foreach (var (key, value) in _maps.Rows.Dump())
            {
                Run? run = null;
                if (value.Ranges > 0)
                {
                    var row = _maps.RowOf(value);
                    if (!_runs.TryGetValue(row, out run) || run.Start != value.Answer)
                        run = Allocator.TryReserve(value.Answer, value.Ranges) ? new Run(row, value.Answer, value.Ranges) : run;
                    if (run is null)
                        continue;
                    _runs.TryAdd(row, run);
                    run.Uses++;
                }
                _held[key] = (value, run);
            }
    }

    /// <summary>True once all verdicts about this address range's identity are in the kernel.</summary>
    internal bool IsJudged(uint identity)
    {
        lock (_lock)
            return _judged.Contains(identity);
    }

    public void Update(IReadOnlyList<KeyValuePair<PolicyKey, PolicyRow>> rows, Action<int, RowFault> fail)
    {
        lock (_lock)
        {
            WriteVerdicts(rows, fail);
            for (var i = 0; i < rows.Count; i++)
                switch (rows[i].Value)
                {
                    case EndpointPolicyRow endpoint
                        when _missing.FirstOrDefault(row => row.Set == endpoint.Ingress || row.Set == endpoint.Egress) is { Set: > 0 } row:
                        fail(i, $"{rows[i].Key}: the verdict of set {row.Set} about identity {row.Identity} could not be written; "
                            + "the policy before stays in force");
                        break;
                    case EndpointPolicyRow endpoint:
                        SetWord(rows[i].Key.Id, new PolicyEndpointValue
                        {
                            Ingress = WordOf(endpoint.Ingress, endpoint.Audit),
                            Egress = WordOf(endpoint.Egress, endpoint.Audit),
                        });
                        break;
                    case RangeRow range when _missing.Any(row => row.Identity == rows[i].Key.Id):
                        fail(i, $"{range.Range}: a verdict about it could not be written");
                        break;
                    case RangeRow:
                        _judged.Add(rows[i].Key.Id);
                        break;
                }
        }
    }

    public void Delete(IReadOnlyList<PolicyKey> keys, Action<int, RowFault> fail)
    {
        lock (_lock)
            foreach (var key in keys)
                switch (key.Kind)
                {
                    case PolicyKeyKind.Verdict:
                        _missing.Remove(new PolicyRowKey(key.Set, key.Id));
                        _retired.Add(new PolicyRowKey(key.Set, key.Id));
                        break;
                    case PolicyKeyKind.Endpoint:
                        SetWord(key.Id, default);
                        break;
                    default:
                        _judged.Remove(key.Id);
                        break;
                }
    }

    public int Prune(IReadOnlyDictionary<PolicyKey, PolicyRow> desired)
    {
        lock (_lock)
        {
            var removed = 0;
            for (uint id = 1; id < _maps.Words.Info.MaxEntries; id++)
                if (_maps.Words.Observe(id) is not { Ingress: 0, Egress: 0 } && !desired.ContainsKey(PolicyKey.Endpoint((ushort)id)))
                {
                    SetWord(id, default);
                    removed++;
                }
            var present = _maps.Rows.Dump().ToDictionary(pair => pair.Key, pair => pair.Value);
            foreach (var key in present.Keys)
                if (!desired.ContainsKey(PolicyKey.Verdict(key.Set, key.Identity)) && _retired.Add(key))
                    removed++;
            // What somebody else has changed or taken away is written again.
            var wrong = desired.Where(pair => pair.Key.Kind != PolicyKeyKind.Verdict
                || !present.TryGetValue(new PolicyRowKey(pair.Key.Set, pair.Key.Id), out var value) || !_maps.RowOf(value).Equals(pair.Value)).ToList();
            Update(wrong, (_, _) => { });
            Collect();
            return removed;
        }
    }

    /// <summary>Removes retired rows, after every packet that may have read an old word is through. About once a second.</summary>
    internal void Collect()
    {
        lock (_lock)
        {
            if (_retired.Count == 0)
                return;
            _barrier.Wait();
            // A set whose successor could not be written is still in force.
            var inForce = new HashSet<uint>();
            for (uint id = 1; id < _maps.Words.Info.MaxEntries; id++)
            {
                var word = _maps.Words.Observe(id);
                inForce.Add(word.Ingress & PolicyLimits.SetMask);
                inForce.Add(word.Egress & PolicyLimits.SetMask);
            }
            var leaving = _retired.Where(key => !inForce.Contains(key.Set) || IsGone(key)).ToArray();
            _maps.Rows.RemoveBatch(leaving);
            foreach (var key in leaving)
            {
                _retired.Remove(key);
                if (_held.Remove(key, out var held))
                    Release(held.Run);
            }
        }
    }

    public void Dispose() => _barrier.Dispose();

    /// <summary>A single identity that has left a set in force; not a set that has left as a whole.</summary>
    private bool IsGone(PolicyRowKey key) => !_retired.Contains(key with { Identity = 0 });

    private void WriteVerdicts(IReadOnlyList<KeyValuePair<PolicyKey, PolicyRow>> rows, Action<int, RowFault> fail)
    {
        var keys = new List<PolicyRowKey>();
        var values = new List<PolicyRowValue>();
        var runs = new List<Run?>();
        var indexes = new List<int>();
        for (var i = 0; i < rows.Count; i++)
        {
            if (rows[i].Value is not VerdictRow row)
                continue;
            var key = new PolicyRowKey(rows[i].Key.Set, rows[i].Key.Id);
            _retired.Remove(key);
            var run = row.Ranges.Count > 1 ? RunOf(row) : null;
            if (run is null && row.Ranges.Count > 1)
            {
                _missing.Add(key);
                fail(i, new RowFault($"{rows[i].Key}: map policy_ranges is full ({Allocator.Capacity} entries)", Allocator.Map));
                continue;
            }
            if (run is not null)
                run.Uses++;
            keys.Add(key);
            values.Add(run is null
                ? new PolicyRowValue { Answer = PolicyMaps.WordOf(row.Ranges[0]) }
                : new PolicyRowValue { Answer = run.Start, Ranges = run.Length });
            runs.Add(run);
            indexes.Add(i);
        }
        var refused = new HashSet<int>();
        _maps.Rows.SetBatch(keys.ToArray(), values.ToArray(), (at, cause) =>
        {
            refused.Add(at);
            fail(indexes[at], new RowFault($"{rows[indexes[at]].Key}: {cause.Message}", cause is BpfMapFullException ? _maps.Rows.Name : null));
        });
        for (var at = 0; at < keys.Count; at++)
        {
            if (refused.Contains(at))
            {
                _missing.Add(keys[at]);
                Release(runs[at]);
                continue;
            }
            _missing.Remove(keys[at]);
            if (_held.TryGetValue(keys[at], out var before))
                Release(before.Run);
            _held[keys[at]] = (values[at], runs[at]);
        }
    }

    /// <summary>Null when the map is full.</summary>
    private Run? RunOf(VerdictRow row)
    {
        if (_runs.TryGetValue(row, out var known))
            return known;
        var length = (uint)row.Ranges.Count;
        if (Allocator.TryAllocate(length) is not { } start)
        {
            _grace.Collect();
            if (Allocator.TryAllocate(length) is not { } later)
                return null;
            start = later;
        }
        for (uint i = 0; i < length; i++)
            _maps.Ranges.Write(start + i) = new PolicyRangeValue { Start = row.Ranges[(int)i].Start, Verdict = PolicyMaps.WordOf(row.Ranges[(int)i]) };
        return _runs[row] = new Run(row, start, length);
    }

    private void Release(Run? run)
    {
        if (run is null || --run.Uses > 0)
            return;
        if (_runs.TryGetValue(run.Row, out var current) && current == run)
            _runs.Remove(run.Row);
        _grace.Retire(Allocator, run.Start, run.Length);
    }

    /// <summary>Both directions at once.</summary>
    private void SetWord(uint endpoint, PolicyEndpointValue word) => _maps.Words.Publish(endpoint, word);

    private static uint WordOf(uint set, bool audit) => set >= PolicyLimits.FirstSet && audit ? set | PolicyLimits.Audit : set;

    private sealed class Run(VerdictRow row, uint start, uint length)
    {
        public VerdictRow Row => row;

        public uint Start => start;

        public uint Length => length;

        public int Uses { get; set; }
    }
}
