using System.Globalization;
using System.Net;
using System.Text;
using Mesh.KVStore;
using Mesh.TestKit;
using Xunit;

namespace Mesh.ClusterMesh.ApiServer.Tests;

public class PublishingTests
{
    private const string CartKey = "cilium/state/services/v1/tokyo/shop/cart";
    private const string NodeKey = "cilium/state/nodes/v1/tokyo/n1";
    private const string Node = "apiVersion: cilium.io/v2\nkind: CiliumNode\nmetadata: {name: n1}\nspec: {addresses: [{type: InternalIP, ip: 192.0.2.1}]}\n";

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_change_of_the_manifests_is_a_change_of_the_keys()
    {
        await using var etcd = await EtcdServer.StartAsync();
        await using var store = etcd.NewStore();
        await using var tokyo = new TestCluster();
        await tokyo.StartOverAsync(etcd);
        Assert.Null(await store.TextAsync(CartKey));

        tokyo.Write("cart.yaml", Yaml.Service("cart") + Yaml.Slice("cart", "10.1.0.1"));
        await UntilText(store, CartKey, "10.1.0.1");
        tokyo.Write("cart.yaml", Yaml.Service("cart") + Yaml.Slice("cart", "10.1.0.2"));
        await UntilText(store, CartKey, "10.1.0.2");
        tokyo.Write("cart.yaml", Yaml.Service("cart", annotations: "service.cilium.io/global: \"true\", service.cilium.io/shared: \"false\""));
        await UntilText(store, CartKey, null);
    }

    [Fact]
    public async Task Keys_that_somebody_deletes_or_overwrites_are_put_right_and_others_left_alone()
    {
        await using var etcd = await EtcdServer.StartAsync();
        await using var store = etcd.NewStore();
        await using var tokyo = new TestCluster();
        tokyo.Write("all.yaml", Yaml.Service("cart") + Yaml.Slice("cart", "10.1.0.1") + Node);
        await store.WriteAsync(
        [
            new("cilium/state/services/v1/osaka/shop/cart", "{}"u8.ToArray()),
            new("cilium/cluster-config/tokyo2", "{}"u8.ToArray()),
            // What a former life left behind and the objects no longer say.
            new("cilium/state/services/v1/tokyo/shop/stale", "{}"u8.ToArray()),
        ], Cancellation);
        await tokyo.StartOverAsync(etcd);
        var before = await store.DumpAsync();
        Assert.DoesNotContain("cilium/state/services/v1/tokyo/shop/stale", before.Keys);

        await store.WriteAsync(
        [
            new(CartKey, null), new(NodeKey, "{\"Name\":\"hijacked\"}"u8.ToArray()),
            new("cilium/cluster-config/tokyo", null), new("cilium/.has-cluster-config", "maybe"u8.ToArray()),
            new("cilium/synced/tokyo/cilium/state/nodes/v1", null), new("cilium/state/services/v1/tokyo/shop/intruder", "{}"u8.ToArray()),
        ], Cancellation);
        await Deadline.Until(async () => Same(before, await store.DumpAsync()), "the keys to be as before");
        Assert.Contains("cilium/state/services/v1/osaka/shop/cart", before.Keys);
        Assert.Contains("cilium/cluster-config/tokyo2", before.Keys);
    }

    [Fact]
    public async Task A_wiped_etcd_is_filled_again()
    {
        await using var etcd = await EtcdServer.StartAsync();
        await using var store = etcd.NewStore();
        await using var tokyo = new TestCluster();
        tokyo.Write("all.yaml", Yaml.Service("cart") + Yaml.Slice("cart", "10.1.0.1") + Node);
        await tokyo.StartOverAsync(etcd);
        var before = await store.DumpAsync();

        await etcd.WipeAsync();
        await Deadline.Until(async () => Same(before, await store.DumpAsync()), "the keys to be as before");
    }

    /// <summary>Far from the next one that is due: readers give up after two minutes without.</summary>
    [Fact]
    public async Task A_heartbeat_that_is_lost_is_followed_by_the_next_at_once()
    {
        await using var etcd = await EtcdServer.StartAsync();
        await using var store = etcd.NewStore();
        await using var tokyo = new TestCluster();
        tokyo.Write("node.yaml", Node);
        await tokyo.StartAsync(tokyo.Options() with { GivenEtcd = etcd.Options, HeartbeatInterval = TimeSpan.FromMinutes(10) });
        var first = await store.TextAsync("cilium/.heartbeat");
        var written = DateTimeOffset.Parse(first!, CultureInfo.InvariantCulture);
        await Deadline.Until(() => DateTimeOffset.UtcNow - written > TimeSpan.FromSeconds(1), "a later time");
        await store.WriteAsync([new("cilium/.heartbeat", null)], Cancellation);
        await Deadline.Until(async () => await store.TextAsync("cilium/.heartbeat") is not null, "the next one");
        // Its time is its own: readers judge our clock by it.
        Assert.NotEqual(first, await store.TextAsync("cilium/.heartbeat"));

        await etcd.WipeAsync();
        await Deadline.Until(async () => await store.TextAsync(NodeKey) is not null, "the data");
        await Deadline.Until(async () => await store.TextAsync("cilium/.heartbeat") is not null, "a heartbeat beside them");
    }

    [Fact]
    public async Task The_heartbeat_goes_on_and_every_key_but_the_mark_is_on_a_lease()
    {
        await using var etcd = await EtcdServer.StartAsync();
        await using var store = etcd.NewStore();
        await using var tokyo = new TestCluster();
        tokyo.Write("node.yaml", Node);
        await tokyo.StartOverAsync(etcd);
        var first = await store.GetAsync("cilium/.heartbeat", Cancellation);
        await Deadline.Until(
            async () => (await store.GetAsync("cilium/.heartbeat", Cancellation))!.Value.ModRevision > first!.Value.ModRevision, "another heartbeat");

        var (items, _) = await store.ListAsync("cilium/", Cancellation);
        Assert.Equal(["cilium/.has-cluster-config"], items.Where(item => item.Lease == 0).Select(item => item.Key));
    }

    [Fact]
    public async Task Stopping_takes_nothing_away_and_starting_again_nothing_either()
    {
        await using var etcd = await EtcdServer.StartAsync();
        await using var store = etcd.NewStore();
        await using var tokyo = new TestCluster();
        tokyo.Write("all.yaml", Yaml.Service("cart") + Yaml.Slice("cart", "10.1.0.1") + Node);
        await tokyo.StartOverAsync(etcd);
        var before = await store.DumpAsync();
        await tokyo.StopAsync();
        Assert.True(Same(before, await store.DumpAsync()));

        using var watching = new CancellationTokenSource();
        var deleted = new List<string>();
        var watch = Task.Run(async () =>
        {
            await foreach (var batch in store.ListWatchAsync("cilium/", watching.Token))
                deleted.AddRange(batch.Kind == WatchBatchKind.Delete ? batch.Events.Select(item => item.Key) : []);
        }, Cancellation);
        await tokyo.StartOverAsync(etcd);
        Assert.True(Same(before, await store.DumpAsync()));
        await watching.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => watch);
        Assert.Empty(deleted);
    }

    [Fact]
    public async Task Not_ready_until_the_source_has_been_read()
    {
        await using var etcd = await EtcdServer.StartAsync();
        await using var store = etcd.NewStore();
        await using var tokyo = new TestCluster();
        await store.WriteAsync([new(NodeKey, "{}"u8.ToArray())], Cancellation);
        Directory.Delete(tokyo.Manifests);
        var starting = tokyo.StartOverAsync(etcd);
        await Deadline.Until(async () => (await tokyo.PageAsync("/problems")).Text.Contains("does not exist", StringComparison.Ordinal), "the problem");

        Assert.Equal((HttpStatusCode.InternalServerError, "NotReady"), await tokyo.PageAsync("/readyz"));
        // Nothing is known of the cluster: a key from a former life stays, and no canary calls it complete.
        Assert.Equal("{}", await store.TextAsync(NodeKey));
        Assert.Empty(await store.DumpAsync("cilium/synced/"));
        Assert.False(tokyo.Server.IsWriter);

        Directory.CreateDirectory(tokyo.Manifests);
        await starting;
        Assert.Equal((HttpStatusCode.OK, "Ready"), await tokyo.PageAsync("/readyz"));
        Assert.Null(await store.TextAsync(NodeKey));
        Assert.Equal(4, (await store.DumpAsync("cilium/synced/tokyo/")).Count);
    }

    /// <summary>There is no last good version to fall back on, and yet what was published stays: absence in a file that nobody can read
    /// proves nothing.</summary>
    [Theory]
    [InlineData("kind: \"Service", "services.yaml document 1")]
    [InlineData("apiVersion: v1\nkind: Service\nmetadata: {name: cart}\nspec: {ports: [{port: 0}]}", "Service default/cart")]
    public async Task What_a_file_published_stays_when_it_cannot_be_read_at_the_next_start(string broken, string named)
    {
        await using var etcd = await EtcdServer.StartAsync();
        await using var store = etcd.NewStore();
        await using var tokyo = new TestCluster();
        tokyo.Write("node.yaml", Node);
        tokyo.Write("services.yaml", Yaml.Service("cart") + Yaml.Slice("cart", "10.1.0.1"));
        await tokyo.StartOverAsync(etcd);
        var before = await store.DumpAsync("cilium/state/");
        await tokyo.StopAsync();

        tokyo.Write("services.yaml", broken);
        var starting = tokyo.StartOverAsync(etcd);
        await Deadline.Until(async () => (await tokyo.PageAsync("/problems")).Text.Contains(named, StringComparison.Ordinal), "the problem");
        Assert.Contains("nothing that it may define is withdrawn or pruned until it is mended or removed", (await tokyo.PageAsync("/problems")).Text,
            StringComparison.Ordinal);
        await Deadline.Until(() => tokyo.Server.IsWriter, "it writes all the same");
        // What it can tell, it tells.
        tokyo.Write("node.yaml", Node.Replace("192.0.2.1", "192.0.2.12", StringComparison.Ordinal));
        await Deadline.Until(async () => (await store.TextAsync(NodeKey))!.Contains("192.0.2.12", StringComparison.Ordinal), "the node");
        Assert.Equal((HttpStatusCode.InternalServerError, "NotReady"), await tokyo.PageAsync("/readyz"));
        Assert.Equal(before.Keys, (await store.DumpAsync("cilium/state/")).Keys);

        // The control: removed, it says that the service is gone.
        File.Delete(Path.Combine(tokyo.Manifests, "services.yaml"));
        await starting;
        await Deadline.Until(async () => (await store.DumpAsync("cilium/state/services/")).Count == 0, "the service to go");
        Assert.Equal((HttpStatusCode.OK, "Ready"), await tokyo.PageAsync("/readyz"));
    }

    [Fact]
    public async Task An_identity_of_another_cluster_stays_at_home_and_is_a_problem()
    {
        await using var etcd = await EtcdServer.StartAsync();
        await using var store = etcd.NewStore();
        await using var tokyo = new TestCluster();
        tokyo.Write("ids.yaml", Identity(65537, "tokyo") + Identity(131073, "tokyo") + Identity(200, "tokyo") + Identity(65538, "osaka"));
        await tokyo.StartOverAsync(etcd);

        Assert.Equal(["cilium/state/identities/v1/id/65537"], (await store.DumpAsync("cilium/state/identities/")).Keys);
        var problems = (await tokyo.PageAsync("/problems")).Text;
        Assert.Contains("CiliumIdentity 131073: identity 131073 is outside the range of cluster tokyo (65536 to 131071)", problems, StringComparison.Ordinal);
        Assert.Contains("CiliumIdentity 200: ", problems, StringComparison.Ordinal);
        Assert.Contains("CiliumIdentity 65538: identity 65538 lacks the label k8s:io.cilium.k8s.policy.cluster=tokyo", problems, StringComparison.Ordinal);
        Assert.DoesNotContain("65537", problems, StringComparison.Ordinal);
    }

    private static string Identity(uint number, string cluster) =>
        $"apiVersion: cilium.io/v2\nkind: CiliumIdentity\nmetadata: {{name: \"{number}\"}}\n"
        + $"security-labels: {{\"k8s:app\": cart, \"k8s:io.cilium.k8s.policy.cluster\": {cluster}}}\n---\n";

    /// <summary>Equal but for the times in heartbeat and canaries.</summary>
    private static bool Same(SortedDictionary<string, string> before, SortedDictionary<string, string> now) => Text(before) == Text(now);

    private static string Text(SortedDictionary<string, string> dump)
    {
        var text = new StringBuilder();
        foreach (var (key, value) in dump)
            text.AppendLine(value.StartsWith("20", StringComparison.Ordinal) ? key : $"{key} {value}");
        return text.ToString();
    }

    private static Task UntilText(EtcdKVStore store, string key, string? part) => Deadline.Until(
        async () => await store.TextAsync(key) is var text && (part is null ? text is null : text?.Contains(part, StringComparison.Ordinal) == true),
        $"{key} with {part ?? "nothing"}");
}
