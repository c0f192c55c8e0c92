using System.Text.Json.Serialization;

namespace Mesh.AgentApi;

/// <summary>Our own part of the status: each thing that is not as it should be, with its reason.</summary>
public sealed record MeshStatus
{
    [JsonPropertyName("version")] public string Version { get; init; } = "";

    [JsonPropertyName("cluster-name")] public string ClusterName { get; init; } = "";

    [JsonPropertyName("cluster-id")] public long ClusterId { get; init; }

    [JsonPropertyName("node-name")] public string NodeName { get; init; } = "";

    [JsonPropertyName("tables")] public IReadOnlyList<TableStatus>? Tables { get; init; }

    /// <summary>Local objects that could not be taken over.</summary>
    [JsonPropertyName("source-problems")] public IReadOnlyList<Problem>? SourceProblems { get; init; }

    /// <summary>Peer configuration files that could not be taken over.</summary>
    [JsonPropertyName("config-problems")] public IReadOnlyList<Problem>? ConfigProblems { get; init; }

    /// <summary>Peers that published records which had to be rejected.</summary>
    [JsonPropertyName("rejections")] public IReadOnlyList<PeerRejections>? Rejections { get; init; }

    /// <summary>IDs of clusters of which the kernel has entries from before this run that nobody has confirmed yet; 0 = unknown.</summary>
    [JsonPropertyName("unconfirmed-clusters")] public IReadOnlyList<long>? Unconfirmed { get; init; }

    /// <summary>Packets dropped by the datapath since its maps were made, by reason.</summary>
    [JsonPropertyName("drops")] public IReadOnlyDictionary<string, long>? Drops { get; init; }
}

/// <summary>A desired-state table and how far the kernel has followed it.</summary>
public sealed record TableStatus
{
    [JsonPropertyName("name")] public string Name { get; init; } = "";

    [JsonPropertyName("rows")] public long Rows { get; init; }

    /// <summary>Rows not yet tried.</summary>
    [JsonPropertyName("pending")] public long Pending { get; init; }

    /// <summary>Rows the kernel did not take, all of them counted.</summary>
    [JsonPropertyName("failing")] public long Failing { get; init; }

    /// <summary>The first of the failing rows, with the reason.</summary>
    [JsonPropertyName("failures")] public IReadOnlyList<RowFailure>? Failures { get; init; }

    /// <summary>Sources whose first complete list is still awaited: nothing is pruned before.</summary>
    [JsonPropertyName("waiting-for")] public IReadOnlyList<string>? WaitingFor { get; init; }
}

public sealed record RowFailure
{
    [JsonPropertyName("key")] public string Key { get; init; } = "";

    [JsonPropertyName("error")] public string Error { get; init; } = "";

    [JsonPropertyName("attempts")] public long Attempts { get; init; }

    [JsonPropertyName("since")]
    [JsonConverter(typeof(GoTimeConverter))]
    public DateTimeOffset Since { get; init; }
}

public sealed record Problem
{
    /// <summary>File or object.</summary>
    [JsonPropertyName("where")] public string Where { get; init; } = "";

    /// <summary>What is wrong and how to mend it.</summary>
    [JsonPropertyName("message")] public string Message { get; init; } = "";

    [JsonPropertyName("since")]
    [JsonConverter(typeof(GoTimeConverter))]
    public DateTimeOffset Since { get; init; }
}

public sealed record PeerRejections
{
    [JsonPropertyName("name")] public string Name { get; init; } = "";

    [JsonPropertyName("rejected")] public long Rejected { get; init; }

    [JsonPropertyName("last")] public string? Last { get; init; }
}
