using Etcdserverpb;
using Grpc.Core;
using Mesh.ClusterMesh.Door.Cache;
using Mesh.ClusterMesh.Door.Protocol;

namespace Mesh.ClusterMesh.Door.Serving;

/// <summary>
/// One Watch stream with its watches. It has no queue of events: each watch is a position in the shared history, and one task copies
/// from there into the connection as fast as the reader takes it. So a reader costs one response and the connection's buffers however
/// slow it is. One that falls behind gets only the newest value of each key, in order of revision; one that falls out of the history
/// is told compaction and lists again. Nothing is left out silently: a deletion is always sent, and a put is left out only when a
/// newer version of its key follows.
/// <para>The header of a response never has a revision beyond the events already sent on that watch (also in `created`, where etcd
/// gives its newest revision), because clients resume behind it. All events of a revision are in one response unless the watch
/// asked for fragments.</para>
/// </summary>
internal sealed class WatchStream : IRevisionListener, IGrantListener
{
    private const int InboxMax = 64;

    /// <summary>Revisions one watch scans before the others of the stream have their turn.</summary>
    private const int ScanMax = 4096;

    private const int OwnId = -1;

    private readonly GrpcCall _call;
    private readonly DoorConnection _connection;
    private readonly DoorView _door;
    private readonly WatchCache _cache;
    private readonly DoorLimits _limits;
    private readonly DoorCounters _counters;
    private readonly TimeProvider _time;
    private readonly AsyncSignal _signal = new();

    /// <summary>What the client asked for and has not been looked at. Null most of a stream's life, and thousands of streams are silent.</summary>
    private Queue<WatchRequest>? _inbox;
    private AsyncSignal? _room;
    private readonly Lock _receiving = new();
    private readonly List<KeyEvent> _batch = [];
    private CacheView _view;
    private ReaderWatch[] _watches = [];
    private long _nextId;
    private bool _progressAsked;
    private volatile Exception? _fault;

    /// <summary>The first revision that concerned a watch of ours since the sending task last looked; 0 for none. What came before it
    /// need not be searched, so a stream whose keys rest costs nothing however much happens elsewhere.</summary>
    private long _concern;

    /// <summary>1 when another history was published since.</summary>
    private int _replaced;

    public WatchStream(GrpcCall call, DoorConnection connection, DoorView door, DoorLimits limits, DoorCounters counters, TimeProvider time)
    {
        _call = call;
        _connection = connection;
        _door = door;
        _cache = door.Cache;
        _limits = limits;
        _counters = counters;
        _time = time;
        _view = _cache.View;
    }

    /// <summary>Serves the stream until the client leaves or is refused.</summary>
    /// <exception cref="EtcdFault">The stream ends with this status.</exception>
    public async Task ServeAsync()
    {
        await _call.StartAsync();
        _cache.Add(this);
        _connection.Add(this);
        var receiving = ReceiveAsync();
        using var aborted = _call.Aborted.UnsafeRegister(static stream => ((WatchStream)stream!).Fail(new OperationCanceledException()), this);
        try
        {
            await SendAsync();
        }
        finally
        {
            foreach (var watch in _watches)
                _cache.Remove(this, watch.Range);
            _cache.Remove(this);
            _connection.Remove(this);
            _fault ??= new OperationCanceledException();
            MakeRoom();
            // The request's pipe is completed when the handler returns, and a read under way would then be in error.
            _call.CancelRead();
            await receiving;
        }
    }

    public void Concerned(long revision)
    {
        Interlocked.CompareExchange(ref _concern, revision, 0);
        _signal.Set();
    }

    public void Replaced()
    {
        Volatile.Write(ref _replaced, 1);
        _signal.Set();
    }

    public void Nudged() => _signal.Set();

    public void GrantsChanged() => _signal.Set();

    private void Fail(Exception fault)
    {
        _fault ??= fault;
        _signal.Set();
    }

    private async Task ReceiveAsync()
    {
        try
        {
            while (await _call.ReadAsync(WatchRequest.Parser) is { } request)
                await TakeAsync(request);
        }
        catch (Exception e) when (e is EtcdFault or IOException or OperationCanceledException
            or Microsoft.AspNetCore.Connections.ConnectionAbortedException)
        {
            Fail(e);
        }
    }

    /// <summary>Returns when there is room for the next one.</summary>
    private async ValueTask TakeAsync(WatchRequest request)
    {
        await _connection.AdmitAsync(_counters, _call.Aborted);
        AsyncSignal? room = null;
        lock (_receiving)
        {
            (_inbox ??= new Queue<WatchRequest>(1)).Enqueue(request);
            if (_inbox.Count >= InboxMax)
                room = _room ??= new AsyncSignal();
        }
        _signal.Set();
        if (room is not null && _fault is null)
            await room.WaitAsync();
    }

    private void MakeRoom()
    {
        lock (_receiving)
            _room?.Set();
    }

    private bool TryReceive([System.Diagnostics.CodeAnalysis.NotNullWhen(true)] out WatchRequest? request)
    {
        lock (_receiving)
        {
            request = _inbox?.Dequeue();
            if (_inbox?.Count == 0)
            {
                _inbox = null;
                _room?.Set();
            }
        }
        return request is not null;
    }

    private async Task SendAsync()
    {
        var caughtUp = false;
        while (true)
        {
            SkipWhatConcernsNobody(caughtUp);
            caughtUp = false;
            if (_fault is { } fault)
                throw fault;
            await FollowCacheAsync();
            while (TryReceive(out var request))
                Handle(request);
            var head = _view.History.Head.Revision;
            var behind = false;
            foreach (var watch in _watches)
                behind |= !Advance(watch, head);
            if (!behind)
                NotifyProgress(head);
            if (_call.Output.UnflushedBytes > 0)
                await _call.Output.FlushAsync(_call.Aborted);
            if (behind)
                continue;
            caughtUp = true;
            await _signal.WaitAsync();
        }
    }

    /// <summary>Moves watches that had come to the head over the revisions told since, up to the first that concerned one of them.</summary>
    private void SkipWhatConcernsNobody(bool caughtUp)
    {
        // In this order: whoever announces a revision, or replaces the history, says whom it concerns first.
        var announced = _cache.Announced;
        var concern = Interlocked.Exchange(ref _concern, 0);
        var replaced = Interlocked.Exchange(ref _replaced, 0) != 0;
        if (!caughtUp || replaced)
            return;
        var passed = concern == 0 ? announced : Math.Min(announced, concern - 1);
        foreach (var watch in _watches)
            watch.Next = Math.Max(watch.Next, passed + 1);
    }

    /// <summary>Takes up a new history or new grants; ends the stream when it has no business there any more.</summary>
    private async ValueTask FollowCacheAsync()
    {
        var view = _cache.View;
        var restarted = view.Ids.ClusterId != _view.Ids.ClusterId;
        _view = view;
        if (restarted)
        {
            // A client that only lost its stream would resume in the new numbering; compaction makes every client list again.
            foreach (var watch in _watches)
                Cancel(watch, watch.Next + 1);
            _counters.StreamsCut.Increment();
            await _call.Output.FlushAsync(_call.Aborted);
            throw new EtcdFault(StatusCode.Unavailable, "etcdserver: leader changed");
        }
        var (grants, door) = _connection.Access;
        if (ReferenceEquals(door, _door) && Array.TrueForAll(_watches, watch => grants.Allows(watch.Range)) && !grants.IsNone)
            return;
        var refusal = EtcdFault.PermissionDenied();
        var head = view.History.Head.Revision;
        foreach (var watch in _watches)
            WatchFrames.WriteControl(_call.Output, view.Ids, watch.SentRevision(head), watch.Id, canceled: true, cancelReason: refusal.Reason);
        _counters.StreamsCut.Increment();
        await _call.Output.FlushAsync(_call.Aborted);
        throw refusal;
    }

    private void Handle(WatchRequest request)
    {
        switch (request.RequestUnionCase)
        {
            case WatchRequest.RequestUnionOneofCase.CreateRequest:
                Create(request.CreateRequest);
                break;
            case WatchRequest.RequestUnionOneofCase.CancelRequest:
                if (Array.Find(_watches, watch => watch.Id == request.CancelRequest.WatchId) is { } canceled)
                {
                    var revision = canceled.SentRevision(_view.History.Head.Revision);
                    Forget(canceled);
                    WatchFrames.WriteControl(_call.Output, _view.Ids, revision, canceled.Id, canceled: true);
                }
                break;
            case WatchRequest.RequestUnionOneofCase.ProgressRequest:
                _progressAsked = true;
                break;
        }
    }

    private void Create(WatchCreateRequest request)
    {
        var head = _view.History.Head.Revision;
        var range = KeyRange.Of(request.Key.Length == 0 ? [0] : request.Key.Span, request.RangeEnd.Span);
        if (Refusal(request, range) is { } reason)
        {
            WatchFrames.WriteControl(_call.Output, _view.Ids, head, OwnId, created: true, canceled: true, cancelReason: reason);
            return;
        }
        var id = request.WatchId;
        if (id == 0)
        {
            while (IsUsed(_nextId))
                _nextId++;
            id = _nextId++;
        }
        var next = request.StartRevision > 0 ? request.StartRevision : request.StartRevision == 0 ? head + 1 : 1;
        var watch = new ReaderWatch(id, range, request, next, replayedThrough: head) { SentAt = _time.GetTimestamp() };
        // Before the head is read for it: whatever is appended later is told to us.
        _cache.Add(this, range);
        _watches = [.. _watches, watch];
        _counters.WatchesCreated.Increment();
        WatchFrames.WriteControl(_call.Output, _view.Ids, watch.SentRevision(head), id, created: true);
    }

    /// <summary>Why the watch cannot be, in etcd's words; null when it can.</summary>
    private string? Refusal(WatchCreateRequest request, KeyRange range) =>
        !_connection.Grants.Allows(range) ? EtcdFault.PermissionDenied().Reason
        : range.IsEmpty ? "mvcc: watcher range is empty"
        : request.WatchId != 0 && IsUsed(request.WatchId) ? "mvcc: duplicate watch ID provided on the WatchStream"
        : _watches.Length >= _limits.WatchesPerStream ? EtcdFault.TooManyRequests().Reason
        : null;

    private bool IsUsed(long id) => Array.Exists(_watches, watch => watch.Id == id);

    /// <summary>Sends the next response of a watch, if it has one. True when the watch has come to the head.</summary>
    private bool Advance(ReaderWatch watch, long head)
    {
        var history = _view.History;
        if (watch.Next > head)
            return true;
        if (watch.Next < history.OldestEvents)
        {
            Cancel(watch, history.OldestEvents);
            return true;
        }
        _batch.Clear();
        var bytes = 0;
        var last = 0L;
        var conflate = watch.Next > watch.ReplayedThrough && head - watch.Next > _limits.ConflateBehind;
        var scanned = 0;
        for (; watch.Next <= head && bytes < _limits.ResponseBytes && scanned < ScanMax; watch.Next++, scanned++)
        {
            // Gone meanwhile: what was gathered is sent, and the next turn finds the compaction.
            if (history.Find(watch.Next) is not { } entry)
                break;
            var before = _batch.Count;
            foreach (var change in entry.Events)
            {
                if (!watch.Wants(change.Version))
                    continue;
                if (conflate && !change.Version.IsDelete && change.Version.SupersededAt != 0)
                {
                    _counters.EventsConflated.Increment();
                    continue;
                }
                _batch.Add(change);
                bytes += WatchFrames.EventSize(change, watch.WithPrevious);
            }
            if (_batch.Count > before)
                last = entry.Revision;
        }
        if (_batch.Count > 0)
            Send(watch, last, bytes);
        return watch.Next > head;
    }

    private void Send(ReaderWatch watch, long revision, int bytes)
    {
        var events = System.Runtime.InteropServices.CollectionsMarshal.AsSpan(_batch);
        _counters.EventsSent.Add(events.Length);
        watch.SentAt = _time.GetTimestamp();
        while (watch.Fragments && bytes > _limits.FragmentBytes)
        {
            var (count, size) = (1, WatchFrames.EventSize(events[0], watch.WithPrevious));
            while (count < events.Length && size + WatchFrames.EventSize(events[count], watch.WithPrevious) <= _limits.FragmentBytes)
                size += WatchFrames.EventSize(events[count++], watch.WithPrevious);
            if (count == events.Length)
                break;
            var passed = events[count].Version.ModRevision - 1;
            WatchFrames.WriteEvents(_call.Output, _view.Ids, passed, watch.Id, events[..count], watch.WithPrevious, fragment: true);
            events = events[count..];
            bytes -= size;
        }
        WatchFrames.WriteEvents(_call.Output, _view.Ids, revision, watch.Id, events, watch.WithPrevious, fragment: false);
    }

    private void Cancel(ReaderWatch watch, long compactRevision)
    {
        Forget(watch);
        _counters.WatchesCompacted.Increment();
        var revision = Math.Min(watch.SentRevision(_view.History.Head.Revision), compactRevision);
        WatchFrames.WriteControl(_call.Output, _view.Ids, revision, watch.Id, canceled: true, compactRevision: compactRevision);
    }

    private void Forget(ReaderWatch watch)
    {
        _watches = Array.FindAll(_watches, one => one != watch);
        _cache.Remove(this, watch.Range);
    }

    /// <summary>Every watch has come to the head: the revision may be told, on request or because it is time.</summary>
    private void NotifyProgress(long head)
    {
        if (_progressAsked)
        {
            _progressAsked = false;
            WatchFrames.WriteControl(_call.Output, _view.Ids, head, OwnId);
        }
        foreach (var watch in _watches)
        {
            if (!watch.NotifiesProgress || _time.GetElapsedTime(watch.SentAt) < _limits.ProgressInterval)
                continue;
            watch.SentAt = _time.GetTimestamp();
            WatchFrames.WriteControl(_call.Output, _view.Ids, watch.SentRevision(head), watch.Id);
        }
    }
}
