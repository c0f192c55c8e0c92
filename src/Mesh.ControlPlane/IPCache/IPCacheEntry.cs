using Mesh.Model;

namespace Mesh.ControlPlane.IPCache;

/// <summary>Where an entry comes from. A higher value wins when two sources speak of one prefix.</summary>
public enum IPCacheSource
{
    /// <summary>A range that policies name, outside the mesh.</summary>
    Policy = -2,

    /// <summary>Left in the kernel by an earlier run; holds until the cluster it belongs to has been heard.</summary>
    Restored = -1,

    /// <summary>A node's pod range: the fallback for a pod whose own entry has not arrived.</summary>
    PodCidr = 0,
    ClusterMesh = 1,

    /// <summary>A node's own addresses.</summary>
    Node = 2,

    /// <summary>This cluster's own objects, and this node's endpoints.</summary>
    Local = 3,
}

/// <summary>Address range → who it is and through which node it is reached.</summary>
/// <param name="Identity">Security identity; 24 bits.</param>
/// <param name="TunnelEndpoint">Underlay address of the node; null when the packet needs no tunnel (this node, or the world).</param>
/// <param name="Cluster">Cluster the knowledge comes from.</param>
/// <param name="Namespace">Pod's namespace, "" when it is no pod.</param>
/// <param name="PodName">Pod, "" when it is none.</param>
public sealed record IPCacheEntry(
    IpPrefix Prefix,
    uint Identity,
    IpAddr? TunnelEndpoint,
    byte EncryptKey,
    IPCacheSource Source,
    string Cluster,
    uint ClusterId,
    string Namespace,
    string PodName);
