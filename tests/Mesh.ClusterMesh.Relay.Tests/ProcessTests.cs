using System.Collections.Concurrent;
using System.Diagnostics;
using Mesh.AgentApi;
using Mesh.ClusterMesh.ApiServer.Commands;
using Mesh.ClusterMesh.ApiServer.Tests;
using Mesh.ClusterMesh.Tests.Remote;
using Mesh.KVStore;
using Mesh.TestKit;
using Xunit;

namespace Mesh.ClusterMesh.Relay.Tests;

/// <summary>`clustermesh-apiserver kvstoremesh` as a process, its pages, and `kvstoremesh-dbg status`.</summary>
public sealed class ProcessTests : IAsyncLifetime
{
    private readonly RelayUnderTest _files = new();
    private readonly string _api = $"127.0.0.1:{EtcdServer.FreePort()}";
    private readonly string _health = $"127.0.0.1:{EtcdServer.FreePort()}";
    private EtcdServer _etcd = null!;
    private EtcdKVStore _store = null!;
    private Producer _falcon = null!;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        _etcd = await EtcdServer.StartAsync();
        _store = _etcd.NewStore();
        _falcon = new Producer(_store, "falcon", 7);
        await _falcon.EverythingAsync();
        _files.Add("falcon", _etcd.Options);
    }

    public async ValueTask DisposeAsync()
    {
        await _files.DeleteAsync();
        await _store.DisposeAsync();
        await _etcd.DisposeAsync();
    }

    private string[] Arguments =>
    [
        "kvstoremesh", "--cluster-name", "tokyo", "--cluster-id", "1", "--clustermesh-config", _files.Peers,
        "--door-listen-addr", _files.Endpoint["https://".Length..], "--door-trusted-ca-file", _files.FileOf("ca.crt"),
        "--door-cert-file", _files.FileOf("server.crt"), "--door-key-file", _files.FileOf("server.key"),
        "--state-dir", _files.FileOf("state"), "--api-serve-addr", _api, "--health-port", _health, "--prometheus-serve-addr", _health,
    ];

    [Fact]
    public async Task Killed_under_churn_it_goes_on_and_its_readers_do_not_even_list_again()
    {
        await using var first = RunningProgram.Start(Arguments);
        await using var agent = _files.Agent();
        await agent.Sink.UntilReadyAsync("falcon");
        await using var reader = new EtcdKVStore(_files.Local);
        using var watching = new CancellationTokenSource();
        var lists = 0;
        var keys = new ConcurrentDictionary<string, byte>();
        var seen = WatchAsync(reader, "cilium/cache/ip/v1/falcon/", () => lists++, key => keys[key] = 0, watching.Token);
        using var enough = new CancellationTokenSource();
        var written = 0;
        var churn = Task.Run(async () =>
        {
            for (; !enough.IsCancellationRequested; written++)
                await _falcon.IpAsync($"10.7.{written / 250}.{written % 250}", 2);
        }, Cancellation);
        await Task.Delay(300, Cancellation);
        first.Signal(RunningProgram.SigKill);
        await first.EndedAsync();
        await using var second = RunningProgram.Start(Arguments);
        await Task.Delay(1000, Cancellation);
        await enough.CancelAsync();
        await churn;
        await agent.Sink.UntilAsync(sink => sink.IpEntries.Count >= written, $"all {written}");
        Assert.Equal(0, agent.Sink.Deletions);
        await _files.UntilAsync(() => keys.Count >= written, "the reader has them all");
        Assert.Equal((0L, true), (reader.Status.Relists, reader.Status.Resumptions > 0));
        await watching.CancelAsync();
        await seen;
        Assert.Equal(1, lists);
    }

    [Fact]
    public async Task It_tells_of_itself_in_the_words_of_Ciliums()
    {
        await using var program = RunningProgram.Start(Arguments);
        _files.Add("osprey", new EtcdOptions { Endpoints = [$"http://127.0.0.1:{EtcdServer.FreePort()}"] });
        using var http = new HttpClient();
        var clock = Stopwatch.StartNew();
        string json;
        while (!(json = await GetAsync(http, $"http://{_api}/v1/cluster")).Contains("\"ready\":true", StringComparison.Ordinal)
            || !json.Contains("osprey", StringComparison.Ordinal))
        {
            Assert.True(clock.Elapsed.TotalSeconds < 20, json);
            await Task.Delay(50, Cancellation);
        }
        var (exit, text, _) = await RunAsync("kvstoremesh-dbg", "status", "--host", _api);
        Assert.Equal(0, exit);
        Assert.StartsWith("""
            KVStoreMesh:	1/2 remote clusters ready
               falcon: ready, 1 nodes, 1 endpoints, 1 identities, 1 services, 0 MCS-API service exports, 0 reconnections (last: never)
               osprey: not-ready, 0 nodes, 0 endpoints, 0 identities, 0 services, 0 MCS-API service exports,
            """, text, StringComparison.Ordinal);
        Assert.EndsWith("""

               └  remote configuration: expected=unknown, retrieved=unknown
               └  synchronization status: nodes=false, endpoints=false, identities=false, services=false

            """, text, StringComparison.Ordinal);
        var verbose = (await RunAsync("kvstoremesh-dbg", "status", "-H", _api, "--verbose")).Output;
        Assert.Contains("   └  remote configuration: expected=true, retrieved=true, cluster-id=7, kvstoremesh=false, sync-canaries=true, "
            + "service-exports=unsupported\n   └  synchronization status: nodes=true, endpoints=true, identities=true, services=true\n",
            verbose, StringComparison.Ordinal);
        Assert.Contains("\"name\": \"falcon\"", (await RunAsync("kvstoremesh-dbg", "status", "-H", _api, "-o", "json")).Output, StringComparison.Ordinal);
        Assert.Contains("\n  name: falcon\n", (await RunAsync("kvstoremesh-dbg", "status", "-H", _api, "-o", "yaml")).Output, StringComparison.Ordinal);
        Assert.Equal("falcon=true osprey=\n", (await RunAsync("kvstoremesh-dbg", "status", "-H", _api,
            "-o", "jsonpath={[0].name}={[0].ready} {[1].name}={[1].ready}")).Output);
        Assert.Equal((1, "clustermesh-apiserver: -o 'jsonpath={[0': at character 4: ']' is missing\n"),
            await RunAsync("kvstoremesh-dbg", "status", "-H", _api, "-o", "jsonpath={[0") is var wrong ? (wrong.Exit, wrong.Error) : default);
        Assert.Equal("NotReady", await GetAsync(http, $"http://{_health}/readyz"));
        var metrics = await GetAsync(http, $"http://{_health}/metrics");
        Assert.Contains("cilium_kvstoremesh_remote_clusters{source_cluster=\"tokyo\"} 2\n", metrics, StringComparison.Ordinal);
        Assert.Contains("cilium_kvstoremesh_remote_cluster_readiness_status{source_cluster=\"tokyo\",target_cluster=\"falcon\"} 1\n",
            metrics, StringComparison.Ordinal);
        Assert.Contains("mesh_relay_keys{scope=\"nodes/v1\",source_cluster=\"tokyo\",target_cluster=\"falcon\"} 1\n", metrics, StringComparison.Ordinal);
        // Without the one that cannot be reached it is ready.
        File.Delete(Path.Combine(_files.Peers, "osprey"));
    }

    [Fact]
    public async Task Nobody_there_is_told()
    {
        var (exit, _, error) = await RunAsync("kvstoremesh-dbg", "status", "-H", _api);
        Assert.Equal((1, $"Failed to retrieve status information: is KVStoreMesh running and serving the API on {_api}?\n"), (exit, error));
    }

    [Theory]
    [InlineData("--cluster-id 300", "--cluster-id '300': must be 1 to 255")]
    [InlineData("--per-cluster-ready-timeout soon", "--per-cluster-ready-timeout 'soon': must be a duration such as 15s or 10m")]
    [InlineData("--api-serve-addr 9889", "--api-serve-addr '9889': must be localhost:PORT or IP:PORT")]
    [InlineData("--door-key-file /nowhere", "--door-key-file /nowhere: there is no such file")]
    [InlineData("--clustermesh-confg x", "--clustermesh-confg: unknown; did you mean --clustermesh-config?")]
    public async Task Impossible_values_stop_it_with_one_line(string wrong, string told)
    {
        var words = wrong.Split(' ');
        var arguments = Arguments.ToList();
        var at = arguments.IndexOf(words[0]);
        if (at < 0)
            arguments.AddRange(words);
        else
            arguments[at + 1] = words[1];
        var (exit, _, error) = await RunAsync([.. arguments]);
        Assert.Equal((1, $"clustermesh-apiserver: {told}\n"), (exit, error));
    }

    [Fact]
    public void Mended_or_not_the_text_is_that_of_the_contract()
    {
        RemoteCluster[] clusters =
        [
            new() { Name = "c2", Ready = true, NumNodes = 3, NumEndpoints = 25, NumIdentities = 8, NumSharedServices = 10 },
            new() { Name = "c3", Status = "Waiting for initial connection to be established", Synced = new RemoteClusterSynced() },
        ];
        Assert.Equal("""
            KVStoreMesh:	1/2 remote clusters ready
               c2: ready, 3 nodes, 25 endpoints, 8 identities, 10 services, 0 MCS-API service exports, 0 reconnections (last: never)
               c3: not-ready, 0 nodes, 0 endpoints, 0 identities, 0 services, 0 MCS-API service exports, 0 reconnections (last: never)
               └  Waiting for initial connection to be established
               └  remote configuration: expected=unknown, retrieved=unknown
               └  synchronization status: nodes=false, endpoints=false, identities=false, services=false

            """, KvstoremeshDbgCommand.Text(clusters, verbose: false, DateTimeOffset.UnixEpoch));
    }

    private static async Task WatchAsync(
        EtcdKVStore store, string prefix, Action listed, Action<string> seen, CancellationToken cancellation)
    {
        try
        {
            await foreach (var batch in store.ListWatchAsync(prefix, cancellation))
            {
                if (batch.Kind == WatchBatchKind.ListStart)
                    listed();
                foreach (var item in batch.Events)
                    seen(item.Key);
            }
        }
        catch (OperationCanceledException)
        {
            // The way to stop.
        }
    }

    private static async Task<string> GetAsync(HttpClient http, string url)
    {
        try
        {
            using var response = await http.GetAsync(new Uri(url), Cancellation);
            return await response.Content.ReadAsStringAsync(Cancellation);
        }
        catch (HttpRequestException e)
        {
            return e.Message;
        }
    }

    private static async Task<(int Exit, string Output, string Error)> RunAsync(params string[] arguments)
    {
        var info = new ProcessStartInfo(Path.Combine(AppContext.BaseDirectory, "clustermesh-apiserver"), arguments)
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        using var process = ChildThread.Start(info);
        var error = process.StandardError.ReadToEndAsync(Cancellation);
        var output = await process.StandardOutput.ReadToEndAsync(Cancellation);
        await process.WaitForExitAsync(Cancellation);
        return (process.ExitCode, output, await error);
    }
}
