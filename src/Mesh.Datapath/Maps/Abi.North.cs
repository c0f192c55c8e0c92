using Mesh.Bpf.Btf;

namespace Mesh.Datapath.Maps;

public static unsafe partial class Abi
{
    private static BtfStruct[] NorthLayouts()
    {
        Nat4Key key4 = default;
        Nat6Key key6 = default;
        NatValue value = default;
        return
        [
            new("nat4_key", (uint)sizeof(Nat4Key),
            [
                At("source", ref key4, ref key4.Source), At("destination", ref key4, ref key4.Destination),
                At("source_port", ref key4, ref key4.SourcePort), At("destination_port", ref key4, ref key4.DestinationPort),
                At("protocol", ref key4, ref key4.Protocol), At("direction", ref key4, ref key4.Direction), At("pad", ref key4, ref key4.Pad),
            ]),
            new("nat6_key", (uint)sizeof(Nat6Key),
            [
                At("source", ref key6, ref key6.Source), At("destination", ref key6, ref key6.Destination),
                At("source_port", ref key6, ref key6.SourcePort), At("destination_port", ref key6, ref key6.DestinationPort),
                At("protocol", ref key6, ref key6.Protocol), At("direction", ref key6, ref key6.Direction), At("pad", ref key6, ref key6.Pad),
            ]),
            new("nat_value", (uint)sizeof(NatValue),
            [
                At("address", ref value, ref value.Address), At("virtual_address", ref value, ref value.VirtualAddress),
                At("port", ref value, ref value.Port), At("virtual_port", ref value, ref value.VirtualPort),
                At("source_port", ref value, ref value.SourcePort), At("way", ref value, ref value.Way),
                At("state", ref value, ref value.State), At("node", ref value, ref value.Node),
                At("backend", ref value, ref value.Backend), At("last_seen", ref value, ref value.LastSeen),
                At("service", ref value, ref value.Service), At("pad", ref value, ref value.Pad),
            ]),
        ];
    }
}
