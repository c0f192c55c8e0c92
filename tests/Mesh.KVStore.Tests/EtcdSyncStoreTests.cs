using System.Text;
using Mesh.TestKit;
using Xunit;

namespace Mesh.KVStore.Tests;

/// <summary>The producer against a real etcd that loses leases, data and its life.</summary>
public sealed class EtcdSyncStoreTests : IAsyncLifetime
{
    private const string Canary = "synced/tokyo/p";
    private EtcdServer _server = null!;
    private EtcdKVStore _store = null!;
    private LeasePool _leases = null!;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        _server = await EtcdServer.StartAsync();
        _store = _server.NewStore();
        _leases = new LeasePool(_store, TimeSpan.FromMinutes(15));
    }

    public async ValueTask DisposeAsync()
    {
        await _leases.DisposeAsync();
        await _store.DisposeAsync();
        await _server.DisposeAsync();
    }

    [Fact]
    public async Task A_revoked_lease_has_keys_and_canary_written_again_under_a_new_one()
    {
        await using var sync = await SyncedAsync(300);
        var before = (await _store.GetAsync("p/000", Cancellation))!.Value.Lease;
        await using var other = _server.NewStore();
        await using var reader = new Reader(other, "");
        await reader.UntilAsync(() => Keys(reader) == 301);
        await _server.EtcdctlAsync("lease", "revoke", $"{before:x}");
        // Every key goes and comes again.
        await reader.UntilAsync(() => reader.Events >= 602 && Keys(reader) == 301);
        var data = (await _store.GetAsync("p/299", Cancellation))!.Value;
        var canary = (await _store.GetAsync(Canary, Cancellation))!.Value;
        Assert.NotEqual(before, data.Lease);
        Assert.NotEqual(before, canary.Lease);
        var (items, _) = await _store.ListAsync("p/", Cancellation);
        Assert.All(items, i => Assert.True(i.ModRevision < canary.ModRevision, i.Key));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_wiped_etcd_is_filled_again_data_before_canary(bool sameClusterId)
    {
        await using var sync = await SyncedAsync(300);
        await _server.WipeAsync(sameClusterId);
        await using var other = _server.NewStore();
        await using var reader = new Reader(other, "");
        await reader.UntilAsync(() => Keys(reader) == 301, () => $"{sync.Status} {_store.Status}");
        var canary = (await other.GetAsync(Canary, Cancellation))!.Value;
        var (items, _) = await other.ListAsync("p/", Cancellation);
        Assert.All(items, i => Assert.True(i.ModRevision < canary.ModRevision, i.Key));
        Assert.All(items, i => Assert.NotEqual(0, i.Lease));
        await SyncStoreTests.PollAsync(() => sync.Status is { Synced: true, Queue: 0 });
    }

    [Fact]
    public async Task A_producer_that_restarts_over_an_unchanged_store_takes_its_keys_over_without_an_event()
    {
        await using (await SyncedAsync(300))
        {
            // Ends here, leaving its keys.
        }
        await _leases.DisposeAsync();
        await using var other = _server.NewStore();
        await using var reader = new Reader(other, "p/");
        await reader.UntilAsync(() => Keys(reader) == 300);
        await using var successor = new LeasePool(other, TimeSpan.FromMinutes(15));
        await using var sync = await SyncedAsync(300, other, successor);
        Assert.Equal(0, reader.Events);
        Assert.Equal(0, sync.Status.Written);
        // The lease is now the successor's: when it is lost, the keys are written again.
        var before = (await other.GetAsync("p/000", Cancellation))!.Value.Lease;
        await _server.EtcdctlAsync("lease", "revoke", $"{before:x}");
        await reader.UntilAsync(() => reader.Events >= 600 && Keys(reader) == 300);
    }

    [Fact]
    public async Task Changes_go_on_while_etcd_is_killed_again_and_again()
    {
        await using var sync = await SyncedAsync(100);
        await using var other = _server.NewStore();
        await using var reader = new Reader(other, "p/");
        var random = new Random(1);
        for (var kill = 0; kill < 3; kill++)
        {
            for (var i = 0; i < 500; i++)
            {
                var key = $"p/{random.Next(150):000}";
                if (random.Next(3) == 0)
                    sync.Remove(key);
                else
                    sync.Set(key, Bytes($"{kill}.{i}"));
                if (i == 250)
                    await _server.KillAsync();
            }
            await _server.RestartAsync();
        }
        var wanted = new SortedDictionary<string, string>(StringComparer.Ordinal);
        random = new Random(1);
        for (var i = 0; i < 100; i++)
            wanted[$"p/{i:000}"] = "v";
        for (var i = 0; i < 1500; i++)
        {
            var key = $"p/{random.Next(150):000}";
            if (random.Next(3) == 0)
                wanted.Remove(key);
            else
                wanted[key] = $"{i / 500}.{i % 500}";
        }
        await reader.UntilAsync(string.Join(' ', wanted.Select(w => $"{w.Key}={w.Value}")));
        await SyncStoreTests.PollAsync(() => sync.Status is { Queue: 0, LastError: null });
    }

    private static int Keys(Reader reader) => reader.State.Count(c => c == '=');

    private async Task<SyncStore> SyncedAsync(int keys, EtcdKVStore? store = null, LeasePool? leases = null)
    {
        var sync = SyncStore.Start(store ?? _store, new SyncStoreOptions
        {
            Prefix = "p/",
            Leases = leases ?? _leases,
            CanaryKey = Canary,
            RetryMax = TimeSpan.FromMilliseconds(500),
        });
        for (var i = 0; i < keys; i++)
            sync.Set($"p/{i:000}", Bytes("v"));
        sync.MarkSynced();
        await sync.WaitForSyncedAsync(Cancellation);
        return sync;
    }

    private static byte[] Bytes(string text) => Encoding.UTF8.GetBytes(text);
}
