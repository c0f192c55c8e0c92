using System.Runtime.CompilerServices;
using Mesh.Bpf;
using Mesh.Datapath.Loader;
using Mesh.Datapath.Maps;

namespace Mesh.Datapath.Tests.Kernel;

/// <summary>Every map of the datapath, pinned where an agent would pin it, with sizes of the test's choice and without programs.</summary>
internal sealed class PinnedTestMaps : IDisposable
{
    private const uint NoPrealloc = 1;
    private readonly BpfFileSystem _files = new();

    internal PinnedTestMaps(
        uint services = 64, uint blocks = 1024, uint backends = 512, uint nodes = 64, uint ipcache = 4096, uint prefixes = 256)
    {
        Pins = new PinDirectory(_files.Path);
        Pins.Create();
        Make<Lb4Key, LbServiceId>("lb4_services", MapInfo.TypeHash, services);
        Make<Lb6Key, LbServiceId>("lb6_services", MapInfo.TypeHash, services);
        Make<Lb4RangeKey, uint>("lb4_source_ranges", MapInfo.TypeLpmTrie, services, NoPrealloc);
        Make<Lb6RangeKey, uint>("lb6_source_ranges", MapInfo.TypeLpmTrie, services, NoPrealloc);
        Make<LbNodeAddress, LbNodePlace>("lb_node_addresses", MapInfo.TypeHash, nodes, NoPrealloc);
        MakeArray<LbService>("lb_services", services);
        MakeArray<LbBlock>("lb_arena", blocks);
        MakeArray<LbBackend>("lb_backends", backends);
        MakeArray<ClusterLivenessValue>("cluster_liveness", 1);
        MakeArray<LbBackendHealth>("lb_backend_health", backends);
        MakeArray<FailoverValue>("failover", 1);
        Make<uint, ulong>("cluster_choices", MapInfo.TypePerCpuArray, LbLimits.Clusters);
        MakeArray<NodeValue>("nodes", nodes);
        MakeArray<AgentStateValue>("agent_state", 1);
        Make<IPCache4Key, IPCacheValue>("ipcache4", MapInfo.TypeHash, ipcache, NoPrealloc);
        Make<IPCache6Key, IPCacheValue>("ipcache6", MapInfo.TypeHash, ipcache, NoPrealloc);
        Make<IPCache4PrefixKey, IPCacheValue>("ipcache4_prefixes", MapInfo.TypeLpmTrie, prefixes, NoPrealloc);
        Make<IPCache6PrefixKey, IPCacheValue>("ipcache6_prefixes", MapInfo.TypeLpmTrie, prefixes, NoPrealloc);
        Make<EndpointKey, EndpointValue>("endpoints", MapInfo.TypeHash, 64);
        Make<EndpointKey, NodeIndexValue>("tunnel_senders", MapInfo.TypeHash, nodes);
        MakeArray<PolicyEndpointValue>("policy_endpoints", 64);
        Make<PolicyRowKey, PolicyRowValue>("policy_rows", MapInfo.TypeHash, 256);
        MakeArray<PolicyRangeValue>("policy_ranges", 256);
        Make<uint, PolicyCounterValue>("policy_counters", MapInfo.TypePerCpuArray, 16);
        Make<uint, CounterValue>("counters", MapInfo.TypePerCpuArray, 256);
    }

    internal PinDirectory Pins { get; }

    internal PinnedMaps Read() => PinnedMaps.Open(Pins.Root);

    public void Dispose() => _files.Dispose();

    private void MakeArray<TValue>(string name, uint entries)
        where TValue : unmanaged
        => Make<uint, TValue>(name, MapInfo.TypeArray, entries, MapInfo.FlagMmapable);

    private void Make<TKey, TValue>(string name, uint type, uint entries, uint flags = 0)
        where TKey : unmanaged
        where TValue : unmanaged
    {
        using var fd = BpfMaps.Create(name, type, (uint)Unsafe.SizeOf<TKey>(), (uint)Unsafe.SizeOf<TValue>(), entries, flags);
        fd.Pin(Pins.Map(name));
    }
}
