using System.Text.Json.Nodes;
using Xunit;

namespace Mesh.KubeApi.Tests;

/// <summary>A watch by hand: its events one by one.</summary>
internal sealed class WatchReader : IDisposable
{
    private readonly HttpResponseMessage _answer;
    private readonly StreamReader _lines;

    private WatchReader(HttpResponseMessage answer, StreamReader lines)
    {
        _answer = answer;
        _lines = lines;
    }

    public static async Task<WatchReader> StartAsync(HttpClient client, string path)
    {
        var stop = TestContext.Current.CancellationToken;
        var answer = await client.GetAsync(new Uri(path + (path.Contains('?', StringComparison.Ordinal) ? "&" : "?") + "watch=true", UriKind.Relative),
            HttpCompletionOption.ResponseHeadersRead, stop);
        Assert.Equal(200, (int)answer.StatusCode);
        return new(answer, new StreamReader(await answer.Content.ReadAsStreamAsync(stop)));
    }

    /// <summary>The next event, null when the stream has ended; fails after 20 s.</summary>
    public async Task<JsonNode?> NextAsync()
    {
        using var deadline = CancellationTokenSource.CreateLinkedTokenSource(TestContext.Current.CancellationToken);
        deadline.CancelAfter(TimeSpan.FromSeconds(20));
        return await _lines.ReadLineAsync(deadline.Token) is { } line ? JsonNode.Parse(line) : null;
    }

    /// <summary>The next event as "ADDED name".</summary>
    public async Task<string> NextTextAsync() => await NextAsync() is { } next ? $"{next["type"]} {next["object"]!["metadata"]!["name"]}" : "end";

    public void Dispose()
    {
        _lines.Dispose();
        _answer.Dispose();
    }
}
