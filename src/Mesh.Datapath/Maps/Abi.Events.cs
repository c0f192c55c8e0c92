using Mesh.Bpf.Btf;

namespace Mesh.Datapath.Maps;

public static unsafe partial class Abi
{
    private static BtfStruct[] EventLayouts()
    {
        ObservingValue watch = default;
        EventFlowValue flow = default;
        EventValue told = default;
        return
        [
            new("observing", (uint)sizeof(ObservingValue),
            [
                At("until_ns", ref watch, ref watch.UntilNs), At("lost", ref watch, ref watch.Lost),
                At("watcher", ref watch, ref watch.Watcher), At("pad", ref watch, ref watch.Pad),
            ]),
            new("event_flow", (uint)sizeof(EventFlowValue),
            [
                At("source", ref flow, ref flow.Source), At("destination", ref flow, ref flow.Destination),
                At("source_port", ref flow, ref flow.SourcePort), At("destination_port", ref flow, ref flow.DestinationPort),
                At("identity", ref flow, ref flow.Identity), At("reason", ref flow, ref flow.Reason), At("family", ref flow, ref flow.Family),
                At("protocol", ref flow, ref flow.Protocol), At("direction", ref flow, ref flow.Direction), At("pad", ref flow, ref flow.Pad),
            ]),
            new("event", (uint)sizeof(EventValue),
            [
                At("flow", ref told, ref told.Flow), At("time_ns", ref told, ref told.TimeNs), At("packets", ref told, ref told.Packets),
                At("length", ref told, ref told.Length), At("interface", ref told, ref told.Interface),
                At("tcp_flags", ref told, ref told.TcpFlags), At("pad", ref told, ref told.Pad),
            ]),
        ];
    }
}
