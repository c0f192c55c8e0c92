using System.Text.Json.Serialization;

namespace Mesh.ControlPlane.LoadBalancing.Decisions;

/// <summary>What keeps a backend behind a frontend, or cuts it.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<BackendRule>))]
public enum BackendRule
{
    /// <summary>Takes its share of new flows.</summary>
    Kept,

    /// <summary>Takes new flows only when no lower tier has a live backend.</summary>
    Standby,

    /// <summary>Goes away: keeps its flows, takes new ones only when nothing else lives.</summary>
    Draining,

    /// <summary>The kernel had it before the agent started, and its cluster has not been heard since.</summary>
    Restored,

    /// <summary>Another cluster's, and the local Service is not global.</summary>
    NotGlobal,

    /// <summary>Another cluster, or a later record, has the same address.</summary>
    ClaimedElsewhere,

    /// <summary>Of another transport protocol than the service port.</summary>
    OtherProtocol,

    /// <summary>Of the other IP family than the virtual address.</summary>
    OtherFamily,

    /// <summary>Offered under other port names than the service port's.</summary>
    PortNameDiffers,

    /// <summary>Its cluster stands nowhere in mesh.cilium.io/clusters.</summary>
    ClusterNotNamed,

    /// <summary>Its endpoint is not ready.</summary>
    NotReady,

    /// <summary>On another node, and the traffic policy for these clients is Local.</summary>
    TrafficPolicyLocal,

    /// <summary>The row of the frontend is older than what is known: the service is refused, and its last good state stays.</summary>
    NotInForce,
}

/// <summary>
/// Why a Service is served as it is: each of its frontends with every backend that anybody offers for it. Made of what the writer
/// knows, kept by the agent on disk, and joined with the maps by `mesh explain`, so that it can be told with the agent dead.
/// </summary>
public sealed record ServiceDecision
{
    /// <summary>namespace/name.</summary>
    public required string Service { get; init; }

    public bool Global { get; init; }

    /// <summary>What its annotations ask for, in words.</summary>
    public required string Choice { get; init; }

    /// <summary>What was not done as asked, and the mend.</summary>
    public IReadOnlyList<string> Remarks { get; init; } = [];

    public IReadOnlyList<FrontendDecision> Frontends { get; init; } = [];
}

/// <summary>One virtual address.</summary>
public sealed record FrontendDecision
{
    /// <summary>10.96.0.10:80/TCP; 0.0.0.0 or :: = the port on every node.</summary>
    public required string Address { get; init; }

    /// <summary>"" for an unnamed port.</summary>
    public string PortName { get; init; } = "";

    public ServiceType Type { get; init; }

    public bool ExternalLocal { get; init; }

    public bool InternalLocal { get; init; }

    /// <summary>0 = none.</summary>
    public uint AffinitySeconds { get; init; }

    public BackendAlgorithm Algorithm { get; init; }

    public ForwardingMode Forwarding { get; init; }

    /// <summary>Why it is not served: the address is another Service's, or nothing has been written yet; null when it is.</summary>
    public string? Withheld { get; init; }

    /// <summary>Kept ones first, by tier, cluster and address.</summary>
    public IReadOnlyList<Candidate> Candidates { get; init; } = [];

    /// <summary>Candidates beyond the bound of what is written down.</summary>
    public int LeftOut { get; init; }

    /// <summary>The rule for clients of one kind: the traffic policy is theirs.</summary>
    /// <param name="external">The client is outside the cluster.</param>
    public BackendRule RuleFor(Candidate candidate, bool external) =>
        candidate.IsKept && !candidate.IsHere && (external ? ExternalLocal : InternalLocal) ? BackendRule.TrafficPolicyLocal : candidate.Rule;
}

/// <summary>A backend that somebody offers.</summary>
public sealed record Candidate
{
    /// <summary>10.2.0.5:8080/TCP.</summary>
    public required string Address { get; init; }

    /// <summary>"" when only its ID is known.</summary>
    public string Cluster { get; init; } = "";

    public uint ClusterId { get; init; }

    public BackendRule Rule { get; init; }

    /// <summary>What the rule found: the other port name, the cluster that has the address. Null when there is nothing to say.</summary>
    public string? Detail { get; init; }

    public BackendState State { get; init; }

    public byte Tier { get; init; }

    /// <summary>Group of a zone preference; null = not divided.</summary>
    public bool? InZone { get; init; }

    /// <summary>Of its group, against the other groups of the tier; 0 = as many as the group has backends.</summary>
    public uint Weight { get; init; }

    /// <summary>"" when unknown.</summary>
    public string Node { get; init; } = "";

    /// <summary>"" when unknown.</summary>
    public string Zone { get; init; } = "";

    public bool IsHere { get; init; }

    /// <summary>Revision of the record in its cluster's etcd; 0 for the own cluster's objects.</summary>
    public long Revision { get; init; }

    /// <summary>When the record came to this agent.</summary>
    public DateTimeOffset Since { get; init; }

    /// <summary>It stands behind the frontend.</summary>
    [JsonIgnore]
    public bool IsKept => Rule is BackendRule.Kept or BackendRule.Standby or BackendRule.Draining or BackendRule.Restored;
}
