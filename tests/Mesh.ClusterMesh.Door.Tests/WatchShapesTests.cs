using Etcdserverpb;
using Google.Protobuf;
using Grpc.Core;
using Mesh.TestKit;
using Xunit;

namespace Mesh.ClusterMesh.Door.Tests;

/// <summary>The rarer shapes of a watch: fragments, progress, a start in the future.</summary>
public sealed class WatchShapesTests : IAsyncLifetime
{
    private EtcdServer _etcd = null!;
    private DoorUnderTest _door = null!;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        _etcd = await EtcdServer.StartAsync();
        _door = await DoorUnderTest.OpenAsync(_etcd, options => options with
        {
            Limits = new DoorLimits { FragmentBytes = 2000, ProgressInterval = TimeSpan.FromSeconds(1) },
        });
    }

    public async ValueTask DisposeAsync()
    {
        await _door.DisposeAsync();
        await _etcd.DisposeAsync();
    }

    private async Task<AsyncDuplexStreamingCall<WatchRequest, WatchResponse>> WatchAsync(Action<WatchCreateRequest> change)
    {
        var call = new Watch.WatchClient(_door.Channel("remote")).Watch(cancellationToken: Cancellation);
        var request = new WatchCreateRequest
        {
            Key = ByteString.CopyFromUtf8("cilium/state/"),
            RangeEnd = ByteString.CopyFromUtf8("cilium/state0"),
        };
        change(request);
        await call.RequestStream.WriteAsync(new WatchRequest { CreateRequest = request }, Cancellation);
        Assert.True((await NextAsync(call)).Created);
        return call;
    }

    private static async Task<WatchResponse> NextAsync(AsyncDuplexStreamingCall<WatchRequest, WatchResponse> call)
    {
        Assert.True(await call.ResponseStream.MoveNext(Cancellation).WaitAsync(TimeSpan.FromSeconds(10), Cancellation));
        return call.ResponseStream.Current;
    }

    /// <summary>One revision of fifty keys; returns it.</summary>
    private async Task<long> WriteFiftyAsync()
    {
        await using var store = _etcd.NewStore();
        return await store.WriteAsync([.. Enumerable.Range(0, 50).Select(i => new Mesh.KVStore.WriteOperation($"cilium/state/{i:d2}", new byte[100]))],
            Cancellation);
    }

    [Fact]
    public async Task A_revision_comes_in_fragments_only_to_those_who_asked()
    {
        using var whole = await WatchAsync(_ => { });
        using var parts = await WatchAsync(request => request.Fragment = true);
        var revision = await WriteFiftyAsync();
        var all = await NextAsync(whole);
        Assert.Equal((50, revision, false), (all.Events.Count, all.Header.Revision, all.Fragment));
        var keys = new List<string>();
        while (true)
        {
            var part = await NextAsync(parts);
            Assert.True(part.CalculateSize() < 2200);
            keys.AddRange(part.Events.Select(e => e.Kv.Key.ToStringUtf8()));
            // Until the last fragment the revision is still owed.
            Assert.Equal(part.Fragment ? revision - 1 : revision, part.Header.Revision);
            if (!part.Fragment)
                break;
        }
        Assert.Equal(all.Events.Select(e => e.Kv.Key.ToStringUtf8()), keys);
    }

    [Fact]
    public async Task Progress_is_told_on_request_and_by_time_and_never_ahead_of_events()
    {
        using var call = await WatchAsync(request => request.ProgressNotify = true);
        var revision = await WriteFiftyAsync();
        await call.RequestStream.WriteAsync(new WatchRequest { ProgressRequest = new WatchProgressRequest() }, Cancellation);
        var told = new List<WatchResponse>();
        while (told.Count < 4)
            told.Add(await NextAsync(call));
        var events = told.FindIndex(response => response.Events.Count > 0);
        foreach (var response in told.Where(response => response.Header.Revision >= revision))
            Assert.True(told.IndexOf(response) >= events, "progress ahead of the events");
        Assert.Contains(told, response => response is { WatchId: -1, Events.Count: 0 });
        Assert.Contains(told, response => response is { WatchId: 0, Events.Count: 0 } && response.Header.Revision == revision);
    }

    [Fact]
    public async Task A_watch_that_begins_in_the_future_waits_for_it()
    {
        var revision = await WriteFiftyAsync();
        using var call = await WatchAsync(request => request.StartRevision = revision + 2);
        await WriteFiftyAsync();
        var third = await WriteFiftyAsync();
        var first = await NextAsync(call);
        Assert.Equal(revision + 2, third);
        Assert.All(first.Events, change => Assert.Equal(third, change.Kv.ModRevision));
    }
}
