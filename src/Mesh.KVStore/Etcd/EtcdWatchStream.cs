using Etcdserverpb;
using Grpc.Core;

namespace Mesh.KVStore;

/// <summary>One gRPC watch stream with one watch on it. Sharing a stream is how a slow watch loses events of another.</summary>
internal sealed class EtcdWatchStream : IAsyncDisposable
{
    /// <summary>A server that accepts the stream but says nothing is left after this.</summary>
    private static readonly TimeSpan CreationPatience = TimeSpan.FromSeconds(10);

    private readonly AsyncDuplexStreamingCall<WatchRequest, WatchResponse> _call;
    private readonly CancellationTokenSource _stop;
    private readonly TimeProvider _time;
    private readonly long _opened;
    private Task<bool>? _pending;

    private EtcdWatchStream(
        EtcdEndpoint endpoint, AsyncDuplexStreamingCall<WatchRequest, WatchResponse> call, CancellationTokenSource stop, TimeProvider time)
    {
        Endpoint = endpoint;
        _call = call;
        _stop = stop;
        _time = time;
        _opened = time.GetTimestamp();
    }

    public EtcdEndpoint Endpoint { get; }

    /// <summary>The server's first message: the watch stands, or why it does not.</summary>
    public WatchResponse Created { get; private set; } = null!;

    public TimeSpan Age => _time.GetElapsedTime(_opened);

    public static async Task<EtcdWatchStream> OpenAsync(
        EtcdClient client, EtcdEndpoint endpoint, PrefixRange range, long from, CancellationToken cancellation)
    {
        var headers = await client.HeadersAsync(endpoint, cancellation).ConfigureAwait(false);
        var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        var stream = new EtcdWatchStream(endpoint, endpoint.Watch.Watch(headers, cancellationToken: stop.Token), stop, client.Time);
        try
        {
            var create = new WatchCreateRequest { Key = range.Key, RangeEnd = range.End, StartRevision = from, ProgressNotify = true };
            await stream._call.RequestStream.WriteAsync(new WatchRequest { CreateRequest = create }, cancellation)
                .WaitAsync(CreationPatience, client.Time, cancellation).ConfigureAwait(false);
            if (!await stream.WaitAsync(CreationPatience, client.Time, cancellation).ConfigureAwait(false))
                throw new IOException("the server accepted the watch and then said nothing");
            stream.Created = await stream.TakeAsync().ConfigureAwait(false) ?? throw new IOException("the server ended the watch at once");
            if (!stream.Created.Created)
                throw new IOException("the server's first message on the watch is not its creation");
            return stream;
        }
        catch
        {
            await stream.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>True when a message (or the end of the stream) is there to take, false when the time is over first.</summary>
    public async Task<bool> WaitAsync(TimeSpan patience, TimeProvider time, CancellationToken cancellation)
    {
        _pending ??= _call.ResponseStream.MoveNext(CancellationToken.None);
        if (_pending.IsCompleted)
            return true;
        if (patience <= TimeSpan.Zero && patience != Timeout.InfiniteTimeSpan)
            return false;
        try
        {
            await _pending.WaitAsync(patience, time, cancellation).ConfigureAwait(false);
        }
        catch (TimeoutException) when (!_pending.IsFaulted)
        {
            return false;
        }
        return true;
    }

    /// <summary>True when a message (or the end of the stream) is there to take, false when somebody else has something to do first. Ends
    /// with the stream when that is cancelled.</summary>
    /// <param name="else">Completes then; shared by several and kept over many messages, which costs less than a time limit for each.</param>
    public async Task<bool> WaitAsync(Task? @else)
    {
        _pending ??= _call.ResponseStream.MoveNext(CancellationToken.None);
        if (!_pending.IsCompleted && @else is { IsCompleted: false })
            await Task.WhenAny(_pending, @else).ConfigureAwait(false);
        else if (@else is null)
            await ((Task)_pending).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        return _pending.IsCompleted;
    }

    /// <summary>The next message; null at the end of the stream.</summary>
    public async Task<WatchResponse?> TakeAsync()
    {
        var pending = _pending!;
        _pending = null;
        return await pending.ConfigureAwait(false) ? _call.ResponseStream.Current : null;
    }

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync().ConfigureAwait(false);
        _call.Dispose();
        // The read under way ends with the call; its failure is the cancellation we just made.
        if (_pending is not null)
            await ((Task)_pending).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        _stop.Dispose();
    }
}
