using System.Text.Json;
using System.Text.Json.Serialization;

namespace Mesh.Install.Preflight;

/// <summary>How a check ended.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<CheckResult>))]
public enum CheckResult
{
    Ok,

    /// <summary>It will run; the words say what is not as usual.</summary>
    Warning,

    /// <summary>It cannot run on this node before the mend.</summary>
    Fault,
}

/// <summary>One thing that was looked at on a node.</summary>
/// <param name="Name">Such as "bpffs"; the same on every node.</param>
/// <param name="Found">What is there, in words.</param>
/// <param name="Mend">What to do; null when nothing is to be done.</param>
public sealed record NodeCheck(string Name, CheckResult Result, string Found, string? Mend = null);

/// <summary>What `mesh preflight node -o json` says of the node it runs on.</summary>
/// <param name="Kernel">As uname -r.</param>
public sealed record NodeReport(string Kernel, string Architecture, IReadOnlyList<NodeCheck> Checks)
{
    public bool IsFit => Checks.All(check => check.Result != CheckResult.Fault);

    public string ToJson() => JsonSerializer.Serialize(this, NodeReportJson.Default.NodeReport);

    /// <exception cref="InstallException">It is no report.</exception>
    public static NodeReport Parse(string json)
    {
        try
        {
            return JsonSerializer.Deserialize(json, NodeReportJson.Default.NodeReport) ?? throw new JsonException("null");
        }
        catch (JsonException e)
        {
            throw new InstallException($"what the preflight wrote is no report: {e.Message}", e);
        }
    }
}

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull)]
[JsonSerializable(typeof(NodeReport))]
[JsonSerializable(typeof(IReadOnlyList<NodeVerdict>))]
internal sealed partial class NodeReportJson : JsonSerializerContext;

/// <summary>What is known of one node.</summary>
/// <param name="Report">Null when the node could not be asked.</param>
/// <param name="Unasked">Why not, and the mend.</param>
public sealed record NodeVerdict(string Node, NodeReport? Report, NodeCheck? Unasked = null)
{
    [JsonIgnore]
    public bool IsFit => Report is { IsFit: true };

    [JsonIgnore]
    public IEnumerable<NodeCheck> Findings => Unasked is not null ? [Unasked] : Report!.Checks.Where(check => check.Result != CheckResult.Ok);
}
