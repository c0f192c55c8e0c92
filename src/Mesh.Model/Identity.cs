namespace Mesh.Model;

/// <summary>
/// How many clusters a mesh may hold, and so how the 24 identity bits are split into cluster and local part.
/// Every cluster of one mesh must use the same value: 255 (8 + 16 bits) or 511 (9 + 15 bits).
/// </summary>
public sealed record IdentityNumbering
{
    public static readonly IdentityNumbering Max255 = new(255, 16);
    public static readonly IdentityNumbering Max511 = new(511, 15);

    /// <summary>Highest cluster ID: 255 or 511.</summary>
    public int MaxConnectedClusters { get; }

    /// <summary>Bits of the part that one cluster numbers itself: 16 or 15.</summary>
    public int LocalBits { get; }

    private IdentityNumbering(int max, int localBits)
    {
        MaxConnectedClusters = max;
        LocalBits = localBits;
    }

    /// <summary>Null unless <paramref name="maxConnectedClusters"/> is 255 or 511.</summary>
    public static IdentityNumbering? For(int maxConnectedClusters) => maxConnectedClusters switch
    {
        255 => Max255,
        511 => Max511,
        _ => null,
    };

    public bool IsValidClusterId(uint clusterId) => clusterId >= 1 && clusterId <= MaxConnectedClusters;

    /// <summary>Cluster that numbered this identity; 0 for reserved ones and for cluster 0.</summary>
    public uint ClusterOf(uint identity) => identity >> LocalBits & (uint)MaxConnectedClusters;

    /// <summary>Lowest identity a cluster may allocate. Cluster 0 begins at 256.</summary>
    public uint MinOf(uint clusterId) => clusterId == 0 ? NumericIdentity.FirstAllocatable : clusterId << LocalBits;

    /// <summary>Highest identity a cluster may allocate.</summary>
    public uint MaxOf(uint clusterId) => (clusterId + 1 << LocalBits) - 1;

    /// <summary>True when the identity lies in the cluster's own range. Scoped identities (bits 24 and up) never do.</summary>
    public bool InRange(uint clusterId, uint identity) => identity >= MinOf(clusterId) && identity <= MaxOf(clusterId);
}

/// <summary>Well-known numeric security identities; the numbers are the same in every cluster and on the wire.</summary>
public static class NumericIdentity
{
    public const uint Unknown = 0;
    public const uint Host = 1;
    public const uint World = 2;
    public const uint Unmanaged = 3;
    public const uint Health = 4;
    public const uint Init = 5;
    public const uint RemoteNode = 6;
    public const uint KubeApiserver = 7;
    public const uint Ingress = 8;
    public const uint WorldIPv4 = 9;
    public const uint WorldIPv6 = 10;
    public const uint EncryptedOverlay = 11;

    /// <summary>Everything below is reserved and never scoped to a cluster.</summary>
    public const uint FirstAllocatable = 256;

    /// <summary>Largest identity that fits the 24-bit VXLAN network identifier.</summary>
    public const uint MaxOnTheWire = (1 << 24) - 1;

    private static readonly Dictionary<uint, string> Names = new()
    {
        [Unknown] = "unknown",
        [Host] = "host",
        [World] = "world",
        [Unmanaged] = "unmanaged",
        [Health] = "health",
        [Init] = "init",
        [RemoteNode] = "remote-node",
        [KubeApiserver] = "kube-apiserver",
        [Ingress] = "ingress",
        [WorldIPv4] = "world-ipv4",
        [WorldIPv6] = "world-ipv6",
        [EncryptedOverlay] = "encrypted-overlay",
    };

    /// <summary>The reserved identities by number, with the word used after "reserved:".</summary>
    public static IReadOnlyDictionary<uint, string> Reserved => Names;
}
