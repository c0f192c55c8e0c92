using System.Collections.Immutable;
using Etcdserverpb;
using Google.Protobuf;
using Grpc.Core;
using Mesh.ClusterMesh.Door.Cache;
using Mvccpb;

namespace Mesh.ClusterMesh.Door.Upstream;

/// <summary>How the door stands to its etcd. Immutable; replaced at each change.</summary>
/// <param name="Connected">The watch is open and up to date.</param>
/// <param name="Error">Why it is not connected, null when it is.</param>
/// <param name="Since">When Connected or Error last changed.</param>
public sealed record UpstreamStatus(bool Connected, string? Error, DateTimeOffset Since, ulong EtcdClusterId, long Revision,
    long Reconnections, long Reloads)
{
    /// <summary>Of a door that serves a cache only.</summary>
    public static UpstreamStatus None { get; } = new(false, "this door has no etcd", DateTimeOffset.UnixEpoch, 0, 0, 0, 0);
}

/// <summary>
/// Keeps the watch cache equal to the cluster's etcd. It lists the whole key space at a revision some way back and watches from there,
/// so that the history is filled before the door opens and readers that come back after a restart resume instead of listing again.
/// etcd's revisions grow by one and each has an event, so a gap is a proof of loss (etcd 3.4 can lose watch events silently): the
/// follower asks again from before the gap and, if that does not help, lists anew. Each reconnection begins at the last revision it
/// already has and compares: other events under a known revision are another etcd's (see <see cref="Lineage"/>).
/// </summary>
internal sealed class EtcdFollower
{
    private const int ListPage = 100_000;
    private static readonly Metadata RequireLeader = new() { { "hasleader", "true" } };
    private static readonly TimeSpan CallTimeout = TimeSpan.FromSeconds(30);
    private static readonly TimeSpan BackoffMin = TimeSpan.FromMilliseconds(25);
    private static readonly TimeSpan BackoffMax = TimeSpan.FromSeconds(1.6);

    private readonly KV.KVClient _kv;
    private readonly Watch.WatchClient _watch;
    private readonly WatchCache _cache;
    private readonly Lineage _lineage;
    private readonly SharedEra? _era;
    private readonly DoorLimits _limits;
    private readonly TimeProvider _time;
    private readonly Action<string> _log;
    private History? _history;
    private HeaderIds _ids = new(0, 0, 0);
    private ulong _etcdClusterId;
    private bool _published;
    private bool _broken;
    private bool _continues;
    private long _distrusted;
    private UpstreamStatus _status;

    public EtcdFollower(
        CallInvoker etcd, WatchCache cache, Lineage lineage, DoorLimits limits, TimeProvider time, Action<string> log, bool sharesEra = false)
    {
        _kv = new KV.KVClient(etcd);
        _watch = new Watch.WatchClient(etcd);
        _cache = cache;
        _lineage = lineage;
        _era = sharesEra ? new SharedEra(_kv, lineage) : null;
        _limits = limits;
        _time = time;
        _log = log;
        _status = new UpstreamStatus(false, "not connected yet", time.GetUtcNow(), 0, 0, 0, 0);
    }

    public UpstreamStatus Status
    {
        get
        {
            var status = Volatile.Read(ref _status);
            return _cache.IsReady ? status with { Revision = _cache.View.History.Head.Revision } : status;
        }
    }

    /// <summary>Follows etcd until cancelled. Failures become <see cref="Status"/> and another attempt.</summary>
    public async Task RunAsync(CancellationToken cancellation)
    {
        var backoff = BackoffMin;
        while (!cancellation.IsCancellationRequested)
        {
            var began = _time.GetTimestamp();
            var error = await AttemptAsync(cancellation);
            if (cancellation.IsCancellationRequested)
                break;
            SetStatus(false, error);
            if (_time.GetElapsedTime(began) > BackoffMax)
                backoff = BackoffMin;
            await Task.Delay(backoff, _time, cancellation).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            backoff = backoff * 2 < BackoffMax ? backoff * 2 : BackoffMax;
        }
        if (_published)
            _lineage.Advance(_history!.Head, _ids.ClusterId);
    }

    /// <summary>Etcd's revision now, confirmed by its quorum.</summary>
    public async Task<long> ConfirmedRevisionAsync(CancellationToken cancellation) =>
        (await _kv.RangeAsync(new RangeRequest { Key = ZeroByte, CountOnly = true }, cancellationToken: cancellation)).Header.Revision;

    private static readonly ByteString ZeroByte = ByteString.CopyFrom(0);

    /// <summary>One list if needed and one watch; returns why it ended.</summary>
    private async Task<string> AttemptAsync(CancellationToken cancellation)
    {
        try
        {
            _history ??= await LoadAsync(cancellation);
            return await FollowAsync(cancellation);
        }
        catch (RpcException e)
        {
            return $"etcd: {e.Status.StatusCode}: {e.Status.Detail}";
        }
        catch (Exception e) when (e is HttpRequestException or IOException or InvalidOperationException or OperationCanceledException)
        {
            return $"etcd: {e.Message}";
        }
    }

    /// <summary>Lists the whole key space at a revision inside the window that etcd still has.</summary>
    private async Task<History> LoadAsync(CancellationToken cancellation)
    {
        var now = (await RangeAsync(new RangeRequest { Key = ZeroByte, CountOnly = true }, cancellation)).Header;
        var floor = Math.Max(1, now.Revision - _limits.HistoryRevisions + 1);
        var seen = _cache.IsReady ? _cache.View.History.Head.Revision : 0;
        _continues = !_broken && seen <= now.Revision
            && (_lineage.Known is not { } known || (known.EtcdClusterId == now.ClusterId && known.Revision <= now.Revision));
        var keys = new List<KeyVersion>();
        var from = ZeroByte;
        while (true)
        {
            RangeResponse page;
            try
            {
                page = await RangeAsync(
                    new RangeRequest { Key = from, RangeEnd = ZeroByte, Limit = ListPage, Revision = floor }, cancellation);
            }
            catch (RpcException e) when (e.StatusCode == StatusCode.OutOfRange && floor < now.Revision)
            {
                floor = await CompactedAsync(floor, now.Revision, cancellation);
                keys.Clear();
                from = ZeroByte;
                continue;
            }
            if (page.Header.ClusterId != now.ClusterId)
                throw new InvalidOperationException("another etcd answered in the middle of the list");
            foreach (var kv in page.Kvs)
                keys.Add(Version(kv));
            if (!page.More)
                break;
            from = ByteString.CopyFrom([.. page.Kvs[^1].Key.Span, 0]);
        }
        _etcdClusterId = now.ClusterId;
        var listed = ImmutableSortedSet.CreateRange(KeyOrder.Instance, keys);
        var events = keys.Where(key => key.ModRevision == floor).Select(key => new KeyEvent(key, null)).ToArray();
        return new History(new RevisionEntry(floor, events, listed, listed: true), _limits.HistoryRevisions, _limits.HistoryBytes);
    }

    /// <summary>The oldest revision etcd can still list: a watch that begins too early is told it.</summary>
    private async Task<long> CompactedAsync(long tried, long now, CancellationToken cancellation)
    {
        using var call = _watch.Watch(RequireLeader, _time.GetUtcNow().UtcDateTime + CallTimeout, cancellation);
        await call.RequestStream.WriteAsync(new WatchRequest
        {
            CreateRequest = new WatchCreateRequest { Key = ZeroByte, StartRevision = tried },
        }, cancellation);
        while (await call.ResponseStream.MoveNext(cancellation))
        {
            if (call.ResponseStream.Current.CompactRevision > 0)
                return Math.Min(now, call.ResponseStream.Current.CompactRevision);
            if (call.ResponseStream.Current.Events.Count > 0)
                break;
        }
        return now;
    }

    private async Task<RangeResponse> RangeAsync(RangeRequest request, CancellationToken cancellation) =>
        await _kv.RangeAsync(request, deadline: _time.GetUtcNow().UtcDateTime + CallTimeout, cancellationToken: cancellation);

    private async Task<string> FollowAsync(CancellationToken cancellation)
    {
        var history = _history!;
        using var call = _watch.Watch(RequireLeader, cancellationToken: cancellation);
        // From the last revision we have, not the next one: its events prove that this is the same etcd.
        await call.RequestStream.WriteAsync(new WatchRequest
        {
            CreateRequest = new WatchCreateRequest { Key = ZeroByte, RangeEnd = ZeroByte, StartRevision = history.Head.Revision },
        }, cancellation);
        long target = 0;
        _era?.Begin();
        while (await call.ResponseStream.MoveNext(cancellation))
        {
            var response = call.ResponseStream.Current;
            if (response.Header.ClusterId != _etcdClusterId)
                return Break($"cluster ID {response.Header.ClusterId:x} answers where {_etcdClusterId:x} did");
            if (response.CompactRevision > 0)
                return Reload($"etcd compacted up to revision {response.CompactRevision} while the door was at {history.Head.Revision}");
            if (response.Canceled)
                return $"etcd cancelled the watch: {response.CancelReason}";
            if (response.Created)
                target = response.Header.Revision;
            if (response.Created && target < history.Head.Revision)
            {
                // A member that lags says the same as an etcd that was restored; its quorum tells them apart.
                var confirmed = await ConfirmedRevisionAsync(cancellation);
                return confirmed < history.Head.Revision
                    ? Break($"its revision is {confirmed} and was {history.Head.Revision}")
                    : $"the etcd member behind the address lags at revision {target}";
            }
            if (Take(history, response.Events) is { } fault)
                return fault;
            if (history.Head.Revision < target)
                continue;
            if (_era is not null)
            {
                if (_published && SharedEra.Of(history.Head) is { } era && era != _lineage.Era)
                    return Reload("another door found that etcd had been wiped, restored or exchanged");
                if (!await _era.SettleAsync(history.Head, _published || _continues, cancellation))
                    continue;
            }
            Reached(history, response.Header);
        }
        return "etcd ended the watch";
    }

    /// <summary>Appends the events, a revision at a time. Returns why it cannot go on, null when all is well.</summary>
    private string? Take(History history, Google.Protobuf.Collections.RepeatedField<Event> events)
    {
        for (var i = 0; i < events.Count;)
        {
            var revision = events[i].Kv.ModRevision;
            var versions = new List<KeyVersion>();
            for (; i < events.Count && events[i].Kv.ModRevision == revision; i++)
                versions.Add(events[i].Type == Event.Types.EventType.Delete
                    ? KeyVersion.Deleted(events[i].Kv.Key.Span, revision)
                    : Version(events[i].Kv));
            var head = history.Head;
            if (revision == head.Revision && !Knows(head, versions, atFloor: revision == history.Floor))
                return Break($"revision {revision} has other events than before");
            if (revision <= head.Revision)
                continue;
            if (revision != head.Revision + 1)
                return Gap(head.Revision, revision);
            var entry = history.Append(revision, versions);
            if (!_published && _lineage.Known is { Digest.Length: > 0 } known && known.Revision == revision)
                _continues &= Lineage.Digest(entry) == known.Digest;
            if (_published)
                _cache.Announce(entry);
        }
        return null;
    }

    /// <summary>Etcd may have compacted the deletions of a revision away, so fewer events are no sign; other ones are.
    /// Deletions at the floor are unknown to us, for a list does not show them.</summary>
    private static bool Knows(RevisionEntry head, List<KeyVersion> versions, bool atFloor) =>
        versions.TrueForAll(version => (atFloor && version.IsDelete)
            || Array.Exists(head.Events, change => change.Version.Message.AsSpan().SequenceEqual(version.Message)));

    /// <summary>Publishes the history once it holds all that etcd had when the watch began.</summary>
    private void Reached(History history, ResponseHeader header)
    {
        if (!_published)
        {
            var id = _era is null
                ? _lineage.Adopt(_etcdClusterId, _continues, history.Head)
                : _lineage.Adopt(_etcdClusterId, SharedEra.Of(history.Head)!, history.Head);
            _ids = new HeaderIds(id, header.MemberId, header.RaftTerm);
            _cache.Publish(history, _ids);
            _published = true;
            _broken = false;
            _log($"door: serving revisions {history.OldestEvents}..{history.Head.Revision} of etcd {_etcdClusterId:x} as cluster {id:x}");
        }
        Name(header.MemberId, header.RaftTerm);
        if (!_status.Connected)
            SetStatus(true, null);
    }

    /// <summary>Who answers at present, as etcd's headers say.</summary>
    private void Name(ulong memberId, ulong raftTerm)
    {
        if (_ids.MemberId == memberId && _ids.RaftTerm == raftTerm)
            return;
        _ids = _ids with { MemberId = memberId, RaftTerm = raftTerm };
        _cache.Rename(_ids);
    }

    private string Break(string sign)
    {
        _broken = true;
        return Reload($"etcd was wiped, restored or exchanged ({sign})");
    }

    private string Reload(string why)
    {
        _history = null;
        _published = false;
        _status = _status with { Reloads = _status.Reloads + 1 };
        return $"{why}: listing again";
    }

    private string Gap(long last, long next)
    {
        var again = _distrusted == last;
        _distrusted = last;
        var what = $"etcd's watch skipped from revision {last} to {next}";
        return again ? Reload(what) : $"{what}: asking again";
    }

    private static KeyVersion Version(KeyValue kv) =>
        new(kv.Key.Span, kv.Value.Span, kv.CreateRevision, kv.ModRevision, kv.Version, kv.Lease);

    private void SetStatus(bool connected, string? error)
    {
        var old = _status;
        Volatile.Write(ref _status, old with
        {
            Connected = connected,
            Error = error,
            Since = old.Connected == connected && old.Error == error ? old.Since : _time.GetUtcNow(),
            EtcdClusterId = _etcdClusterId,
            Reconnections = old.Reconnections + (old.Connected && !connected ? 1 : 0),
        });
        if (old.Connected != connected || old.Error != error)
            _log(connected ? "door: following etcd" : $"door: not following etcd: {error}");
    }
}
