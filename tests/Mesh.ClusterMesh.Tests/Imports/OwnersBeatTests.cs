using System.Diagnostics;
using Mesh.ClusterMesh.Imports;
using Mesh.ClusterMesh.Tests.Remote;
using Mesh.ClusterMesh.Wire;
using Mesh.KVStore;
using Mesh.TestKit;
using Xunit;

namespace Mesh.ClusterMesh.Tests.Imports;

/// <summary>
/// Tokyo is read at a door of ours, and its heart beats once a minute: what its owner withdraws it beats behind, so that goes in seconds
/// however little of the keys it is; and what has no beat behind it waits, also when it was deleted key by key a moment after one.
/// </summary>
public sealed class OwnersBeatTests : IAsyncLifetime
{
    private const int Backends = 40;

    /// <summary>A second list would confirm after a minute; without other work it takes one to three seconds.</summary>
    internal static readonly TimeSpan WithoutASecondList = TimeSpan.FromSeconds(20);
    private readonly RecordingSink _sink = new();
    private Tokyo _tokyo = null!;
    private GrpcProxy _door = null!;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        _tokyo = await Tokyo.StartAsync(Backends, heartbeat: TimeSpan.FromMinutes(1));
        _door = await GrpcProxy.StartAsync(_tokyo.Etcd.Endpoint, asDoor: true);
    }

    public async ValueTask DisposeAsync()
    {
        await _door.DisposeAsync();
        await _tokyo.DisposeAsync();
    }

    private async Task<Following> FollowAsync(int backends, int addresses)
    {
        var following = new Following("tokyo", () => new EtcdKVStore(new EtcdOptions { Endpoints = [_door.Endpoint] }), _sink,
            options: Following.Options with
            {
                LocalCluster = "osaka",
                LocalClusterId = 2,
                DefaultImports = ImportPolicy.Default,
            });
        await _sink.UntilReadyAsync("tokyo");
        await _sink.UntilAsync(sink => sink.Backends == backends && sink.IpEntries.Count == addresses,
            $"{backends} backends and {addresses} addresses");
        return following;
    }

    [Fact]
    public async Task Who_deletes_key_by_key_while_the_owner_is_away_is_not_believed()
    {
        await using var following = await FollowAsync(Backends, Backends);
        await _tokyo.StopWriterAsync();
        await using var store = _tokyo.Etcd.NewStore();
        await store.WriteAsync([new WriteOperation(Keys.Heartbeat, "its last"u8.ToArray())], Cancellation);
        foreach (var item in (await store.ListAsync("cilium/state/ip/v1/", Cancellation)).Items)
            await store.WriteAsync([new WriteOperation(item.Key, null)], Cancellation);
        await _sink.UntilAsync(sink => sink.Statuses["tokyo"].HeldText?.Contains("next sign of life", StringComparison.Ordinal) == true, "held");
        await Task.Delay(TimeSpan.FromSeconds(3), Cancellation);
        Assert.Equal((Backends / 2, Backends), _sink.Read(sink => (sink.IpEntries.Count, sink.Backends)));
        // The owner comes back, and puts things right.
        await _tokyo.StartWriterAsync();
        await _sink.UntilAsync(sink => sink.IpEntries.Count == Backends && sink.Statuses["tokyo"].Held == 0, "everything back");
    }

    /// <summary>Nothing else is written meanwhile: the beat is the only sign.</summary>
    [Fact]
    public async Task What_the_owner_deletes_little_by_little_is_gone_in_seconds()
    {
        _tokyo.Run("batch", 60, 160);
        await using var following = await FollowAsync(Backends, Backends + 100);
        // Not half of all, and a little more later, of which a part is too much.
        _tokyo.Run("batch", 60, 94);
        await _sink.UntilAsync(sink => sink.IpEntries.Count == Backends + 34, "66 gone");
        await Task.Delay(500, Cancellation);
        var clock = Stopwatch.StartNew();
        _tokyo.Run("batch", 60, 86);
        await _sink.UntilAsync(sink => sink.IpEntries.Count == Backends + 26, "8 more gone");
        Assert.InRange(clock.Elapsed, TimeSpan.Zero, WithoutASecondList);
        Assert.True(following.Cluster.Status.Holds > 0, "nothing was held");
    }

    [Fact]
    public async Task Two_services_with_most_of_the_backends_are_gone_in_seconds_though_they_are_few_keys()
    {
        _tokyo.Serve("small", [.. Enumerable.Range(0, 12).Select(i => ($"small-{i}", 60 + i, 61 + i))]);
        _tokyo.Serve("large", ("large-1", 80, 130), ("large-2", 130, 180));
        await using var following = await FollowAsync(Backends + 112, Backends);
        var clock = Stopwatch.StartNew();
        _tokyo.Withdraw("large");
        await _sink.UntilAsync(sink => sink.Backends == Backends + 12, "the large ones gone");
        Assert.InRange(clock.Elapsed, TimeSpan.Zero, WithoutASecondList);
        Assert.True(following.Cluster.Status.Holds > 0, "nothing was held");
    }
}
