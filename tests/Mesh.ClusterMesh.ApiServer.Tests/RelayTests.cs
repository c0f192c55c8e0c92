using System.Diagnostics;
using Mesh.KVStore;
using Mesh.TestKit;
using Xunit;

namespace Mesh.ClusterMesh.ApiServer.Tests;

/// <summary>The very program with a relay inside: one port, and to each reader its own view.</summary>
public class RelayTests
{
    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    /// <summary>An etcd that holds cluster osaka with one node.</summary>
    private static async Task<EtcdServer> PublishedAsync()
    {
        var osaka = await EtcdServer.StartAsync();
        await using var store = osaka.NewStore();
        await store.WriteAsync(
            [
                new("cilium/.heartbeat", "now"u8.ToArray()),
                new("cilium/cluster-config/osaka", """{"id":2,"capabilities":{"syncedCanaries":true}}"""u8.ToArray()),
                new("cilium/state/nodes/v1/osaka/n1", "a node"u8.ToArray()),
                .. new[] { "nodes", "services", "ip", "identities" }
                    .Select(resource => new WriteOperation($"cilium/synced/osaka/cilium/state/{resource}/v1", "now"u8.ToArray())),
            ], Cancellation);
        return osaka;
    }

    [Fact]
    public async Task Own_agents_read_the_mirrored_peers_where_other_clusters_read_our_state()
    {
        await using var osaka = await PublishedAsync();
        await using var tokyo = new TestCluster();
        tokyo.Write("cart.yaml", Yaml.Service("cart"));
        var peers = Directory.CreateDirectory(Path.Combine(tokyo.Home, "peers")).FullName;
        await File.WriteAllTextAsync(Path.Combine(peers, "osaka"), $"endpoints:\n- {osaka.Endpoint}\n", Cancellation);
        var api = $"127.0.0.1:{EtcdServer.FreePort()}";
        await using var program = RunningProgram.Start(tokyo.Arguments("--kvstoremesh-config", peers, "--kvstoremesh-api-addr", api));
        await Deadline.Until(tokyo.TryReadyAsync, "the program to be ready");
        await Deadline.Until(async () => (await tokyo.EtcdctlAsync("local-tokyo", "get", "--prefix", "cilium/cache/")).Output
            == "cilium/cache/nodes/v1/osaka/n1\na node\n", "osaka in the cache");
        Assert.Equal("""{"id":2,"capabilities":{"syncedCanaries":true,"cached":true}}""",
            (await tokyo.EtcdctlAsync("local-tokyo", "get", "cilium/cluster-config/osaka", "--print-value-only")).Output.Trim());
        // The controls: the state is what it was, and neither view shows the other's.
        Assert.Contains("shop/cart", (await tokyo.EtcdctlAsync("remote", "get", "--prefix", "cilium/state/", "--keys-only")).Output, StringComparison.Ordinal);
        Assert.Equal("", (await tokyo.EtcdctlAsync("admin-tokyo", "get", "--prefix", "cilium/cache/")).Output);
        Assert.NotEqual(0, (await tokyo.EtcdctlAsync("local-tokyo", "get", "--prefix", "cilium/state/")).Code);
        Assert.StartsWith("KVStoreMesh:\t1/1 remote clusters ready\n   osaka: ready, 1 nodes,", await StatusAsync(api), StringComparison.Ordinal);
    }

    /// <summary>Its readers drain it by themselves, and what is mirrored waits for them; who asks the relay hears of it no more.</summary>
    [Fact]
    public async Task A_peer_that_was_removed_leaves_the_status_at_once_and_the_cache_after_a_grace()
    {
        await using var osaka = await PublishedAsync();
        await using var tokyo = new TestCluster();
        var peers = Directory.CreateDirectory(Path.Combine(tokyo.Home, "peers")).FullName;
        await File.WriteAllTextAsync(Path.Combine(peers, "osaka"), $"endpoints:\n- {osaka.Endpoint}\n", Cancellation);
        await File.WriteAllTextAsync(Path.Combine(peers, "kyoto"), $"endpoints:\n- http://127.0.0.1:{EtcdServer.FreePort()}\n", Cancellation);
        var api = $"127.0.0.1:{EtcdServer.FreePort()}";
        await using var program = RunningProgram.Start(tokyo.Arguments("--kvstoremesh-config", peers, "--kvstoremesh-api-addr", api));
        await Deadline.Until(
            async () => (await StatusAsync(api)).StartsWith("KVStoreMesh:\t1/2 remote clusters ready", StringComparison.Ordinal), "osaka mirrored");

        var removed = Stopwatch.StartNew();
        File.Delete(Path.Combine(peers, "osaka"));
        await Deadline.Until(async () => !(await StatusAsync(api)).Contains("osaka", StringComparison.Ordinal), "osaka to leave the status");
        // Its data stays for three minutes.
        Assert.InRange(removed.Elapsed, TimeSpan.Zero, TimeSpan.FromSeconds(20));
        // The controls: the other peer, lost though it is, stays; and osaka's data is still there for whoever reads it.
        var status = await StatusAsync(api);
        Assert.StartsWith("KVStoreMesh:\t0/1 remote clusters ready\n   kyoto: not-ready", status, StringComparison.Ordinal);
        Assert.Equal("cilium/cache/nodes/v1/osaka/n1\na node\n", (await tokyo.EtcdctlAsync("local-tokyo", "get", "--prefix", "cilium/cache/")).Output);
    }

    /// <summary>What `kvstoremesh-dbg status` prints; "" while nobody answers.</summary>
    private static async Task<string> StatusAsync(string api)
    {
        using var status = ChildThread.Start(new ProcessStartInfo(Path.Combine(AppContext.BaseDirectory, "clustermesh-apiserver"),
            ["kvstoremesh-dbg", "status", "-H", api])
        { RedirectStandardOutput = true, RedirectStandardError = true });
        var text = await status.StandardOutput.ReadToEndAsync(Cancellation);
        await status.WaitForExitAsync(Cancellation);
        return text;
    }
}
