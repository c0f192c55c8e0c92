using Mesh.ControlPlane.LoadBalancing;
using Mesh.Model;
using Mesh.Policy;

namespace Mesh.ControlPlane.Restored;

/// <summary>
/// What an earlier run of the agent left in the kernel about other clusters, read from the pinned maps before anything is written.
/// Rows made of it stand in for a cluster until that cluster has been heard: a restart while a peer is out of reach withdraws
/// nothing of that peer, and yet every table can be reconciled and pruned as a whole. Of this cluster nothing is restored: its
/// objects are at hand, and they come as one batch.
/// </summary>
public sealed record RestoredState
{
    public static readonly RestoredState Empty = new();

    /// <summary>Backends by frontend, in the maps' order. Those of the local cluster are left out by the reader of this list.</summary>
    public IReadOnlyList<RestoredBackend> Backends { get; init; } = [];

    public IReadOnlyList<RestoredAddress> Addresses { get; init; } = [];

    /// <summary>Above every number of a rule set that the kernel still holds.</summary>
    public uint NextPolicySet { get; init; } = EndpointPolicyRow.FirstSet;

    /// <summary>Endpoints for which a policy was decided: it holds until every policy of this cluster could be read.</summary>
    public IReadOnlyList<ushort> PolicyEndpoints { get; init; } = [];

    /// <summary>Address ranges of policies → the identity that the kernel shows.</summary>
    public IReadOnlyList<KeyValuePair<IpPrefix, uint>> PolicyRanges { get; init; } = [];
}

/// <param name="Frontend">Virtual address that reached it.</param>
/// <param name="Backend">Address of the backend.</param>
/// <param name="ClusterId">Cluster of the backend, from the map.</param>
public readonly record struct RestoredBackend(L3n4Addr Frontend, L3n4Addr Backend, uint ClusterId, BackendState State);

/// <param name="TunnelEndpoint">Underlay address of the node; null for an address reached without a tunnel.</param>
/// <param name="ClusterId">Cluster of the node, from the map; 0 when the entry names no node.</param>
public readonly record struct RestoredAddress(IpPrefix Prefix, uint Identity, IpAddr? TunnelEndpoint, uint ClusterId);
