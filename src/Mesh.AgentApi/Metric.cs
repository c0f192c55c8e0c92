using System.Text.Json.Serialization;

namespace Mesh.AgentApi;

/// <summary>One of GET /v1/metrics: a sample, as Prometheus has it.</summary>
public sealed record Metric
{
    [JsonPropertyName("name")] public string Name { get; init; } = "";

    [JsonPropertyName("labels")] public IReadOnlyDictionary<string, string>? Labels { get; init; }

    [JsonPropertyName("value"), JsonIgnore(Condition = JsonIgnoreCondition.Never)] public double Value { get; init; }
}
