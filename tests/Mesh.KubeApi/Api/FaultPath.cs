using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using Microsoft.AspNetCore.Http;

namespace Mesh.KubeApi.Api;

/// <summary>
/// Faults by HTTP, for tests that drive the program from outside: POST /_faults with a Fault as JSON; DELETE /_faults takes all back;
/// POST /_faults/compact, /_faults/cut, /_faults/expire (?resource=pods).
/// </summary>
internal static class FaultPath
{
    private static readonly JsonSerializerOptions Reading = new(JsonSerializerDefaults.Web) { Converters = { new JsonStringEnumConverter() } };

    public static async Task HandleAsync(HttpContext http, KubeApiServer server)
    {
        var resource = http.Request.Query["resource"].FirstOrDefault();
        switch (http.Request.Method, http.Request.Path.Value)
        {
            case ("POST", "/_faults"):
                try
                {
                    server.Faults.Add(await JsonSerializer.DeserializeAsync<Fault>(http.Request.Body, Reading)
                        ?? throw new JsonException("a fault is an object"));
                }
                catch (JsonException failure)
                {
                    throw KubeApiException.BadRequest($"not a fault: {failure.Message}");
                }
                break;
            case ("DELETE", "/_faults"):
                server.Faults.Clear();
                break;
            case ("POST", "/_faults/compact"):
                server.Compact();
                break;
            case ("POST", "/_faults/cut"):
                server.CutWatches(resource);
                break;
            case ("POST", "/_faults/expire"):
                server.ExpireWatches(resource);
                break;
            default:
                throw KubeApiException.NoSuchPath();
        }
        await Reply.JsonAsync(http, 200, new JsonObject { ["done"] = true });
    }
}
