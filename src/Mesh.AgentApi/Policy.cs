using System.Text.Json.Serialization;

namespace Mesh.AgentApi;

/// <summary>GET /v1/policy, in Cilium's shape.</summary>
public sealed record PolicyTree
{
    /// <summary>The objects in force as a JSON text: a list of <see cref="PolicyObjectReport"/>.</summary>
    [JsonPropertyName("policy")] public string Policy { get; init; } = "";

    [JsonPropertyName("revision"), JsonIgnore(Condition = JsonIgnoreCondition.Never)] public long Revision { get; init; }
}

/// <summary>GET /v1/policy/report: what holds on this node. Not part of Cilium's API.</summary>
public sealed record PolicyReport
{
    [JsonPropertyName("revision")] public long Revision { get; init; }

    [JsonPropertyName("audit")] public bool Audit { get; init; }

    [JsonPropertyName("objects")] public IReadOnlyList<PolicyObjectReport> Objects { get; init; } = [];

    [JsonPropertyName("endpoints")] public IReadOnlyList<PolicyEndpointReport> Endpoints { get; init; } = [];

    /// <summary>What could not be done, one line each.</summary>
    [JsonPropertyName("problems")] public IReadOnlyList<string>? Problems { get; init; }
}

public sealed record PolicyObjectReport
{
    [JsonPropertyName("kind")] public string Kind { get; init; } = "";

    [JsonPropertyName("namespace")] public string? Namespace { get; init; }

    [JsonPropertyName("name")] public string Name { get; init; } = "";

    [JsonPropertyName("rules")] public IReadOnlyList<PolicyRuleReport> Rules { get; init; } = [];

    /// <summary>Fields that are not done, with what holds in their place.</summary>
    [JsonPropertyName("unsupported")] public IReadOnlyList<string>? Unsupported { get; init; }
}

public sealed record PolicyRuleReport
{
    [JsonPropertyName("field")] public string Field { get; init; } = "";

    /// <summary>ingress or egress.</summary>
    [JsonPropertyName("direction")] public string Direction { get; init; } = "";

    [JsonPropertyName("deny")] public bool Deny { get; init; }

    /// <summary>Pods that it applies to.</summary>
    [JsonPropertyName("subject")] public string Subject { get; init; } = "";

    [JsonPropertyName("peers")] public IReadOnlyList<string> Peers { get; init; } = [];

    /// <summary>Null = every protocol and port.</summary>
    [JsonPropertyName("ports")] public IReadOnlyList<string>? Ports { get; init; }

    /// <summary>Packets that it decided on this node; answers are decided by their flow.</summary>
    [JsonPropertyName("packets")] public ulong Packets { get; init; }

    [JsonPropertyName("bytes")] public ulong Bytes { get; init; }
}

public sealed record PolicyEndpointReport
{
    [JsonPropertyName("id")] public long Id { get; init; }

    /// <summary>namespace/pod.</summary>
    [JsonPropertyName("pod")] public string Pod { get; init; } = "";

    [JsonPropertyName("identity")] public long Identity { get; init; }

    /// <summary>enforced, audited, open, or undecided: nothing passes until the pod's labels are known.</summary>
    [JsonPropertyName("ingress")] public string Ingress { get; init; } = "";

    [JsonPropertyName("egress")] public string Egress { get; init; } = "";

    /// <summary>Verdicts that apply to it.</summary>
    [JsonPropertyName("rows")] public long Rows { get; init; }
}

/// <summary>GET /v1/policy/trace?src=WHO&amp;dst=WHO&amp;dport=80/TCP: what this node decides about a flow. Not part of Cilium's API.</summary>
public sealed record PolicyTraceReport
{
    [JsonPropertyName("source")] public string Source { get; init; } = "";

    [JsonPropertyName("destination")] public string Destination { get; init; } = "";

    [JsonPropertyName("port")] public string Port { get; init; } = "";

    /// <summary>ALLOWED, DENIED, or UNKNOWN when neither end is a pod of this node.</summary>
    [JsonPropertyName("verdict")] public string Verdict { get; init; } = "";

    /// <summary>The ends that are on this node: the source's egress, the destination's ingress.</summary>
    [JsonPropertyName("ends")] public IReadOnlyList<PolicyEndReport> Ends { get; init; } = [];
}

public sealed record PolicyEndReport
{
    [JsonPropertyName("direction")] public string Direction { get; init; } = "";

    [JsonPropertyName("endpoint")] public long Endpoint { get; init; }

    [JsonPropertyName("pod")] public string Pod { get; init; } = "";

    [JsonPropertyName("peer-identity")] public long PeerIdentity { get; init; }

    [JsonPropertyName("enforced")] public bool Enforced { get; init; }

    [JsonPropertyName("allowed")] public bool Allowed { get; init; }

    /// <summary>One line.</summary>
    [JsonPropertyName("reason")] public string Reason { get; init; } = "";

    /// <summary>What the kernel's maps hold about it; null while no kernel is programmed.</summary>
    [JsonPropertyName("kernel")] public PolicyKernelReport? Kernel { get; init; }

    /// <summary>Every rule that applies to the endpoint in this direction.</summary>
    [JsonPropertyName("rules")] public IReadOnlyList<PolicyConsideredReport>? Rules { get; init; }
}

public sealed record PolicyKernelReport
{
    /// <summary>The word, the row and the range that a packet meets.</summary>
    [JsonPropertyName("entry")] public string Entry { get; init; } = "";

    [JsonPropertyName("allowed")] public bool Allowed { get; init; }

    /// <summary>True when the map says what was decided.</summary>
    [JsonPropertyName("agrees")] public bool Agrees { get; init; }
}

public sealed record PolicyConsideredReport
{
    [JsonPropertyName("rule")] public string Rule { get; init; } = "";

    [JsonPropertyName("deny")] public bool Deny { get; init; }

    [JsonPropertyName("means-peer")] public bool MeansPeer { get; init; }

    [JsonPropertyName("means-port")] public bool MeansPort { get; init; }
}
