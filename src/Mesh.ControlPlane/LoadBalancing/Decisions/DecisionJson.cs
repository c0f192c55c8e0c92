using System.Text.Json;
using System.Text.Json.Serialization;

namespace Mesh.ControlPlane.LoadBalancing.Decisions;

/// <summary>How a decision stands in its file, and where.</summary>
[JsonSourceGenerationOptions(
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingDefault, PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, UseStringEnumConverter = true)]
[JsonSerializable(typeof(ServiceDecision))]
public sealed partial class DecisionJson : JsonSerializerContext
{
    /// <summary>Directory of the decisions in an agent's --state-dir.</summary>
    public static string DirectoryOf(string stateDirectory) => Path.Combine(stateDirectory, "decisions");

    /// <summary>Names of Kubernetes objects have no underscore: no two services share a file.</summary>
    public static string FileOf(Model.ServiceName service) => $"{service.Namespace}_{service.Name}.json";

    /// <exception cref="JsonException">It is no decision.</exception>
    public static ServiceDecision Parse(ReadOnlySpan<byte> text) =>
        JsonSerializer.Deserialize(text, Default.ServiceDecision) ?? throw new JsonException("the file says null");
}
