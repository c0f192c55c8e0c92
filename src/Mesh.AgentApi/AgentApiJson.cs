using System.Globalization;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace Mesh.AgentApi;

/// <summary>How the bodies are written: as Go's omitempty does, null, zero, false and absent objects are left out, but for the
/// fields that say otherwise. Unknown fields of another agent are ignored.</summary>
[JsonSourceGenerationOptions(DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingDefault)]
[JsonSerializable(typeof(StatusResponse))]
[JsonSerializable(typeof(IReadOnlyList<Service>))]
[JsonSerializable(typeof(ClusterNodeStatus))]
[JsonSerializable(typeof(IReadOnlyList<NodeElement>))]
[JsonSerializable(typeof(IReadOnlyList<NodeId>))]
[JsonSerializable(typeof(IReadOnlyList<IPListEntry>))]
[JsonSerializable(typeof(IReadOnlyList<Identity>))]
[JsonSerializable(typeof(IReadOnlyList<Endpoint>))]
[JsonSerializable(typeof(IReadOnlyList<RemoteCluster>))]
[JsonSerializable(typeof(IEnumerable<IPListEntry>))]
[JsonSerializable(typeof(IEnumerable<Identity>))]
[JsonSerializable(typeof(EndpointChangeRequest))]
[JsonSerializable(typeof(DaemonConfiguration))]
[JsonSerializable(typeof(DebugInfo))]
[JsonSerializable(typeof(IReadOnlyList<PeerQuarantine>))]
[JsonSerializable(typeof(PolicyTree))]
[JsonSerializable(typeof(PolicyReport))]
[JsonSerializable(typeof(IReadOnlyList<PolicyObjectReport>))]
[JsonSerializable(typeof(PolicyTraceReport))]
[JsonSerializable(typeof(IpamResponse))]
[JsonSerializable(typeof(IpamStatus))]
[JsonSerializable(typeof(CniAttachments))]
[JsonSerializable(typeof(IReadOnlyList<Metric>))]
[JsonSerializable(typeof(HealthStatus))]
[JsonSerializable(typeof(RuntimeConfiguration))]
[JsonSerializable(typeof(VersionAnswer))]
[JsonSerializable(typeof(IReadOnlyList<string>))]
[JsonSerializable(typeof(string))]
public sealed partial class AgentApiJson : JsonSerializerContext
{
    /// <summary>The context agent and clients use: characters outside ASCII stay readable, as Go writes them.</summary>
    public static AgentApiJson Wire { get; } = new(WireOptions(indented: false));

    /// <summary>The same, indented by two blanks, for people.</summary>
    public static AgentApiJson Indented { get; } = new(WireOptions(indented: true));

    private static JsonSerializerOptions WireOptions(bool indented) => new()
    {
        DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingDefault,
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
        WriteIndented = indented,
    };
}

/// <summary>A point in time as go-openapi writes it: UTC with milliseconds; the zero time is 0001-01-01T00:00:00.000Z.</summary>
public sealed class GoTimeConverter : JsonConverter<DateTimeOffset>
{
    public override DateTimeOffset Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
    {
        var text = reader.GetString();
        if (string.IsNullOrEmpty(text))
            return default;
        return DateTimeOffset.TryParse(text, CultureInfo.InvariantCulture, DateTimeStyles.AssumeUniversal, out var time)
            ? time
            : throw new JsonException($"'{text}' is not a time such as 2026-01-31T08:15:00.000Z");
    }

    public override void Write(Utf8JsonWriter writer, DateTimeOffset value, JsonSerializerOptions options) =>
        writer.WriteStringValue(value.UtcDateTime.ToString("yyyy-MM-dd'T'HH:mm:ss.fff'Z'", CultureInfo.InvariantCulture));
}
