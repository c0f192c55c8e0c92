using Mesh.Model;

namespace Mesh.ClusterMesh.ApiServer;

/// <summary>The cluster whose truth we publish.</summary>
/// <param name="Name">A valid cluster name; segment of most keys.</param>
/// <param name="Id">1 to Numbering.MaxConnectedClusters; stands in every record.</param>
/// <param name="Numbering">How identities divide among clusters; the same in the whole mesh.</param>
public sealed record ClusterSelf(string Name, uint Id, IdentityNumbering Numbering);
