using System.Net.Http.Headers;
using System.Text;
using System.Text.Json.Nodes;
using Xunit;

namespace Mesh.KubeApi.Tests;

/// <summary>Requests by hand: status code and body.</summary>
internal static class Http
{
    public static async Task<(int Code, JsonNode? Body)> SendAsync(HttpClient client, HttpMethod method, string path, string? body = null,
        string mediaType = "application/json")
    {
        using var request = new HttpRequestMessage(method, path);
        if (body is not null)
            request.Content = new StringContent(body, Encoding.UTF8, new MediaTypeHeaderValue(mediaType));
        using var answer = await client.SendAsync(request, TestContext.Current.CancellationToken);
        var text = await answer.Content.ReadAsStringAsync(TestContext.Current.CancellationToken);
        return ((int)answer.StatusCode, text.StartsWith('{') ? JsonNode.Parse(text) : null);
    }

    public static async Task<JsonNode> GetAsync(HttpClient client, string path)
    {
        var (code, body) = await SendAsync(client, HttpMethod.Get, path);
        Assert.True(code == 200, $"GET {path}: {code} {body}");
        return body!;
    }

    public static async Task<JsonNode> PatchAsync(HttpClient client, string path, string patch)
    {
        var (code, body) = await SendAsync(client, HttpMethod.Patch, path, patch, "application/merge-patch+json");
        Assert.True(code == 200, $"PATCH {path}: {code} {body}");
        return body!;
    }

    public static async Task<JsonNode> PostAsync(HttpClient client, string path, string body)
    {
        var (code, answer) = await SendAsync(client, HttpMethod.Post, path, body);
        Assert.True(code == 201, $"POST {path}: {code} {answer}");
        return answer!;
    }
}
