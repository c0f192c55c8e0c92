namespace Mesh.Agent.Cni;

/// <summary>What the container runtime of this node is told of us.</summary>
public sealed record CniOptions
{
    /// <summary>Written once pods can be added, such as /etc/cni/net.d/05-cilium.conflist; null = never.</summary>
    public string? ConfigurationPath { get; init; }

    /// <summary>Other networks' configurations in that directory are put aside, so that no pod is given to them.</summary>
    public bool Exclusive { get; init; } = true;

    /// <summary>The portmap plugin is called after ours: hostPort without us.</summary>
    public bool PortMap { get; init; }
}
