namespace Mesh.ControlPlane;

/// <summary>The cluster this agent belongs to.</summary>
public readonly record struct ClusterIdentity(string Name, uint Id)
{
    public override string ToString() => $"{Name}/{Id}";
}
