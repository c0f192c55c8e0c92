using System.Diagnostics;
using Mesh.ClusterMesh.Imports;
using Mesh.ClusterMesh.Remote;
using Mesh.ClusterMesh.Tests.Remote;
using Mesh.ClusterMesh.Wire;
using Mesh.KVStore;
using Xunit;

namespace Mesh.ClusterMesh.Tests.Imports;

/// <summary>
/// Nothing is withdrawn without proof, on a real etcd with a real API server behind it: whatever happens to the store, no live
/// backend is ever taken away; and what the owner really withdraws goes at once. Each fault has the same story with the breaker off,
/// which must lose something, or else the fault is none.
/// </summary>
public abstract class WithdrawalStory : IAsyncLifetime
{
    private protected const int Backends = 40;

    private protected readonly RecordingSink _sink = new();
    private protected Tokyo _tokyo = null!;

    public async ValueTask InitializeAsync() => _tokyo = await Tokyo.StartAsync(Backends);

    public ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        return _tokyo.DisposeAsync();
    }

    private protected static RemoteClusterOptions Options(bool breaker, TimeSpan? confirmAfter = null) => Following.Options with
    {
        LocalCluster = "osaka",
        LocalClusterId = 2,
        DefaultImports = ImportPolicy.Default with
        {
            Breaker = breaker ? new BreakerPolicy { ConfirmAfter = confirmAfter ?? TimeSpan.FromSeconds(60) } : BreakerPolicy.Off,
        },
    };

    private protected async Task<Following> FollowAsync(bool breaker, TimeSpan? confirmAfter = null)
    {
        var following = new Following("tokyo", () => _tokyo.Etcd.NewStore(), _sink, options: Options(breaker, confirmAfter));
        await _sink.UntilReadyAsync("tokyo");
        await _sink.UntilAsync(sink => sink.Backends == Backends && sink.IpEntries.Count == Backends, "40 backends");
        return following;
    }

    private protected (int Deletions, int Backends) Lost => _sink.Read(sink => (sink.Deletions, sink.BackendsLost));

    /// <summary>Everything that can arrive has: the store answers, nothing is held, and the owner has written a heartbeat or two.</summary>
    private protected async Task SettledAsync()
    {
        await _sink.UntilAsync(sink => sink.Statuses["tokyo"] is { Ready: true, Held: 0 }, "ready, and nothing held");
        await Task.Delay(TimeSpan.FromSeconds(1.5), TestContext.Current.CancellationToken);
    }

    private protected async Task AssertNothingBlinkedAsync(bool breaker)
    {
        if (!breaker)
        {
            // The fault is one: unguarded, something was lost.
            await _sink.UntilAsync(sink => sink.Deletions + sink.BackendsLost > 0, "something lost without the breaker");
            return;
        }
        await SettledAsync();
        Assert.Equal((0, 0), Lost);
        Assert.Equal((Backends, Backends), _sink.Read(sink => (sink.Backends, sink.IpEntries.Count)));
    }

}

/// <summary>The keys go, one way or another.</summary>
public sealed class LostKeysTests : WithdrawalStory
{
    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task All_leases_revoked(bool breaker)
    {
        await using var following = await FollowAsync(breaker);
        foreach (var lease in (await _tokyo.Etcd.EtcdctlAsync("lease", "list")).Split('\n').Skip(1).Where(line => line.Length > 0))
            await _tokyo.Etcd.EtcdctlAsync("lease", "revoke", lease);
        await AssertNothingBlinkedAsync(breaker);
    }

    [Theory]
    [InlineData("cilium/", true)]
    [InlineData("cilium/", false)]
    [InlineData("cilium/state/", true)]
    [InlineData("cilium/state/", false)]
    [InlineData("cilium/state/services/", true)]
    [InlineData("cilium/state/services/", false)]
    public async Task All_keys_deleted(string prefix, bool breaker)
    {
        await using var following = await FollowAsync(breaker);
        await _tokyo.Etcd.EtcdctlAsync("del", "--prefix", prefix);
        await AssertNothingBlinkedAsync(breaker);
        if (breaker)
            Assert.True(following.Cluster.Status.Holds > 0);
    }

    [Theory]
    [InlineData("cilium/", true)]
    [InlineData("cilium/", false)]
    [InlineData("cilium/state/", true)]
    [InlineData("cilium/state/", false)]
    // One resource, in one transaction no larger than a producer's, beside a canary that stands.
    [InlineData("cilium/state/services/", true)]
    [InlineData("cilium/state/services/", false)]
    [InlineData("cilium/state/ip/", true)]
    [InlineData("cilium/state/ip/", false)]
    public async Task All_keys_deleted_while_the_writer_is_away(string prefix, bool breaker)
    {
        await using var following = await FollowAsync(breaker);
        await _tokyo.StopWriterAsync();
        await _tokyo.Etcd.EtcdctlAsync("del", "--prefix", prefix);
        if (breaker)
        {
            var services = prefix.Contains("services", StringComparison.Ordinal);
            await _sink.UntilAsync(sink => sink.Statuses["tokyo"].Held >= (services ? 2 : Backends), "everything held");
            await Task.Delay(TimeSpan.FromSeconds(2), TestContext.Current.CancellationToken);
            Assert.Equal((0, 0), Lost);
            Assert.Contains(prefix.Contains("ip", StringComparison.Ordinal) ? "IpEntries held since" : "Services held since", following.Cluster.Status.Status);
        }
        await _tokyo.StartWriterAsync();
        await AssertNothingBlinkedAsync(breaker);
    }

}

/// <summary>The store itself goes, comes back as it was long ago, or is another.</summary>
public sealed class LostStoreTests : WithdrawalStory
{
    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task Etcd_killed_and_wiped(bool sameClusterId)
    {
        await using var following = await FollowAsync(breaker: true);
        await _tokyo.Etcd.KillAsync();
        await _sink.UntilAsync(sink => !sink.Statuses["tokyo"].Connected, "the loss to be seen");
        await _tokyo.Etcd.RestartAsync();
        await SettledAsync();
        Assert.Equal((0, 0), Lost);
        await _tokyo.Etcd.WipeAsync(sameClusterId);
        await Task.Delay(TimeSpan.FromSeconds(1), TestContext.Current.CancellationToken);
        await AssertNothingBlinkedAsync(breaker: true);
        // The negative control: these faults take nothing, so a real withdrawal must show that the reader still reads.
        _tokyo.Serve("cart", 0, Backends / 2 - 1);
        await _sink.UntilAsync(sink => sink.Backends == Backends - 1, "the one that went");
    }

    [Theory]
    [InlineData(true, true, true)]
    [InlineData(true, false, true)]
    [InlineData(false, false, true)]
    [InlineData(false, true, false)]
    [InlineData(true, true, false)]
    public async Task Etcd_restored_from_an_old_snapshot(bool breaker, bool sameClusterId, bool writerIsThere)
    {
        _tokyo.Serve("till", Backends / 2, Backends - 5);
        await Task.Delay(TimeSpan.FromSeconds(1), TestContext.Current.CancellationToken);
        var snapshot = Path.Combine(_tokyo.Etcd.WorkDirectory, "old.db");
        await _tokyo.Etcd.EtcdctlAsync("snapshot", "save", snapshot);
        _tokyo.Serve("till", Backends / 2, Backends);
        await using var following = await FollowAsync(breaker);
        if (!writerIsThere || !breaker)
            await _tokyo.StopWriterAsync();
        await _tokyo.Etcd.RestoreAsync(snapshot, sameClusterId);
        if (!writerIsThere && breaker)
        {
            await _sink.UntilAsync(sink => sink.Statuses["tokyo"].Held > 0, "the five younger backends held");
            await Task.Delay(TimeSpan.FromSeconds(2), TestContext.Current.CancellationToken);
            Assert.Equal((0, 0), Lost);
            await _tokyo.StartWriterAsync();
        }
        await AssertNothingBlinkedAsync(breaker);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task Another_etcd_behind_the_same_address(bool breaker)
    {
        // An old copy of tokyo that nobody writes any more, with half of the backends.
        await using var other = await Tokyo.StartAsync(Backends / 2);
        await other.StopWriterAsync();
        await using var proxy = new Mesh.TestKit.TcpProxy(new Uri(_tokyo.Etcd.Endpoint).Port);
        await using var following = new Following("tokyo", () => new EtcdKVStore(new EtcdOptions { Endpoints = [proxy.Endpoint] }), _sink,
            options: Options(breaker));
        await _sink.UntilAsync(sink => sink.Backends == Backends && sink.IpEntries.Count == Backends && sink.Statuses["tokyo"].Ready, "40 backends");
        proxy.Cut();
        proxy.Heal(new Uri(other.Etcd.Endpoint).Port);
        if (breaker)
        {
            await _sink.UntilAsync(sink => sink.Statuses["tokyo"].Held > 0, "what the other lacks is held");
            await Task.Delay(TimeSpan.FromSeconds(2), TestContext.Current.CancellationToken);
            Assert.Equal((0, 0), Lost);
            proxy.Cut();
            proxy.Heal(new Uri(_tokyo.Etcd.Endpoint).Port);
        }
        await AssertNothingBlinkedAsync(breaker);
    }

}

/// <summary>What the owner means goes.</summary>
public sealed class NoFreezerTests : WithdrawalStory
{
    private async Task<TimeSpan> TimeUntilAsync(Action act, Func<RecordingSink, bool> gone, string what)
    {
        var clock = Stopwatch.StartNew();
        act();
        await _sink.UntilAsync(gone, what);
        return clock.Elapsed;
    }

    [Fact]
    public async Task One_backend_really_gone_and_a_service_scaled_to_zero_are_gone_in_seconds()
    {
        await using var following = await FollowAsync(breaker: true);
        var one = await TimeUntilAsync(() => _tokyo.Serve("cart", 0, Backends / 2 - 1),
            sink => sink.Backends == Backends - 1 && sink.IpEntries.Count == Backends - 1, "one backend gone");
        var half = await TimeUntilAsync(() => _tokyo.Serve("cart", 0, 0),
            sink => sink.Backends == Backends / 2 && sink.IpEntries.Count == Backends / 2, "cart at zero");
        var all = await TimeUntilAsync(() => _tokyo.Serve("till", 0, 0),
            sink => sink.Backends == 0 && sink.IpEntries.Count == 0, "till at zero: all backends and all addresses of the peer");
        var deleted = await TimeUntilAsync(() => _tokyo.Withdraw("till"), sink => sink.Services.Count == 1, "till deleted");
        TestContext.Current.SendDiagnosticMessage($"one {one}, half {half}, all {all}, deleted {deleted}");
        Assert.All([one, half, all, deleted], time => Assert.InRange(time, TimeSpan.Zero, OwnersBeatTests.WithoutASecondList));
    }

    [Fact]
    public async Task All_services_of_a_small_peer_deleted_by_their_owner_are_gone_in_seconds()
    {
        await using var following = await FollowAsync(breaker: true);
        var time = await TimeUntilAsync(() =>
        {
            _tokyo.Withdraw("cart");
            _tokyo.Withdraw("till");
        }, sink => sink.Services.Count == 0 && sink.IpEntries.Count == 0, "everything gone");
        Assert.InRange(time, TimeSpan.Zero, OwnersBeatTests.WithoutASecondList);
    }

    [Fact]
    public async Task Its_owner_beats_behind_a_mass_withdrawal_so_that_nobody_waits_for_the_minute()
    {
        await _tokyo.DisposeAsync();
        _tokyo = await Tokyo.StartAsync(Backends, heartbeat: TimeSpan.FromMinutes(1));
        await using var following = await FollowAsync(breaker: true);
        var zero = await TimeUntilAsync(() => _tokyo.Withdraw("cart"), sink => sink.IpEntries.Count == Backends / 2, "half of it gone");
        var all = await TimeUntilAsync(() => _tokyo.Withdraw("till"), sink => sink.Services.Count == 0 && sink.IpEntries.Count == 0, "everything gone");
        Assert.All([zero, all], time => Assert.InRange(time, TimeSpan.Zero, OwnersBeatTests.WithoutASecondList));
    }

    /// <summary>As an exporter of Cilium, which deletes key by key and beats once a minute: nobody waits for the minute. The controls: the same
    /// keys in one transaction, which somebody else may have made while the owner is away; and an owner that was not seen lately.</summary>
    [Theory]
    [InlineData(true, true)]
    [InlineData(false, true)]
    [InlineData(true, false)]
    public async Task A_mass_withdrawal_key_by_key_waits_for_no_heartbeat_where_one_was_seen_lately(bool keyByKey, bool beat)
    {
        await using var following = await FollowAsync(breaker: true);
        await _tokyo.StopWriterAsync();
        if (!beat)
        {
            // A connection that has seen none.
            await _tokyo.Etcd.KillAsync();
            await _tokyo.Etcd.RestartAsync();
            await following.DisposeAsync();
        }
        await using var anew = beat ? null : await FollowAsync(breaker: true);
        await using var store = _tokyo.Etcd.NewStore();
        if (beat)
            await store.WriteAsync([new WriteOperation(Keys.Heartbeat, "its last"u8.ToArray())], TestContext.Current.CancellationToken);
        var (items, _) = await store.ListAsync("cilium/state/ip/v1/", TestContext.Current.CancellationToken);
        foreach (var step in items.Chunk(keyByKey ? 1 : items.Count))
            await store.WriteAsync([.. step.Select(item => new WriteOperation(item.Key, null))], TestContext.Current.CancellationToken);
        if (keyByKey && beat)
        {
            await _sink.UntilAsync(sink => sink.IpEntries.Count == 0, "all addresses gone, without any other sign");
            Assert.Equal(Backends, _sink.Read(sink => sink.Backends));
            return;
        }
        await _sink.UntilAsync(sink => sink.Statuses["tokyo"].HeldText?.Contains("next sign of life", StringComparison.Ordinal) == true, "held");
        await Task.Delay(TimeSpan.FromSeconds(2), TestContext.Current.CancellationToken);
        Assert.Equal(Backends - (keyByKey ? Backends / 2 : 0), _sink.Read(sink => sink.IpEntries.Count));
        await store.WriteAsync([new WriteOperation(Keys.Heartbeat, "later"u8.ToArray())], TestContext.Current.CancellationToken);
        await _sink.UntilAsync(sink => sink.IpEntries.Count == 0, "the sign came");
    }

    [Fact]
    public async Task What_the_owner_left_out_goes_once_a_later_list_says_the_same()
    {
        await using var following = await FollowAsync(breaker: true, confirmAfter: TimeSpan.FromSeconds(4));
        await _tokyo.StopWriterAsync();
        await _tokyo.Etcd.WipeAsync();
        _tokyo.Withdraw("cart");
        _tokyo.Withdraw("till");
        await _tokyo.StartWriterAsync();
        await _sink.UntilAsync(sink => sink.Statuses["tokyo"].Held > Backends, "everything held");
        Assert.Equal((0, 0), Lost);
        Assert.Contains("let go when", following.Cluster.Status.Status);
        await _sink.UntilAsync(sink => sink.Backends == 0 && sink.IpEntries.Count == 0, "let go by itself");
        await _sink.UntilAsync(sink => sink.Statuses["tokyo"].Held == 0, "nothing held");
    }

    [Fact]
    public async Task An_operator_may_let_go()
    {
        await using var following = await FollowAsync(breaker: true);
        await _tokyo.StopWriterAsync();
        await _tokyo.Etcd.EtcdctlAsync("del", "--prefix", "cilium/state/");
        await _sink.UntilAsync(sink => sink.Statuses["tokyo"].HeldText?.Contains("let go when") == true, "held for good");
        following.Cluster.ReleaseHeld();
        await _sink.UntilAsync(sink => sink.Backends == 0 && sink.IpEntries.Count == 0 && sink.Nodes.Count == 0, "all gone");
    }
}
