using System.Text.Json.Serialization;
using Mesh.Joining.Checks;
using Mesh.Joining.Files;
using Mesh.Joining.Listening;
using Mesh.Joining.Protocol;
using Mesh.Joining.Tokens;

namespace Mesh.Joining;

// Metadata only: the generated writers turn an absent byte array into an empty one.
[JsonSourceGenerationOptions(GenerationMode = JsonSourceGenerationMode.Metadata, WriteIndented = true, PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    PropertyNameCaseInsensitive = true, UseStringEnumConverter = true,
    UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow)]
[JsonSerializable(typeof(ClusterDescription))]
[JsonSerializable(typeof(LedgerContent))]
[JsonSerializable(typeof(Journal))]
[JsonSerializable(typeof(PlanReport))]
[JsonSerializable(typeof(TokenText))]
[JsonSerializable(typeof(IReadOnlyList<TokenListEntry>))]
[JsonSerializable(typeof(ListenerState))]
internal sealed partial class JoinJson : JsonSerializerContext;

/// <summary>On the wire a newer side may say more than an older one knows.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, UseStringEnumConverter = true,
    RespectNullableAnnotations = true, RespectRequiredConstructorParameters = true)]
[JsonSerializable(typeof(JoinToken))]
[JsonSerializable(typeof(DescribeRequest))]
[JsonSerializable(typeof(DescribeAnswer))]
[JsonSerializable(typeof(ProbeRequest))]
[JsonSerializable(typeof(ProbeAnswer))]
[JsonSerializable(typeof(ProbeResultRequest))]
[JsonSerializable(typeof(ProbeResultAnswer))]
[JsonSerializable(typeof(BeginRequest))]
[JsonSerializable(typeof(BeginAnswer))]
[JsonSerializable(typeof(FinishRequest))]
[JsonSerializable(typeof(PlainRequest))]
[JsonSerializable(typeof(PlainAnswer))]
[JsonSerializable(typeof(RefusalAnswer))]
internal sealed partial class JoinCompactJson : JsonSerializerContext;
