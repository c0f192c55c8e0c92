using System.Globalization;
using Xunit;

namespace Mesh.KubeApi.Tests;

/// <summary>What every reflector lives by: pages of one snapshot, events without gaps, bookmarks, and 410 when the past is gone.</summary>
public class ListWatchTests
{
    private const string ConfigMaps = "/api/v1/namespaces/rebels/configmaps";

    private static CancellationToken Stop => TestContext.Current.CancellationToken;

    private static string Named(string name, string labels = "") =>
        $"{{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{{\"name\":\"{name}\",\"labels\":{{{labels}}}}},\"data\":{{\"a\":\"1\"}}}}";

    private static async Task<(KubeApiServer Api, HttpClient Client)> StartAsync(KubeApiOptions? options = null)
    {
        var api = await KubeApiServer.StartAsync((options ?? new()) with { MakeServiceAccounts = false }, Stop);
        api.Apply("{\"apiVersion\":\"v1\",\"kind\":\"Namespace\",\"metadata\":{\"name\":\"rebels\"}}");
        return (api, api.CreateClient());
    }

    [Fact]
    public async Task Pages_of_a_list_are_cut_from_one_snapshot()
    {
        var (api, client) = await StartAsync();
        await using var _ = api;
        using var __ = client;
        for (var i = 0; i < 7; i++)
            await Http.PostAsync(client, ConfigMaps, Named($"c{i}"));
        var first = await Http.GetAsync(client, $"{ConfigMaps}?limit=3");
        Assert.Equal(4, (int)first["metadata"]!["remainingItemCount"]!);
        await Http.SendAsync(client, HttpMethod.Delete, $"{ConfigMaps}/c4");
        await Http.PostAsync(client, ConfigMaps, Named("c33"));
        var names = new List<string>(first["items"]!.AsArray().Select(one => (string)one!["metadata"]!["name"]!));
        var page = first;
        while ((string?)page["metadata"]!["continue"] is { } token)
        {
            page = await Http.GetAsync(client, $"{ConfigMaps}?limit=3&continue={Uri.EscapeDataString(token)}");
            Assert.Equal((string)first["metadata"]!["resourceVersion"]!, (string)page["metadata"]!["resourceVersion"]!);
            names.AddRange(page["items"]!.AsArray().Select(one => (string)one!["metadata"]!["name"]!));
        }
        Assert.Equal(["c0", "c1", "c2", "c3", "c4", "c5", "c6"], names);
        // Items of a built-in kind's list do not repeat their kind.
        Assert.Null(first["items"]![0]!["kind"]);
        Assert.Equal("ConfigMapList", (string)first["kind"]!);
    }

    [Fact]
    public async Task A_page_that_comes_after_a_compaction_is_answered_410()
    {
        var (api, client) = await StartAsync();
        await using var _ = api;
        using var __ = client;
        foreach (var name in new[] { "a", "b", "c" })
            await Http.PostAsync(client, ConfigMaps, Named(name));
        var token = (string)(await Http.GetAsync(client, $"{ConfigMaps}?limit=1"))["metadata"]!["continue"]!;
        await Http.GetAsync(client, $"{ConfigMaps}?limit=1&continue={token}");
        api.Compact();
        var (code, body) = await Http.SendAsync(client, HttpMethod.Get, $"{ConfigMaps}?limit=1&continue={token}");
        Assert.Equal((410, "Expired"), (code, (string)body!["reason"]!));
    }

    [Fact]
    public async Task A_watch_from_a_revision_tells_all_that_came_after_it()
    {
        var (api, client) = await StartAsync();
        await using var _ = api;
        using var __ = client;
        await Http.PostAsync(client, ConfigMaps, Named("before"));
        var revision = (string)(await Http.GetAsync(client, ConfigMaps))["metadata"]!["resourceVersion"]!;
        await Http.PostAsync(client, ConfigMaps, Named("x"));
        using var watch = await WatchReader.StartAsync(client, $"{ConfigMaps}?resourceVersion={revision}");
        Assert.Equal("ADDED x", await watch.NextTextAsync());
        await Http.PatchAsync(client, $"{ConfigMaps}/x", """{"data":{"a":"2"}}""");
        var modified = (await watch.NextAsync())!;
        Assert.Equal(("MODIFIED", "2"), ((string)modified["type"]!, (string)modified["object"]!["data"]!["a"]!));
        await Http.SendAsync(client, HttpMethod.Delete, $"{ConfigMaps}/x");
        var deleted = (await watch.NextAsync())!;
        Assert.Equal("DELETED", (string)deleted["type"]!);
        Assert.True(Revision(deleted["object"]!) > Revision(modified["object"]!));
    }

    private static long Revision(System.Text.Json.Nodes.JsonNode node) =>
        long.Parse((string)node["metadata"]!["resourceVersion"]!, CultureInfo.InvariantCulture);

    [Theory]
    [InlineData("")]
    [InlineData("resourceVersion=0")]
    public async Task A_watch_from_no_revision_begins_with_what_is_there(string query)
    {
        var (api, client) = await StartAsync();
        await using var _ = api;
        using var __ = client;
        await Http.PostAsync(client, ConfigMaps, Named("a"));
        await Http.PostAsync(client, ConfigMaps, Named("b"));
        using var watch = await WatchReader.StartAsync(client, $"{ConfigMaps}?{query}");
        Assert.Equal(["ADDED a", "ADDED b"], new[] { await watch.NextTextAsync(), await watch.NextTextAsync() });
    }

    [Fact]
    public async Task What_leaves_or_enters_a_selection_is_deleted_or_added()
    {
        var (api, client) = await StartAsync();
        await using var _ = api;
        using var __ = client;
        await Http.PostAsync(client, ConfigMaps, Named("x", "\"side\":\"dark\""));
        using var watch = await WatchReader.StartAsync(client, $"{ConfigMaps}?labelSelector=side%3Dlight&resourceVersion={api.Revision}");
        await Http.PatchAsync(client, $"{ConfigMaps}/x", """{"metadata":{"labels":{"side":"light"}}}""");
        await Http.PatchAsync(client, $"{ConfigMaps}/x", """{"data":{"a":"9"}}""");
        await Http.PatchAsync(client, $"{ConfigMaps}/x", """{"metadata":{"labels":{"side":null}}}""");
        Assert.Equal(["ADDED x", "MODIFIED x", "DELETED x"],
            new[] { await watch.NextTextAsync(), await watch.NextTextAsync(), await watch.NextTextAsync() });
    }

    [Theory]
    [InlineData("side=light", "a")]
    [InlineData("side!=light", "b c")]
    [InlineData("side in (light,dark)", "a b")]
    [InlineData("side notin (light)", "b c")]
    [InlineData("side", "a b")]
    [InlineData("!side", "c")]
    [InlineData("side,side!=dark", "a")]
    public async Task Label_selectors_choose(string selector, string expected)
    {
        var (api, client) = await StartAsync();
        await using var _ = api;
        using var __ = client;
        await Http.PostAsync(client, ConfigMaps, Named("a", "\"side\":\"light\""));
        await Http.PostAsync(client, ConfigMaps, Named("b", "\"side\":\"dark\""));
        await Http.PostAsync(client, ConfigMaps, Named("c"));
        var list = await Http.GetAsync(client, $"{ConfigMaps}?labelSelector={Uri.EscapeDataString(selector)}");
        Assert.Equal(expected, string.Join(' ', list["items"]!.AsArray().Select(one => (string)one!["metadata"]!["name"]!)));
    }

    [Fact]
    public async Task Bookmarks_move_on_with_changes_of_other_kinds_and_never_overtake_events()
    {
        var (api, client) = await StartAsync(new() { BookmarkInterval = TimeSpan.FromMilliseconds(20) });
        await using var _ = api;
        using var __ = client;
        using var watch = await WatchReader.StartAsync(client, $"{ConfigMaps}?allowWatchBookmarks=true&resourceVersion={api.Revision}");
        var bookmark = (await watch.NextAsync())!;
        Assert.Equal("BOOKMARK", (string)bookmark["type"]!);
        await Http.PostAsync(client, "/api/v1/namespaces", "{\"metadata\":{\"name\":\"other\"}}");
        var target = api.Revision;
        while (Revision(bookmark["object"]!) < target)
            bookmark = (await watch.NextAsync())!;
        Assert.Equal("ConfigMap", (string)bookmark["object"]!["kind"]!);
        Assert.Equal("BOOKMARK", (string)bookmark["type"]!);

        using var plain = await WatchReader.StartAsync(client, $"{ConfigMaps}?resourceVersion={api.Revision}&timeoutSeconds=1");
        Assert.Null(await plain.NextAsync());
    }

    [Fact]
    public async Task A_watch_from_before_a_compaction_gets_410_in_the_stream()
    {
        var (api, client) = await StartAsync();
        await using var _ = api;
        using var __ = client;
        var old = api.Revision;
        await Http.PostAsync(client, ConfigMaps, Named("a"));
        using (var early = await WatchReader.StartAsync(client, $"{ConfigMaps}?resourceVersion={old}"))
            Assert.Equal("ADDED a", await early.NextTextAsync());
        api.Compact();
        using var late = await WatchReader.StartAsync(client, $"{ConfigMaps}?resourceVersion={old}");
        var error = (await late.NextAsync())!;
        Assert.Equal(("ERROR", 410, "Expired"), ((string)error["type"]!, (int)error["object"]!["code"]!, (string)error["object"]!["reason"]!));
        Assert.Null(await late.NextAsync());
        using var fresh = await WatchReader.StartAsync(client, $"{ConfigMaps}?resourceVersion={api.Revision}");
        await Http.PostAsync(client, ConfigMaps, Named("b"));
        Assert.Equal("ADDED b", await fresh.NextTextAsync());
    }

    [Fact]
    public async Task A_history_that_is_too_short_is_410_as_well()
    {
        var (api, client) = await StartAsync(new() { HistoryMax = 3 });
        await using var _ = api;
        using var __ = client;
        var old = api.Revision;
        for (var i = 0; i < 5; i++)
            await Http.PostAsync(client, ConfigMaps, Named($"c{i}"));
        using var late = await WatchReader.StartAsync(client, $"{ConfigMaps}?resourceVersion={old}");
        Assert.Equal("ERROR", (string)(await late.NextAsync())!["type"]!);
        using var recent = await WatchReader.StartAsync(client, $"{ConfigMaps}?resourceVersion={api.Revision - 2}");
        Assert.Equal("ADDED c3", await recent.NextTextAsync());
    }

    [Fact]
    public async Task A_reader_that_is_too_slow_is_cut_off()
    {
        var (api, client) = await StartAsync(new() { WatchBacklogMax = 2 });
        await using var _ = api;
        using var __ = client;
        for (var i = 0; i < 5; i++)
            await Http.PostAsync(client, ConfigMaps, Named($"c{i}"));
        using var watch = await WatchReader.StartAsync(client, ConfigMaps);
        Assert.Equal(["ADDED c0", "ADDED c1", "end"], new[] { await watch.NextTextAsync(), await watch.NextTextAsync(), await watch.NextTextAsync() });
    }

    [Fact]
    public async Task Initial_events_by_watch_are_refused_as_older_servers_do()
    {
        var (api, client) = await StartAsync();
        await using var _ = api;
        using var __ = client;
        var (code, body) = await Http.SendAsync(client, HttpMethod.Get, $"{ConfigMaps}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan");
        Assert.Equal((422, "Invalid"), (code, (string)body!["reason"]!));
    }
}
