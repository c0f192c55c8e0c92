using System.Net.Http.Json;
using System.Text;
using System.Text.Json;
using Etcdserverpb;
using Google.Protobuf;
using Grpc.Core;
using Mesh.KVStore;
using Mesh.TestKit;
using Xunit;

namespace Mesh.ClusterMesh.Door.Tests;

/// <summary>Clients that know nothing of the door: Debian's etcdctl, our own reader, dotnet-etcd.</summary>
public sealed class ClientsTests : IAsyncLifetime
{
    private const string Local = $"local-{DoorUnderTest.Cluster}";
    private const string Admin = $"admin-{DoorUnderTest.Cluster}";
    private EtcdServer _etcd = null!;
    private DoorUnderTest _door = null!;
    private EtcdKVStore _writer = null!;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        _etcd = await EtcdServer.StartAsync();
        _writer = _etcd.NewStore();
        await WriteAsync(("cilium/.heartbeat", "now"), ("cilium/state/nodes/v1/falcon/n1", "{}"), ("cilium/state/nodes/v1/falcon/n2", "{}"),
            ("cilium/cluster-config/falcon", "{\"id\":7}"), ("cilium/cluster-config/osprey", "{\"id\":8}"),
            ("cilium/synced/falcon/cilium/state/nodes/v1", "now"), ("cilium/cache/nodes/v1/osprey/n1", "{}"));
        _door = await DoorUnderTest.OpenAsync(_etcd);
    }

    public async ValueTask DisposeAsync()
    {
        await _door.DisposeAsync();
        await _writer.DisposeAsync();
        await _etcd.DisposeAsync();
    }

    private Task<long> WriteAsync(params (string Key, string Value)[] keys) =>
        _writer.WriteAsync([.. keys.Select(key => new WriteOperation(key.Key, Encoding.UTF8.GetBytes(key.Value)))], Cancellation);

    [Fact]
    public async Task Etcdctl_reads_what_a_remote_may_and_is_refused_the_rest()
    {
        var (exit, output, error) = await _door.EtcdctlAsync("remote", "get", "--prefix", "cilium/state/");
        Assert.True(exit == 0, error);
        Assert.Equal("cilium/state/nodes/v1/falcon/n1\n{}\ncilium/state/nodes/v1/falcon/n2\n{}\n", output);
        Assert.Equal(0, (await _door.EtcdctlAsync("remote-osprey", "get", "cilium/cluster-config/falcon")).Exit);
        Assert.Equal(0, (await _door.EtcdctlAsync("remote", "get", "--prefix", "cilium/synced/falcon/")).Exit);
        Assert.Equal(0, (await _door.EtcdctlAsync("remote", "get", "--prefix", "cilium/.heartbeat")).Exit);
        foreach (var refused in (string[][])[["get", "--prefix", "cilium/cluster-config/"], ["get", "cilium/cluster-config/osprey"],
            ["get", "--prefix", "cilium/synced/"], ["get", "--prefix", "cilium/cache/"], ["get", "--prefix", ""], ["get", "--from-key", "cilium/state/"],
            ["put", "cilium/state/x", "y"], ["del", "cilium/.heartbeat"], ["compact", "1"], ["member", "list"], ["user", "list"],
            ["lease", "list"], ["lease", "timetolive", "1234"], ["defrag"], ["snapshot", "save", "/dev/null.x"]])
        {
            (exit, _, error) = await _door.EtcdctlAsync("remote", refused);
            Assert.True(exit != 0 && error.Contains("etcdserver: permission denied", StringComparison.Ordinal),
                $"etcdctl {string.Join(' ', refused)}: exit {exit} {error}");
        }
    }

    [Fact]
    public async Task The_admin_reads_everything_and_writes_nothing()
    {
        Assert.Equal(7 * 2, (await _door.EtcdctlAsync(Admin, "get", "--prefix", "")).Output.Split('\n', StringSplitOptions.RemoveEmptyEntries).Length);
        var (exit, _, error) = await _door.EtcdctlAsync(Admin, "put", "cilium/state/x", "y");
        Assert.True(exit != 0 && error.Contains("etcdserver: permission denied", StringComparison.Ordinal), error);
        Assert.Null(await _writer.GetAsync("cilium/state/x", Cancellation));
    }

    [Fact]
    public async Task Etcdctl_endpoint_status_and_HTTP_version_answer()
    {
        var (exit, output, error) = await _door.EtcdctlAsync("remote", "endpoint", "status", "-w", "json");
        Assert.True(exit == 0, error);
        using var json = JsonDocument.Parse(output);
        var status = json.RootElement[0].GetProperty("Status");
        var theirs = JsonDocument.Parse(await _etcd.EtcdctlAsync("endpoint", "status", "-w", "json")).RootElement[0].GetProperty("Status");
        foreach (var field in (string[])["cluster_id", "member_id", "revision", "raft_term"])
            Assert.Equal(theirs.GetProperty("header").GetProperty(field).ToString(), status.GetProperty("header").GetProperty(field).ToString());
        Assert.Equal("3.4.23", status.GetProperty("version").GetString());

        using var http = new HttpClient(new SocketsHttpHandler { SslOptions = DoorUnderTest.TlsTo(_door.As("remote")) });
        var version = await http.GetFromJsonAsync<JsonElement>(new Uri(_door.Endpoint + "/version"), Cancellation);
        Assert.Equal("""{"etcdserver":"3.4.23","etcdcluster":"3.4.0"}""", version.ToString());
        Assert.Equal(System.Net.HttpStatusCode.NotFound, (await http.GetAsync(new Uri(_door.Endpoint + "/health"), Cancellation)).StatusCode);
    }

    [Fact]
    public async Task Etcdctl_watches_from_now_and_from_the_past()
    {
        using var watch = ChildThread.Start(_door.EtcdctlInfo("remote", "watch", "--prefix", "--rev=1", "cilium/state/"));
        try
        {
            Task<string?> LineAsync() => watch.StandardOutput.ReadLineAsync(Cancellation).AsTask().WaitAsync(TimeSpan.FromSeconds(10));
            Assert.Equal(["PUT", "cilium/state/nodes/v1/falcon/n1", "{}"], [await LineAsync(), await LineAsync(), await LineAsync()]);
            Assert.Equal(["PUT", "cilium/state/nodes/v1/falcon/n2", "{}"], [await LineAsync(), await LineAsync(), await LineAsync()]);
            await WriteAsync(("cilium/state/nodes/v1/falcon/n3", "{}"));
            Assert.Equal(["PUT", "cilium/state/nodes/v1/falcon/n3", "{}"], [await LineAsync(), await LineAsync(), await LineAsync()]);
            await _writer.DeletePrefixAsync("cilium/state/nodes/v1/falcon/n1", Cancellation);
            Assert.Equal(["DELETE", "cilium/state/nodes/v1/falcon/n1"], [await LineAsync(), await LineAsync()]);
        }
        finally
        {
            watch.Kill();
            await watch.WaitForExitAsync(Cancellation);
        }
    }

    [Fact]
    public async Task Our_own_reader_lists_follows_and_survives_a_restart_of_the_door()
    {
        await using var reader = new EtcdKVStore(_door.As("remote"));
        var (items, revision) = await reader.ListAsync("cilium/state/", Cancellation);
        Assert.Equal(2, items.Count);
        Assert.True(revision > 1);
        var seen = new List<string>();
        using var stop = new CancellationTokenSource();
        var following = Task.Run(async () =>
        {
            try
            {
                await foreach (var batch in reader.ListWatchAsync("cilium/state/", stop.Token))
                {
                    lock (seen)
                        seen.AddRange(batch.Kind is WatchBatchKind.Put or WatchBatchKind.Delete
                            ? batch.Events.Select(e => $"{batch.Kind} {e.Key}") : [batch.Kind.ToString()]);
                }
            }
            catch (OperationCanceledException)
            {
                // The test is over.
            }
        }, Cancellation);
        bool Has(string what)
        {
            lock (seen)
                return seen.Contains(what);
        }
        await Wait.UntilAsync(() => Has("ListEnd"), "the list");
        await WriteAsync(("cilium/state/a", "1"));
        await Wait.UntilAsync(() => Has("Put cilium/state/a"), "a live event");
        var port = _door.Door.Address!;
        await _door.ReopenAsync(options => options with { Listen = port });
        await WriteAsync(("cilium/state/b", "1"));
        await Wait.UntilAsync(() => Has("Put cilium/state/b"), "an event after the restart");
        await stop.CancelAsync();
        await following;
        // It resumed where it was: the door's history reaches back beyond its own start, and its name did not change.
        Assert.Single(seen, line => line == "ListStart");
    }

    [Fact]
    public async Task Our_own_reader_is_told_that_it_may_not()
    {
        await using var reader = new EtcdKVStore(_door.As("remote"));
        var listing = await Assert.ThrowsAsync<KVStoreException>(() => reader.ListAsync("cilium/cache/", Cancellation));
        Assert.True(listing.PermissionDenied);
        var writing = await Assert.ThrowsAsync<KVStoreException>(
            () => reader.WriteAsync([new WriteOperation("cilium/state/x", "y"u8.ToArray())], Cancellation));
        Assert.True(writing.PermissionDenied);
    }

    [Fact]
    public async Task Dotnet_etcd_reads_and_watches()
    {
        using var client = new dotnet_etcd.EtcdClient(_door.Endpoint, configureSslOptions: tls =>
        {
            var ours = DoorUnderTest.TlsTo(_door.As(Local));
            tls.ClientCertificates = ours.ClientCertificates;
            tls.CertificateChainPolicy = ours.CertificateChainPolicy;
        });
        var range = await client.GetRangeAsync("cilium/cache/", cancellationToken: Cancellation);
        Assert.Equal("cilium/cache/nodes/v1/osprey/n1", Assert.Single(range.Kvs).Key.ToStringUtf8());
        var refused = await Assert.ThrowsAsync<RpcException>(() => client.GetRangeAsync("cilium/state/", cancellationToken: Cancellation));
        Assert.Equal(StatusCode.PermissionDenied, refused.StatusCode);
        refused = await Assert.ThrowsAsync<RpcException>(() => client.PutAsync("cilium/cache/x", "y", cancellationToken: Cancellation));
        Assert.Equal(StatusCode.PermissionDenied, refused.StatusCode);
        var seen = new List<string>();
        using var stop = new CancellationTokenSource();
        _ = client.WatchRangeAsync("cilium/cache/", (WatchResponse response) =>
        {
            lock (seen)
                seen.AddRange(response.Events.Select(e => e.Kv.Key.ToStringUtf8()));
        }, cancellationToken: stop.Token);
        await Wait.UntilAsync(() => _door.Door.Status.Watches > 0, "the watch");
        await WriteAsync(("cilium/cache/nodes/v1/osprey/n2", "{}"));
        await Wait.UntilAsync(() => { lock (seen) return seen.Count > 0; }, "the event");
        await stop.CancelAsync();
        Assert.Equal(["cilium/cache/nodes/v1/osprey/n2"], seen);
    }

    [Fact]
    public async Task An_old_reader_gets_a_session_lease_of_its_own_connection_only()
    {
        var lease = new Lease.LeaseClient(_door.Channel("remote"));
        var other = new Lease.LeaseClient(_door.Channel("remote"));
        var granted = await lease.LeaseGrantAsync(new LeaseGrantRequest { TTL = 25 }, cancellationToken: Cancellation);
        Assert.Equal(25, granted.TTL);
        Assert.NotEqual(0UL, granted.Header.ClusterId);
        Assert.Equal(25, await KeptAliveAsync(lease, granted.ID));
        Assert.Equal(0, await KeptAliveAsync(other, granted.ID));
        var stranger = await Assert.ThrowsAsync<RpcException>(
            async () => await other.LeaseRevokeAsync(new LeaseRevokeRequest { ID = granted.ID }, cancellationToken: Cancellation));
        Assert.Equal("etcdserver: requested lease not found", stranger.Status.Detail);
        await lease.LeaseRevokeAsync(new LeaseRevokeRequest { ID = granted.ID }, cancellationToken: Cancellation);
        Assert.Equal(0, await KeptAliveAsync(lease, granted.ID));
        Assert.DoesNotContain(granted.ID.ToString("x", null), await _etcd.EtcdctlAsync("lease", "list"), StringComparison.Ordinal);
    }

    [Fact]
    public async Task What_etcd_does_not_know_is_unimplemented_in_its_words()
    {
        var invoker = _door.Channel(Admin).CreateCallInvoker();
        foreach (var (service, method, expected) in ((string, string, string)[])[
            ("etcdserverpb.KV", "Frobnicate", "unknown method Frobnicate for service etcdserverpb.KV"),
            ("mesh.Nothing", "At", "unknown service mesh.Nothing")])
        {
            var call = new Method<RangeRequest, RangeResponse>(MethodType.Unary, service, method,
                Marshallers.Create(m => m.ToByteArray(), RangeRequest.Parser.ParseFrom),
                Marshallers.Create(m => m.ToByteArray(), RangeResponse.Parser.ParseFrom));
            var refused = await Assert.ThrowsAsync<RpcException>(async () =>
                await invoker.AsyncUnaryCall(call, null, new CallOptions(cancellationToken: Cancellation), new RangeRequest()));
            Assert.Equal(StatusCode.Unimplemented, refused.StatusCode);
            Assert.Equal(expected, refused.Status.Detail);
        }
    }

    private static async Task<long> KeptAliveAsync(Lease.LeaseClient client, long id)
    {
        using var call = client.LeaseKeepAlive(cancellationToken: Cancellation);
        await call.RequestStream.WriteAsync(new LeaseKeepAliveRequest { ID = id }, Cancellation);
        Assert.True(await call.ResponseStream.MoveNext(Cancellation));
        await call.RequestStream.CompleteAsync();
        return call.ResponseStream.Current.TTL;
    }
}
