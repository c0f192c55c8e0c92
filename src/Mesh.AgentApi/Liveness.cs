using System.Text.Json.Serialization;

namespace Mesh.AgentApi;

/// <summary>What a node has found out by traffic about clusters and nodes, and what it makes of it.</summary>
public sealed record LivenessStatus
{
    /// <summary>Why the prober has no real-time priority; null when it has.</summary>
    [JsonPropertyName("real-time-problem")] public string? RealTimeProblem { get; init; }

    /// <summary>The device of the tunnel's packets has no carrier: the node blames itself for every silence.</summary>
    [JsonPropertyName("link-down")] public bool LinkDown { get; init; }

    /// <summary>Times when the prober itself came too late to judge.</summary>
    [JsonPropertyName("late-turns")] public long LateTurns { get; init; }

    /// <summary>Times when everybody was silent at once, for which the node blamed itself.</summary>
    [JsonPropertyName("self-suspicions")] public long SelfSuspicions { get; init; }

    [JsonPropertyName("clusters")] public IReadOnlyList<ClusterLiveness>? Clusters { get; init; }

    [JsonPropertyName("nodes")] public IReadOnlyList<NodeLiveness>? Nodes { get; init; }

    [JsonPropertyName("failover")] public FailoverCounts? Failover { get; init; }

    /// <summary>Backends that connections of this node have found dead.</summary>
    [JsonPropertyName("ejected")] public IReadOnlyList<EjectedBackend>? Ejected { get; init; }
}

public sealed record ClusterLiveness
{
    [JsonPropertyName("name")] public string Name { get; init; } = "";

    [JsonPropertyName("cluster-id")] public long ClusterId { get; init; }

    /// <summary>in, out, returning, drill.</summary>
    [JsonPropertyName("state")] public string State { get; init; } = "";

    /// <summary>Percent of its share of new flows.</summary>
    [JsonPropertyName("share"), JsonIgnore(Condition = JsonIgnoreCondition.Never)] public long Share { get; init; }

    [JsonPropertyName("since-seconds")] public double? Since { get; init; }

    /// <summary>While it is out and answers: when it may come back.</summary>
    [JsonPropertyName("hold-left-seconds")] public double? HoldLeft { get; init; }

    [JsonPropertyName("drill-left-seconds")] public double? DrillLeft { get; init; }

    /// <summary>Nodes that speak for it, and how many of them are silent.</summary>
    [JsonPropertyName("representatives")] public long Representatives { get; init; }

    [JsonPropertyName("silent")] public long Silent { get; init; }

    /// <summary>Times it went out or came in.</summary>
    [JsonPropertyName("transitions")] public long Transitions { get; init; }
}

public sealed record NodeLiveness
{
    [JsonPropertyName("name")] public string Name { get; init; } = "";

    /// <summary>representative, reserve, own-node or watched.</summary>
    [JsonPropertyName("role")] public string Role { get; init; } = "";

    /// <summary>in, silent (not judged yet), out, or unknown: it has never answered, and is not judged.</summary>
    [JsonPropertyName("state")] public string State { get; init; } = "";

    [JsonPropertyName("round-trip-ms")] public double RoundTrip { get; init; }

    [JsonPropertyName("since-answer-seconds")] public double? SinceAnswer { get; init; }

    [JsonPropertyName("sent")] public long Sent { get; init; }

    [JsonPropertyName("answered")] public long Answered { get; init; }
}

/// <summary>Since the datapath's maps were made.</summary>
public sealed record FailoverCounts
{
    /// <summary>Choices of a backend that was not known to live, because none was.</summary>
    [JsonPropertyName("panics")] public long Panics { get; init; }

    [JsonPropertyName("refused")] public long Refused { get; init; }

    [JsonPropertyName("unanswered")] public long Unanswered { get; init; }

    [JsonPropertyName("ejections")] public long Ejections { get; init; }

    [JsonPropertyName("recovered")] public long Recovered { get; init; }

    [JsonPropertyName("repicked-flows")] public long Repicked { get; init; }

    [JsonPropertyName("closed-sockets")] public long SocketsClosed { get; init; }
}

public sealed record EjectedBackend
{
    [JsonPropertyName("address")] public string Address { get; init; } = "";

    [JsonPropertyName("cluster")] public string Cluster { get; init; } = "";

    [JsonPropertyName("left-seconds")] public double Left { get; init; }

    [JsonPropertyName("failures")] public long Failures { get; init; }
}
