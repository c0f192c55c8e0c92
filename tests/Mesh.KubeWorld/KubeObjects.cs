using System.Net.Http.Headers;
using System.Text;
using System.Text.Json.Nodes;
using Mesh.KubeApi;
using Mesh.KubeApi.Objects;

namespace Mesh.KubeWorld;

/// <summary>
/// The API server as controllers and kubelets use it: reads from its store, writes by HTTP as the administrator, so that every write takes the
/// way of a real one. A write that lost a race (409, 404) is not an error: its caller looks again at the next change.
/// </summary>
internal sealed class KubeObjects(KubeApiServer api) : IDisposable
{
    private readonly HttpClient _client = api.CreateClient();

    public KubeApiServer Api => api;

    public void Dispose() => _client.Dispose();

    public IReadOnlyList<JsonObject> List(string resource) => api.List(resource);

    /// <summary>False when there is one of that name already.</summary>
    public Task<bool> CreateAsync(string path, JsonObject body, CancellationToken stop) => SendAsync(HttpMethod.Post, path, body, "application/json", stop);

    public Task<bool> MergeAsync(string path, JsonObject patch, CancellationToken stop) =>
        SendAsync(HttpMethod.Patch, path, patch, "application/merge-patch+json", stop);

    public Task<bool> DeleteAsync(string path, JsonObject? options, CancellationToken stop) =>
        SendAsync(HttpMethod.Delete, path, options ?? [], "application/json", stop);

    /// <summary>The status, when it is another than the object has.</summary>
    public async Task SetStatusAsync(string path, JsonObject subject, JsonObject status, CancellationToken stop)
    {
        var merged = subject["status"]?.DeepClone() as JsonObject ?? [];
        foreach (var (name, value) in status)
        {
            if (value is null)
                merged.Remove(name);
            else
                merged[name] = value.DeepClone();
        }
        if (!JsonNode.DeepEquals(merged, subject["status"] as JsonObject ?? []))
            await MergeAsync($"{path}/status", new JsonObject { ["status"] = status.DeepClone() }, stop);
    }

    /// <summary>Tells an event about an object; the same one again counts up instead.</summary>
    public async Task EventAsync(JsonObject about, string kind, string type, string reason, string message, string component, CancellationToken stop)
    {
        var meta = about.Obj("metadata")!;
        var space = meta.Str("namespace") ?? "default";
        var text = $"{meta.Str("uid")}/{reason}/{message}";
        var name = $"{meta.Str("name")}.{Fingerprint.Of(text)}";
        var now = DateTimeOffset.UtcNow.ToString("yyyy-MM-ddTHH:mm:ssZ", System.Globalization.CultureInfo.InvariantCulture);
        var path = $"/api/v1/namespaces/{space}/events";
        var made = await CreateAsync(path, new JsonObject
        {
            ["metadata"] = new JsonObject { ["name"] = name, ["namespace"] = space },
            ["involvedObject"] = new JsonObject { ["kind"] = kind, ["namespace"] = space, ["name"] = meta.Str("name"), ["uid"] = meta.Str("uid") },
            ["type"] = type,
            ["reason"] = reason,
            ["message"] = message,
            ["source"] = new JsonObject { ["component"] = component },
            ["firstTimestamp"] = now,
            ["lastTimestamp"] = now,
            ["count"] = 1,
        }, stop);
        if (!made)
            await MergeAsync($"{path}/{name}", new JsonObject { ["lastTimestamp"] = now }, stop);
    }

    private async Task<bool> SendAsync(HttpMethod method, string path, JsonObject body, string type, CancellationToken stop)
    {
        using var request = new HttpRequestMessage(method, path)
        {
            Content = new StringContent(body.ToJsonString(), Encoding.UTF8, new MediaTypeHeaderValue(type)),
        };
        using var answer = await _client.SendAsync(request, stop);
        if (answer.IsSuccessStatusCode)
            return true;
        // Somebody else was first, the object is gone, or its namespace is ending.
        if ((int)answer.StatusCode is 404 or 409 or 403 or 429 or >= 500)
            return false;
        throw new InvalidOperationException($"{method} {path}: {(int)answer.StatusCode} {await answer.Content.ReadAsStringAsync(stop)}");
    }
}

internal static class Fingerprint
{
    /// <summary>Ten letters and digits that stand for a text.</summary>
    public static string Of(string text) => Convert.ToHexStringLower(System.Security.Cryptography.SHA256.HashData(Encoding.UTF8.GetBytes(text)))[..10];
}
