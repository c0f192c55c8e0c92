using System.Text;
using Mesh.TestKit;
using Xunit;

namespace Mesh.KVStore.Tests;

/// <summary>Several readers of one server: one watch for all of them, and each sees what it would see alone.</summary>
public sealed class SharedStoreTests : IAsyncLifetime
{
    private static readonly EtcdSharing Sharing = new(Wider);

    private EtcdServer _etcd = null!;
    private EtcdKVStore _writer = null!;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        _etcd = await EtcdServer.StartAsync();
        _writer = _etcd.NewStore();
    }

    public async ValueTask DisposeAsync()
    {
        await _writer.DisposeAsync();
        await _etcd.DisposeAsync();
    }

    [Fact]
    public async Task Siblings_share_one_watch_and_each_sees_its_own()
    {
        await using var proxy = await GrpcProxy.StartAsync(_etcd.Endpoint, asDoor: false);
        await _writer.WriteAsync([Put("w/a/1", "1"), Put("w/b/1", "1"), Put("w/bb/1", "1")], Cancellation);
        await using var first = Sharing.Open(new EtcdOptions { Endpoints = [proxy.Endpoint] });
        await using var second = Sharing.Open(new EtcdOptions { Endpoints = [proxy.Endpoint] });
        await using (var a = new Reader(first, "w/a/"))
        await using (var b = new Reader(second, "w/b/"))
        {
            await a.UntilAsync("w/a/1=1");
            await b.UntilAsync("w/b/1=1");
            await _writer.WriteAsync([Put("w/a/2", "2"), Put("w/b/2", "2"), new("w/b/1", null), Put("w/bb/2", "2")], Cancellation);
            await a.UntilAsync("w/a/1=1 w/a/2=2");
            await b.UntilAsync("w/b/2=2");
            Assert.Equal((1, 2), (b.Lists, b.Events));
            Assert.Equal(1, proxy.Watches);
            Assert.Equal("w/b/", Assert.Single(second.Status.Watches).Prefix);
        }
        // The control: who is alone has a watch of exactly what it asked for.
        await first.DisposeAsync();
        await using var alone = new Reader(second, "w/b/");
        await alone.UntilAsync("w/b/2=2");
        await _writer.WriteAsync([new("w/b/2", null)], Cancellation);
        await alone.UntilAsync("");
        Assert.Equal(2, proxy.Watches);
        Assert.Equal("w/b/", Assert.Single(second.Status.Watches).Prefix);
    }

    [Fact]
    public async Task Other_credentials_are_another_store()
    {
        await using var proxy = await GrpcProxy.StartAsync(_etcd.Endpoint, asDoor: false);
        await using var first = Sharing.Open(new EtcdOptions { Endpoints = [proxy.Endpoint] });
        await using var second = Sharing.Open(new EtcdOptions { Endpoints = [proxy.Endpoint], PageSize = 77 });
        await using var a = new Reader(first, "w/a/");
        await using var b = new Reader(second, "w/b/");
        await a.UntilAsync("");
        await b.UntilAsync("");
        await _writer.WriteAsync([Put("w/a/1", "1"), Put("w/b/1", "1")], Cancellation);
        await a.UntilAsync("w/a/1=1");
        await b.UntilAsync("w/b/1=1");
        Assert.Equal(2, proxy.Watches);
    }

    [Fact]
    public async Task Readers_that_come_and_go_under_churn_miss_nothing()
    {
        await using var anchor = Sharing.Open(_etcd.Options);
        await using var other = Sharing.Open(_etcd.Options);
        await using var staying = new Reader(anchor, "w/a/");
        await staying.UntilAsync("");
        var model = new SortedDictionary<string, string>(StringComparer.Ordinal);
        var random = new Random(7);
        var churn = Task.Run(async () =>
        {
            for (var i = 0; i < 1500; i++)
            {
                var key = $"w/b/{random.Next(40):00}";
                var gone = random.Next(4) == 0;
                await _writer.WriteAsync([gone ? new(key, null) : Put(key, $"{i}"), Put("w/a/n", $"{i}")], Cancellation);
                if (gone)
                    model.Remove(key);
                else
                    model[key] = $"{i}";
            }
        }, Cancellation);
        var readers = new List<Reader>();
        while (!churn.IsCompleted)
        {
            readers.Add(new Reader(other, "w/b/"));
            await Task.Delay(10, Cancellation);
        }
        await churn;
        Assert.True(readers.Count > 5);
        foreach (var reader in readers)
        {
            await reader.UntilAsync(string.Join(' ', model.Select(item => $"{item.Key}={item.Value}")));
            Assert.Equal((1, 0), (reader.Lists, reader.Backwards));
            await reader.DisposeAsync();
        }
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    public async Task Over_kills_each_goes_on_without_listing_anew(int seed)
    {
        await using var first = Sharing.Open(_etcd.Options);
        await using var second = Sharing.Open(_etcd.Options);
        await using var a = new Reader(first, "w/a/");
        await using var b = new Reader(second, "w/b/");
        var random = new Random(seed);
        var model = new SortedDictionary<string, string>(StringComparer.Ordinal);
        for (var step = 0; step < 300; step++)
        {
            var key = $"w/{"ab"[random.Next(2)]}/{random.Next(20):00}";
            await _writer.WriteAsync([Put(key, $"{step}")], Cancellation);
            model[key] = $"{step}";
            if (random.Next(80) != 0)
                continue;
            await _etcd.KillAsync();
            await _etcd.RestartAsync();
        }
        foreach (var (reader, prefix) in new[] { (a, "w/a/"), (b, "w/b/") })
        {
            await reader.UntilAsync(string.Join(' ', model.Where(item => item.Key.StartsWith(prefix, StringComparison.Ordinal))
                .Select(item => $"{item.Key}={item.Value}")));
            Assert.Equal((1, 0), (reader.Lists, reader.Backwards));
        }
    }

    [Fact]
    public async Task An_event_that_was_lost_is_back_for_its_reader_within_seconds()
    {
        await using var door = await GrpcProxy.StartAsync(_etcd.Endpoint, asDoor: true);
        await using var first = Sharing.Open(new EtcdOptions { Endpoints = [door.Endpoint] });
        await using var second = Sharing.Open(new EtcdOptions { Endpoints = [door.Endpoint] });
        await using var a = new Reader(first, "w/a/");
        await using var b = new Reader(second, "w/b/");
        await _writer.WriteAsync([Put("w/a/1", "1"), Put("w/b/1", "1")], Cancellation);
        await a.UntilAsync("w/a/1=1");
        await b.UntilAsync("w/b/1=1");
        // By its value: the events of the first write may still be under way to the watch.
        door.Lose = item => item.Kv.Key.ToStringUtf8() == "w/b/1" && item.Kv.Value.ToStringUtf8() == "2";
        var clock = System.Diagnostics.Stopwatch.StartNew();
        await _writer.WriteAsync([Put("w/b/1", "2")], Cancellation);
        await b.UntilAsync("w/b/1=2");
        Assert.InRange(clock.Elapsed, TimeSpan.Zero, LostEventTests.Within);
        Assert.Equal(1, door.Dropped);
        Assert.Contains("never arrived", second.Status.Watches[0].RelistReason, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_wiped_store_is_listed_anew_by_all()
    {
        await _writer.WriteAsync([Put("w/a/1", "1"), Put("w/b/1", "1"), Put("w/b/2", "1")], Cancellation);
        await using var first = Sharing.Open(_etcd.Options);
        await using var second = Sharing.Open(_etcd.Options);
        await using var a = new Reader(first, "w/a/");
        await using var b = new Reader(second, "w/b/");
        await a.UntilAsync("w/a/1=1");
        await b.UntilAsync("w/b/1=1 w/b/2=1");
        await _etcd.WipeAsync(sameClusterId: true);
        await _writer.WriteAsync([Put("w/a/1", "1"), Put("w/b/3", "1")], Cancellation);
        await b.UntilAsync("w/b/3=1");
        await a.UntilAsync("w/a/1=1");
        Assert.Equal((2, 2), (a.Lists, b.Lists));
    }

    [Fact]
    public async Task Who_does_not_take_its_events_lists_anew_and_delays_nobody()
    {
        await using var first = Sharing.Open(_etcd.Options);
        await using var second = Sharing.Open(_etcd.Options);
        await using var quick = new Reader(first, "w/a/");
        using var go = new ManualResetEventSlim(true);
        await using var slow = new Reader(second, "w/b/") { OnEvent = () => go.Wait(Cancellation) };
        await quick.UntilAsync("");
        await slow.UntilAsync("");
        await _writer.WriteAsync([Put("w/b/0", "0")], Cancellation);
        await slow.UntilAsync("w/b/0=0");
        go.Reset();
        for (var i = 0; i <= SharedFeed.Room / 1024; i++)
            await _writer.WriteAsync([.. Enumerable.Range(0, 1024).Select(n => Put($"w/b/{n}", $"x{i}"))], Cancellation);
        await _writer.WriteAsync([Put("w/a/1", "1")], Cancellation);
        await quick.UntilAsync("w/a/1=1");
        Assert.Equal(1, slow.Lists);
        go.Set();
        await slow.UntilAsync(() => slow.Lists == 2 && slow.State.Contains($"w/b/1023=x{SharedFeed.Room / 1024}", StringComparison.Ordinal));
        Assert.Contains("behind the watch", second.Status.Watches[0].RelistReason, StringComparison.Ordinal);
        Assert.Equal((1, 1), (quick.Lists, quick.Events));
    }

    [Fact]
    public async Task Who_may_not_watch_the_whole_watches_its_own_part()
    {
        foreach (var command in (string[][])
            [["user", "add", "root:r"], ["user", "grant-role", "root", "root"], ["user", "add", "remote:s"], ["role", "add", "remote"],
            ["role", "grant-permission", "remote", "--prefix=true", "read", "w/a/"],
            ["role", "grant-permission", "remote", "--prefix=true", "read", "w/b/"],
            ["user", "grant-role", "remote", "remote"], ["put", "w/b/1", "1"], ["auth", "enable"]])
            await _etcd.EtcdctlAsync(command);
        var options = _etcd.Options with { Username = "remote", Password = "s" };
        await using var first = Sharing.Open(options);
        await using var second = Sharing.Open(options);
        await using var a = new Reader(first, "w/a/");
        await using var b = new Reader(second, "w/b/");
        await a.UntilAsync("");
        await b.UntilAsync("w/b/1=1");
        // What it may not read at all it is told of.
        await using var forbidden = new Reader(second, "w/c/");
        Assert.True((await Assert.ThrowsAsync<KVStoreException>(() => forbidden.UntilAsync("never"))).PermissionDenied);
    }

    private static string? Wider(string prefix) => prefix.StartsWith("w/", StringComparison.Ordinal) ? "w/" : null;

    private static WriteOperation Put(string key, string value) => new(key, Encoding.UTF8.GetBytes(value));
}

/// <summary>The contract, by a reader that shares.</summary>
public sealed class SharedContract : Contract
{
    private readonly EtcdSharing _sharing = new(prefix => prefix.TrimEnd('/'));
    private EtcdServer _server = null!;
    private IKVStore _other = null!;

    public override async ValueTask InitializeAsync()
    {
        _server = await EtcdServer.StartAsync();
        Store = _sharing.Open(_server.Options);
        _other = _sharing.Open(_server.Options);
    }

    public override async ValueTask DisposeAsync()
    {
        await Store.DisposeAsync();
        await _other.DisposeAsync();
        await _server.DisposeAsync();
    }
}
