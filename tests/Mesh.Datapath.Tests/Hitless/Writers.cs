using System.Globalization;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using Mesh.Bpf;
using Mesh.Datapath.IPCache;
using Mesh.Datapath.Liveness;
using Mesh.Datapath.LoadBalancing;
using Mesh.Datapath.Loader;
using Mesh.Datapath.Maps;
using Mesh.Datapath.Nodes;
using Mesh.Datapath.Policies;
using Mesh.StateDB.Reconciler;

namespace Mesh.Datapath.Tests.Hitless;

/// <summary>Every writer of maps that an agent has, on pinned maps without programs; a new one takes over what is there, as a start does.</summary>
internal sealed class Writers : IDisposable
{
    private readonly LbMaps _lb;
    private readonly IPCacheMaps _ipcache;
    private readonly MmapArray<NodeValue> _nodeMap;
    private readonly BpfMap<EndpointKey, NodeIndexValue> _senders;
    private readonly BpfMap<LbNodeAddress, LbNodePlace> _addressMap;
    private readonly PolicyMaps _policyMaps;
    private readonly GracePeriod _grace = new();
    private readonly ServiceStore _store;
    private readonly ClusterLiveness _clusters;
    private readonly FrontendOperations _frontends;
    private readonly NodeIndexes _indexes;
    private readonly NodeAddresses _addresses;
    private readonly IPCacheOperations _entries;
    private readonly PolicyOperations _policies;
    private readonly LivenessMap _liveness;

    /// <param name="adopt">False: only to look.</param>
    internal Writers(PinDirectory pins, bool adopt = true)
    {
        _lb = LbMaps.OpenPinned(pins.Maps);
        _ipcache = IPCacheMaps.OpenPinned(pins.Maps);
        _nodeMap = BpfMaps.OpenPinnedArray<NodeValue>(pins.Map("nodes"));
        _senders = BpfMaps.OpenPinned<EndpointKey, NodeIndexValue>(pins.Map("tunnel_senders"));
        _addressMap = BpfMaps.OpenPinned<LbNodeAddress, LbNodePlace>(pins.Map("lb_node_addresses"));
        _policyMaps = PolicyMaps.OpenPinned(pins.Maps);
        _store = new ServiceStore(_lb, _grace);
        _clusters = new ClusterLiveness(_lb.Clusters, ownCluster: 1);
        _frontends = new FrontendOperations(_lb, _store, _clusters, new SourceRanges(_lb, _grace));
        _indexes = new NodeIndexes(_nodeMap, _grace, _senders);
        _addresses = new NodeAddresses(_addressMap, ownCluster: 1);
        _policies = new PolicyOperations(_policyMaps, _grace);
        _entries = new IPCacheOperations(_ipcache, _indexes, _policies.IsJudged);
        _liveness = new LivenessMap(_lb.Clusters, _nodeMap);
        if (!adopt)
            return;
        _frontends.Adopt();
        _indexes.Adopt();
        _policies.Adopt();
    }

    /// <summary>As reconcilers have it: what has gone first, then what has come or changed.</summary>
    internal void Follow(Intent from, Intent to)
    {
        Do(_policies, from.Policies, to.Policies);
        Do(_clusters, from.Clusters, to.Clusters);
        Nodes(from, to);
        Do(_entries, from.IPCache, to.IPCache);
        Do(_frontends, from.Frontends, to.Frontends);
        foreach (var (endpoint, path) in to.Paths)
            _indexes.SetPath(_indexes.Find(endpoint), path);
        foreach (var (cluster, share) in to.Shares)
            if (share == 0)
                _liveness.TakeOut(cluster);
            else
                _liveness.LetIn(cluster, share);
        Tidy();
    }

    /// <summary>As reconcilers have it when every source has said all.</summary>
    internal void Prune(Intent to)
    {
        _policies.Prune(to.Policies);
        _clusters.Prune(to.Clusters);
        _addresses.Prune(to.Nodes.Values);
        _entries.Prune(to.IPCache);
        _frontends.Prune(to.Frontends);
        Tidy();
    }

    /// <summary>What is held: the same for the same intent, however it was reached.</summary>
    internal string Held => string.Create(CultureInfo.InvariantCulture,
        $"{_store.Ids.Used} services, {_store.Blocks.Used} blocks, {_store.Slots.Used} slots, {_indexes.Indexes.Used} nodes, {_policies.Rows} verdicts, "
        + $"{_policies.Allocator.Used} ranges, {_lb.SourceRanges4.Dump().Count + _lb.SourceRanges6.Dump().Count} source ranges");

    /// <summary>Of each map a checksum of its contents.</summary>
    internal Dictionary<string, string> Snapshot() => new()
    {
        ["lb4_services"] = Sum(_lb.Services4),
        ["lb6_services"] = Sum(_lb.Services6),
        ["lb4_source_ranges"] = Sum(_lb.SourceRanges4),
        ["lb6_source_ranges"] = Sum(_lb.SourceRanges6),
        ["lb_services"] = Sum(_lb.Services),
        ["lb_arena"] = Sum(_lb.Arena),
        ["lb_backends"] = Sum(_lb.Backends),
        ["lb_backend_health"] = Sum(_lb.Health),
        ["cluster_liveness"] = Sum(_lb.Clusters),
        ["ipcache4"] = Sum(_ipcache.Hosts4),
        ["ipcache6"] = Sum(_ipcache.Hosts6),
        ["ipcache4_prefixes"] = Sum(_ipcache.Ranges4),
        ["ipcache6_prefixes"] = Sum(_ipcache.Ranges6),
        ["nodes"] = Sum(_nodeMap),
        ["tunnel_senders"] = Sum(_senders),
        ["lb_node_addresses"] = Sum(_addressMap),
        ["policy_endpoints"] = Sum(_policyMaps.Words),
        ["policy_rows"] = Sum(_policyMaps.Rows),
        ["policy_ranges"] = Sum(_policyMaps.Ranges),
    };

    /// <summary>What programs would find, thing by thing, in words without places.</summary>
    internal Dictionary<string, string> View(PinnedMaps reader)
    {
        var view = new Dictionary<string, string>();
        foreach (var frontend in reader.Frontends())
            foreach (var client in frontend.Scope is { } scope ? (LbScope[])[scope] : [LbScope.External, LbScope.Internal])
                view[$"service {frontend.Address} for {client} clients"] = Text(frontend);
        foreach (var entry in reader.IPCache())
            view[$"address {entry.Prefix}"] = $"{entry.Identity} at {entry.TunnelEndpoint} of {entry.ClusterId}"
                + (entry.Node != 0 && entry.TunnelEndpoint is null ? " (no such node)" : "");
        foreach (var (key, value) in _senders.Dump())
            view[$"sender {key.ToIpAddr()}"] = $"is {_nodeMap[value.Index].TunnelEndpoint.ToIpAddr(_nodeMap[value.Index].Family)}";
        foreach (var (key, value) in _addressMap.Dump())
            view[$"node address {key.ToIpAddr()}"] = $"{value}";
        foreach (var cluster in reader.Clusters().Where(cluster => cluster.Up))
            view[$"cluster {cluster.ClusterId}"] = $"{(cluster.Alive ? $"{cluster.Share}/255" : "silent")}";
        foreach (var node in reader.Nodes())
        {
            var value = _nodeMap[node.Index];
            view[$"next hop of {node.TunnelEndpoint}"] = value.InterfaceIndex == 0
                ? Unknown
                : $"{value.InterfaceIndex} {value.NextHopMac} {value.SourceMac}";
            view[$"flags of {node.TunnelEndpoint}"] = $"{value.Flags} {value.ClusterId}";
        }
        foreach (var ingress in (bool[])[true, false])
            view[$"policy {(ingress ? "into" : "out of")} the pod"] = Verdicts(reader.Policy, ingress);
        return view;
    }

    /// <summary>Takes back what belongs in front of a store that has been made: as it looks when the order is the other way round.</summary>
    internal void Undo(string stores)
    {
        switch (stores)
        {
            case "the word of a service before its backends":
                _lb.Backends.Span.Clear();
                break;
            case "an address before its node":
                _nodeMap.Span.Clear();
                break;
            case "the word of a pod's policy before its verdicts":
                _policyMaps.Rows.RemoveBatch([.. _policyMaps.Rows.Dump().Select(row => row.Key)]);
                break;
            default:
                _lb.SourceRanges4.RemoveBatch([.. _lb.SourceRanges4.Dump().Select(range => range.Key)]);
                break;
        }
    }

    /// <summary>Next hop: the device finds it.</summary>
    internal const string Unknown = "unknown";

    public void Dispose()
    {
        _policies.Dispose();
        _grace.Dispose();
        _lb.Dispose();
        _ipcache.Dispose();
        _nodeMap.Dispose();
        _senders.Dispose();
        _addressMap.Dispose();
        _policyMaps.Dispose();
    }

    private void Nodes(Intent from, Intent to)
    {
        foreach (var name in from.Nodes.Keys.Except(to.Nodes.Keys))
            _addresses.Forget(name);
        foreach (var (name, node) in to.Nodes)
        {
            _indexes.SetTakesDsr(node.UnderlayAddress(v6: false)!.Value, node.TakesDsr);
            _addresses.Set(name, node);
        }
    }

    private void Tidy()
    {
        _policies.Collect();
        _grace.Collect();
    }

    private static void Do<TKey, TRow>(IOperations<TKey, TRow> operations, IReadOnlyDictionary<TKey, TRow> from, IReadOnlyDictionary<TKey, TRow> to)
        where TKey : notnull
        where TRow : class
    {
        operations.Delete([.. from.Keys.Except(to.Keys)], (_, fault) => Assert.Fail(fault.Cause));
        operations.Update([.. to], (_, fault) => Assert.Fail(fault.Cause));
    }

    private static string Text(PinnedFrontend frontend)
    {
        var table = frontend.Segments.Select(segment => string.Join(' ', segment.Backends.Select(
                backend => $"{backend.Address}/{backend.ClusterId}({backend.State})"))
            + $" tier {segment.Tier} weight {segment.Weight} table {Check(segment)}");
        return $"{frontend.Type} {frontend.Affinity} {frontend.AffinitySeconds} {frontend.IsLocalOnly} {frontend.Forwarding} {frontend.Algorithm} "
            + $"from [{string.Join(' ', frontend.SourceRanges)}]: {string.Join(" | ", table)}";
    }

    /// <summary>Which entry is whose depends on what was there before; that each is somebody's, and nobody has none, does not.</summary>
    private static string Check(PinnedSegment segment) =>
        segment.Table.Distinct().Order().SequenceEqual(Enumerable.Range(0, segment.Backends.Count).Select(i => (ushort)i)) ? "sound" : "broken";

    /// <summary>The answer to every peer and port that either policy knows, and to some that none does.</summary>
    private static string Verdicts(PolicyMaps maps, bool ingress)
    {
        var word = maps.Word(Intent.Pod);
        var set = ingress ? word.Ingress : word.Egress;
        if (set < PolicyLimits.FirstSet)
            return $"{set}";
        var peers = (uint[])[131073, 65537, 196609, 77];
        var ports = (ushort[])[10, 20, 80, 90, 91, 100, 101];
        return string.Join(' ', peers.Select(peer => maps.Find(set, peer) is { } row
            ? string.Concat(ports.Select(port => row.Row.At(6, port).Allowed ? '+' : '-'))
            : "nothing"));
    }

    private static string Sum<TKey, TValue>(BpfMap<TKey, TValue> map)
        where TKey : unmanaged
        where TValue : unmanaged
        => string.Join(';', map.Dump().Select(pair => Convert.ToHexString(MemoryMarshal.AsBytes([pair.Key]))
                + Convert.ToHexString(MemoryMarshal.AsBytes([pair.Value])))
            .Order(StringComparer.Ordinal));

    private static string Sum<TValue>(MmapArray<TValue> map)
        where TValue : unmanaged
        => Sum(map.Bytes);

    private static string Sum(ReadOnlySpan<byte> bytes) => Convert.ToHexString(SHA256.HashData(bytes)[..6]);
}
