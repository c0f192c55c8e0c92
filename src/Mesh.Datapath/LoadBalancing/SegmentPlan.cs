using System.Runtime.InteropServices;
using Mesh.ControlPlane.LoadBalancing;
using Mesh.Datapath.Maps;
using Mesh.Model;

namespace Mesh.Datapath.LoadBalancing;

/// <summary>What one scope of a row should be in the kernel: its info, and its segments sorted by tier and cluster, each with its
/// backends sorted by address (the programs search them by halves).</summary>
internal sealed record SegmentPlan(LbServiceFlags Flags, LbServiceInfo Info, IReadOnlyList<PlannedSegment> Segments)
{
    /// <summary>Backends that the clients of a scope may be given.</summary>
    internal static bool Serves(Frontend row, LbScope scope, in Backend backend) =>
        backend.IsHere || !(scope == LbScope.External ? row.ExternalLocal : row.InternalLocal);

    /// <param name="sourceRanges">Id of the row's source ranges; 0 = every source.</param>
    /// <exception cref="DatapathException">Something that the maps cannot hold.</exception>
    internal static SegmentPlan For(Frontend row, LbScope scope = LbScope.External, uint sourceRanges = 0)
    {
        var segments = new List<PlannedSegment>();
        var local = scope == LbScope.External ? row.ExternalLocal : row.InternalLocal;
        var served = local ? row.Backends.Where(backend => backend.IsHere) : row.Backends;
        foreach (var group in served.GroupBy(backend => (backend.Tier, backend.ClusterId, backend.InZone)).OrderBy(group => group.Key))
        {
            var backends = group.OrderBy(backend => backend.Address).Select(backend => Encode(row, backend)).ToArray();
            if (group.Key.ClusterId >= LbLimits.Clusters)
                throw new DatapathException($"cluster ID {group.Key.ClusterId}: the datapath knows 0 to {LbLimits.Clusters - 1}");
            if (backends.Length > Maglev.BackendsMax)
                throw new DatapathException(
                    $"{backends.Length} backends in cluster {group.Key.ClusterId}: a segment's table holds at most {Maglev.BackendsMax}");
            segments.Add(new PlannedSegment(group.Key.Tier, (ushort)group.Key.ClusterId, backends, WeightOf(row, group.Key)));
        }
        return segments.Count <= LbLimits.SegmentsMax
            ? new SegmentPlan(FlagsOf(row, sourceRanges), InfoOf(row, local, sourceRanges), segments)
            : throw new DatapathException($"backends in {segments.Count} groups of one cluster and tier: at most {LbLimits.SegmentsMax}");
    }

    /// <summary>0 = as many as backends.</summary>
    private static uint WeightOf(Frontend row, (byte Tier, uint ClusterId, bool? InZone) group)
    {
        foreach (var share in row.Shares)
            if (share.Tier == group.Tier && share.ClusterId == group.ClusterId && share.InZone == group.InZone)
                return share.Weight;
        return 0;
    }

    private static LbServiceFlags FlagsOf(Frontend row, uint sourceRanges) => LbServiceFlags.Present
        | row.Affinity switch
        {
            ServiceAffinity.Local => LbServiceFlags.AffinityLocal,
            ServiceAffinity.Remote => LbServiceFlags.AffinityRemote,
            _ => LbServiceFlags.None,
        }
        | (row.Algorithm == BackendAlgorithm.Random ? LbServiceFlags.Random : LbServiceFlags.None)
        | (row.AffinitySeconds > 0 ? LbServiceFlags.SessionAffinity : LbServiceFlags.None)
        | (sourceRanges > 0 ? LbServiceFlags.SourceRanges : LbServiceFlags.None);

    private static LbServiceInfo InfoOf(Frontend row, bool local, uint sourceRanges) => new()
    {
        AffinitySeconds = row.AffinitySeconds,
        SourceRanges = sourceRanges,
        Forwarding = (byte)row.Forwarding,
        Algorithm = (byte)row.Algorithm,
        Kind = (byte)row.Type,
        Flags = local ? LbInfoFlags.LocalOnly : LbInfoFlags.None,
    };

    private static LbBackend Encode(Frontend row, Backend backend)
    {
        if (backend.Address.Address.IsV6 != row.Address.Address.IsV6)
            throw new DatapathException($"backend {backend.Address} is of the other IP family");
        return new LbBackend
        {
            Address = MeshAddress.From(backend.Address.Address),
            Port = BigEndianUInt16.FromHost(backend.Address.Port),
            Protocol = (byte)backend.Address.Protocol,
            State = (byte)backend.State,
            ClusterId = (ushort)backend.ClusterId,
            Family = Family.Of(backend.Address.Address),
            Flags = backend.IsHere ? LbBackendFlags.Here : LbBackendFlags.None,
        };
    }
}

/// <param name="Weight">Share of the tier's flows; 0 = as many as backends. Two segments may have the same backends.</param>
internal sealed record PlannedSegment(byte Tier, ushort ClusterId, LbBackend[] Backends, uint Weight)
{
    internal ReadOnlySpan<byte> Bytes => MemoryMarshal.AsBytes(Backends.AsSpan());
}
