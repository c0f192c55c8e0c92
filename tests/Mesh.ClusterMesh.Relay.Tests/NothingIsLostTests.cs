using Mesh.ClusterMesh.Remote;
using Mesh.ClusterMesh.Tests.Remote;
using Mesh.ClusterMesh.Wire;
using Mesh.KVStore;
using Mesh.TestKit;
using Xunit;

namespace Mesh.ClusterMesh.Relay.Tests;

/// <summary>Restarts, outages, wiped sources, removals: what leaves the cache, and above all what does not.</summary>
public sealed class NothingIsLostTests : IAsyncLifetime
{
    private EtcdServer _etcd = null!;
    private EtcdKVStore _store = null!;
    private Producer _falcon = null!;
    private RelayUnderTest _relay = null!;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        _etcd = await EtcdServer.StartAsync();
        _store = _etcd.NewStore();
        _falcon = new Producer(_store, "falcon", 7);
        await _falcon.EverythingAsync();
        await _falcon.NodeAsync("n2");
        await _falcon.NodeAsync("n3");
        _relay = await RelayUnderTest.StartedAsync();
        _relay.Add("falcon", _etcd.Options);
    }

    public async ValueTask DisposeAsync()
    {
        await _relay.DisposeAsync();
        await _store.DisposeAsync();
        await _etcd.DisposeAsync();
    }

    private async Task<Agent> ReadyAgentAsync()
    {
        var agent = _relay.Agent();
        await agent.Sink.UntilReadyAsync("falcon");
        return agent;
    }

    [Fact]
    public async Task A_relay_restarted_under_churn_withdraws_nothing_and_misses_nothing()
    {
        await using var agent = await ReadyAgentAsync();
        using var enough = new CancellationTokenSource();
        var written = 0;
        var churn = Task.Run(async () =>
        {
            for (; !enough.IsCancellationRequested; written++)
                await _falcon.IpAsync($"10.7.{written / 250 % 250}.{written % 250}", (uint)(written % 7) + 1);
        }, Cancellation);
        var clusterId = _relay.Mirror.Status.ClusterId;
        for (var round = 0; round < 3; round++)
        {
            await Task.Delay(300, Cancellation);
            await _relay.StopAsync();
            await Task.Delay(200, Cancellation);
            await _relay.StartAsync();
            Assert.Equal(clusterId, _relay.Mirror.Status.ClusterId);
        }
        await Task.Delay(300, Cancellation);
        await enough.CancelAsync();
        await churn;
        await agent.Sink.UntilAsync(sink => sink.IpEntries.Count == Math.Min(written, 62_500) + (written > 9 ? 0 : 1), $"all of {written}");
        Assert.Equal(0, agent.Sink.Deletions);
        // The control: what is deleted while the relay is away does go.
        await _relay.StopAsync();
        await _falcon.DeleteAsync(Keys.Node("falcon", "n1"));
        await _relay.StartAsync();
        await agent.Sink.UntilAsync(sink => sink.Deletions == 1 && sink.Nodes.Count == 2, "n1 is gone");
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task Readers_of_the_copy_learn_that_its_source_is_lost_and_when_it_is_back(bool killed)
    {
        await using var agent = await ReadyAgentAsync();
        Assert.Equal(PeerFault.None, Health(agent).Fault);
        if (killed)
            await _etcd.KillAsync();
        else
            _etcd.Pause();
        var connected = DateTimeOffset.UtcNow;
        await UntilAsync(agent, health => health.Fault == (killed ? PeerFault.ConnectionRefused : PeerFault.Frozen));
        Assert.True(Health(agent).AtRelay);
        var status = Assert.Single(agent.Clusters.Statuses);
        Assert.StartsWith("the relay: ", status.Health!.Cause, StringComparison.Ordinal);
        // What is known stays in use, and the relay, which serves it, is connected.
        Assert.Equal((true, true, 3), (status.Connected, status.Ready, status.Nodes));
        // Since the relay was last connected to it, and not since its last attempt.
        Assert.InRange(status.ConnectedUntil!.Value, connected - TimeSpan.FromSeconds(7), connected + TimeSpan.FromSeconds(2));
        if (killed)
            await _etcd.RestartAsync();
        else
            _etcd.Continue();
        await UntilAsync(agent, health => health.Fault == PeerFault.None);
        Assert.Equal(0, agent.Sink.Deletions);
    }

    private static PeerHealth Health(Agent agent) => agent.Clusters.Statuses[0].Health!;

    private static async Task UntilAsync(Agent agent, Func<PeerHealth, bool> reached)
    {
        using var deadline = new CancellationTokenSource(TimeSpan.FromSeconds(40));
        while (!reached(Health(agent)))
        {
            Assert.False(deadline.IsCancellationRequested, $"still {Health(agent).Fault}: {Health(agent).Cause}");
            await Task.Delay(50, Cancellation);
        }
    }

    [Fact]
    public async Task A_new_reader_during_an_outage_of_the_source_still_gets_everything()
    {
        await _relay.UntilReadyAsync("falcon");
        await _relay.StopAsync();
        await _etcd.KillAsync();
        await _relay.StartAsync();
        await using (var agent = await ReadyAgentAsync())
            Assert.Equal($"{_falcon.Records} falcon/n2 falcon/n3".Split(' ').Order(StringComparer.Ordinal), agent.Sink.Text.Split(' '));
        Assert.False(_relay.Status("falcon").Ready);
        // The control: without what the relay wrote down there is nothing to be had.
        await _relay.StopAsync();
        Directory.Delete(_relay.FileOf("state"), recursive: true);
        await _relay.StartAsync();
        await using var late = _relay.Agent();
        await late.Sink.UntilStatusAsync("falcon", "is missing");
        Assert.Equal("", late.Sink.Text);
        await _etcd.RestartAsync();
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task A_wiped_and_refilled_source_withdraws_nothing_before_it_is_whole(bool sameClusterId)
    {
        _relay.Limit("falcon", """{"breaker":{"confirmAfterSeconds":1}}""");
        await using var agent = await ReadyAgentAsync();
        var before = _relay.Dump("cilium/cache/");
        await _etcd.WipeAsync(sameClusterId);
        await _relay.UntilAsync(() => _relay.Status("falcon").Status.Contains("is missing", StringComparison.Ordinal), "the wipe is seen");
        await _falcon.ConfigAsync();
        await _falcon.NodeAsync("n1");
        await _relay.UntilAsync(() => _relay.Status("falcon").ConfigRetrieved, "the new config is read");
        await Task.Delay(200, Cancellation);
        Assert.Equal(before, _relay.Dump("cilium/cache/"));
        Assert.Equal(0, agent.Sink.Deletions);
        await _falcon.CanariesAsync();
        await _relay.UntilAsync(() => _relay.Status("falcon").Withheld >= 5, "so much missing is not believed at once");
        Assert.Equal(before, _relay.Dump("cilium/cache/"));
        await BeatUntilAsync(agent, "falcon/n1");
    }

    [Fact]
    public async Task All_keys_deleted_at_once_are_no_deletions_of_their_owner()
    {
        _relay.Limit("falcon", """{"breaker":{"confirmAfterSeconds":1}}""");
        await using var agent = await ReadyAgentAsync();
        var before = agent.Sink.Text;
        await _store.DeletePrefixAsync("cilium/", Cancellation);
        await _relay.UntilAsync(() => _relay.Status("falcon").Withheld >= 6, "the deletions are withheld");
        Assert.Equal((before, 0), (agent.Sink.Text, agent.Sink.Deletions));
        await _falcon.EverythingAsync();
        await BeatUntilAsync(agent, _falcon.Records);
        // The control: what a producer deletes, resource by resource, passes while its canaries stand.
        await _relay.UntilReadyAsync("falcon");
        var withheld = _relay.Status("falcon").Withheld;
        await _store.DeletePrefixAsync("cilium/state/nodes/", Cancellation);
        await _store.DeletePrefixAsync("cilium/state/services/", Cancellation);
        await agent.Sink.UntilAsync(sink => sink.Nodes.Count + sink.Services.Count == 0, "nodes and services are gone");
        Assert.Equal(withheld, _relay.Status("falcon").Withheld);
    }

    [Fact]
    public async Task All_state_deleted_in_one_stroke_beside_standing_canaries_is_held_until_it_is_confirmed()
    {
        _relay.Limit("falcon", """{"breaker":{"confirmAfterSeconds":2}}""");
        await using var agent = await ReadyAgentAsync();
        var before = agent.Sink.Text;
        await _store.DeletePrefixAsync("cilium/state/", Cancellation);
        await _relay.UntilAsync(() => _relay.Status("falcon").Withheld >= 6, "the deletions are withheld");
        Assert.Contains("are withheld", _relay.Status("falcon").Status, StringComparison.Ordinal);
        Assert.Equal(before, agent.Sink.Text);
        await BeatUntilAsync(agent, "");
    }

    [Fact]
    public async Task Records_that_come_back_without_their_canary_end_the_doubt_at_once()
    {
        await using var agent = await ReadyAgentAsync();
        await _store.DeletePrefixAsync("cilium/state/", Cancellation);
        await _relay.UntilAsync(() => _relay.Status("falcon").Withheld >= 6, "the deletions are withheld");
        await _falcon.RecordsAsync();
        await _falcon.NodeAsync("n2");
        // The control: one is still missing, and a deletion is not believed as long as that is so.
        await _falcon.DeleteAsync(Keys.Node("falcon", "n2"));
        await _relay.UntilAsync(() => _relay.Status("falcon").Withheld >= 7, "one more is withheld");
        Assert.False(_relay.Status("falcon").Ready);
        await _falcon.NodeAsync("n2");
        await _falcon.NodeAsync("n3");
        await _relay.UntilReadyAsync("falcon");
        Assert.Equal(0, agent.Sink.Deletions);
        await _falcon.DeleteAsync(Keys.Node("falcon", "n2"));
        await agent.Sink.UntilAsync(sink => sink.Deletions == 1, "what the owner deletes goes again");
    }

    [Fact]
    public async Task A_source_restored_from_an_old_snapshot_withdraws_nothing()
    {
        await using var agent = await ReadyAgentAsync();
        var before = _relay.Dump("cilium/cache/");
        await _relay.StopAsync();
        await _etcd.WipeAsync(sameClusterId: true);
        // The snapshot is older than most records, and has its canaries.
        await _falcon.ConfigAsync();
        await _falcon.HeartbeatAsync();
        await _falcon.NodeAsync("n1");
        await _falcon.CanariesAsync();
        await _relay.StartAsync();
        await _relay.UntilAsync(() => _relay.Status("falcon").Withheld >= 5, "what the list lacks is withheld");
        Assert.Equal(before, _relay.Dump("cilium/cache/"));
        await _falcon.EverythingAsync();
        await _relay.UntilAsync(() => _relay.Status("falcon").Status.StartsWith("deletions of Nodes are", StringComparison.Ordinal),
            "the rest is back");
        // Behind the canaries: nobody says that they are back but they themselves. In one transaction: one of three that is missing
        // from a list behind a new canary is believed to be gone.
        WriteOperation Node(string name) => new(Keys.Node("falcon", name),
            NodeRecordCodec.Encode(new NodeRecord { Name = name, Cluster = "falcon", ClusterID = 7 }));
        await _store.WriteAsync([Node("n2"), Node("n3")], Cancellation);
        await _relay.UntilReadyAsync("falcon");
        Assert.Equal(0, agent.Sink.Deletions);
    }

    /// <summary>The owner shows itself alive until the agent has come to this.</summary>
    private async Task BeatUntilAsync(Agent agent, string text)
    {
        for (var i = 0; i < 60 && agent.Sink.Text != text; i++)
        {
            await _falcon.HeartbeatAsync();
            await Task.Delay(250, Cancellation);
        }
        Assert.Equal(text, agent.Sink.Text);
    }

    [Fact]
    public async Task A_lease_that_ends_withdraws_nothing()
    {
        await _relay.UntilReadyAsync("falcon");
        await _store.DeletePrefixAsync("cilium/", Cancellation);
        await using var lease = await _store.CreateLeaseAsync(TimeSpan.FromSeconds(60), Cancellation);
        WriteOperation On(string key) => new(key, new byte[] { 1 }, lease);
        await _store.WriteAsync([.. Enumerable.Range(0, 50).Select(i => On($"cilium/state/ip/v1/default/10.7.0.{i}"))], Cancellation);
        await _store.WriteAsync(
            [new(Keys.ClusterConfig("falcon"), ClusterConfigCodec.Encode(ClusterConfig.SafeProfile(7, 255)), lease),
                .. Enum.GetValues<ClusterMesh.Remote.RemoteResource>().Select(resource => On(Keys.Canary("falcon", resource)))], Cancellation);
        // Read anew behind the new canaries: what is not there any more is withheld, and the addresses are beyond doubt.
        await _relay.UntilAsync(() => _relay.Mirror.Count("cilium/cache/ip/v1/falcon/") == 50 && _relay.Status("falcon") is
        { ConfigRetrieved: true, Status: var text } && text.Contains("are withheld", StringComparison.Ordinal), "all mirrored");
        await _etcd.EtcdctlAsync("lease", "revoke", lease.Id.ToString("x", null));
        // The configuration ends with the lease too: whichever is met first, the relay knows that something is wrong.
        await _relay.UntilAsync(() => _relay.Status("falcon") is { Ready: false } status
            && (status.Withheld >= 50 || status.Status.Contains("no canary", StringComparison.Ordinal)
                || status.Status.Contains(Keys.ClusterConfig("falcon"), StringComparison.Ordinal)), "the loss is noticed");
        Assert.Equal(50, _relay.Mirror.Count("cilium/cache/ip/v1/falcon/"));
    }

    [Fact]
    public async Task A_peer_whose_canaries_went_between_two_connections_is_not_ready_and_says_why()
    {
        await using var agent = await ReadyAgentAsync();
        await using var direct = new Agent(Directory.CreateDirectory(_relay.FileOf("direct")).FullName);
        RelayUnderTest.WritePeer(Path.Combine(_relay.FileOf("direct"), "falcon"), _etcd.Options);
        await direct.Sink.UntilReadyAsync("falcon");
        await _store.DeletePrefixAsync(Keys.SyncedPrefix("falcon"), Cancellation);
        await _relay.UntilAsync(() => !_relay.Status("falcon").Ready, "that they go is noticed");
        // A new connection finds none: nothing tells it what is whole, and it follows nothing.
        _relay.Limit("falcon", """{"breaker":{"confirmAfterSeconds":59}}""");
        File.WriteAllText(Path.Combine(_relay.FileOf("direct"), "falcon.imports.json"), """{"breaker":{"confirmAfterSeconds":59}}""");
        await _relay.UntilAsync(() => _relay.Status("falcon") is { Ready: false, Status: var text }
            && text.StartsWith("no canary of Nodes, Services, IpEntries, Identities stands", StringComparison.Ordinal), "it is told");
        await _relay.UntilAsync(() => direct.Clusters.Statuses[0] is { Ready: false, Health: { Fault: PeerFault.NotSynced, Cause: { } cause } }
            && cause.StartsWith("no canary of Nodes", StringComparison.Ordinal), "by an agent that reads it directly too");
        Assert.Equal(0, agent.Sink.Deletions + direct.Sink.Deletions);
        // What happens meanwhile is read once somebody says what is whole.
        await _falcon.NodeAsync("n4");
        await _falcon.CanariesAsync();
        await _relay.UntilReadyAsync("falcon");
        await agent.Sink.UntilAsync(sink => sink.Nodes.Count == 4, "the new node");
        await direct.Sink.UntilReadyAsync("falcon");
        await direct.Sink.UntilAsync(sink => sink.Nodes.Count == 4, "the new node");
        await _falcon.DeleteAsync(Keys.Node("falcon", "n4"));
        await agent.Sink.UntilAsync(sink => sink.Deletions == 1, "and what the owner deletes goes");
    }

    [Fact]
    public async Task A_store_that_went_back_withdraws_not_even_a_little_before_its_owner_confirms_it()
    {
        await using var agent = await ReadyAgentAsync();
        // One of three that a list lacks is little.
        await _falcon.DeleteAsync(Keys.Node("falcon", "n3"));
        await agent.Sink.UntilAsync(sink => sink.Deletions == 1, "one of the same history goes");
        // More happens than the other history will hold.
        for (var i = 0; i < 20; i++)
            await _falcon.NodeAsync($"n{3 + (i % 2)}");
        await _falcon.DeleteAsync(Keys.Node("falcon", "n4"));
        await agent.Sink.UntilAsync(sink => sink.Deletions == 2 && sink.Nodes.Count == 3, "n3 is back, n4 was and is gone");
        var withheld = _relay.Status("falcon").Withheld;
        await _etcd.WipeAsync(sameClusterId: true);
        await _falcon.EverythingAsync();
        await _falcon.NodeAsync("n2");
        await _falcon.CanariesAsync();
        await _relay.UntilAsync(() => _relay.Status("falcon").Withheld > withheld, "what the other history lacks is withheld");
        Assert.Equal(2, agent.Sink.Deletions);
        Assert.Equal(3, _relay.Mirror.Count("cilium/cache/nodes/v1/falcon/"));
        // Its owner writes itself anew, without it: that counts.
        await _falcon.CanariesAsync();
        await agent.Sink.UntilAsync(sink => sink.Deletions == 3 && sink.Nodes.Count == 2, "n3 is gone");
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task One_resource_deleted_while_its_owner_is_away_stays_until_the_owner_shows_itself_and_lets_it_be(bool putsItRight)
    {
        await using var agent = await ReadyAgentAsync();
        await _store.DeletePrefixAsync("cilium/state/nodes/", Cancellation);
        await _relay.UntilAsync(() => _relay.Status("falcon") is { Ready: false, Status: var text }
            && text.Contains("has not shown itself alive", StringComparison.Ordinal), "they are withheld, and why");
        Assert.Equal((3, 0), (_relay.Mirror.Count("cilium/cache/nodes/v1/falcon/"), agent.Sink.Deletions));
        await _falcon.HeartbeatAsync();
        if (putsItRight)
        {
            foreach (var name in (string[])["n1", "n2", "n3"])
                await _falcon.NodeAsync(name);
            await _relay.UntilReadyAsync("falcon");
            Assert.Equal(0, agent.Sink.Deletions);
        }
        else
        {
            await agent.Sink.UntilAsync(sink => sink.Nodes.Count == 0, "they are believed to be gone");
            await _relay.UntilReadyAsync("falcon");
        }
    }

    /// <summary>As Cilium's exporters do, whose heart beats once a minute. The controls: an owner that was not seen lately is waited for, and one
    /// behind a door of ours, which would have beaten.</summary>
    [Theory]
    [InlineData(true, false)]
    [InlineData(false, false)]
    [InlineData(true, true)]
    public async Task A_mass_that_is_deleted_key_by_key_waits_for_no_heartbeat_where_one_was_seen_lately(bool beat, bool atDoor)
    {
        await using var door = await GrpcProxy.StartAsync(_etcd.Endpoint, asDoor: true);
        if (atDoor)
            _relay.Add("falcon", _etcd.Options with { Endpoints = [door.Endpoint] });
        await using var agent = await ReadyAgentAsync();
        if (atDoor)
            await _relay.UntilAsync(() => door.Watches > 0 && _relay.Status("falcon").Ready, "the relay to read at the door");
        if (beat)
            await _falcon.HeartbeatAsync();
        foreach (var name in (string[])["n1", "n2", "n3"])
            await _falcon.DeleteAsync(Keys.Node("falcon", name));
        if (!beat || atDoor)
        {
            await _relay.UntilAsync(() => _relay.Status("falcon").Status.Contains("has not shown itself alive", StringComparison.Ordinal), "withheld");
            Assert.Equal(2, _relay.Mirror.Count("cilium/cache/nodes/v1/falcon/"));
            await _falcon.HeartbeatAsync();
        }
        await agent.Sink.UntilAsync(sink => sink.Nodes.Count == 0, "they are believed to be gone");
        await _relay.UntilReadyAsync("falcon");
    }

    [Theory]
    [InlineData(1)]
    [InlineData(0)]
    public async Task Services_of_a_peer_not_reached_for_the_time_to_live_go_and_come_back_with_it(int seconds)
    {
        await _relay.StopAsync();
        await using var relay = new RelayUnderTest(RelayUnderTest.Quick with
        {
            CacheTtl = TimeSpan.FromSeconds(seconds),
            HeartbeatTimeout = TimeSpan.FromSeconds(3),
        });
        await relay.StartAsync();
        relay.Add("falcon", _etcd.Options);
        await using var reader = relay.Agent();
        await reader.Sink.UntilReadyAsync("falcon");
        await _etcd.KillAsync();
        if (seconds > 0)
        {
            await reader.Sink.UntilAsync(sink => sink.Services.Count == 0, "its services are withdrawn");
            Assert.Contains("its services were withdrawn after", relay.Status("falcon").Status, StringComparison.Ordinal);
            Assert.Equal((3, 1), (reader.Sink.Nodes.Count, reader.Sink.IpEntries.Count));
        }
        else
        {
            // The control: for ever, unless somebody wants it otherwise.
            await relay.UntilAsync(() => relay.Status("falcon").Failures > 3, "it is tried again and again");
            Assert.Equal((1, 0), (reader.Sink.Services.Count, reader.Sink.Deletions));
        }
        await _etcd.RestartAsync();
        await relay.UntilReadyAsync("falcon");
        await reader.Sink.UntilAsync(sink => sink.Services.Count == 1, "they are back");
        await _relay.StartAsync();
    }

    [Fact]
    public async Task A_removed_peer_loses_its_config_first_and_its_data_after_a_grace()
    {
        await _relay.UntilReadyAsync("falcon");
        _relay.Remove("falcon");
        await _relay.UntilAsync(() => _relay.Mirror.Get(Keys.ClusterConfig("falcon")) is null, "the config is gone");
        Assert.NotEqual("", _relay.Dump("cilium/cache/"));
        Assert.NotEqual("", _relay.Dump("cilium/synced/falcon/"));
        await _relay.UntilAsync(() => _relay.Mirror.KeysBelow("").SequenceEqual([Keys.Heartbeat]), "everything of falcon is gone");
        await _relay.UntilAsync(() => _relay.Relay.Statuses.Count == 0, "and forgotten");
        // Once more, from nothing.
        _relay.Add("falcon", _etcd.Options);
        await _relay.UntilReadyAsync("falcon");
        Assert.Equal(3, _relay.Mirror.Count("cilium/cache/nodes/v1/falcon/"));
    }

    [Fact]
    public async Task A_peer_that_comes_back_within_the_grace_is_not_harmed()
    {
        await using var agent = await ReadyAgentAsync();
        var before = _relay.Dump("cilium/cache/");
        _relay.Remove("falcon");
        await _relay.UntilAsync(() => _relay.Mirror.Get(Keys.ClusterConfig("falcon")) is null, "the config is gone");
        _relay.Add("falcon", _etcd.Options);
        await _relay.UntilReadyAsync("falcon");
        await Task.Delay(800, Cancellation);
        Assert.Equal(before, _relay.Dump("cilium/cache/"));
        Assert.Equal(0, agent.Sink.Deletions);
    }

    [Fact]
    public async Task A_peer_removed_while_the_relay_was_away_is_removed_when_it_is_back()
    {
        await _relay.UntilReadyAsync("falcon");
        await _relay.StopAsync();
        _relay.Remove("falcon");
        await _relay.StartAsync();
        await _relay.UntilAsync(() => _relay.Mirror.KeysBelow("").SequenceEqual([Keys.Heartbeat]), "everything of falcon is gone");
    }

    [Fact]
    public async Task A_directory_that_is_not_there_yet_removes_nobody()
    {
        await _relay.UntilReadyAsync("falcon");
        await _relay.StopAsync();
        Directory.Move(_relay.Peers, _relay.Peers + ".away");
        await _relay.StartAsync();
        await Task.Delay(1000, Cancellation);
        Assert.Equal(3, _relay.Mirror.Count("cilium/cache/nodes/v1/falcon/"));
        Assert.NotNull(_relay.Mirror.Get(Keys.ClusterConfig("falcon")));
    }
}
