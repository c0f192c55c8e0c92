using System.Text.Json;
using System.Text.Json.Serialization;
using Mesh.AgentApi;

namespace Mesh.Cli.ClusterMesh;

/// <summary>
/// What `clustermesh status` found out, in the JSON shape of Cilium's own CLI. Made of named public fields only: no certificate key
/// can get into it by accident, because there is no field for one.
/// </summary>
public sealed record ClusterMeshReport
{
    [JsonPropertyName("access_information")] public AccessInformation? AccessInformation { get; init; }

    [JsonPropertyName("connectivity")] public required Connectivity Connectivity { get; init; }

    [JsonPropertyName("kvstoremesh")] public KvstoreMesh KvstoreMesh { get; init; } = new();

    /// <summary>Nodes, or the API server, that could not be asked, by name: what is said about the rest may not be all.</summary>
    [JsonPropertyName("unknown")] public SortedDictionary<string, string>? Unknown { get; init; }

    /// <summary>Not of Cilium's shape: why the API server is not ready; null when it is, or when there is none to ask.</summary>
    [JsonPropertyName("apiserver_not_ready")] public string? ApiServerNotReady { get; init; }

    /// <summary>Not of Cilium's shape: what the API server complains of, its door's certificate and manifests among it; null when of nothing.</summary>
    [JsonPropertyName("apiserver_problems")] public IReadOnlyList<string>? ApiServerProblems { get; init; }

    /// <summary>Not of Cilium's shape: what each node proves of each peer.</summary>
    [JsonPropertyName("evidence")] public SortedDictionary<string, IReadOnlyList<PeerStatus>>? Evidence { get; init; }

    /// <summary>Not of Cilium's shape: what is wrong, by node.</summary>
    [JsonPropertyName("faults")] public SortedDictionary<string, IReadOnlyList<MeshFault>>? Faults { get; init; }

    /// <summary>What Kubernetes says of the API server, line by line, in place of the first lines of the text; null outside of Kubernetes.</summary>
    [JsonIgnore]
    public IReadOnlyList<string>? Head { get; init; }

    public string ToJson() => JsonSerializer.Serialize(this, ClusterMeshJson.Default.ClusterMeshReport);

    /// <summary>Everything known, and everything connected.</summary>
    [JsonIgnore]
    public bool IsConnected => Unknown is null && ApiServerNotReady is null && Connectivity.NotReady == 0
        && (KvstoreMesh.Status is null || KvstoreMesh.Status.NotReady == 0);

    /// <summary>0: everything was proved to be well. 1: not everything could be asked. 2: a cluster is not connected, or what is known of
    /// it is not proved any more. 3: all are connected, and something is wrong nevertheless.</summary>
    [JsonIgnore]
    public int ExitCode => Unknown is not null || ApiServerNotReady is not null ? 1
        : IsConnected && Faults is null && ApiServerProblems is null && !HasWarnings(KvstoreMesh.Status) ? 0
        : KvstoreMesh.Status is { NotReady: > 0 } ? 2
        : (Evidence?.Values.SelectMany(peers => peers).Any(p => !p.Healthy && !Degraded.Contains(p.Fault)) ?? Connectivity.NotReady > 0) ? 2 : 3;

    private static bool HasWarnings(Connectivity? relay) =>
        relay?.Errors?.Values.SelectMany(clusters => clusters.Values).Any(count => count.Warnings.Count > 0) == true;

    /// <summary>Kinds of fault that leave the connection to the peer as it should be.</summary>
    private static readonly HashSet<string> Degraded = new(StringComparer.Ordinal)
    {
        "compacted", "store-full", "store-alarm", "clock-skew", "tunnel-down", "node-unreachable",
    };

    /// <summary>In one line, for those who wait.</summary>
    [JsonIgnore]
    public string WhatIsMissing => Unknown is { Count: > 0 } unknown ? unknown.First().Value
        : ApiServerNotReady ?? (Connectivity.NotReady > 0 ? $"{Connectivity.NotReady} nodes are not ready"
            : $"{KvstoreMesh.Status?.NotReady ?? 0} KVStoreMesh replicas are not ready");
}

public sealed record AccessInformation
{
    [JsonPropertyName("service_type")] public string? ServiceType { get; init; }

    [JsonPropertyName("service_ips")] public required IReadOnlyList<string> ServiceIPs { get; init; }

    [JsonPropertyName("service_port")] public int ServicePort { get; init; }

    [JsonPropertyName("cluster_id")] public required string ClusterId { get; init; }

    [JsonPropertyName("cluster_name")] public required string ClusterName { get; init; }

    /// <summary>Base64 of the PEM of the authority that peers must trust: a certificate, never a key.</summary>
    [JsonPropertyName("ca")] public string? Ca { get; init; }

    [JsonPropertyName("tunnel")] public string? Tunnel { get; init; }

    [JsonPropertyName("max_connected_clusters")] public int MaxConnectedClusters { get; init; }
}

public sealed record Connectivity
{
    [JsonPropertyName("connected")] public required Spread Connected { get; init; }

    [JsonPropertyName("clusters")] public required SortedDictionary<string, ClusterCount> Clusters { get; init; }

    [JsonPropertyName("total")] public int Total { get; init; }

    [JsonPropertyName("not_ready")] public int NotReady { get; init; }

    /// <summary>Node, then cluster. The cluster "" holds what concerns the node as a whole.</summary>
    [JsonPropertyName("errors")] public SortedDictionary<string, SortedDictionary<string, ErrorCount>>? Errors { get; init; }
}

/// <summary>Ready clusters per node.</summary>
public sealed record Spread
{
    [JsonPropertyName("min")] public int Min { get; init; }

    [JsonPropertyName("avg")] public double Avg { get; init; }

    [JsonPropertyName("max")] public int Max { get; init; }
}

public sealed record ClusterCount
{
    [JsonPropertyName("configured")] public int Configured { get; init; }

    [JsonPropertyName("connected")] public int Connected { get; init; }
}

public sealed record ErrorCount
{
    [JsonPropertyName("Errors"), JsonIgnore(Condition = JsonIgnoreCondition.Never)]
    public IReadOnlyList<string> Errors { get; init; } = [];

    [JsonPropertyName("Warnings"), JsonIgnore(Condition = JsonIgnoreCondition.Never)]
    public IReadOnlyList<string> Warnings { get; init; } = [];

    [JsonPropertyName("Disabled"), JsonIgnore(Condition = JsonIgnoreCondition.Never)]
    public bool Disabled { get; init; }

    /// <summary>What to do about the errors; printed behind them.</summary>
    [JsonIgnore]
    public string? Hint { get; init; }
}

public sealed record KvstoreMesh
{
    [JsonPropertyName("enabled"), JsonIgnore(Condition = JsonIgnoreCondition.Never)]
    public bool Enabled { get; init; }

    /// <summary>The relay's own connections, in place of a node's; null without a relay, and when it did not answer.</summary>
    [JsonPropertyName("status")] public Connectivity? Status { get; init; }
}

[JsonSourceGenerationOptions(WriteIndented = true, IndentSize = 1, DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingDefault)]
[JsonSerializable(typeof(ClusterMeshReport))]
internal sealed partial class ClusterMeshJson : JsonSerializerContext;
