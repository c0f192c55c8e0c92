using System.Diagnostics;
using Mesh.KVStore;
using Mesh.TestKit;
using Xunit;

namespace Mesh.ClusterMesh.ApiServer.Tests;

/// <summary>The very program with a relay inside: one port, and to each reader its own view.</summary>
public class RelayTests
{
    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Own_agents_read_the_mirrored_peers_where_other_clusters_read_our_state()
    {
        await using var osaka = await EtcdServer.StartAsync();
        await using (var store = osaka.NewStore())
        {
            await store.WriteAsync(
                [
                    new("cilium/.heartbeat", "now"u8.ToArray()),
                    new("cilium/cluster-config/osaka", """{"id":2,"capabilities":{"syncedCanaries":true}}"""u8.ToArray()),
                    new("cilium/state/nodes/v1/osaka/n1", "a node"u8.ToArray()),
                    .. new[] { "nodes", "services", "ip", "identities" }
                        .Select(resource => new WriteOperation($"cilium/synced/osaka/cilium/state/{resource}/v1", "now"u8.ToArray())),
                ], Cancellation);
        }
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
        using var status = ChildThread.Start(new ProcessStartInfo(Path.Combine(AppContext.BaseDirectory, "clustermesh-apiserver"),
            ["kvstoremesh-dbg", "status", "-H", api])
        { RedirectStandardOutput = true })!;
        Assert.StartsWith("KVStoreMesh:\t1/1 remote clusters ready\n   osaka: ready, 1 nodes,",
            await status.StandardOutput.ReadToEndAsync(Cancellation), StringComparison.Ordinal);
        await status.WaitForExitAsync(Cancellation);
    }
}
