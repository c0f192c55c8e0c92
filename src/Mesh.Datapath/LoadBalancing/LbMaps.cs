using Mesh.Bpf;
using Mesh.Datapath.Maps;

namespace Mesh.Datapath.LoadBalancing;

/// <summary>The maps of load balancing, as bpf/include/mesh/lb.h and liveness.h draw them. Owns them.</summary>
internal sealed class LbMaps : IDisposable
{
    internal required BpfMap<Lb4Key, LbServiceId> Services4 { get; init; }

    internal required BpfMap<Lb6Key, LbServiceId> Services6 { get; init; }

    internal required MmapArray<LbService> Services { get; init; }

    internal required MmapArray<LbBlock> Arena { get; init; }

    internal required MmapArray<LbBackend> Backends { get; init; }

    internal required MmapArray<ClusterLivenessValue> Clusters { get; init; }

    /// <summary>Same index as <see cref="Backends"/>.</summary>
    internal required MmapArray<LbBackendHealth> Health { get; init; }

    internal required BpfMap<Lb4RangeKey, uint> SourceRanges4 { get; init; }

    internal required BpfMap<Lb6RangeKey, uint> SourceRanges6 { get; init; }

    internal static LbMaps OpenPinned(string directory, bool readOnly = false) => new()
    {
        Services4 = BpfMaps.OpenPinned<Lb4Key, LbServiceId>(Path.Combine(directory, "lb4_services"), readOnly),
        Services6 = BpfMaps.OpenPinned<Lb6Key, LbServiceId>(Path.Combine(directory, "lb6_services"), readOnly),
        Services = BpfMaps.OpenPinnedArray<LbService>(Path.Combine(directory, "lb_services"), readOnly),
        Arena = BpfMaps.OpenPinnedArray<LbBlock>(Path.Combine(directory, "lb_arena"), readOnly),
        Backends = BpfMaps.OpenPinnedArray<LbBackend>(Path.Combine(directory, "lb_backends"), readOnly),
        SourceRanges4 = BpfMaps.OpenPinned<Lb4RangeKey, uint>(Path.Combine(directory, "lb4_source_ranges"), readOnly),
        SourceRanges6 = BpfMaps.OpenPinned<Lb6RangeKey, uint>(Path.Combine(directory, "lb6_source_ranges"), readOnly),
        Clusters = BpfMaps.OpenPinnedArray<ClusterLivenessValue>(Path.Combine(directory, "cluster_liveness"), readOnly),
        Health = BpfMaps.OpenPinnedArray<LbBackendHealth>(Path.Combine(directory, "lb_backend_health"), readOnly),
    };

    public void Dispose()
    {
        Services4.Dispose();
        Services6.Dispose();
        Services.Dispose();
        Arena.Dispose();
        Backends.Dispose();
        Clusters.Dispose();
        Health.Dispose();
        SourceRanges4.Dispose();
        SourceRanges6.Dispose();
    }
}
