using Etcdserverpb;
using Google.Protobuf;
using Grpc.Core;
using Grpc.Net.Client;
using Mesh.TestKit;
using Xunit;
using Order = Etcdserverpb.RangeRequest.Types.SortOrder;
using Target = Etcdserverpb.RangeRequest.Types.SortTarget;

namespace Mesh.ClusterMesh.Door.Tests;

/// <summary>Requests that no good client sends, to etcd and to the door before it: the same answers.</summary>
public sealed class OddShapesTests : IAsyncLifetime
{
    private EtcdServer _etcd = null!;
    private DoorUnderTest _door = null!;
    private GrpcChannel _direct = null!;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        _etcd = await EtcdServer.StartAsync();
        _door = await DoorUnderTest.OpenAsync(_etcd);
        _direct = GrpcChannel.ForAddress(_etcd.Endpoint);
        var client = new KV.KVClient(_direct);
        foreach (var key in (string[])["b", "a", "c", "a/1", "b"])
            await client.PutAsync(new PutRequest { Key = Text(key), Value = Text($"of {key}") }, cancellationToken: Cancellation);
    }

    public async ValueTask DisposeAsync()
    {
        _direct.Dispose();
        await _door.DisposeAsync();
        await _etcd.DisposeAsync();
    }

    private static ByteString Text(string text) => ByteString.CopyFromUtf8(text);

    private static readonly (string What, RangeRequest Request)[] Ranges =
    [
        ("a limit below zero", All(request => request.Limit = -3)),
        ("a limit below zero, sorted", All(request => (request.Limit, request.SortOrder) = (-3, Order.Descend))),
        ("an order that is none", All(request => request.SortOrder = (Order)7)),
        ("an order that is none, by value", All(request => (request.SortOrder, request.SortTarget) = ((Order)7, Target.Value))),
        ("a limit and a target but no order", All(request => (request.Limit, request.SortTarget) = (2, Target.Mod))),
        ("a count with a limit", All(request => (request.Limit, request.CountOnly) = (1, true))),
        ("a count and keys only", All(request => (request.KeysOnly, request.CountOnly) = (true, true))),
        ("a count with bounds", All(request => (request.MinModRevision, request.CountOnly) = (5, true))),
        ("a count in the past", All(request => (request.Revision, request.CountOnly) = (3, true))),
        ("a count in the future", All(request => (request.Revision, request.CountOnly) = (3000, true))),
        ("a count at the least revision", All(request => (request.Revision, request.CountOnly) = (1, true))),
        ("a revision below zero", All(request => request.Revision = -7)),
        ("bounds below zero", All(request => (request.MinModRevision, request.MaxModRevision) = (-1, -1))),
        ("created bounds below zero", All(request => (request.MinCreateRevision, request.MaxCreateRevision) = (-1, -1))),
        ("a bound below zero with a limit", All(request => (request.MinModRevision, request.Limit) = (-1, 2))),
        ("bounds that exclude each other", All(request => (request.MinModRevision, request.MaxModRevision) = (5, 3))),
        ("a bound in the future", All(request => request.MinModRevision = 3000)),
        ("the largest of everything", All(request => (request.Limit, request.MaxModRevision) = (long.MaxValue, long.MaxValue))),
        ("a range that ends before it begins", new RangeRequest { Key = Text("c"), RangeEnd = Text("a") }),
        ("a range that ends where it begins", new RangeRequest { Key = Text("c"), RangeEnd = Text("c") }),
        ("a count of a range that ends before it begins", new RangeRequest { Key = Text("c"), RangeEnd = Text("a"), CountOnly = true }),
        ("an end of two zero bytes", new RangeRequest { Key = Text("a"), RangeEnd = Text("\0\0") }),
        ("everything", new RangeRequest { Key = Text("\0"), RangeEnd = Text("\0") }),
        ("no key and an end", new RangeRequest { RangeEnd = Text("\0") }),
        ("no key, in the future", new RangeRequest { Revision = 3000 }),
        ("bytes that are no text", new RangeRequest { Key = ByteString.CopyFrom(0xff, 0xfe), RangeEnd = ByteString.CopyFrom(0xff, 0xff) }),
    ];

    private static RangeRequest All(Action<RangeRequest> change)
    {
        var request = new RangeRequest { Key = Text("a"), RangeEnd = Text("z") };
        change(request);
        return request;
    }

    [Fact]
    public async Task Ranges_of_odd_shapes()
    {
        var door = _door.Channel($"admin-{DoorUnderTest.Cluster}");
        foreach (var (what, request) in Ranges)
        {
            var expected = await AnswerAsync(_direct, request);
            var got = await AnswerAsync(door, request);
            Assert.True(expected == got, $"{what}: {request}\netcd: {expected}\ndoor: {got}");
        }
    }

    private static async Task<string> AnswerAsync(ChannelBase channel, RangeRequest request)
    {
        try
        {
            return (await new KV.KVClient(channel).RangeAsync(request, deadline: DateTime.UtcNow.AddSeconds(5))).ToString();
        }
        catch (RpcException e)
        {
            return $"{e.StatusCode}: {e.Status.Detail}";
        }
    }

    [Fact]
    public async Task A_sort_by_nothing_that_there_is_ends_etcd_but_not_the_door()
    {
        var request = All(request => request.SortTarget = (Target)9);
        request.Serializable = true;
        var expected = await AnswerAsync(_door.Channel($"admin-{DoorUnderTest.Cluster}"), All(_ => { }));
        Assert.Equal(expected, await AnswerAsync(_door.Channel($"admin-{DoorUnderTest.Cluster}"), request));
    }

    private static readonly (string What, WatchRequest[] Requests)[] Watches =
    [
        ("progress asked of nobody", [Progress()]),
        ("progress with a watch in the future", [Create(request => request.StartRevision = 5000), Progress()]),
        ("a cancel of nothing", [Cancel(4), Create(_ => { })]),
        ("a cancel twice", [Create(_ => { }), Cancel(0), Cancel(0), Create(_ => { })]),
        ("an ID twice", [Create(request => request.WatchId = 3), Create(request => request.WatchId = 3)]),
        ("an ID that was cancelled", [Create(request => request.WatchId = 3), Cancel(3), Create(request => request.WatchId = 3)]),
        ("an ID that comes up", [Create(request => request.WatchId = 1), Create(_ => { }), Create(_ => { })]),
        ("an ID below zero", [Create(request => request.WatchId = -5), Cancel(-5)]),
        ("the ID of nobody", [Create(request => request.WatchId = -1), Cancel(-1), Create(_ => { })]),
        ("a start at the end of numbers", [Create(request => request.StartRevision = long.MaxValue), Cancel(0)]),
        ("filters that are none", [Create(request => request.Filters.Add((WatchCreateRequest.Types.FilterType)9))]),
        ("a filter three times", [Create(request => request.Filters.Add([0, 0, 0]))]),
        ("a range that ends before it begins", [Create(request => request.RangeEnd = Text("a")), Create(_ => { })]),
        ("a request that is none", [new WatchRequest(), Create(_ => { })]),
        ("everything", [Create(request => (request.Key, request.RangeEnd) = (Text("\0"), Text("\0")))]),
        ("no key, from there on", [Create(request => (request.Key, request.RangeEnd) = (ByteString.Empty, Text("\0")))]),
        ("the past with previous values", [Create(request => (request.StartRevision, request.PrevKv) = (2, true))]),
        ("the past in fragments", [Create(request => (request.StartRevision, request.Fragment) = (2, true))]),
    ];

    private static WatchRequest Progress() => new() { ProgressRequest = new WatchProgressRequest() };

    private static WatchRequest Cancel(long id) => new() { CancelRequest = new WatchCancelRequest { WatchId = id } };

    private static WatchRequest Create(Action<WatchCreateRequest> change)
    {
        var request = new WatchCreateRequest { Key = Text("b"), RangeEnd = Text("c") };
        change(request);
        return new WatchRequest { CreateRequest = request };
    }

    [Fact]
    public async Task Watches_of_odd_shapes()
    {
        var door = _door.Channel($"admin-{DoorUnderTest.Cluster}");
        foreach (var (what, expected, got) in await Task.WhenAll(Watches.Select(async watch =>
            (watch.What, await ToldAsync(_direct, watch.Requests), await ToldAsync(door, watch.Requests)))))
            Assert.True(expected == got, $"{what}\netcd:\n{expected}\ndoor:\n{got}");
    }

    /// <summary>What all watches of a stream are told until it falls silent, in the order of the alphabet: which watch comes first is the server's
    /// choice. The last watch says that all before it were taken.</summary>
    private static async Task<string> ToldAsync(ChannelBase channel, WatchRequest[] requests)
    {
        using var call = new Watch.WatchClient(channel).Watch(cancellationToken: Cancellation);
        foreach (var request in requests)
            await call.RequestStream.WriteAsync(request, Cancellation);
        await call.RequestStream.WriteAsync(Create(request => (request.Key, request.StartRevision, request.WatchId) = (Text("a"), 3, 99)), Cancellation);
        var told = new List<string>();
        var ended = false;
        while (true)
        {
            var next = call.ResponseStream.MoveNext(Cancellation);
            // etcd looks after watches of the past every 100 ms.
            if (ended && await Task.WhenAny(next, Task.Delay(300, Cancellation)) != next)
                break;
            Assert.True(await next.WaitAsync(TimeSpan.FromSeconds(10), Cancellation), "the stream ended");
            var response = call.ResponseStream.Current;
            ended |= response.WatchId == 99 && response.Events.Count > 0;
            told.Add($"{response.WatchId} {response.Created} {response.Canceled} '{response.CancelReason}' {response.CompactRevision} "
                + string.Join(',', response.Events));
        }
        return string.Join('\n', told.Order(StringComparer.Ordinal));
    }
}
