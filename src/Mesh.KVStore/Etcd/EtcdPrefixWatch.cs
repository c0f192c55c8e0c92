using System.Runtime.CompilerServices;
using Etcdserverpb;
using Google.Protobuf;
using Grpc.Core;

namespace Mesh.KVStore;

/// <summary>
/// One list-and-watch of one prefix: pages at one pinned revision, then a gRPC stream of its own from the revision after it.
///
/// Invariant: the reader has every event up to <see cref="WatchPosition.Next"/> − 1 of the history identified by
/// <see cref="WatchPosition.ClusterId"/>. Whenever that cannot be proved any more (compaction, another cluster ID, a revision that
/// went back, a history that does not hold what we read in it, an audit that found a difference) the list begins again.
/// </summary>
/// <param name="maxFailures">Consecutive failures after which it gives up.</param>
/// <param name="namesOnly">Lists bring keys without their values.</param>
internal sealed class EtcdPrefixWatch(
    EtcdClient client, EtcdCounters counters, EtcdAudits audits, string prefix, int maxFailures, bool namesOnly = false)
{
    /// <summary>A stream that lived this long was healthy: the next reconnection starts with the shortest wait.</summary>
    private static readonly TimeSpan HealthyAfter = TimeSpan.FromSeconds(2);

    /// <summary>However many watches share the pace, what was lost is found within a minute.</summary>
    private static readonly TimeSpan LatestAudit = TimeSpan.FromSeconds(45);

    private readonly PrefixRange _range = PrefixRange.Of(prefix);
    private readonly Backoff _backoff = client.NewBackoff();
    private readonly WatchState _state = new(prefix, client.Time);
    private WatchPosition _position = new(client.Random);

    /// <summary>Completes when the next audit is due.</summary>
    private Task? _nextAudit;
    private int _failures;
    private bool _otherHistory;
    private int _pageSize = client.Options.PageSize;

    public WatchStatus Status => _state.Status;

    /// <summary>Told when a list begins and ends to stand in line.</summary>
    public Action<bool>? InLine { get; init; }

    public async IAsyncEnumerable<WatchBatch> RunAsync([EnumeratorCancellation] CancellationToken cancellation)
    {
        counters.Began(_state);
        try
        {
            for (var first = true; ; first = false)
            {
                if (!first)
                    counters.Relisted();
                await foreach (var batch in ListAsync(cancellation).ConfigureAwait(false))
                    yield return batch;
                _state.Listing = _position.Lost;
                while (!_position.Lost)
                {
                    // Each turn is one stream's life.
                    await using var stream = await OpenAsync(cancellation).ConfigureAwait(false);
                    _state.Streaming = stream is not null;
                    while (stream is not null && await NextEventsAsync(stream, cancellation).ConfigureAwait(false) is { } batches)
                    {
                        foreach (var batch in batches)
                            yield return batch;
                    }
                    _state.Streaming = false;
                }
            }
        }
        finally
        {
            counters.Ended(_state);
        }
    }

    /// <summary>One list: ListStart, pages, and ListEnd when the whole could be read at one revision.</summary>
    public async IAsyncEnumerable<WatchBatch> ListAsync([EnumeratorCancellation] CancellationToken cancellation)
    {
        _position = new WatchPosition(client.Random);
        _nextAudit = null;
        yield return new WatchBatch(WatchBatchKind.ListStart, [], 0);
        var limit = Math.Min(ListTurns.FirstPage, _pageSize);
        var (batch, next) = await NextPageAsync(_range.Key, limit, cancellation).ConfigureAwait(false);
        using (next is null || _position.Lost ? null : await TurnAsync(cancellation).ConfigureAwait(false))
        {
            while (!_position.Lost)
            {
                if (batch.Events.Count > 0)
                    yield return batch;
                if (next is null)
                    break;
                (batch, next) = await NextPageAsync(next, int.MaxValue, cancellation).ConfigureAwait(false);
            }
        }
        if (_position.Lost)
            yield break;
        yield return new WatchBatch(WatchBatchKind.ListEnd, [], _position.Next - 1) { OtherHistory = _otherHistory };
        _otherHistory = false;
    }

    private async Task<IDisposable> TurnAsync(CancellationToken cancellation)
    {
        _state.InLine = true;
        InLine?.Invoke(true);
        try
        {
            return await client.Options.Turns.TakeAsync(cancellation).ConfigureAwait(false);
        }
        finally
        {
            _state.InLine = false;
            InLine?.Invoke(false);
        }
    }

    /// <summary>Fetches one page, for as long as it takes. Sets Lost when the pinned revision cannot be read any more.</summary>
    private async Task<(WatchBatch Batch, ByteString? Next)> NextPageAsync(ByteString from, int limit, CancellationToken cancellation)
    {
        while (true)
        {
            try
            {
                var request = new RangeRequest
                {
                    Key = from,
                    RangeEnd = _range.End,
                    Limit = Math.Min(limit, _pageSize),
                    Revision = _position.Next - 1,
                    KeysOnly = namesOnly,
                };
                var page = await client.OnceAsync(client.Current, client.Options.ListDeadline,
                    (endpoint, options) => endpoint.KV.RangeAsync(request, options), cancellation).ConfigureAwait(false);
                client.Observed(page.Header);
                if (_position.Next == 1)
                    _position.Begin(page.Header);
                else if (!_position.Accepts(page.Header, out var reason))
                    return RelistOther<(WatchBatch, ByteString?)>(reason, (default, null));
                Healthy();
                var items = Decode(page.Kvs);
                _position.List(page.Kvs, namesOnly);
                var next = page.More && page.Kvs.Count > 0 ? PrefixRange.After(page.Kvs[^1].Key) : null;
                var expected = next is not null && limit <= ListTurns.FirstPage ? page.Count : 0;
                return (new WatchBatch(WatchBatchKind.Put, items, _position.Next - 1) { Expected = expected }, next);
            }
            catch (RpcException e) when (_pageSize > 1 && e.StatusCode == StatusCode.ResourceExhausted
                && e.Status.Detail.Contains("message size", StringComparison.Ordinal))
            {
                // Larger than we take into memory: the same in smaller pieces.
                _pageSize = Math.Max(1, _pageSize / 4);
            }
            catch (RpcException e) when (e.StatusCode == StatusCode.OutOfRange)
            {
                Relist("the store compacted the revision that was being listed", compacted: true);
                return default;
            }
            catch (Exception e) when (e is not OperationCanceledException)
            {
                await WaitOrGiveUpAsync($"list {prefix}", e, cancellation).ConfigureAwait(false);
            }
        }
    }

    /// <summary>One attempt to open a stream at the reader's position; null when it failed, after waiting.</summary>
    private async Task<EtcdWatchStream?> OpenAsync(CancellationToken cancellation)
    {
        var endpoint = client.Current;
        EtcdWatchStream? stream = null;
        try
        {
            stream = await EtcdWatchStream.OpenAsync(client, endpoint, _range, _position.Next, cancellation).ConfigureAwait(false);
            if (stream.Created.Canceled)
                OnCanceled(stream.Created);
            else if (!_position.Accepts(stream.Created.Header, out var reason))
                RelistOther(reason);
            else
                await ProveContinuityAsync(endpoint, cancellation).ConfigureAwait(false);
            if (_position.Lost)
            {
                await stream.DisposeAsync().ConfigureAwait(false);
                return null;
            }
            client.Observed(stream.Created.Header);
            client.Succeeded();
            if (_position.Resuming)
                counters.Resumed();
            _position.Resuming = true;
            return stream;
        }
        catch (Exception e) when (e is not KVStoreException)
        {
            if (stream is not null)
                await stream.DisposeAsync().ConfigureAwait(false);
            _position.Resuming = true;
            cancellation.ThrowIfCancellationRequested();
            client.Failed(endpoint, e);
            await WaitOrGiveUpAsync($"watch {prefix}", e, cancellation).ConfigureAwait(false);
            return null;
        }
    }

    /// <summary>The next events of the stream; null when it ended, or when the list must begin again.</summary>
    private async Task<IReadOnlyList<WatchBatch>?> NextEventsAsync(EtcdWatchStream stream, CancellationToken cancellation)
    {
        try
        {
            while (true)
            {
                _position.Listening(client.Time.GetTimestamp());
                if (_position.IsAuditRipe)
                    FinishAudit();
                if (_position.Lost)
                    return null;
                var due = AuditDue(stream.Endpoint);
                // A question is asked at its time also when events never pause; a verdict by silence needs silence.
                var asks = due is { IsCompleted: true } && _position.Audit is null;
                if (asks || !await stream.WaitAsync(due).ConfigureAwait(false))
                {
                    await AuditAsync(stream.Endpoint, cancellation).ConfigureAwait(false);
                    continue;
                }
                var response = await stream.TakeAsync().ConfigureAwait(false);
                if (response is null)
                    throw new IOException("the server ended the watch");
                // Before the header: that of a cancellation carries no revision.
                if (response.Canceled)
                {
                    OnCanceled(response);
                    return null;
                }
                if (!_position.Accepts(response.Header, out var reason))
                    return RelistOther<IReadOnlyList<WatchBatch>?>(reason, null);
                Healthy();
                if (response.Events.Count == 0)
                {
                    _position.Progressed(response.Header.Revision);
                    continue;
                }
                if (_position.Apply(response.Events) is { Count: > 0 } fresh)
                    return Split(fresh);
            }
        }
        catch (Exception e) when (e is not KVStoreException)
        {
            cancellation.ThrowIfCancellationRequested();
            client.Failed(stream.Endpoint, e);
            if (stream.Age > HealthyAfter)
                Healthy();
            await WaitOrGiveUpAsync($"watch {prefix}", e, cancellation).ConfigureAwait(false);
            return null;
        }
    }

    private void OnCanceled(WatchResponse response)
    {
        if (response.CompactRevision > 0)
            Relist($"the store compacted its history up to revision {response.CompactRevision}, we were at {_position.Next - 1}", compacted: true);
        else if (EtcdCause.IsPermissionDenied(response.CancelReason))
            throw new KVStoreException($"etcd {client.Current.Address}: watch {prefix}: {response.CancelReason}", permissionDenied: true);
        else
            throw new IOException($"the server canceled the watch: {response.CancelReason}");
    }

    /// <summary>
    /// On every new stream: is this still the history that we read? A wiped etcd started with the same flags has the same cluster
    /// ID, and may meanwhile have reached our revision. Then it holds other data there: compare the key we read last and the count.
    /// </summary>
    private async Task ProveContinuityAsync(EtcdEndpoint endpoint, CancellationToken cancellation)
    {
        var revision = _position.Next - 1;
        try
        {
            var count = await ProbeAsync(endpoint,
                new RangeRequest { Key = _range.Key, RangeEnd = _range.End, Revision = revision, CountOnly = true }, cancellation)
                .ConfigureAwait(false);
            if (count.Count != _position.Count)
            {
                RelistOther($"the store holds {count.Count} keys at revision {revision}, we read {_position.Count}: another history");
                return;
            }
            if (_position.Anchor is not { } anchor)
                return;
            var there = await ProbeAsync(endpoint, new RangeRequest { Key = anchor.Key, Revision = revision }, cancellation)
                .ConfigureAwait(false);
            var same = there.Kvs.Count == 0
                ? anchor.Version == 0
                : there.Kvs[0].ModRevision == anchor.ModRevision && there.Kvs[0].CreateRevision == anchor.CreateRevision &&
                  (_position.AnchorIsName || there.Kvs[0].Value.Equals(anchor.Value));
            if (!same)
                RelistOther($"the store does not hold at revision {revision} what we read there: another history");
        }
        catch (RpcException e) when (e.StatusCode == StatusCode.OutOfRange)
        {
            Relist($"our position, revision {revision}, cannot be read any more: {e.Status.Detail}",
                compacted: e.Status.Detail.Contains("compacted", StringComparison.Ordinal));
        }
    }

    /// <summary>Completes when the next step of the audit is due; null when audits are off.</summary>
    private Task? AuditDue(EtcdEndpoint endpoint)
    {
        var (interval, grace) = endpoint.IsDoor
            ? (client.Options.DoorAuditInterval, client.Options.DoorAuditGrace)
            : (client.Options.AuditInterval, client.Options.AuditGrace);
        if (interval == Timeout.InfiniteTimeSpan)
            return null;
        if (_position.Audit is { } pending)
        {
            var gone = client.Time.GetElapsedTime(pending.SilentSince);
            return gone < grace ? Task.Delay(grace - gone, client.Time) : Task.CompletedTask;
        }
        if (_position.MustAudit)
            return Task.CompletedTask;
        // At a door not at the same moment as all the other watches that began with this one; elsewhere with them.
        return _nextAudit ??= endpoint.IsDoor
            ? Task.Delay(client.Options.Pace.Book(interval * (0.9 + (0.1 * client.Random.NextDouble())), LatestAudit), client.Time)
            : audits.RoundAsync(interval);
    }

    /// <summary>
    /// First asks the store. What differs then may be under way; it is called lost when something newer has arrived, or when nothing
    /// arrived for the grace, twice: a reader that could not run for a moment must not take that for silence.
    /// </summary>
    private async Task AuditAsync(EtcdEndpoint endpoint, CancellationToken cancellation)
    {
        if (_position.Audit is null)
        {
            // Serializable: the very member, and the very memory, that feeds the stream.
            var answer = await audits.AskAsync(endpoint,
                new RangeRequest
                {
                    Key = _range.Key,
                    RangeEnd = _range.End,
                    KeysOnly = true,
                    Serializable = true,
                    MinModRevision = _position.AuditedTo + 1,
                }, cancellation).ConfigureAwait(false);
            if (!_position.Accepts(answer.Header, out var reason))
                RelistOther(reason);
            else
                _position.BeginAudit(answer.Header.Revision, answer.Count, answer.Changed, client.Time.GetTimestamp());
            if (!_position.Lost && _position.Difference() is null)
                FinishAudit();
            return;
        }
        if (_position.Audit.Doubted || _position.Difference() is null)
        {
            FinishAudit();
            return;
        }
        _position.Audit.Doubted = true;
        _position.Listening(client.Time.GetTimestamp());
    }

    private void FinishAudit()
    {
        var difference = _position.FinishAudit();
        _nextAudit = null;
        counters.Audited();
        if (difference is null)
        {
            _state.Audited();
            return;
        }
        counters.Repaired();
        Relist($"audit: {difference}");
    }

    private Task<RangeResponse> ProbeAsync(EtcdEndpoint endpoint, RangeRequest request, CancellationToken cancellation) =>
        client.OnceAsync(endpoint, client.Options.ListDeadline, (e, options) => e.Probe.RangeAsync(request, options), cancellation);

    /// <summary>Waits before the next attempt, or throws when no attempt will mend it or there were enough.</summary>
    private async Task WaitOrGiveUpAsync(string what, Exception e, CancellationToken cancellation)
    {
        cancellation.ThrowIfCancellationRequested();
        if (!EtcdCause.IsTransient(e) || ++_failures > maxFailures)
            throw client.Failure(what, e);
        await _backoff.WaitAsync(cancellation).ConfigureAwait(false);
    }

    private void Healthy()
    {
        _state.Heard();
        _failures = 0;
        _backoff.Reset();
    }

    private void Relist(string reason, bool compacted = false)
    {
        _position.Lost = true;
        _state.Relisted(reason, compacted);
        counters.RelistReason = $"{prefix}: {reason}";
    }

    private void RelistOther(string reason)
    {
        _otherHistory = true;
        Relist(reason);
    }

    private T RelistOther<T>(string reason, T result)
    {
        RelistOther(reason);
        return result;
    }

    private List<KeyValue> Decode(IReadOnlyCollection<Mvccpb.KeyValue> source)
    {
        var items = new List<KeyValue>(source.Count);
        foreach (var item in source)
        {
            if (EtcdClient.KeyText(item.Key) is { } key)
                items.Add(new KeyValue(key, item.Value.Memory, item.CreateRevision, item.ModRevision, item.Lease));
            else
                counters.Rejected();
        }
        return items;
    }

    /// <summary>Runs of puts and of deletes, in the order of the events.</summary>
    private List<WatchBatch> Split(List<Mvccpb.Event> events)
    {
        var batches = new List<WatchBatch>(1);
        for (var start = 0; start < events.Count;)
        {
            var end = start + 1;
            while (end < events.Count && events[end].Type == events[start].Type)
                end++;
            var kind = events[start].Type == Mvccpb.Event.Types.EventType.Put ? WatchBatchKind.Put : WatchBatchKind.Delete;
            var items = Decode(events.GetRange(start, end - start).ConvertAll(e => e.Kv));
            if (items.Count > 0)
                batches.Add(new WatchBatch(kind, items, events[end - 1].Kv.ModRevision));
            start = end;
        }
        return batches;
    }
}
