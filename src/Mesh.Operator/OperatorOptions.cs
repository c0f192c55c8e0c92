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

    /// <summary>HOST:PORT of /healthz; port 0 for any.</summary>
    public required System.Net.IPEndPoint ApiAddress { get; init; }

    public System.Net.IPEndPoint? PrometheusAddress { get; init; }
}
