using System.Runtime.CompilerServices;
using System.Threading.Channels;

namespace Mesh.KVStore;

/// <summary>
/// One watch of a wide prefix for all who read below it. It reads the names that are there and then every event, and proves that as
/// any watch does; a reader lists its own part by itself, at a revision that the watch has reached or will reach, and goes on with the
/// events after it. Whenever the watch lost continuity every reader lists anew.
/// <para>Nobody waits for a slow reader: what it has not taken is kept for it up to a bound, and beyond that it lists anew.</para>
/// </summary>
internal sealed class SharedWatch : IAsyncDisposable
{
    private static readonly TimeSpan StaleListRetry = TimeSpan.FromMilliseconds(100);

    private readonly EtcdKVStore _store;
    private readonly string _prefix;
    private readonly EtcdPrefixWatch _watch;
    private readonly CancellationTokenSource _stop = new();
    private readonly Task _running;

    // The lock protects all of the following.
    private readonly Lock _lock = new();
    private readonly Dictionary<string, List<SharedFeed>> _feeds = new(StringComparer.Ordinal);
    private readonly Dictionary<string, List<SharedFeed>>.AlternateLookup<ReadOnlySpan<char>> _bySegment;
    private TaskCompletionSource? _waiting = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private Exception? _ended;
    private long _revision;

    /// <summary>How often the store turned out to have another history.</summary>
    private int _histories;

    public SharedWatch(EtcdKVStore store, string prefix)
    {
        (_store, _prefix) = (store, prefix);
        _bySegment = _feeds.GetAlternateLookup<ReadOnlySpan<char>>();
        _watch = store.NamesWatch(prefix);
        _running = Task.Run(FollowAsync);
    }

    /// <summary>It cannot serve anybody any more.</summary>
    public bool HasEnded
    {
        get
        {
            lock (_lock)
                return _ended is not null;
        }
    }

    /// <summary>Of the whole.</summary>
    public WatchStatus Status => _watch.Status;

    /// <summary>As <see cref="IKVStore.ListWatchAsync"/>, for one reader.</summary>
    public async IAsyncEnumerable<WatchBatch> ReadAsync(
        string prefix, SharedReading reading, [EnumeratorCancellation] CancellationToken cancellation)
    {
        var known = -1;
        while (true)
        {
            reading.Listing = true;
            var (feed, reached, history) = await JoinAsync(prefix, cancellation).ConfigureAwait(false);
            try
            {
                var listed = 0L;
                await foreach (var page in _store.ListOnceAsync(prefix, waits => reading.InLine = waits, cancellation).ConfigureAwait(false))
                {
                    // Events up to there have been passed on already: a server that is behind cannot be joined to them.
                    if (page.Kind == WatchBatchKind.ListEnd && page.Revision < reached)
                        break;
                    if (page.Kind == WatchBatchKind.ListEnd)
                        (listed, reading.Listing) = (page.Revision, false);
                    yield return page.Kind == WatchBatchKind.ListEnd ? page with { OtherHistory = known >= 0 && known != history } : page;
                }
                known = listed == 0 ? known : history;
                if (listed == 0)
                {
                    await Task.Delay(StaleListRetry, cancellation).ConfigureAwait(false);
                    continue;
                }
                while (await feed.WaitAsync(cancellation).ConfigureAwait(false))
                {
                    while (feed.TryTake(out var batch))
                    {
                        if (After(batch, listed) is { Events.Count: > 0 } fresh)
                            yield return fresh;
                    }
                }
                reading.Relisted(feed.Overrun ? $"it was {SharedFeed.Room} records behind the watch of {_prefix}" : null);
            }
            finally
            {
                Leave(feed);
            }
        }
    }

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync().ConfigureAwait(false);
        await _running.ConfigureAwait(false);
        _stop.Dispose();
    }

    private static WatchBatch After(in WatchBatch batch, long revision)
    {
        if (batch.Events[0].ModRevision > revision)
            return batch;
        return batch with { Events = [.. batch.Events.Where(item => item.ModRevision > revision)] };
    }

    /// <summary>The first segment below the wide prefix: which of its parts a key belongs to.</summary>
    private ReadOnlySpan<char> SegmentOf(string key)
    {
        var rest = key.AsSpan(_prefix.Length);
        var end = rest.IndexOf('/');
        return end < 0 ? rest : rest[..end];
    }

    private async Task FollowAsync()
    {
        Exception ended;
        try
        {
            await foreach (var batch in _watch.RunAsync(_stop.Token).ConfigureAwait(false))
                Take(batch);
            ended = new KVStoreException($"the watch of {_prefix} ended");
        }
        catch (Exception e)
        {
            // The readers' to deal with: each of them gets it.
            ended = e;
        }
        lock (_lock)
        {
            _ended = ended;
            EndFeeds_NeedsLock(ended);
            _waiting?.TrySetResult();
        }
    }

    private void Take(in WatchBatch batch)
    {
        lock (_lock)
        {
            switch (batch.Kind)
            {
                case WatchBatchKind.ListStart:
                    EndFeeds_NeedsLock(null);
                    _waiting ??= new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
                    break;
                case WatchBatchKind.ListEnd:
                    _revision = batch.Revision;
                    _histories += batch.OtherHistory ? 1 : 0;
                    _waiting?.TrySetResult();
                    _waiting = null;
                    break;
                default:
                    // Names of the list are nobody's: their records are listed by those who want them.
                    if (_waiting is not null)
                        break;
                    _revision = batch.Revision;
                    Deal_NeedsLock(batch);
                    break;
            }
        }
    }

    private void Deal_NeedsLock(in WatchBatch batch)
    {
        var events = batch.Events;
        for (var start = 0; start < events.Count;)
        {
            var segment = SegmentOf(events[start].Key);
            var end = start + 1;
            while (end < events.Count && SegmentOf(events[end].Key).SequenceEqual(segment))
                end++;
            if (_bySegment.TryGetValue(segment, out var feeds))
            {
                foreach (var feed in feeds)
                    feed.Add(batch.Kind, events, start, end);
            }
            start = end;
        }
    }

    private async Task<(SharedFeed Feed, long Reached, int History)> JoinAsync(string prefix, CancellationToken cancellation)
    {
        while (true)
        {
            Task waiting;
            lock (_lock)
            {
                if (_ended is { } ended)
                    throw ended as KVStoreException ?? new KVStoreException($"the watch of {_prefix} ended: {ended.Message}", inner: ended);
                if (_waiting is null)
                {
                    var feed = new SharedFeed(prefix, SegmentOf(prefix).ToString());
                    if (!_feeds.TryGetValue(feed.Segment, out var beside))
                        _feeds[feed.Segment] = beside = [];
                    beside.Add(feed);
                    return (feed, _revision, _histories);
                }
                waiting = _waiting.Task;
            }
            await waiting.WaitAsync(cancellation).ConfigureAwait(false);
        }
    }

    private void Leave(SharedFeed feed)
    {
        lock (_lock)
        {
            if (_feeds.TryGetValue(feed.Segment, out var beside) && beside.Remove(feed) && beside.Count == 0)
                _feeds.Remove(feed.Segment);
        }
    }

    private void EndFeeds_NeedsLock(Exception? reason)
    {
        foreach (var feed in _feeds.Values.SelectMany(beside => beside))
            feed.End(reason);
        _feeds.Clear();
    }
}

/// <summary>What a shared watch has for one reader, between its list and the next loss of continuity.</summary>
internal sealed class SharedFeed(string prefix, string segment)
{
    /// <summary>Records kept for a reader that does not take them, each counting one and another for every 4 KiB.</summary>
    public const int Room = 32_768;

    private readonly Channel<WatchBatch> _batches = Channel.CreateUnbounded<WatchBatch>(new UnboundedChannelOptions { SingleReader = true });
    private int _room = Room;
    private volatile bool _overrun;

    public string Segment => segment;

    /// <summary>It ended because its reader was too slow.</summary>
    public bool Overrun => _overrun;

    /// <summary>False when the reader must list anew.</summary>
    public ValueTask<bool> WaitAsync(CancellationToken cancellation) => _overrun ? new(false) : _batches.Reader.WaitToReadAsync(cancellation);

    public bool TryTake(out WatchBatch batch)
    {
        if (_overrun || !_batches.Reader.TryRead(out batch))
        {
            batch = default;
            return false;
        }
        Interlocked.Add(ref _room, RoomOf(batch.Events));
        return true;
    }

    /// <summary>Events of one kind that lie in the feed's segment. By one thread at a time.</summary>
    public void Add(WatchBatchKind kind, IReadOnlyList<KeyValue> events, int start, int end)
    {
        var own = new List<KeyValue>(end - start);
        for (var i = start; i < end; i++)
        {
            if (events[i].Key.StartsWith(prefix, StringComparison.Ordinal))
                own.Add(events[i]);
        }
        if (own.Count == 0)
            return;
        if (Interlocked.Add(ref _room, -RoomOf(own)) < 0)
        {
            _overrun = true;
            _batches.Writer.TryComplete();
            return;
        }
        _batches.Writer.TryWrite(new WatchBatch(kind, own, own[^1].ModRevision));
    }

    public void End(Exception? reason) => _batches.Writer.TryComplete(reason);

    private static int RoomOf(IReadOnlyList<KeyValue> events)
    {
        var room = events.Count;
        for (var i = 0; i < events.Count; i++)
            room += events[i].Value.Length >> 12;
        return room;
    }
}

/// <summary>The watches that serve one reader, shared ones and its own, for its status.</summary>
internal sealed class SharedWatches
{
    private readonly Lock _lock = new();
    private readonly List<SharedReading> _readings = [];

    private readonly List<string> _own = [];

    /// <param name="stores">All watches that the shared store has by itself: of other readers too.</param>
    public IReadOnlyList<WatchStatus> StatusBeside(IReadOnlyList<WatchStatus> stores)
    {
        lock (_lock)
            return [.. _readings.Select(reading => reading.Status), .. stores.Where(watch => _own.Contains(watch.Prefix))];
    }

    /// <summary>A prefix that is read by a watch of the reader's own until disposed.</summary>
    public IDisposable BeginOwn(string prefix)
    {
        lock (_lock)
            _own.Add(prefix);
        return new OwnReading(prefix, this);
    }

    public SharedReading Begin(string prefix, SharedWatch watch)
    {
        var reading = new SharedReading(prefix, watch, this);
        lock (_lock)
            _readings.Add(reading);
        return reading;
    }

    public void End(SharedReading reading)
    {
        lock (_lock)
            _readings.Remove(reading);
    }

    private void EndOwn(string prefix)
    {
        lock (_lock)
            _own.Remove(prefix);
    }

    private sealed class OwnReading(string prefix, SharedWatches of) : IDisposable
    {
        public void Dispose() => of.EndOwn(prefix);
    }
}

/// <summary>One prefix of one reader in a shared watch.</summary>
internal sealed class SharedReading(string prefix, SharedWatch watch, SharedWatches of) : IDisposable
{
    private volatile bool _listing = true;
    private volatile bool _inLine;
    private volatile int _relists;
    private volatile string? _reason;

    public bool Listing
    {
        set => _listing = value;
    }

    public bool InLine
    {
        set => _inLine = value;
    }

    public WatchStatus Status
    {
        get
        {
            var whole = watch.Status;
            return whole with { Prefix = prefix, Listing = _listing, InLine = _inLine, Relists = _relists, RelistReason = _reason ?? whole.RelistReason };
        }
    }

    /// <param name="reason">Null when it was that of the whole.</param>
    public void Relisted(string? reason)
    {
        _relists++;
        _reason = reason;
    }

    public void Dispose() => of.End(this);
}
