using Mesh.Bpf;
using Mesh.Datapath.Maps;
using Mesh.Datapath.Policies;
using Mesh.Policy;

namespace Mesh.Datapath.Tests.Packets;

/// <summary>The maps of policy, filled by hand. Endpoints are open after <see cref="Clear"/>.</summary>
internal sealed class PolicyTables : IDisposable
{
    public const ushort Pod = 2;
    public const ushort OtherPod = 3;

    private readonly MmapArray<PolicyEndpointValue> _words;
    private readonly BpfMap<PolicyRowKey, PolicyRowValue> _rows;
    private readonly MmapArray<PolicyRangeValue> _ranges;
    private readonly BpfMap<uint, PolicyCounterValue> _counters;
    private readonly BpfMap<PolicyFlowKey, PolicyFlowValue> _flows;
    private uint _nextRange;

    public PolicyTables(BpfObject programs)
    {
        _words = programs.Array<PolicyEndpointValue>("policy_endpoints");
        _rows = programs.Map<PolicyRowKey, PolicyRowValue>("policy_rows");
        _ranges = programs.Array<PolicyRangeValue>("policy_ranges");
        _counters = programs.Map<uint, PolicyCounterValue>("policy_counters");
        _flows = programs.Map<PolicyFlowKey, PolicyFlowValue>("policy_flows");
    }

    public int Flows => _flows.Dump().Count;

    public void Clear()
    {
        _rows.RemoveBatch([.. _rows.Dump().Select(row => row.Key)]);
        ForgetFlows();
        _nextRange = 0;
        Word(Pod);
        Word(OtherPod);
    }

    public void ForgetFlows() => _flows.RemoveBatch([.. _flows.Dump().Select(flow => flow.Key)]);

    public void Word(ushort endpoint, uint ingress = PolicyLimits.Unenforced, uint egress = PolicyLimits.Unenforced) =>
        _words.Publish(endpoint, new PolicyEndpointValue { Ingress = ingress, Egress = egress });

    /// <summary>A verdict for everything.</summary>
    public void Row(uint set, uint identity, bool allow, uint rule = 0) => Row(set, identity, new PortVerdict(0, allow, rule));

    /// <summary>Only this protocol and port pass.</summary>
    public void Only(uint set, uint identity, byte protocol, ushort port, uint rule = 1) => Row(set, identity, new PortVerdict(0, false, 0),
        new PortVerdict((uint)protocol << 16 | port, true, rule), new PortVerdict(((uint)protocol << 16 | port) + 1, false, 0));

    public void Row(uint set, uint identity, params PortVerdict[] ranges)
    {
        var value = new PolicyRowValue { Answer = PolicyMaps.WordOf(ranges[0]) };
        if (ranges.Length > 1)
        {
            value = new PolicyRowValue { Answer = _nextRange, Ranges = (uint)ranges.Length };
            foreach (var range in ranges)
                _ranges[_nextRange++] = new PolicyRangeValue { Start = range.Start, Verdict = PolicyMaps.WordOf(range) };
        }
        _rows.Set(new PolicyRowKey(set, identity), value);
    }

    public ulong Counted(uint rule) => _counters.GetPerCpu(rule)!.Aggregate(0ul, (sum, copy) => sum + copy.Packets);

    public void Dispose()
    {
        _words.Dispose();
        _rows.Dispose();
        _ranges.Dispose();
        _counters.Dispose();
        _flows.Dispose();
    }
}
