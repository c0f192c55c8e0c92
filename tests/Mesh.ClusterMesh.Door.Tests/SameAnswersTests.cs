using CsCheck;
using Etcdserverpb;
using Google.Protobuf;
using Grpc.Core;
using Grpc.Net.Client;
using Mesh.TestKit;
using Xunit;

namespace Mesh.ClusterMesh.Door.Tests;

/// <summary>The same requests to etcd and to the door before it: the same answers.</summary>
public sealed class SameAnswersTests
{
    private static readonly string[] Names = ["a", "a/b", "a/b/c", "a/c", "a0", "b", "b/1", "b/2", "c", "\u00e9", "z", "zz"];

    private static readonly Gen<string> Name = Gen.Int[0, Names.Length - 1].Select(i => Names[i]);

    /// <summary>One change: some puts and deletions in one revision.</summary>
    private static readonly Gen<TxnRequest> Change =
        from keys in Name.HashSet[1, 4]
        from kinds in Gen.Int[0, 3].Array[4]
        from values in Gen.String[Gen.Char.AlphaNumeric, 0, 12].Array[4]
        select new TxnRequest
        {
            Success =
            {
                keys.Select((key, i) => kinds[i] == 0
                    ? new RequestOp { RequestDeleteRange = new DeleteRangeRequest { Key = Text(key) } }
                    : new RequestOp { RequestPut = new PutRequest { Key = Text(key), Value = Text(values[i]) } }),
            },
        };

    private static readonly Gen<ByteString> End =
        Gen.OneOf(Name.Select(Text), Gen.Const(ByteString.Empty), Gen.Const(Text("\0")), Name.Select(name => Text(name + "0")));

    private static readonly Gen<RangeRequest> Range =
        from key in Gen.Frequency((20, Name.Select(Text)), (1, Gen.Const(Text("\0"))), (1, Gen.Const(ByteString.Empty)))
        from end in End
        from limit in Gen.Frequency((2, Gen.Const(0L)), (3, Gen.Long[1, 5]))
        from back in Gen.Frequency((3, Gen.Const(0L)), (3, Gen.Long[-2, 40]))
        from order in Gen.Int[0, 2]
        from target in Gen.Int[0, 4]
        from flags in Gen.Int[0, 7]
        from bounds in Gen.Frequency((3, Gen.Const(0L)), (1, Gen.Long[1, 40])).Array[4]
        select new RangeRequest
        {
            Key = key,
            RangeEnd = end,
            Limit = limit,
            Revision = back,
            SortOrder = (RangeRequest.Types.SortOrder)order,
            SortTarget = (RangeRequest.Types.SortTarget)target,
            KeysOnly = (flags & 1) != 0,
            CountOnly = flags == 6,
            Serializable = (flags & 4) != 0 && flags != 6,
            MinModRevision = bounds[0],
            MaxModRevision = bounds[1],
            MinCreateRevision = bounds[2],
            MaxCreateRevision = bounds[3],
        };

    private static readonly Gen<WatchCreateRequest> Watch =
        from key in Gen.Frequency((10, Name.Select(Text)), (1, Gen.Const(Text("\0"))), (1, Gen.Const(ByteString.Empty)))
        from end in End
        from start in Gen.Frequency((1, Gen.Const(0L)), (4, Gen.Long[1, 60]))
        from filters in Gen.Frequency((3, Gen.Const(0)), (1, Gen.Int[1, 3]))
        from previous in Gen.Bool
        from id in Gen.Frequency((4, Gen.Const(0L)), (1, Gen.Long[1, 3]))
        select new WatchCreateRequest
        {
            Key = key,
            RangeEnd = end,
            StartRevision = start,
            Filters = { Enumerable.Range(0, 2).Where(bit => (filters & (1 << bit)) != 0).Select(bit => (WatchCreateRequest.Types.FilterType)bit) },
            PrevKv = previous,
            WatchId = id,
        };

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    private static ByteString Text(string text) => ByteString.CopyFromUtf8(text);

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    public async Task Ranges_answer_as_etcd_does(int seed)
    {
        await using var etcd = await EtcdServer.StartAsync();
        await using var door = await DoorUnderTest.OpenAsync(etcd);
        using var direct = GrpcChannel.ForAddress(etcd.Endpoint);
        var theirs = new KV.KVClient(direct);
        var ours = new KV.KVClient(door.Channel($"admin-{DoorUnderTest.Cluster}"));
        var random = new PCG((uint)seed);
        for (var round = 0; round < 30; round++)
        {
            await theirs.TxnAsync(Change.Generate(random, null, out _), cancellationToken: Cancellation);
            for (var i = 0; i < 20; i++)
            {
                var request = Range.Generate(random, null, out _);
                var expected = await AnswerAsync(theirs, request);
                var got = await AnswerAsync(ours, request);
                // Serializable reads of the door may lag by one delivery; ask again when they do.
                if (request.Serializable && expected != got)
                {
                    await ours.RangeAsync(new RangeRequest { Key = Text("a") }, cancellationToken: Cancellation);
                    got = await AnswerAsync(ours, request);
                }
                Assert.True(expected == got, $"round {round}: {request}\netcd: {expected}\ndoor: {got}");
            }
        }
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    public async Task A_cache_answers_as_an_etcd_with_the_same_changes(int seed)
    {
        await using var etcd = await EtcdServer.StartAsync();
        await using var mirror = MirrorView.Open(new MirrorOptions(), TimeProvider.System, _ => { });
        await using var door = await DoorUnderTest.OpenAsync(mirror);
        using var direct = GrpcChannel.ForAddress(etcd.Endpoint);
        var theirs = new KV.KVClient(direct);
        var channel = door.Channel($"admin-{DoorUnderTest.Cluster}");
        var ours = new KV.KVClient(channel);
        var random = new PCG((uint)seed);
        for (var round = 0; round < 30; round++)
        {
            var requests = round % 10 == 9 ? Watch.Array[4].Generate(random, null, out _) : null;
            var first = requests is null ? null : new WatchRecord(direct, requests, strictHeaders: false);
            var second = requests is null ? null : new WatchRecord(channel, requests, strictHeaders: true);
            if (first is not null && second is not null)
            {
                await first.CreatedAsync();
                await second.CreatedAsync();
            }
            var change = Change.Generate(random, null, out _);
            var last = await BothAsync(theirs, mirror, change, round);
            for (var i = 0; i < 20; i++)
            {
                var request = Range.Generate(random, null, out _);
                var (expected, got) = (await AnswerAsync(theirs, request, named: false), await AnswerAsync(ours, request, named: false));
                Assert.True(expected == got, $"round {round}: {request}\netcd: {expected}\ncache: {got}");
            }
            if (first is null || second is null)
                continue;
            last = await BothAsync(theirs, mirror, new TxnRequest
            {
                Success = { new RequestOp { RequestPut = new PutRequest { Key = Text("end"), Value = Text("end") } } },
            }, round + 1000);
            var (seen, got2) = (await first.FinishAsync(last), await second.FinishAsync(last));
            // Twelve keys are the most that etcd's sort leaves in order when they are equal.
            await BothAsync(theirs, mirror, new TxnRequest
            {
                Success = { new RequestOp { RequestDeleteRange = new DeleteRangeRequest { Key = Text("end") } } },
            }, round);
            Assert.True(seen == got2, $"round {round}:\n{string.Join('\n', (object[])requests!)}\netcd:\n{seen}\ncache:\n{got2}");
        }
    }

    /// <summary>Each put is another value, since a cache takes real differences only.</summary>
    private static async Task<long> BothAsync(KV.KVClient etcd, MirrorView mirror, TxnRequest change, int round)
    {
        foreach (var operation in change.Success.Where(operation => operation.RequestPut is not null))
            operation.RequestPut.Value = Text($"{operation.RequestPut.Value.ToStringUtf8()}#{round}");
        var answer = await etcd.TxnAsync(change, cancellationToken: Cancellation);
        var commit = await mirror.CommitAsync([.. change.Success.Select(operation => operation.RequestPut is { } put
            ? new MirrorChange(put.Key.ToStringUtf8(), put.Value.ToByteArray())
            : new MirrorChange(operation.RequestDeleteRange.Key.ToStringUtf8(), null))], Cancellation);
        Assert.Equal(answer.Header.Revision, commit.Revision);
        return commit.Revision;
    }

    [Fact]
    public async Task Pages_at_one_revision_are_the_list_at_that_revision_whatever_is_written_meanwhile()
    {
        await using var etcd = await EtcdServer.StartAsync();
        await using var door = await DoorUnderTest.OpenAsync(etcd);
        using var direct = GrpcChannel.ForAddress(etcd.Endpoint);
        var theirs = new KV.KVClient(direct);
        var ours = new KV.KVClient(door.Channel($"admin-{DoorUnderTest.Cluster}"));
        for (var i = 0; i < 100; i++)
            await theirs.PutAsync(new PutRequest { Key = Text($"p/{i:d3}"), Value = Text("old") }, cancellationToken: Cancellation);
        var keys = new List<string>();
        var request = new RangeRequest { Key = Text("p/"), RangeEnd = Text("p0"), Limit = 7 };
        while (true)
        {
            var page = await ours.RangeAsync(request, cancellationToken: Cancellation);
            if (keys.Count == 0)
                Assert.Equal(100, page.Count);
            keys.AddRange(page.Kvs.Select(kv => $"{kv.Key.ToStringUtf8()}={kv.Value.ToStringUtf8()}"));
            if (request.Revision == 0)
                request.Revision = page.Header.Revision;
            if (!page.More)
                break;
            request.Key = ByteString.CopyFrom([.. page.Kvs[^1].Key.Span, 0]);
            await theirs.PutAsync(new PutRequest { Key = Text($"p/{keys.Count:d3}"), Value = Text("new") }, cancellationToken: Cancellation);
            await theirs.DeleteRangeAsync(new DeleteRangeRequest { Key = Text($"p/{99 - keys.Count:d3}") }, cancellationToken: Cancellation);
        }
        Assert.Equal(Enumerable.Range(0, 100).Select(i => $"p/{i:d3}=old"), keys);
    }

    [Theory]
    [InlineData(1, false)]
    [InlineData(2, false)]
    [InlineData(3, true)]
    public async Task Watches_answer_as_etcd_does(int seed, bool compacted)
    {
        await using var etcd = await EtcdServer.StartAsync();
        using var direct = GrpcChannel.ForAddress(etcd.Endpoint);
        var theirs = new KV.KVClient(direct);
        var random = new PCG((uint)seed);
        for (var i = 0; i < 40; i++)
            await theirs.TxnAsync(Change.Generate(random, null, out _), cancellationToken: Cancellation);
        if (compacted)
            await theirs.CompactAsync(new CompactionRequest { Revision = 20 }, cancellationToken: Cancellation);
        await using var door = await DoorUnderTest.OpenAsync(etcd);
        var channel = door.Channel($"admin-{DoorUnderTest.Cluster}");
        for (var round = 0; round < 10; round++)
        {
            var requests = Watch.Array[4].Generate(random, null, out _);
            if (compacted)
            {
                // etcd still shows what survived of the compacted revision itself; the door, which cannot know what did not, never does.
                foreach (var request in requests.Where(request => request.StartRevision == 20))
                    request.StartRevision = 19;
                // And etcd notices a compacted watch up to 100 ms later, until when its ID is taken.
                foreach (var request in requests)
                    request.WatchId = 0;
            }
            var changes = Change.Array[5].Generate(random, null, out _);
            var first = new WatchRecord(direct, requests, strictHeaders: false);
            var second = new WatchRecord(channel, requests, strictHeaders: true);
            await first.CreatedAsync();
            await second.CreatedAsync();
            foreach (var change in changes)
                await theirs.TxnAsync(change, cancellationToken: Cancellation);
            var last = await theirs.PutAsync(new PutRequest { Key = Text("end"), Value = Text("end") }, cancellationToken: Cancellation);
            var expected = await first.FinishAsync(last.Header.Revision);
            var got = await second.FinishAsync(last.Header.Revision);
            // The door names the oldest revision whose events it has whole, so that one who resumes there misses nothing.
            got = got.Replace("compacted at 21", "compacted at 20", StringComparison.Ordinal);
            Assert.True(expected == got, $"round {round}:\n{string.Join('\n', (object[])requests)}\netcd:\n{expected}\ndoor:\n{got}");
        }
    }

    /// <param name="named">With the IDs of whoever answered.</param>
    private static async Task<string> AnswerAsync(KV.KVClient client, RangeRequest request, bool named = true)
    {
        try
        {
            var answer = await client.RangeAsync(request, cancellationToken: Cancellation);
            if (!named)
                answer.Header = new ResponseHeader { Revision = answer.Header.Revision };
            return answer.ToString();
        }
        catch (RpcException e)
        {
            return $"{e.StatusCode}: {e.Status.Detail}";
        }
    }
}
