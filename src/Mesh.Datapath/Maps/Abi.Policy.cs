using Mesh.Bpf.Btf;

namespace Mesh.Datapath.Maps;

public static unsafe partial class Abi
{
    private static BtfStruct[] PolicyLayouts()
    {
        PolicyEndpointValue endpoint = default;
        PolicyRowValue row = default;
        PolicyRangeValue range = default;
        PolicyCounterValue counter = default;
        PolicyFlowKey key = default;
        PolicyFlowValue flow = default;
        return
        [
            new("policy_endpoint", (uint)sizeof(PolicyEndpointValue),
                [At("ingress", ref endpoint, ref endpoint.Ingress), At("egress", ref endpoint, ref endpoint.Egress)]),
            new("policy_key", (uint)sizeof(PolicyRowKey), [new("set", 0, sizeof(uint)), new("identity", sizeof(uint), sizeof(uint))]),
            new("policy_row", (uint)sizeof(PolicyRowValue), [At("answer", ref row, ref row.Answer), At("ranges", ref row, ref row.Ranges)]),
            new("policy_range", (uint)sizeof(PolicyRangeValue),
                [At("start", ref range, ref range.Start), At("verdict", ref range, ref range.Verdict)]),
            new("policy_counter", (uint)sizeof(PolicyCounterValue),
                [At("packets", ref counter, ref counter.Packets), At("bytes", ref counter, ref counter.Bytes)]),
            new("policy_flow_key", (uint)sizeof(PolicyFlowKey),
            [
                At("source", ref key, ref key.Source), At("destination", ref key, ref key.Destination),
                At("source_port", ref key, ref key.SourcePort), At("destination_port", ref key, ref key.DestinationPort),
                At("protocol", ref key, ref key.Protocol), At("direction", ref key, ref key.Direction),
                At("family", ref key, ref key.Family), At("pad", ref key, ref key.Pad),
            ]),
            new("policy_flow", (uint)sizeof(PolicyFlowValue),
            [
                At("last_seen", ref flow, ref flow.LastSeen), At("flags", ref flow, ref flow.Flags),
                At("pad", ref flow, ref flow.Pad0) with { Size = 3 },
            ]),
        ];
    }
}
