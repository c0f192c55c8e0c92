using System.Globalization;
using System.Text.Json.Nodes;
using Mesh.KubeApi;
using Mesh.Kubernetes.Api;
using Xunit;

namespace Mesh.Kubernetes.Tests.Api;

public sealed class ReflectorTests
{
    private static readonly KubeResource<JsonObject> Maps = KubeResources.ConfigMaps.Raw;

    private static CancellationToken Stop => TestContext.Current.CancellationToken;

    private static JsonObject Map(int number, string value = "") =>
        new() { ["metadata"] = new JsonObject { ["name"] = $"m{number:000}" }, ["data"] = new JsonObject { ["v"] = value } };

    /// <summary>What a reader has been told: the present objects and the order of events.</summary>
    private sealed class Reader : IAsyncDisposable
    {
        private readonly CancellationTokenSource _stop = new();
        private readonly Lock _lock = new();
        private readonly SortedDictionary<string, string> _present = new(StringComparer.Ordinal);
        private readonly List<string> _history = [];
        private readonly Task _reading;

        public Reader(KubeClient client, ReflectorOptions? options = null)
        {
            Reflector = new Reflector<JsonObject>(client, Maps, (options ?? new ReflectorOptions()) with
            {
                Namespace = "kube-public",
                BackoffMin = TimeSpan.FromMilliseconds(10),
                BackoffMax = TimeSpan.FromMilliseconds(100),
            });
            _reading = ReadAsync();
        }

        public Reflector<JsonObject> Reflector { get; }

        /// <summary>Held closed, it takes nothing.</summary>
        public SemaphoreSlim Gate { get; } = new(1, 1);

        public string Present
        {
            get
            {
                lock (_lock)
                    return string.Join(' ', _present.Where(pair => pair.Key.StartsWith('m')).Select(pair => pair.Key + pair.Value));
            }
        }

        public string History
        {
            get
            {
                lock (_lock)
                    return string.Join(' ', _history.Where(line => line[1] is 'm' or 'y'));
            }
        }

        public Task Until(Func<Reader, bool> condition) =>
            Cluster.Until(() => _reading.IsFaulted ? throw _reading.Exception : condition(this),
                () => $"present: {Present}\nhistory: {History}\nstatus: {Reflector.Status}");

        public async ValueTask DisposeAsync()
        {
            await _stop.CancelAsync();
            await _reading.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            _stop.Dispose();
            Gate.Dispose();
        }

        private async Task ReadAsync()
        {
            await foreach (var batch in Reflector.WatchAsync(_stop.Token))
            {
                await Gate.WaitAsync(_stop.Token);
                lock (_lock)
                    foreach (var change in batch)
                        Take(change);
                Gate.Release();
            }
        }

        private void Take(ReflectorEvent<JsonObject> change)
        {
            switch (change.Type)
            {
                case ReflectorEventType.Upsert:
                    _present[change.Name.Name] = change.Object!["data"]?["v"]?.GetValue<string>() ?? "";
                    _history.Add($"+{change.Name.Name}");
                    break;
                case ReflectorEventType.Delete:
                    _present.Remove(change.Name.Name);
                    _history.Add($"-{change.Name.Name}");
                    break;
                default:
                    _history.Add(change.Type == ReflectorEventType.Synced ? "synced" : $"!{change.Name.Name}");
                    break;
            }
        }
    }

    private static async Task<Cluster> WithMaps(int count, KubeApiOptions? options = null)
    {
        var cluster = await Cluster.StartAsync(options);
        for (var i = 0; i < count; i++)
            await cluster.Client.CreateAsync(Maps, "kube-public", Map(i), Stop);
        return cluster;
    }

    /// <summary>Everything has been told, and the server knows that we listen.</summary>
    private static Task Watched(Cluster cluster, Reader reader) =>
        reader.Until(it => it.History.EndsWith("synced", StringComparison.Ordinal) && cluster.Server.WatchCount("configmaps") > 0);

    [Fact]
    public async Task It_tells_what_is_there_then_that_this_is_all_then_what_happens()
    {
        await using var cluster = await WithMaps(2);
        await using var reader = new Reader(cluster.Client);
        await reader.Until(it => it.History.EndsWith("synced", StringComparison.Ordinal));
        await cluster.Client.CreateAsync(Maps, "kube-public", Map(2), Stop);
        await cluster.Client.DeleteAsync(Maps, "kube-public", "m000", Stop);
        await reader.Until(it => it.Present == "m001 m002");
        Assert.Equal("+m000 +m001 synced +m002 -m000", reader.History);
        Assert.Equal(["m001", "m002"], reader.Reflector.Snapshot().Select(map => map["metadata"]!["name"]!.GetValue<string>())
            .Where(name => name.StartsWith('m')).Order());
        Assert.NotNull(reader.Reflector.Find("kube-public", "m001"));
        Assert.Equal(1, reader.Reflector.Status.Lists);
    }

    [Fact]
    public async Task A_delete_that_nobody_saw_is_found_after_a_compaction()
    {
        await using var cluster = await WithMaps(3);
        await using var reader = new Reader(cluster.Client);
        await Watched(cluster, reader);
        using (cluster.Server.Faults.Add(new Fault(FaultKind.InternalError) { Verb = "watch" }))
        {
            cluster.Server.CutWatches("configmaps");
            await reader.Until(it => it.Reflector.Status.Error is not null);
            await cluster.Client.DeleteAsync(Maps, "kube-public", "m001", Stop);
            await cluster.Client.CreateAsync(Maps, "kube-public", Map(7), Stop);
            cluster.Server.Compact();
        }
        await reader.Until(it => it.Present == "m000 m002 m007");
        Assert.Equal(2, reader.Reflector.Status.Lists);
        // What did not change is not told again.
        Assert.Equal("+m000 +m001 +m002 synced +m007 -m001", reader.History);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task A_watch_that_ends_or_expires_goes_on_without_a_gap(bool expires)
    {
        await using var cluster = await WithMaps(1);
        await using var reader = new Reader(cluster.Client);
        await Watched(cluster, reader);
        for (var round = 1; round <= 20; round++)
        {
            if (expires)
                cluster.Server.ExpireWatches("configmaps");
            else
                cluster.Server.CutWatches("configmaps");
            await cluster.Client.CreateAsync(Maps, "kube-public", Map(round), Stop);
            await cluster.Client.DeleteAsync(Maps, "kube-public", $"m{round - 1:000}", Stop);
        }
        await reader.Until(it => it.Present == "m020");
        if (!expires)
            Assert.Equal(1, reader.Reflector.Status.Lists);
    }

    [Theory]
    [InlineData(FaultKind.InternalError)]
    [InlineData(FaultKind.TooManyRequests)]
    [InlineData(FaultKind.HalfBody)]
    [InlineData(FaultKind.Disconnect)]
    [InlineData(FaultKind.Forbidden)]
    [InlineData(FaultKind.Gone)]
    [InlineData(FaultKind.BadGateway)]
    [InlineData(FaultKind.SlowChunks)]
    public async Task Nothing_that_a_server_does_withdraws_anything(FaultKind kind)
    {
        await using var cluster = await WithMaps(3);
        await using var reader = new Reader(cluster.Client);
        await Watched(cluster, reader);
        var fault = cluster.Server.Faults.Add(new Fault(kind) { Resource = "configmaps", ChunkBytes = 100 });
        cluster.Server.ExpireWatches("configmaps");
        await Cluster.Until(() => fault.Met >= 3 || (kind == FaultKind.SlowChunks && fault.Met >= 1), () => $"met {fault.Met}: {reader.Reflector.Status}");
        Assert.Equal("+m000 +m001 +m002 synced", reader.History);
        fault.Dispose();
        await cluster.Client.CreateAsync(Maps, "kube-public", Map(9), Stop);
        await reader.Until(it => it.Present == "m000 m001 m002 m009" && it.Reflector.Status.Error is null);
        Assert.DoesNotContain("-m", reader.History, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_server_that_restarts_is_found_again()
    {
        await using var cluster = await WithMaps(2);
        await using var reader = new Reader(cluster.Client);
        await Watched(cluster, reader);
        await cluster.Server.StopAsync();
        await reader.Until(it => it.Reflector.Status.Error is not null);
        await cluster.Server.ResumeAsync(Stop);
        await cluster.Client.DeleteAsync(Maps, "kube-public", "m000", Stop);
        await reader.Until(it => it.Present == "m001" && it.Reflector.Status.Error is null);
    }

    [Fact]
    public async Task A_server_that_hangs_is_left_when_the_watch_is_over()
    {
        await using var cluster = await WithMaps(1);
        using var client = cluster.NewClient(TimeSpan.FromSeconds(1));
        await using var reader = new Reader(client);
        await Watched(cluster, reader);
        using (cluster.Server.Faults.Add(new Fault(FaultKind.Hang) { Verb = "watch" }))
        {
            cluster.Server.CutWatches("configmaps");
            await reader.Until(it => it.Reflector.Status.Error?.Contains("no answer within", StringComparison.Ordinal) == true);
        }
        await cluster.Client.CreateAsync(Maps, "kube-public", Map(5), Stop);
        await reader.Until(it => it.Present == "m000 m005");
    }

    [Fact]
    public async Task Bookmarks_move_the_position_past_what_others_did()
    {
        await using var cluster = await WithMaps(1, new KubeApiOptions { BookmarkInterval = TimeSpan.FromMilliseconds(50) });
        await using var reader = new Reader(cluster.Client);
        await Watched(cluster, reader);
        await cluster.Client.CreateAsync(KubeResources.Secrets.Raw, "default",
            new JsonObject { ["metadata"] = new JsonObject { ["name"] = "other" } }, Stop);
        await reader.Until(it => it.Reflector.Position is { } position &&
            long.Parse(position, CultureInfo.InvariantCulture) == cluster.Server.Revision);
        Assert.Equal("m000", reader.Present);
        Assert.Equal(1, reader.Reflector.Status.Lists);
    }

    [Fact]
    public async Task A_slow_reader_holds_a_bounded_queue_and_loses_nothing()
    {
        await using var cluster = await WithMaps(0);
        await using var reader = new Reader(cluster.Client, new ReflectorOptions { QueueLength = 8 });
        await Watched(cluster, reader);
        await reader.Gate.WaitAsync(Stop);
        for (var i = 0; i < 200; i++)
            await cluster.Client.CreateAsync(Maps, "kube-public", Map(i), Stop);
        // Two batches and one event on the way, at most: the others wait in the server.
        Assert.InRange(reader.Reflector.Status.Events, 0, 3 * 8 + 8);
        reader.Gate.Release();
        await reader.Until(it => it.Present.Split(' ').Length == 200);
    }

    [Fact]
    public async Task A_page_whose_token_grew_too_old_is_listed_anew()
    {
        await using var cluster = await WithMaps(25);
        using var fault = cluster.Server.Faults.Add(new Fault(FaultKind.Gone) { Verb = "list", Times = 1 });
        await using var reader = new Reader(cluster.Client, new ReflectorOptions { Selection = new KubeSelection { PageSize = 5 } });
        await Watched(cluster, reader);
        Assert.Equal(1, fault.Met);
        Assert.Equal(25, reader.Present.Split(' ').Length);
        Assert.Equal(2, reader.Reflector.Status.Lists);
    }
}
