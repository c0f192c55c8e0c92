using System.Text.Json.Serialization;
using Mesh.AgentApi;

namespace Mesh.Cni;

/// <summary>The few bodies of the agent's API that the plugin speaks: a context with all of them would be most of the program.</summary>
[JsonSourceGenerationOptions(DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingDefault)]
[JsonSerializable(typeof(EndpointChangeRequest))]
[JsonSerializable(typeof(IpamResponse))]
[JsonSerializable(typeof(IpamStatus))]
[JsonSerializable(typeof(CniAttachments))]
[JsonSerializable(typeof(string))]
internal sealed partial class CniJson : JsonSerializerContext;
