namespace Mesh.Install.Preflight;

/// <summary>What an installation will want of a node.</summary>
public sealed record NodeQuestions
{
    /// <summary>As a flag says that there is no such path: a flag without a value is none.</summary>
    public const string None = "none";

    /// <summary>Where the node's own files are; "/" on the node itself.</summary>
    public string HostRoot { get; init; } = "/";

    /// <summary>UDP.</summary>
    public ushort TunnelPort { get; init; } = 8472;

    /// <summary>Where the BPF file system is to be on the node.</summary>
    public string BpfRoot { get; init; } = "/sys/fs/bpf";

    /// <summary>A container will mount it where it is not mounted.</summary>
    public bool MountsBpf { get; init; } = true;

    /// <summary>Where cgroup v2 is to be on the node.</summary>
    public string CgroupRoot { get; init; } = "/sys/fs/cgroup";

    /// <summary>null when no configuration will be put there.</summary>
    public string? CniConfPath { get; init; } = "/etc/cni/net.d";

    /// <summary>Other plugins' configurations will be renamed.</summary>
    public bool CniExclusive { get; init; } = true;

    /// <summary>Path on the node of the plugin that is called after ours; null for none.</summary>
    public string? ChainedPlugin { get; init; }

    /// <summary>kube-proxy is expected not to run.</summary>
    public bool ReplacesKubeProxy { get; init; }
}
