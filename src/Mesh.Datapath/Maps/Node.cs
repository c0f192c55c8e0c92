namespace Mesh.Datapath.Maps;

/// <summary>struct node, value of nodes.</summary>
public struct NodeValue
{
    public MeshAddress TunnelEndpoint;

    /// <summary>MESH_FAMILY_* of the underlay; None = free slot.</summary>
    public byte Family;

    /// <summary>0 up, 1 down.</summary>
    public byte State;
    public ushort ClusterId;
    public uint LastSeenMs;
    public MacAddress NextHopMac;
    public MacAddress SourceMac;
    public uint InterfaceIndex;
}
