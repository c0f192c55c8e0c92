using System.Text;
using Etcdserverpb;
using Google.Protobuf;
using Grpc.Core;
using Xunit;

namespace Mesh.ClusterMesh.Door.Tests;

/// <summary>
/// Several watches on one stream and what each was told, flattened to events, for how they are grouped into responses is the server's
/// choice. Keeps the rules that hold for both servers: revisions of a watch ascend, and all events of a revision come in one response.
/// </summary>
internal sealed class WatchRecord
{
    private readonly AsyncDuplexStreamingCall<WatchRequest, WatchResponse> _call;
    private readonly WatchCreateRequest[] _requests;
    private readonly SortedDictionary<long, List<string>> _told = [];
    private readonly Dictionary<long, long> _revisions = [];
    private readonly Dictionary<long, long> _headers = [];
    private readonly bool _strictHeaders;
    private Task<bool>? _pending;

    /// <param name="strictHeaders">A response's header has the revision of its last event.</param>
    public WatchRecord(ChannelBase channel, WatchCreateRequest[] requests, bool strictHeaders)
    {
        _strictHeaders = strictHeaders;
        _call = new Watch.WatchClient(channel).Watch(cancellationToken: TestContext.Current.CancellationToken);
        _requests = [.. requests, new WatchCreateRequest { Key = ByteString.CopyFromUtf8("end"), WatchId = 99 }];
    }

    /// <summary>Makes the watches, and returns when each has been answered.</summary>
    public async Task CreatedAsync()
    {
        var refused = 0;
        foreach (var request in _requests)
        {
            await _call.RequestStream.WriteAsync(new WatchRequest { CreateRequest = request });
            while (true)
            {
                var response = await NextAsync();
                if (!response.Created)
                {
                    Note(response);
                    continue;
                }
                var id = response.WatchId;
                if (response.Canceled)
                    id = -100 - refused++;
                Told(id).Add($"created id {response.WatchId} canceled {response.Canceled} '{response.CancelReason}'");
                break;
            }
        }
    }

    /// <summary>Takes responses until the last write has come, and after it those of the other watches.</summary>
    public async Task<string> FinishAsync(long last)
    {
        while (!_revisions.TryGetValue(99, out var revision) || revision < last)
            Note(await NextAsync());
        // The same stream answers in order per watch only: cancelling each tells that it has nothing more to say.
        await SettleAsync();
        foreach (var id in _told.Keys.Where(id => id is >= 0 and < 99 && !Told(id)[^1].StartsWith("canceled", StringComparison.Ordinal)).ToArray())
        {
            var open = true;
            await _call.RequestStream.WriteAsync(new WatchRequest { CancelRequest = new WatchCancelRequest { WatchId = id } });
            while (open)
            {
                var response = await NextAsync();
                Note(response);
                open = response.WatchId != id || !response.Canceled;
            }
        }
        _call.Dispose();
        var text = new StringBuilder();
        foreach (var (id, told) in _told)
            text.Append($"watch {id}: ").AppendJoin("; ", told).AppendLine();
        return text.ToString();
    }

    /// <summary>A watch that began in the past may still be owed events: etcd looks after such ones every 100 ms, so the stream must
    /// have been silent for longer than that.</summary>
    private async Task SettleAsync()
    {
        while (true)
        {
            var next = _pending ?? _call.ResponseStream.MoveNext(CancellationToken.None);
            _pending = next;
            if (await Task.WhenAny(next, Task.Delay(300)) != next)
                return;
            Assert.True(await next, "the stream ended");
            _pending = null;
            Note(_call.ResponseStream.Current);
        }
    }

    private async Task<WatchResponse> NextAsync()
    {
        var next = _pending ?? _call.ResponseStream.MoveNext(CancellationToken.None);
        _pending = null;
        Assert.True(await next.WaitAsync(TimeSpan.FromSeconds(10)), "the stream ended");
        return _call.ResponseStream.Current;
    }

    private List<string> Told(long id)
    {
        if (!_told.TryGetValue(id, out var told))
            _told[id] = told = [];
        return told;
    }

    private void Note(WatchResponse response)
    {
        var id = response.WatchId;
        if (response.CompactRevision > 0)
        {
            Told(id).Add($"canceled, compacted at {response.CompactRevision}");
            return;
        }
        if (response.Canceled)
        {
            Told(id).Add($"canceled '{response.CancelReason}'");
            return;
        }
        foreach (var change in response.Events)
        {
            Assert.True(change.Kv.ModRevision >= _revisions.GetValueOrDefault(id), "revisions of a watch go back");
            if (_revisions.GetValueOrDefault(id) == change.Kv.ModRevision)
                Assert.True(change != response.Events[0], "a revision is split over two responses");
            _revisions[id] = change.Kv.ModRevision;
            Told(id).Add(change.ToString());
        }
        Assert.True(response.Header.Revision >= _headers.GetValueOrDefault(id), "header revisions of a watch go back");
        _headers[id] = response.Header.Revision;
        if (_strictHeaders && response.Events.Count > 0)
            Assert.Equal(response.Events[^1].Kv.ModRevision, response.Header.Revision);
    }
}
