using Etcdserverpb;
using Google.Protobuf;
using Grpc.Core;
using Mvccpb;

namespace Mesh.ClusterMesh.Door.Tests;

/// <summary>A watch that is read all the time, with everything it was told.</summary>
internal sealed class StreamReading : IAsyncDisposable
{
    private readonly CancellationTokenSource _stop = new();
    private readonly List<WatchResponse> _responses = [];
    private readonly Task _reading;

    public StreamReading(ChannelBase channel, string prefix, long startRevision = 0) => _reading = ReadAsync(channel, prefix, startRevision);

    /// <summary>How the stream ended, null while it runs.</summary>
    public Status? End { get; private set; }

    public IReadOnlyList<WatchResponse> Responses
    {
        get
        {
            lock (_responses)
                return [.. _responses];
        }
    }

    public IEnumerable<Event> Events => Responses.SelectMany(response => response.Events);

    public bool Created => Responses.Any(response => response.Created);

    public bool Has(string key, string value) =>
        Events.Any(e => e.Kv.Key.ToStringUtf8() == key && e.Kv.Value.ToStringUtf8() == value);

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        await _reading;
        _stop.Dispose();
    }

    private async Task ReadAsync(ChannelBase channel, string prefix, long startRevision)
    {
        using var call = new Watch.WatchClient(channel).Watch(cancellationToken: _stop.Token);
        try
        {
            await call.RequestStream.WriteAsync(new WatchRequest
            {
                CreateRequest = new WatchCreateRequest
                {
                    Key = ByteString.CopyFromUtf8(prefix),
                    RangeEnd = ByteString.CopyFrom(Cache.KeyRange.Prefix(System.Text.Encoding.UTF8.GetBytes(prefix)).End),
                    StartRevision = startRevision,
                },
            });
            while (await call.ResponseStream.MoveNext(_stop.Token))
            {
                lock (_responses)
                    _responses.Add(call.ResponseStream.Current);
            }
            End = Status.DefaultSuccess;
        }
        catch (RpcException e)
        {
            End = e.Status;
        }
    }
}
