using System.Text.Json;
using System.Text.Json.Serialization;
using Mesh.AgentApi;

namespace Mesh.Cli.Installed;

/// <summary>Everything that `mesh status` found out about the mesh of one Kubernetes cluster; as JSON in the shape of `cilium status -o json`.</summary>
internal sealed record InstallationReport
{
    /// <summary>By workload: cilium, cilium-operator, clustermesh-apiserver and those that we never install.</summary>
    [JsonPropertyName("pod_state")] public SortedDictionary<string, WorkloadState> Workloads { get; init; } = new(StringComparer.Ordinal);

    /// <summary>Workload → phase of its pods → how many.</summary>
    [JsonPropertyName("phase_count")] public SortedDictionary<string, SortedDictionary<string, int>> Phases { get; init; } = new(StringComparer.Ordinal);

    /// <summary>Workload → image → containers of it.</summary>
    [JsonPropertyName("image_count")] public SortedDictionary<string, SortedDictionary<string, int>> Images { get; init; } = new(StringComparer.Ordinal);

    [JsonPropertyName("pods_count")] public PodCount Pods { get; init; } = new(0, 0);

    /// <summary>Agent's pod → what it says of itself.</summary>
    [JsonPropertyName("cilium_status")] public SortedDictionary<string, StatusResponse> Agents { get; init; } = new(StringComparer.Ordinal);

    [JsonPropertyName("cilium_endpoints")]
    public SortedDictionary<string, IReadOnlyList<Endpoint>> Endpoints { get; init; } = new(StringComparer.Ordinal);

    /// <summary>Workload → pod, or the workload itself → what is wrong.</summary>
    [JsonPropertyName("errors")]
    public SortedDictionary<string, SortedDictionary<string, Complaints>> Errors { get; init; } = new(StringComparer.Ordinal);

    /// <summary>What could not be found out.</summary>
    [JsonPropertyName("collection_errors")] public List<string> Uncollected { get; init; } = [];

    /// <summary>Of the newest release; "" when there is none.</summary>
    [JsonPropertyName("helm_chart_version")] public string ChartVersion { get; set; } = "";

    /// <summary>Annotations of the configuration that begin with config.cilium.io.</summary>
    [JsonPropertyName("config_errors")] public List<string> Configuration { get; init; } = [];

    [JsonIgnore] public int ErrorCount => Errors.Values.SelectMany(each => each.Values).Sum(each => each.Errors.Count);

    [JsonIgnore] public int WarningCount => Errors.Values.SelectMany(each => each.Values).Sum(each => each.Warnings.Count);

    /// <summary>The first thing that is wrong, errors before warnings; "" when nothing is.</summary>
    [JsonIgnore]
    public string WhatIsWrong => Uncollected.Concat(First(each => each.Errors)).Concat(First(each => each.Warnings)).FirstOrDefault() ?? "";

    private IEnumerable<string> First(Func<Complaints, List<string>> which) =>
        Errors.Values.SelectMany(pods => pods.SelectMany(pod => which(pod.Value).Select(message => $"{pod.Key}: {message}")));

    public Complaints Of(string workload, string pod)
    {
        if (!Errors.TryGetValue(workload, out var pods))
            Errors[workload] = pods = new SortedDictionary<string, Complaints>(StringComparer.Ordinal);
        if (!pods.TryGetValue(pod, out var complaints))
            pods[pod] = complaints = new Complaints();
        return complaints;
    }

    public byte[] ToJson() => JsonSerializer.SerializeToUtf8Bytes(this, InstallationJson.Indented.InstallationReport);
}

/// <summary>Counts of a workload's pods; Type is DaemonSet or Deployment.</summary>
internal sealed record WorkloadState(string Type, long Desired, long Ready, long Available, long Unavailable);

/// <param name="All">Pods that are not on the host's network and run, or are to.</param>
/// <param name="ByCilium">Those that an agent has taken up.</param>
internal sealed record PodCount([property: JsonPropertyName("all")] int All, [property: JsonPropertyName("by_cilium")] int ByCilium);

internal sealed record Complaints
{
    public List<string> Errors { get; init; } = [];

    public List<string> Warnings { get; init; } = [];

    public bool Disabled { get; set; }
}

[JsonSourceGenerationOptions]
[JsonSerializable(typeof(InstallationReport))]
internal sealed partial class InstallationJson : JsonSerializerContext
{
    public static InstallationJson Indented { get; } = new(new JsonSerializerOptions
    {
        WriteIndented = true,
        Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    });
}
