using System.Text.Json.Serialization;

namespace Mesh.Kubernetes.Objects;

/// <summary>Source-generated reading and writing of the slim objects. Names are camelCase as in Kubernetes, unknown fields are skipped,
/// a wrong type or a null where an object must be is a JsonException.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    RespectNullableAnnotations = true,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
    GenerationMode = JsonSourceGenerationMode.Metadata)]
[JsonSerializable(typeof(Service))]
[JsonSerializable(typeof(EndpointSlice))]
[JsonSerializable(typeof(Namespace))]
[JsonSerializable(typeof(KubeNode))]
[JsonSerializable(typeof(Pod))]
[JsonSerializable(typeof(CiliumNode))]
[JsonSerializable(typeof(CiliumIdentity))]
[JsonSerializable(typeof(CiliumEndpoint))]
[JsonSerializable(typeof(ServiceExport))]
[JsonSerializable(typeof(ServiceImport))]
[JsonSerializable(typeof(NetworkPolicy))]
[JsonSerializable(typeof(CiliumNetworkPolicy))]
[JsonSerializable(typeof(CiliumClusterwideNetworkPolicy))]
internal sealed partial class ObjectJson : JsonSerializerContext;
