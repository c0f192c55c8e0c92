using Mesh.Kubernetes;
using Mesh.Model;

namespace Mesh.Operator;

/// <summary>What the operator was asked to do; every value has been checked.</summary>
internal sealed record OperatorOptions
{
    public required SourceAddress Source { get; init; }

    /// <summary>Namespace of the lease.</summary>
    public required string Namespace { get; init; }

    /// <summary>This candidate among the replicas.</summary>
    public required string Identity { get; init; }

    /// <summary>True: nodes have the ranges that Kubernetes gave them, and nothing is given here.</summary>
    public bool RangesOfKubernetes { get; init; }

    /// <summary>Pools and the length of a node's piece, a family each.</summary>
    public IReadOnlyList<(IReadOnlyList<IpPrefix> Pools, int Size)> Pools { get; init; } = [];

    /// <summary>How long an identity that nobody uses is kept.</summary>
    public TimeSpan IdentityGrace { get; init; } = TimeSpan.FromMinutes(15);

    /// <summary>How often what is lost is looked for.</summary>
    public TimeSpan CollectEvery { get; init; } = TimeSpan.FromMinutes(1);

    /// <summary>Own cluster's name; "" where nothing of the mesh is asked of us.</summary>
    public string ClusterName { get; init; } = "";

    public uint ClusterId { get; init; }

    public IdentityNumbering Numbering { get; init; } = IdentityNumbering.Max255;

    /// <summary>Directory that lists the peers; null for none.</summary>
    public string? ClusterMeshConfig { get; init; }

    /// <summary>Whether endpoints of other clusters become slices of headless global services here.</summary>
    public bool SyncsEndpoints { get; init; }

    /// <summary>Whether exported services are imported (MCS-API).</summary>
    public bool Imports { get; init; }

    /// <summary>Whether a namespace that does not say takes part in the mesh.</summary>
    public bool NamespacesAreGlobal { get; init; } = true;

    /// <summary>HOST:PORT of /healthz; port 0 for any.</summary>
    public required System.Net.IPEndPoint ApiAddress { get; init; }

    public System.Net.IPEndPoint? PrometheusAddress { get; init; }
}
