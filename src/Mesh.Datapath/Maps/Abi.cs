using System.Runtime.CompilerServices;
using Mesh.Bpf.Btf;

namespace Mesh.Datapath.Maps;

/// <summary>
/// The layout of every struct that C and C# share, as C# has it, and its comparison with what clang compiled. A mismatch would
/// let the datapath read our bytes as other things, so the agent refuses to start and names the struct and the member.
/// </summary>
public static unsafe partial class Abi
{
    /// <summary>MESH_ABI_VERSION.</summary>
    public const uint Version = 2;

    /// <summary>The version and a checksum of all layouts: what agent_state.abi says of the maps beside it.</summary>
    public static ulong Word => (ulong)Version << 32 | Checksum();

    /// <summary>One layout per C struct, with the C names.</summary>
    public static IReadOnlyList<BtfStruct> Layouts { get; } =
        [.. LoadBalancingLayouts(), .. ClientLayouts(), .. ConntrackLayouts(), .. LivenessLayouts(), .. IPCacheLayouts(), .. NodeLayouts(),
            .. NorthLayouts(), .. ConfigLayouts(), .. PolicyLayouts(), .. EventLayouts()];

    /// <summary>Every difference, one line each; empty when all is well. A struct must be in at least one object.</summary>
    public static IReadOnlyList<string> Compare(IReadOnlyList<BtfStruct> expected, IReadOnlyList<(string Name, BtfReader Types)> objects)
    {
        var differences = new List<string>();
        foreach (var layout in expected)
        {
            var found = false;
            foreach (var (name, types) in objects)
            {
                if (types.Struct(layout.Name) is not { } compiled)
                    continue;
                found = true;
                differences.AddRange(Compare(layout, compiled).Select(difference => $"{name}: {difference}"));
            }
            if (!found)
                differences.Add($"struct {layout.Name}: no BPF object uses it");
        }
        return differences;
    }

    /// <exception cref="InvalidDataException">The objects were compiled with other layouts than ours.</exception>
    public static void Require(IReadOnlyList<(string Name, BtfReader Types)> objects)
    {
        var differences = Compare(Layouts, objects);
        if (differences.Count > 0)
            throw new InvalidDataException(
                $"BPF objects and this program are not of one build (rebuild both): {string.Join("; ", differences)}");
    }

    private static IEnumerable<string> Compare(BtfStruct ours, BtfStruct compiled)
    {
        if (ours.Size != compiled.Size)
            yield return $"struct {ours.Name} has {compiled.Size} bytes in C, {ours.Size} in C#";
        // Members of an anonymous union are checked by the struct's size alone.
        var theirs = compiled.Members.Where(member => member.Name.Length > 0).ToList();
        foreach (var member in theirs)
            if (!ours.Members.Any(own => own.Name == member.Name))
                yield return $"struct {ours.Name}: member {member.Name} is not in C#";
        foreach (var own in ours.Members)
        {
            var member = theirs.Find(candidate => candidate.Name == own.Name);
            if (member.Name is null)
                yield return $"struct {ours.Name}: member {own.Name} is not in C";
            else if (member != own)
                yield return $"struct {ours.Name}: member {own.Name} is {member.Size} bytes at {member.Offset} in C, "
                    + $"{own.Size} at {own.Offset} in C#";
        }
    }

    private static uint Checksum()
    {
        // FNV-1a over the text of the layouts: stable between builds and machines.
        var hash = 2166136261u;
        foreach (var layout in Layouts)
        {
            Add(ref hash, layout.Name, layout.Size);
            foreach (var member in layout.Members)
                Add(ref hash, member.Name, member.Offset << 16 | member.Size);
        }
        return hash;

        static void Add(ref uint hash, string name, uint number)
        {
            foreach (var c in name)
                hash = (hash ^ c) * 16777619;
            hash = (hash ^ number) * 16777619;
        }
    }

    private static BtfStruct[] LoadBalancingLayouts()
    {
        Lb4Key key4 = default;
        Lb6Key key6 = default;
        LbServiceId id = default;
        LbService service = default;
        LbSegment segment = default;
        LbServiceInfo info = default;
        LbBackend backend = default;
        return
        [
            new("mesh_addr", (uint)sizeof(MeshAddress), []),
            new("lb4_key", (uint)sizeof(Lb4Key),
            [
                At("address", ref key4, ref key4.Address), At("port", ref key4, ref key4.Port),
                At("protocol", ref key4, ref key4.Protocol), At("pad", ref key4, ref key4.Pad),
            ]),
            new("lb6_key", (uint)sizeof(Lb6Key),
            [
                At("address", ref key6, ref key6.Address), At("port", ref key6, ref key6.Port),
                At("protocol", ref key6, ref key6.Protocol), At("pad", ref key6, ref key6.Pad),
            ]),
            new("lb_service_id", (uint)sizeof(LbServiceId), [At("id", ref id, ref id.Id), At("internal_id", ref id, ref id.InternalId)]),
            new("lb_service", (uint)sizeof(LbService),
            [
                At("block", ref service, ref service.Block), At("segments", ref service, ref service.Segments),
                At("flags", ref service, ref service.Flags), At("generation", ref service, ref service.Generation),
            ]),
            new("lb_segment", (uint)sizeof(LbSegment),
            [
                At("backend_base", ref segment, ref segment.BackendBase), At("table", ref segment, ref segment.Table),
                At("backends", ref segment, ref segment.Backends), At("table_size", ref segment, ref segment.TableSize),
                At("cluster_id", ref segment, ref segment.ClusterId), At("tier", ref segment, ref segment.Tier),
                At("flags", ref segment, ref segment.Flags), At("weight", ref segment, ref segment.Weight),
                At("pad", ref segment, ref segment.Pad),
            ]),
            new("lb_service_info", (uint)sizeof(LbServiceInfo),
            [
                At("affinity_seconds", ref info, ref info.AffinitySeconds), At("source_ranges", ref info, ref info.SourceRanges),
                At("forwarding", ref info, ref info.Forwarding), At("algorithm", ref info, ref info.Algorithm),
                At("kind", ref info, ref info.Kind), At("flags", ref info, ref info.Flags), At("pad", ref info, ref info.Pad),
            ]),
            new("lb_block", (uint)sizeof(LbBlock), []),
            new("lb_backend", (uint)sizeof(LbBackend),
            [
                At("address", ref backend, ref backend.Address), At("port", ref backend, ref backend.Port),
                At("protocol", ref backend, ref backend.Protocol), At("state", ref backend, ref backend.State),
                At("cluster_id", ref backend, ref backend.ClusterId), At("family", ref backend, ref backend.Family),
                At("flags", ref backend, ref backend.Flags), At("node", ref backend, ref backend.Node),
                At("pad", ref backend, ref backend.Pad),
            ]),
        ];
    }

    private static BtfStruct[] LivenessLayouts()
    {
        ClusterLivenessValue liveness = default;
        LbBackendHealth health = default;
        FailoverValue failover = default;
        return
        [
            new("cluster_liveness", (uint)sizeof(ClusterLivenessValue),
            [
                At("up", ref liveness, ref liveness.Up), At("alive", ref liveness, ref liveness.Alive),
                At("drill_until_ns", ref liveness, ref liveness.DrillUntilNs), At("ramp", ref liveness, ref liveness.Ramp),
            ]),
            new("lb_backend_health", (uint)sizeof(LbBackendHealth),
            [
                At("ejected_until_ms", ref health, ref health.EjectedUntilMs), At("node", ref health, ref health.Node),
                At("failures", ref health, ref health.Failures), At("pad", ref health, ref health.Pad),
            ]),
            new("failover", (uint)sizeof(FailoverValue),
            [
                At("panics", ref failover, ref failover.Panics), At("refused", ref failover, ref failover.Refused),
                At("unanswered", ref failover, ref failover.Unanswered), At("recovered", ref failover, ref failover.Recovered),
                At("repicked", ref failover, ref failover.Repicked), At("sockets_closed", ref failover, ref failover.SocketsClosed),
                At("syn_timeout_ms", ref failover, ref failover.SynTimeoutMs), At("drill_error_ppm", ref failover, ref failover.DrillErrorPpm),
                At("ejections", ref failover, ref failover.Ejections), At("recent", ref failover, ref failover.Recent),
            ]),
        ];
    }

    private static BtfStruct[] ClientLayouts()
    {
        Lb4RangeKey range4 = default;
        Lb6RangeKey range6 = default;
        LbNodeAddress node = default;
        LbAffinityKey key = default;
        LbDatagramBackend datagram = default;
        LbAffinity affinity = default;
        return
        [
            new("lb4_range_key", (uint)sizeof(Lb4RangeKey),
            [
                At("prefix_length", ref range4, ref range4.PrefixLength), At("id", ref range4, ref range4.Id),
                At("address", ref range4, ref range4.Address),
            ]),
            new("lb6_range_key", (uint)sizeof(Lb6RangeKey),
            [
                At("prefix_length", ref range6, ref range6.PrefixLength), At("id", ref range6, ref range6.Id),
                At("address", ref range6, ref range6.Address),
            ]),
            new("lb_node_address", (uint)sizeof(LbNodeAddress),
            [
                At("address", ref node, ref node.Address), At("family", ref node, ref node.Family),
                At("pad", ref node, ref node.Pad0) with { Size = 3 },
            ]),
            new("lb_affinity_key", (uint)sizeof(LbAffinityKey),
            [
                At("client", ref key, ref key.Client), At("service", ref key, ref key.Service), At("family", ref key, ref key.Family),
                At("pad", ref key, ref key.Pad0) with { Size = 3 },
            ]),
            new("lb_affinity", (uint)sizeof(LbAffinity),
            [
                At("address", ref affinity, ref affinity.Address), At("port", ref affinity, ref affinity.Port),
                At("pad", ref affinity, ref affinity.Pad), At("last_used", ref affinity, ref affinity.LastUsed),
            ]),
            new("lb_datagram_backend", (uint)sizeof(LbDatagramBackend),
            [
                At("address", ref datagram, ref datagram.Address), At("port", ref datagram, ref datagram.Port),
                At("family", ref datagram, ref datagram.Family), At("pad", ref datagram, ref datagram.Pad),
            ]),
        ];
    }

    private static BtfStruct[] ConntrackLayouts()
    {
        Conntrack4Key key4 = default;
        Conntrack6Key key6 = default;
        ConntrackValue value = default;
        return
        [
            new("conntrack4_key", (uint)sizeof(Conntrack4Key),
            [
                At("source", ref key4, ref key4.Source), At("destination", ref key4, ref key4.Destination),
                At("source_port", ref key4, ref key4.SourcePort), At("destination_port", ref key4, ref key4.DestinationPort),
                At("protocol", ref key4, ref key4.Protocol), At("direction", ref key4, ref key4.Direction), At("pad", ref key4, ref key4.Pad),
            ]),
            new("conntrack6_key", (uint)sizeof(Conntrack6Key),
            [
                At("source", ref key6, ref key6.Source), At("destination", ref key6, ref key6.Destination),
                At("source_port", ref key6, ref key6.SourcePort), At("destination_port", ref key6, ref key6.DestinationPort),
                At("protocol", ref key6, ref key6.Protocol), At("direction", ref key6, ref key6.Direction), At("pad", ref key6, ref key6.Pad),
            ]),
            new("conntrack_value", (uint)sizeof(ConntrackValue),
            [
                At("address", ref value, ref value.Address), At("port", ref value, ref value.Port), At("flags", ref value, ref value.Flags),
                At("pad", ref value, ref value.Pad), At("backend", ref value, ref value.Backend), At("service", ref value, ref value.Service),
                At("last_seen", ref value, ref value.LastSeen),
            ]),
        ];
    }

    private static BtfStruct[] IPCacheLayouts()
    {
        IPCache4Key key4 = default;
        IPCache6Key key6 = default;
        IPCache4PrefixKey prefix4 = default;
        IPCache6PrefixKey prefix6 = default;
        IPCacheValue value = default;
        return
        [
            new("ipcache4_key", (uint)sizeof(IPCache4Key),
            [
                At("address", ref key4, ref key4.Address), At("cluster_id", ref key4, ref key4.ClusterId),
                At("pad", ref key4, ref key4.Pad),
            ]),
            new("ipcache6_key", (uint)sizeof(IPCache6Key),
            [
                At("address", ref key6, ref key6.Address), At("cluster_id", ref key6, ref key6.ClusterId),
                At("pad", ref key6, ref key6.Pad),
            ]),
            new("ipcache4_prefix_key", (uint)sizeof(IPCache4PrefixKey),
            [
                At("prefix_length", ref prefix4, ref prefix4.PrefixLength), At("cluster_id", ref prefix4, ref prefix4.ClusterId),
                At("pad", ref prefix4, ref prefix4.Pad), At("address", ref prefix4, ref prefix4.Address),
            ]),
            new("ipcache6_prefix_key", (uint)sizeof(IPCache6PrefixKey),
            [
                At("prefix_length", ref prefix6, ref prefix6.PrefixLength), At("cluster_id", ref prefix6, ref prefix6.ClusterId),
                At("pad", ref prefix6, ref prefix6.Pad), At("address", ref prefix6, ref prefix6.Address),
            ]),
            new("ipcache_value", (uint)sizeof(IPCacheValue),
                [At("identity", ref value, ref value.Identity), At("node", ref value, ref value.Node)]),
        ];
    }

    private static BtfStruct[] NodeLayouts()
    {
        NodeValue node = default;
        NodeIndexValue index = default;
        EndpointKey key = default;
        EndpointValue endpoint = default;
        return
        [
            new("node", (uint)sizeof(NodeValue),
            [
                At("tunnel_endpoint", ref node, ref node.TunnelEndpoint), At("family", ref node, ref node.Family),
                At("state", ref node, ref node.State), At("cluster_id", ref node, ref node.ClusterId),
                At("last_seen_ms", ref node, ref node.LastSeenMs), At("next_hop_mac", ref node, ref node.NextHopMac),
                At("source_mac", ref node, ref node.SourceMac), At("interface_index", ref node, ref node.InterfaceIndex),
                At("flags", ref node, ref node.Flags), At("pad", ref node, ref node.Pad),
            ]),
            new("node_index", (uint)sizeof(NodeIndexValue), [At("index", ref index, ref index.Index)]),
            new("endpoint_key", (uint)sizeof(EndpointKey),
            [
                At("address", ref key, ref key.Address), At("family", ref key, ref key.Family),
                At("pad", ref key, ref key.Pad0) with { Size = 3 },
            ]),
            new("endpoint", (uint)sizeof(EndpointValue),
            [
                At("interface_index", ref endpoint, ref endpoint.InterfaceIndex), At("identity", ref endpoint, ref endpoint.Identity),
                At("mac", ref endpoint, ref endpoint.Mac), At("id", ref endpoint, ref endpoint.Id),
                At("host_mac", ref endpoint, ref endpoint.HostMac), At("flags", ref endpoint, ref endpoint.Flags),
            ]),
        ];
    }

    private static BtfStruct[] ConfigLayouts()
    {
        NodeConfig config = default;
        AgentStateValue state = default;
        CounterValue counter = default;
        return
        [
            new("node_config", (uint)sizeof(NodeConfig),
            [
                At("cluster_id", ref config, ref config.ClusterId), At("tunnel_interface", ref config, ref config.TunnelInterface),
                At("host_interface", ref config, ref config.HostInterface),
                At("identity_cluster_shift", ref config, ref config.IdentityClusterShift),
                At("underlay_family", ref config, ref config.UnderlayFamily), At("pod_mtu", ref config, ref config.PodMtu),
                At("gateway_mac", ref config, ref config.GatewayMac), At("tunnel_port", ref config, ref config.TunnelPort),
                At("flags", ref config, ref config.Flags), At("uplink_interface", ref config, ref config.UplinkInterface),
                At("underlay", ref config, ref config.Underlay), At("gateway6", ref config, ref config.Gateway6),
                At("direct6", ref config, ref config.Direct6), At("gateway4", ref config, ref config.Gateway4),
                At("direct4", ref config, ref config.Direct4), At("nat_port_min", ref config, ref config.NatPortMin),
                At("nat_port_max", ref config, ref config.NatPortMax), At("source_port_min", ref config, ref config.SourcePortMin),
                At("source_port_max", ref config, ref config.SourcePortMax),
                At("node_port_first", ref config, ref config.NodePortFirst), At("node_port_last", ref config, ref config.NodePortLast),
                At("source_port_max", ref config, ref config.SourcePortMax), At("uplink_mac", ref config, ref config.UplinkMac),
                At("pad", ref config, ref config.Pad),
            ]),
            new("agent_state", (uint)sizeof(AgentStateValue),
            [
                At("abi", ref state, ref state.Abi), At("heartbeat_ms", ref state, ref state.HeartbeatMs),
                At("generation", ref state, ref state.Generation), At("senders_known", ref state, ref state.SendersKnown),
            ]),
            new("counter", (uint)sizeof(CounterValue),
                [At("packets", ref counter, ref counter.Packets), At("bytes", ref counter, ref counter.Bytes)]),
        ];
    }

    private static BtfMember At<TStruct, TField>(string name, ref TStruct start, ref TField field)
        where TStruct : unmanaged
        where TField : unmanaged
    {
        var offset = Unsafe.ByteOffset(ref Unsafe.As<TStruct, byte>(ref start), ref Unsafe.As<TField, byte>(ref field));
        return new BtfMember(name, (uint)offset, (uint)sizeof(TField));
    }
}
