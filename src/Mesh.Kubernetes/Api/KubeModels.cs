using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using Mesh.Kubernetes.Objects;

namespace Mesh.Kubernetes.Api;

/// <summary>coordination.k8s.io/v1: who of several does a thing.</summary>
public sealed record Lease : IKubeObject
{
    public ObjectMeta Metadata { get; init; } = new();

    public LeaseSpec? Spec { get; init; }
}

public sealed record LeaseSpec
{
    /// <summary>Null or "" for nobody.</summary>
    public string? HolderIdentity { get; init; }

    public int? LeaseDurationSeconds { get; init; }

    public string? AcquireTime { get; init; }

    /// <summary>RFC 3339 with microseconds.</summary>
    public string? RenewTime { get; init; }

    public int? LeaseTransitions { get; init; }
}

/// <summary>What /version says.</summary>
/// <param name="GitVersion">Such as "v1.31.2".</param>
public sealed record KubeVersion(string Major, string Minor, string GitVersion, string? Platform = null);

/// <summary>What the server says of a refusal, or of a delete.</summary>
internal sealed record KubeStatus
{
    public string? Kind { get; init; }

    public string? Status { get; init; }

    public string? Message { get; init; }

    public string? Reason { get; init; }

    public int? Code { get; init; }

    public KubeStatusDetails? Details { get; init; }
}

internal sealed record KubeStatusDetails
{
    public int? RetryAfterSeconds { get; init; }

    public IReadOnlyList<KubeStatusCause>? Causes { get; init; }
}

internal sealed record KubeStatusCause
{
    public string? Reason { get; init; }

    public string? Message { get; init; }

    public string? Field { get; init; }
}

internal sealed record ApiResourceList
{
    public IReadOnlyList<ApiResource>? Resources { get; init; }
}

internal sealed record ApiResource
{
    public string? Name { get; init; }

    public string? Kind { get; init; }

    public bool Namespaced { get; init; }
}

[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
    GenerationMode = JsonSourceGenerationMode.Metadata)]
[JsonSerializable(typeof(Lease))]
[JsonSerializable(typeof(KubeVersion))]
[JsonSerializable(typeof(KubeStatus))]
[JsonSerializable(typeof(ApiResourceList))]
[JsonSerializable(typeof(JsonObject))]
[JsonSerializable(typeof(JsonNode))]
[JsonSerializable(typeof(JsonElement))]
internal sealed partial class KubeJson : JsonSerializerContext;
