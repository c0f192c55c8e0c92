using Mesh.Model;

namespace Mesh.ControlPlane.RemoteClusters;

/// <summary>A configured peer as this agent sees it.</summary>
/// <param name="ClusterId">0 until its cluster-config has been read.</param>
/// <param name="Ready">Connected, configuration read, and every resource listed.</param>
/// <param name="Status">One line for people; see the layouts of `clustermesh status`.</param>
public sealed record RemoteClusterRow(
    string Name,
    uint ClusterId,
    bool Connected,
    bool Ready,
    string Status);

/// <summary>Labels of an identity, "source:key=value", sorted by key.</summary>
public sealed record IdentityRow(uint Id, EquatableArray<string> Labels, string Cluster);
