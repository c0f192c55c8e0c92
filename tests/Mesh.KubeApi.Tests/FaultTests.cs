using System.Diagnostics;
using Xunit;

namespace Mesh.KubeApi.Tests;

/// <summary>Each fault meets the requests it names and no others, and is over when it is taken back.</summary>
public class FaultTests
{
    private const string ConfigMaps = "/api/v1/namespaces/default/configmaps";

    private static CancellationToken Stop => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData(FaultKind.TooManyRequests, 429, "TooManyRequests")]
    [InlineData(FaultKind.InternalError, 500, "InternalError")]
    [InlineData(FaultKind.BadGateway, 503, null)]
    [InlineData(FaultKind.Forbidden, 403, "Forbidden")]
    [InlineData(FaultKind.Unauthorized, 401, "Unauthorized")]
    [InlineData(FaultKind.Gone, 410, "Expired")]
    [InlineData(FaultKind.Conflict, 409, "Conflict")]
    public async Task A_refusal_has_its_code_and_reason_as_often_as_asked(FaultKind kind, int code, string? reason)
    {
        await using var api = await KubeApiServer.StartAsync(stop: Stop);
        using var client = api.CreateClient();
        using var fault = api.Faults.Add(new(kind) { Verb = "list", Resource = "configmaps", Times = 2, RetryAfterSeconds = 7 });
        for (var i = 0; i < 2; i++)
        {
            var (answered, body) = await Http.SendAsync(client, HttpMethod.Get, ConfigMaps);
            Assert.Equal((code, reason), (answered, (string?)body?["reason"]));
        }
        await Http.GetAsync(client, ConfigMaps);
        await Http.GetAsync(client, "/api/v1/namespaces/default/secrets");
        Assert.Equal(2, fault.Met);
    }

    [Fact]
    public async Task Too_many_requests_say_when_to_come_back()
    {
        await using var api = await KubeApiServer.StartAsync(stop: Stop);
        using var client = api.CreateClient();
        using var fault = api.Faults.Add(new(FaultKind.TooManyRequests) { RetryAfterSeconds = 7 });
        using var answer = await client.GetAsync(new Uri(ConfigMaps, UriKind.Relative), Stop);
        Assert.Equal(TimeSpan.FromSeconds(7), answer.Headers.RetryAfter!.Delta);
    }

    [Fact]
    public async Task Half_an_answer_is_half_an_answer()
    {
        await using var api = await KubeApiServer.StartAsync(stop: Stop);
        using var client = api.CreateClient();
        using (api.Faults.Add(new(FaultKind.HalfBody) { Verb = "list" }))
            await Assert.ThrowsAsync<HttpRequestException>(() => Http.SendAsync(client, HttpMethod.Get, ConfigMaps));
        await Http.GetAsync(client, ConfigMaps);

        using (api.Faults.Add(new(FaultKind.HalfBody) { Verb = "watch" }))
        {
            using var watch = await WatchReader.StartAsync(client, "/api/v1/namespaces");
            await Assert.ThrowsAnyAsync<Exception>(watch.NextAsync);
        }
        using var whole = await WatchReader.StartAsync(client, "/api/v1/namespaces");
        Assert.Equal("ADDED default", await whole.NextTextAsync());
    }

    [Fact]
    public async Task A_hanging_request_goes_on_when_the_fault_is_taken_back()
    {
        await using var api = await KubeApiServer.StartAsync(stop: Stop);
        using var client = api.CreateClient();
        var fault = api.Faults.Add(new(FaultKind.Hang) { Resource = "configmaps" });
        var hanging = Http.SendAsync(client, HttpMethod.Get, ConfigMaps);
        await Http.GetAsync(client, "/api/v1/namespaces/default/secrets");
        await Wait.UntilAsync(() => fault.Met > 0);
        Assert.False(hanging.IsCompleted);
        fault.Dispose();
        Assert.Equal(200, (await hanging).Code);
    }

    [Fact]
    public async Task Slow_chunks_are_the_right_answer_slowly()
    {
        await using var api = await KubeApiServer.StartAsync(stop: Stop);
        using var client = api.CreateClient();
        var plain = (await Http.GetAsync(client, ConfigMaps)).ToJsonString();
        var clock = Stopwatch.StartNew();
        using (api.Faults.Add(new(FaultKind.SlowChunks) { Verb = "list", ChunkBytes = 100, Delay = TimeSpan.FromMilliseconds(10) }))
            Assert.Equal(plain, (await Http.GetAsync(client, ConfigMaps)).ToJsonString());
        Assert.True(clock.Elapsed > TimeSpan.FromMilliseconds(10 * (plain.Length / 100)));

        using (api.Faults.Add(new(FaultKind.SlowChunks) { Verb = "watch", ChunkBytes = 7 }))
        {
            using var watch = await WatchReader.StartAsync(client, "/api/v1/namespaces");
            Assert.Equal("ADDED default", await watch.NextTextAsync());
        }
    }

    [Fact]
    public async Task A_lost_answer_leaves_the_write_done()
    {
        await using var api = await KubeApiServer.StartAsync(stop: Stop);
        using var client = api.CreateClient();
        using (api.Faults.Add(new(FaultKind.LostAnswer) { Verb = "create" }))
            await Assert.ThrowsAsync<HttpRequestException>(() => Http.SendAsync(client, HttpMethod.Post, ConfigMaps, "{\"metadata\":{\"name\":\"done\"}}"));
        Assert.NotNull(api.Find("configmaps", "default", "done"));
        using (api.Faults.Add(new(FaultKind.Disconnect) { Verb = "create" }))
            await Assert.ThrowsAsync<HttpRequestException>(() => Http.SendAsync(client, HttpMethod.Post, ConfigMaps, "{\"metadata\":{\"name\":\"not\"}}"));
        Assert.Null(api.Find("configmaps", "default", "not"));
    }

    [Fact]
    public async Task Watches_are_cut_or_expired_by_kind()
    {
        await using var api = await KubeApiServer.StartAsync(stop: Stop);
        using var client = api.CreateClient();
        var from = $"?resourceVersion={api.Revision}";
        using var maps = await WatchReader.StartAsync(client, ConfigMaps + from);
        using var secrets = await WatchReader.StartAsync(client, "/api/v1/secrets" + from);
        api.CutWatches("configmaps");
        Assert.Null(await maps.NextAsync());
        await Http.PostAsync(client, "/api/v1/namespaces/default/secrets", "{\"metadata\":{\"name\":\"s\"}}");
        Assert.Equal("ADDED s", await secrets.NextTextAsync());
        api.ExpireWatches("secrets");
        var error = (await secrets.NextAsync())!;
        Assert.Equal(("ERROR", 410), ((string)error["type"]!, (int)error["object"]!["code"]!));
        Assert.Null(await secrets.NextAsync());
    }

    [Fact]
    public async Task A_restart_keeps_port_objects_tokens_and_revisions()
    {
        await using var api = await KubeApiServer.StartAsync(stop: Stop);
        using var client = api.CreateClient();
        await Http.PostAsync(client, ConfigMaps, "{\"metadata\":{\"name\":\"kept\"}}");
        var (port, revision) = (api.Port, api.Revision);
        using var watch = await WatchReader.StartAsync(client, $"{ConfigMaps}?resourceVersion={revision}");
        await api.StopAsync();
        await Assert.ThrowsAnyAsync<Exception>(async () => Assert.NotNull(await watch.NextAsync()));
        await Assert.ThrowsAsync<HttpRequestException>(() => Http.SendAsync(client, HttpMethod.Get, ConfigMaps));
        await api.ResumeAsync(Stop);
        Assert.Equal((port, revision), (api.Port, api.Revision));
        await Http.GetAsync(client, $"{ConfigMaps}/kept");
        using var again = await WatchReader.StartAsync(client, $"{ConfigMaps}?resourceVersion={revision}");
        await Http.PostAsync(client, ConfigMaps, "{\"metadata\":{\"name\":\"new\"}}");
        Assert.Equal("ADDED new", await again.NextTextAsync());
    }

    [Fact]
    public async Task Faults_are_asked_for_by_HTTP_only_where_that_is_allowed()
    {
        await using var open = await KubeApiServer.StartAsync(new() { FaultPath = true }, Stop);
        using var client = open.CreateClient();
        await Http.SendAsync(client, HttpMethod.Post, "/_faults", """{"kind":"InternalError","verb":"list","resource":"configmaps","times":1}""");
        Assert.Equal(500, (await Http.SendAsync(client, HttpMethod.Get, ConfigMaps)).Code);
        Assert.Equal(200, (await Http.SendAsync(client, HttpMethod.Get, ConfigMaps)).Code);
        await using var closed = await KubeApiServer.StartAsync(stop: Stop);
        using var other = closed.CreateClient();
        Assert.Equal(404, (await Http.SendAsync(other, HttpMethod.Post, "/_faults", """{"kind":"InternalError"}""")).Code);
    }
}
