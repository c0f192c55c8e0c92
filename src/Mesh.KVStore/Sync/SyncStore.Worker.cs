namespace Mesh.KVStore;

/// <content>The worker: what differs, in batches, one write per key at a time; the canary when nothing holds it.</content>
public sealed partial class SyncStore
{
    private async Task WorkAsync()
    {
        var flights = new List<Task>();
        Task? canary = null;
        Task? confirming = null;
        await using var timer = _time.CreateTimer(_ => Wake(), null, Timeout.InfiniteTimeSpan, Timeout.InfiniteTimeSpan);
        try
        {
            while (true)
            {
                while (flights.Count < TransactionsInFlight && TakeBatch() is { Count: > 0 } batch)
                    flights.Add(WriteAsync(batch));
                canary = await EndedAsync(canary).ConfigureAwait(false) ?? (CanaryIsDue() ? WriteCanaryAsync() : null);
                confirming = await EndedAsync(confirming).ConfigureAwait(false) ?? (ConfirmationIsDue() ? ConfirmAsync() : null);
                timer.Change(NextDelay(), Timeout.InfiniteTimeSpan);
                var wake = _wake.Reader.ReadAsync(_stop.Token).AsTask();
                // Their ends are waited for like a wake: what they said before they ended may have been heard before they ended.
                await Task.WhenAny([wake, .. flights, .. Running(canary, confirming)]).ConfigureAwait(false);
                if (!wake.IsCompleted)
                    Wake();
                await wake.ConfigureAwait(false);
                foreach (var done in flights.Where(f => f.IsCompleted).ToArray())
                {
                    flights.Remove(done);
                    await done.ConfigureAwait(false);
                }
            }
        }
        catch (OperationCanceledException) when (_stop.IsCancellationRequested)
        {
            await Task.WhenAll([.. flights, .. Running(canary, confirming)]).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
    }

    private static IEnumerable<Task> Running(params Task?[] tasks) => tasks.OfType<Task>();

    /// <summary>The task while it runs, null once it has ended; throws what it threw.</summary>
    private static async Task<Task?> EndedAsync(Task? task)
    {
        if (task is not { IsCompleted: true })
            return task;
        await task.ConfigureAwait(false);
        return null;
    }

    private List<SyncEntry> TakeBatch()
    {
        var batch = new List<SyncEntry>();
        lock (_lock)
        {
            if (!_listed)
                return batch;
            while (_delayed.TryPeek(out _, out var due) && due <= _time.GetTimestamp())
                Hasten_NeedsLock(_delayed.Dequeue());
            var bytes = 0;
            while (batch.Count < WriteLimits.MaxOperations && _ready.TryPeek(out var entry))
            {
                var alone = entry.Refusals > 0 || entry.Bytes > WriteLimits.MaxBytes;
                if (batch.Count > 0 && (alone || bytes + entry.Bytes > WriteLimits.MaxBytes))
                    break;
                _ready.Dequeue();
                entry.Queued = false;
                if (!entry.NeedsWriting(_synced, _options.Leases is not null))
                {
                    _queue--;
                    Release_NeedsLock(entry);
                    Forget_NeedsLock(entry);
                    continue;
                }
                entry.InFlight = true;
                bytes += entry.Bytes;
                batch.Add(entry);
                if (alone)
                    break;
            }
        }
        return batch;
    }

    private async Task WriteAsync(List<SyncEntry> batch)
    {
        try
        {
            var operations = new WriteOperation[batch.Count];
            for (var i = 0; i < operations.Length; i++)
                operations[i] = await ToOperationAsync(batch[i]).ConfigureAwait(false);
            var revision = await _store.WriteAsync(operations, _stop.Token).ConfigureAwait(false);
            var left = 0;
            lock (_lock)
            {
                for (var i = 0; i < operations.Length; i++)
                    Wrote_NeedsLock(batch[i], operations[i], revision);
                (_lastError, left) = (null, _desired);
            }
            _backoff.Reset();
            if (_options.Withdrew is { } told && operations.Count(operation => operation.Value is null) is var deleted and > 0)
                told(deleted, left);
        }
        catch (KVStoreException e)
        {
            Failed(e);
            if (!e.Refused)
                await _backoff.WaitAsync(_stop.Token).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            lock (_lock)
            {
                foreach (var entry in batch)
                    Failed_NeedsLock(entry, e);
            }
        }
        Wake();
    }

    private async Task<WriteOperation> ToOperationAsync(SyncEntry entry)
    {
        KVLease? lease = null;
        lock (_lock)
        {
            if (entry.Desired is null)
                return new WriteOperation(entry.Key, null);
            lease = entry.Lease;
        }
        if (_options.Leases is { } leases && lease is null)
            lease = await leases.AcquireAsync(_stop.Token).ConfigureAwait(false);
        lock (_lock)
        {
            entry.Lease = lease;
            return new WriteOperation(entry.Key, entry.Desired, entry.Desired is null ? null : lease);
        }
    }

    private void Wrote_NeedsLock(SyncEntry entry, WriteOperation operation, long revision)
    {
        _written++;
        entry.InFlight = false;
        _queue--;
        if (entry.Refusals > 0)
        {
            entry.Refusals = 0;
            _refused--;
        }
        // The watch may have told us something newer already: then that stands, and is compared below.
        if (entry.ActualRound != _round || revision > entry.ActualRevision)
        {
            entry.ActualRound = _round;
            entry.Present = operation.Value is not null;
            entry.Actual = operation.Value ?? default;
            entry.ActualLease = operation.Lease?.Id ?? 0;
            entry.ActualRevision = revision;
            entry.Unconfirmed = revision;
            _unconfirmed.Enqueue((entry, revision, _time.GetTimestamp()));
        }
        Mark_NeedsLock(entry);
        if (!entry.Queued)
            Release_NeedsLock(entry);
        Forget_NeedsLock(entry);
    }

    private void Failed_NeedsLock(SyncEntry entry, KVStoreException e)
    {
        entry.InFlight = false;
        _queue--;
        if (e.Refused && entry.Refusals++ == 0)
            _refused++;
        if (e.Refused && entry.Refusals > 1)
        {
            Release_NeedsLock(entry);
            Delay_NeedsLock(entry, RefusedRetry);
        }
        else
        {
            Mark_NeedsLock(entry);
        }
    }

    private SyncEntry EntryOf_NeedsLock(string key)
    {
        if (!_entries.TryGetValue(key, out var entry))
            _entries.Add(key, entry = new SyncEntry(key));
        return entry;
    }

    /// <summary>Queues the key if it differs. One that is in flight is looked at when it lands.</summary>
    private void Mark_NeedsLock(SyncEntry entry)
    {
        if (entry.Queued || entry.InFlight || !_listed || !entry.NeedsWriting(_synced, _options.Leases is not null))
            return;
        entry.Queued = true;
        _queue++;
        _ready.Enqueue(entry);
    }

    private void Delay_NeedsLock(SyncEntry entry, TimeSpan delay)
    {
        if (entry.Queued)
            return;
        entry.Queued = true;
        entry.Delayed = true;
        _queue++;
        _delayed.Enqueue(entry, _time.GetTimestamp() + (long)(delay.TotalSeconds * _time.TimestampFrequency));
    }

    /// <summary>Its delay is over. What is left of it in the queue of delays means nothing then.</summary>
    private void Hasten_NeedsLock(SyncEntry entry)
    {
        if (!entry.Delayed)
            return;
        entry.Delayed = false;
        _ready.Enqueue(entry);
    }

    private void Release_NeedsLock(SyncEntry entry)
    {
        if (!entry.HoldsCanary)
            return;
        entry.HoldsCanary = false;
        _holding--;
    }

    /// <summary>An absent key that nobody wants needs no memory, and its lease has room again.</summary>
    private void Forget_NeedsLock(SyncEntry entry)
    {
        if (entry.Desired is not null || entry.Present || entry.Queued || entry.InFlight || entry.Unconfirmed != 0 || !_listed || _listing)
            return;
        Release_NeedsLock(entry);
        if (entry.Lease is { } lease)
            _options.Leases!.Release(lease);
        _entries.Remove(entry.Key);
    }

    /// <summary>Until the next delayed key, or the next write that may be lost.</summary>
    private TimeSpan NextDelay()
    {
        lock (_lock)
        {
            var next = Timeout.InfiniteTimeSpan;
            if (_delayed.TryPeek(out _, out var due))
                next = TimeSpan.FromSeconds(Math.Max(0.001, (due - _time.GetTimestamp()) / (double)_time.TimestampFrequency));
            if (OldestUnconfirmed_NeedsLock() is { } age)
            {
                var left = TimeSpan.FromSeconds(Math.Max(0.001, (_options.ConfirmPatience - age).TotalSeconds));
                next = next == Timeout.InfiniteTimeSpan || left < next ? left : next;
            }
            return next;
        }
    }

    private TimeSpan? OldestUnconfirmed_NeedsLock()
    {
        while (_unconfirmed.TryPeek(out var write))
        {
            if (write.Entry.Unconfirmed == write.Revision)
                return _time.GetElapsedTime(write.At);
            _unconfirmed.Dequeue();
        }
        return null;
    }

    private bool ConfirmationIsDue()
    {
        lock (_lock)
            return !_listing && OldestUnconfirmed_NeedsLock() is { } age && age >= _options.ConfirmPatience;
    }

    /// <summary>Lists the prefix beside the watch, which goes on meanwhile: what the watch or an answer tells since the round began
    /// is newer than the list where its revision is.</summary>
    private async Task ConfirmAsync()
    {
        int round;
        lock (_lock)
        {
            _unconfirmed.Clear();
            round = ++_round;
            _listing = true;
        }
        try
        {
            var (items, revision) = await _store.ListAsync(_options.Prefix, _stop.Token).ConfigureAwait(false);
            lock (_lock)
            {
                if (round != _round)
                    return;
                foreach (var item in items)
                    Saw_NeedsLock(item, present: true);
                EndList_NeedsLock(revision);
            }
        }
        catch (KVStoreException e)
        {
            Failed(e);
            lock (_lock)
            {
                if (round == _round)
                    _listing = false;
                foreach (var entry in _entries.Values.Where(entry => entry.Unconfirmed != 0))
                    _unconfirmed.Enqueue((entry, entry.Unconfirmed, _time.GetTimestamp()));
            }
        }
        Wake();
    }

    // --- The canary -------------------------------------------------------------------------------------------------------------

    private bool CanaryIsDue()
    {
        lock (_lock)
        {
            if (!_reported || _holding > 0)
                return false;
            if (_canary is null)
                _firstSync.TrySetResult();
            return _canary?.NeedsWriting ?? false;
        }
    }

    private async Task WriteCanaryAsync()
    {
        try
        {
            int present;
            lock (_lock)
                present = _entries.Values.Count(e => e.Present && !e.InFlight && e.Desired is not null);
            // The canary's watch may learn of a wiped store before ours does: never announce data that is not there.
            if (present == 0 || await _store.CountAsync(_options.Prefix, _stop.Token).ConfigureAwait(false) >= present)
            {
                await _canary!.WriteAsync(_stop.Token).ConfigureAwait(false);
                _firstSync.TrySetResult();
                return;
            }
        }
        catch (KVStoreException e)
        {
            Failed(e);
        }
        await _backoff.WaitAsync(_stop.Token).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        Wake();
    }

    private void Failed(KVStoreException e)
    {
        lock (_lock)
        {
            _errors++;
            _lastError = e.Message;
        }
    }

    private void Wake() => _wake.Writer.TryWrite(true);
}
