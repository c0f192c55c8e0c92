using Mesh.Model;

namespace Mesh.ClusterMesh.Imports;

/// <summary>Addresses that are this cluster's own, so that no peer can have them. Immutable.</summary>
/// <param name="NodeAddresses">Of every node of this cluster.</param>
/// <param name="PodCidrs">Of every node of this cluster.</param>
public sealed record OwnGround(IReadOnlySet<IpAddr> NodeAddresses, PrefixSet PodCidrs)
{
    public static readonly OwnGround Unknown = new(new HashSet<IpAddr>(), PrefixSet.Empty);
}

/// <summary>Which peer each pinned range belongs to. Immutable; replaced as a whole when a peer's file changes.</summary>
internal sealed class PinnedRanges
{
    public static readonly PinnedRanges None = new([]);

    private readonly Dictionary<IpPrefix, string> _owners = [];
    private readonly int[] _lengths;

    public PinnedRanges(IEnumerable<(string Cluster, IEnumerable<IpPrefix> Ranges)> pins)
    {
        foreach (var (cluster, ranges) in pins)
        {
            foreach (var range in ranges)
                _owners[range] = cluster;
        }
        _lengths = [.. _owners.Keys.Select(range => (int)range.Length).Distinct().OrderDescending()];
    }

    /// <summary>The peer, other than this one, whose pinned range holds the address most closely; null when it is free or its own.</summary>
    public string? OtherOwner(IpAddr address, string cluster)
    {
        foreach (var length in _lengths)
        {
            if (length <= address.Bits && _owners.TryGetValue(new IpPrefix(address, length), out var owner))
                return owner == cluster ? null : owner;
        }
        return null;
    }
}

/// <summary>The pins of all configured peers, shared by them. For any thread.</summary>
internal sealed class Pins
{
    private readonly Lock _lock = new();
    private readonly Dictionary<string, ImportPolicy> _policies = new(StringComparer.Ordinal);
    private volatile PinnedRanges _ranges = PinnedRanges.None;

    public PinnedRanges Ranges => _ranges;

    /// <param name="policy">Null when the peer has gone.</param>
    public void Set(string cluster, ImportPolicy? policy)
    {
        lock (_lock)
        {
            if (policy is null)
                _policies.Remove(cluster);
            else
                _policies[cluster] = policy;
            _ranges = new PinnedRanges(_policies.Select(pair =>
                (pair.Key, (pair.Value.PodCidrs?.Ranges ?? []).Concat(pair.Value.NodeCidrs?.Ranges ?? []))));
        }
    }
}
