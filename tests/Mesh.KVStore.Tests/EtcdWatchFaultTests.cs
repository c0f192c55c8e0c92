using System.Text;
using Mesh.TestKit;
using Xunit;

namespace Mesh.KVStore.Tests;

/// <summary>A watch over everything that can happen to an etcd. Each story first shows the watch working.</summary>
public sealed class EtcdWatchFaultTests : IAsyncLifetime
{
    private EtcdServer _server = null!;
    private EtcdKVStore _store = null!;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        _server = await EtcdServer.StartAsync();
        _store = _server.NewStore();
    }

    public async ValueTask DisposeAsync()
    {
        await _store.DisposeAsync();
        await _server.DisposeAsync();
    }

    [Theory]
    [InlineData("kill -9")]
    [InlineData("SIGTERM")]
    [InlineData("SIGSTOP")]
    public async Task No_event_is_lost_over(string fault)
    {
        await using var reader = new Reader(_store, "w/");
        await reader.UntilAsync("");
        await using var writer = _server.NewStore();
        const int total = 600;
        var writing = Task.Run(async () =>
        {
            for (var i = 0; i < total; i++)
            {
                // A write may fail for longer than its retries while the server is down: a producer tries on.
                while (true)
                {
                    try
                    {
                        await writer.WriteAsync([Put($"w/{i:0000}", "v")], Cancellation);
                        break;
                    }
                    catch (KVStoreException)
                    {
                        await Task.Delay(50, Cancellation);
                    }
                }
            }
        }, Cancellation);
        for (var round = 1; round <= 3; round++)
        {
            var seen = round * 100;
            await reader.UntilAsync(() => reader.Events >= seen);
            if (fault == "SIGSTOP")
            {
                _server.Pause();
                await Task.Delay(300, Cancellation);
                _server.Continue();
                continue;
            }
            await (fault == "SIGTERM" ? _server.StopAsync() : _server.KillAsync());
            await _server.RestartAsync();
        }
        await writing;
        await reader.UntilAsync(() => reader.State.Count(c => c == '=') == total, () => $"{total} keys");
        Assert.Equal(1, reader.Lists);
        Assert.Equal(0, reader.Backwards);
        // A put whose answer was lost is put again: more events, never fewer.
        Assert.True(reader.Events >= total);
        if (fault != "SIGSTOP")
            Assert.True(_store.Status.Resumptions >= 3, $"{_store.Status.Resumptions} resumptions: was there an outage at all?");
        Assert.Equal(0, _store.Status.Relists);
    }

    [Fact]
    public async Task Compaction_during_an_outage_lists_again_and_the_deleted_key_vanishes()
    {
        await _store.WriteAsync([Put("w/a", "1"), Put("w/b", "2")], Cancellation);
        await using var proxy = new TcpProxy(new Uri(_server.Endpoint).Port);
        await using var behind = new EtcdKVStore(new EtcdOptions { Endpoints = [proxy.Endpoint] });
        await using var reader = new Reader(behind, "w/");
        await reader.UntilAsync("w/a=1 w/b=2");
        proxy.Cut();
        await _store.WriteAsync([new WriteOperation("w/a", null)], Cancellation);
        var revision = await _store.WriteAsync([Put("w/c", "3")], Cancellation);
        await _server.EtcdctlAsync("compact", $"{revision}");
        proxy.Heal();
        await reader.UntilAsync("w/b=2 w/c=3");
        Assert.Equal(2, reader.Lists);
        Assert.Contains("compacted", behind.Status.LastRelistReason, StringComparison.Ordinal);
    }

    [Fact]
    public async Task The_same_outage_without_compaction_resumes()
    {
        await _store.WriteAsync([Put("w/a", "1"), Put("w/b", "2")], Cancellation);
        await using var proxy = new TcpProxy(new Uri(_server.Endpoint).Port);
        await using var behind = new EtcdKVStore(new EtcdOptions { Endpoints = [proxy.Endpoint] });
        await using var reader = new Reader(behind, "w/");
        await reader.UntilAsync("w/a=1 w/b=2");
        // An event proves that the watch stands, and not the list alone: only a watch that stood can be resumed.
        await _store.WriteAsync([Put("w/b", "3")], Cancellation);
        await reader.UntilAsync("w/a=1 w/b=3");
        proxy.Cut();
        await _store.WriteAsync([new WriteOperation("w/a", null), Put("w/b", "2")], Cancellation);
        await _store.WriteAsync([Put("w/c", "3")], Cancellation);
        proxy.Heal();
        await reader.UntilAsync("w/b=2 w/c=3");
        Assert.Equal(1, reader.Lists);
        Assert.Equal(1, behind.Status.Resumptions);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_wiped_etcd_is_listed_again(bool sameClusterId)
    {
        for (var i = 0; i < 20; i++)
            await _store.WriteAsync([Put($"w/{i}", "old")], Cancellation);
        await using var reader = new Reader(_store, "w/");
        await reader.UntilAsync(() => reader.Lists == 1);
        await _server.WipeAsync(sameClusterId);
        await using (var writer = _server.NewStore())
            await writer.WriteAsync([Put("w/new", "1")], Cancellation);
        await reader.UntilAsync("w/new=1");
        Assert.True(reader.Lists >= 2);
    }

    [Fact]
    public async Task A_wiped_etcd_that_overtook_our_revision_under_the_same_cluster_id_is_found_out()
    {
        await _store.WriteAsync([Put("w/a", "1")], Cancellation);
        await using var proxy = new TcpProxy(new Uri(_server.Endpoint).Port);
        await using var behind = new EtcdKVStore(new EtcdOptions { Endpoints = [proxy.Endpoint] });
        await using var reader = new Reader(behind, "w/");
        await reader.UntilAsync("w/a=1");
        var before = behind.Status.ClusterId;
        proxy.Cut();
        await _server.WipeAsync(sameClusterId: true);
        await using (var writer = _server.NewStore())
        {
            for (var i = 0; i < 10; i++)
                await writer.WriteAsync([Put("w/b", $"{i}")], Cancellation);
        }
        proxy.Heal();
        await reader.UntilAsync("w/b=9");
        Assert.Equal(2, reader.Lists);
        Assert.Equal(before, behind.Status.ClusterId);
        Assert.Contains("another history", behind.Status.LastRelistReason, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Another_etcd_behind_the_same_address_is_listed_again()
    {
        await _store.WriteAsync([Put("w/a", "tokyo")], Cancellation);
        await using var other = await EtcdServer.StartAsync(false, "--initial-cluster-token", "other");
        await using (var writer = other.NewStore())
            await writer.WriteAsync([Put("w/b", "osaka")], Cancellation);
        await using var proxy = new TcpProxy(new Uri(_server.Endpoint).Port);
        await using var behind = new EtcdKVStore(new EtcdOptions { Endpoints = [proxy.Endpoint] });
        await using var reader = new Reader(behind, "w/");
        await reader.UntilAsync("w/a=tokyo");
        proxy.Cut();
        proxy.Heal(new Uri(other.Endpoint).Port);
        await reader.UntilAsync("w/b=osaka");
        Assert.Contains("another etcd", behind.Status.LastRelistReason, StringComparison.Ordinal);
    }

    [Fact]
    public async Task An_audit_of_a_healthy_watch_under_load_finds_nothing()
    {
        await using var audited = new EtcdKVStore(_server.Options with
        {
            AuditInterval = TimeSpan.FromMilliseconds(20),
            AuditGrace = TimeSpan.FromMilliseconds(500),
        });
        await using var reader = new Reader(audited, "w/");
        await reader.UntilAsync("");
        for (var i = 0; audited.Status.Audits < 4; i++)
        {
            await _store.WriteAsync([Put($"w/{i % 50}", $"{i}"), new WriteOperation($"w/{(i + 7) % 50}", null)], Cancellation);
            await _store.WriteAsync([Put($"other/{i % 50}", $"{i}")], Cancellation);
        }
        Assert.Equal(1, reader.Lists);
    }

    [Fact]
    public async Task A_page_too_large_to_be_taken_is_read_in_smaller_ones()
    {
        var value = new byte[200_000];
        await _store.WriteAsync([.. Enumerable.Range(0, 40).Select(i => new WriteOperation($"large/{i:00}", value))], Cancellation);
        await using var careful = new EtcdKVStore(_server.Options with { MaxMessageBytes = 2 * 1024 * 1024 });
        var (items, _) = await careful.ListAsync("large/", Cancellation);
        Assert.Equal(40, items.Count);
        Assert.All(items, item => Assert.Equal(value.Length, item.Value.Length));
        Assert.Contains("largest message 1000", string.Join('\n', (_server.Options with { MaxMessageBytes = 1000 }).Validate()));
    }

    [Fact]
    public async Task Pages_are_of_one_revision_while_writes_go_on()
    {
        await _store.WriteAsync([.. Enumerable.Range(0, 2000).Select(i => Put($"w/{i:0000}", "0"))], Cancellation);
        await using var paged = new EtcdKVStore(_server.Options with { PageSize = 50 });
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(Cancellation);
        var writing = Task.Run(async () =>
        {
            // Each transaction changes the first and the last key together, and removes or adds one in the middle.
            for (var i = 1; !stop.IsCancellationRequested; i++)
            {
                await _store.WriteAsync([Put("w/0000", $"{i}"), Put("w/1999", $"{i}"),
                    i % 2 == 0 ? Put("w/1000", "0") : new WriteOperation("w/1000", null)], Cancellation);
            }
        }, Cancellation);
        var states = new HashSet<string>();
        for (var round = 0; round < 10; round++)
        {
            var (items, revision) = await paged.ListAsync("w/", Cancellation);
            Assert.Equal(Text(items[0]), Text(items[^1]));
            Assert.Equal(int.Parse(Text(items[0]), null) % 2 == 0 ? 2000 : 1999, items.Count);
            Assert.All(items, i => Assert.True(i.ModRevision <= revision));
            states.Add(Text(items[0]));
        }
        await stop.CancelAsync();
        await writing;
        Assert.True(states.Count > 1, "the writer never wrote between two lists");
    }

    [Fact]
    public async Task A_key_that_is_not_text_is_counted_and_skipped()
    {
        await _store.WriteAsync([Put("w/a", "1")], Cancellation);
        await RawPut.PutAsync(_server.Endpoint, [.. "w/"u8, 0xff, 0xfe], Cancellation);
        await using var reader = new Reader(_store, "w/");
        await reader.UntilAsync("w/a=1");
        await RawPut.PutAsync(_server.Endpoint, [.. "w/"u8, 0xff, 0xfd], Cancellation);
        await _store.WriteAsync([Put("w/b", "2")], Cancellation);
        await reader.UntilAsync("w/a=1 w/b=2");
        Assert.Equal(2, _store.Status.RejectedKeys);
        var (items, _) = await _store.ListAsync("w/", Cancellation);
        Assert.Equal(["w/a", "w/b"], items.Select(i => i.Key));
        Assert.Equal(4, _store.Status.RejectedKeys);
    }

    private static WriteOperation Put(string key, string value) => new(key, Encoding.UTF8.GetBytes(value));

    private static string Text(KeyValue item) => Encoding.UTF8.GetString(item.Value.Span);

    /// <summary>So that who keeps what comes makes room once.</summary>
    [Theory]
    [InlineData(700, 700)]
    [InlineData(40, 0)]
    public async Task The_first_keys_of_a_long_list_tell_how_many_it_will_have(int keys, long told)
    {
        await using var store = _server.NewStore();
        foreach (var part in Enumerable.Range(0, keys).Chunk(100))
            await store.WriteAsync([.. part.Select(i => new WriteOperation($"long/{i:d4}", new byte[] { 1 }))], Cancellation);
        var batches = new List<WatchBatch>();
        await foreach (var batch in store.ListWatchAsync("long/", Cancellation))
        {
            batches.Add(batch);
            if (batch.Kind == WatchBatchKind.ListEnd)
                break;
        }
        var pages = batches.Where(batch => batch.Kind == WatchBatchKind.Put).ToList();
        Assert.Equal((told, keys), (pages[0].Expected, pages.Sum(page => page.Events.Count)));
        Assert.All(pages.Skip(1), page => Assert.Equal(0, page.Expected));
    }
}
