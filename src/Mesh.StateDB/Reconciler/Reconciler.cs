namespace Mesh.StateDB.Reconciler;

/// <summary>
/// Makes a target follow a table. It takes what has changed in batches at its own pace, calls the operations, and writes what
/// became of each row back onto the row. A failed row is tried again with a growing, jittered delay, for ever, alone: other rows
/// go on. Rows refused because a part of the target is full wait together: one of them is tried once a second, and the others
/// follow when it found room. Nothing is pruned before the table is initialized.
/// </summary>
public sealed class Reconciler<TKey, TRow>
    where TKey : notnull
    where TRow : class
{
    private readonly ITable<TKey, TRow> _table;
    private readonly IOperations<TKey, TRow> _operations;
    private readonly ReconcilerOptions _options;
    private readonly TimeProvider _time;
    private readonly Random _random;
    private readonly Dictionary<TKey, Retry> _retries = [];
    private readonly Dictionary<string, WaitingRows<TKey, TRow>> _full = [];
    private DateTimeOffset _nextPrune = DateTimeOffset.MinValue;
    private bool _pruneRequested;
    private bool _hasPruned;
    private long _failures;
    private long _pruned;

    public Reconciler(ITable<TKey, TRow> table, IOperations<TKey, TRow> operations, ReconcilerOptions? options = null,
        TimeProvider? time = null, Random? random = null)
    {
        _table = table;
        _operations = operations;
        _options = options ?? new ReconcilerOptions();
        _time = time ?? TimeProvider.System;
        _random = random ?? Random.Shared;
    }

    /// <summary>Operations that failed since the start.</summary>
    public long Failures => Interlocked.Read(ref _failures);

    /// <summary>Leftovers removed by pruning since the start.</summary>
    public long Pruned => Interlocked.Read(ref _pruned);

    /// <summary>Rows whose last attempt failed, those that wait for room included.</summary>
    public int Failing
    {
        get
        {
            lock (_retries)
                return _retries.Count + _full.Values.Sum(waiting => waiting.Count);
        }
    }

    /// <summary>Parts of the target that are full, by name; empty when everything has room.</summary>
    public IReadOnlyList<FullTarget> Full
    {
        get
        {
            lock (_retries)
                return [.. _full.Values.Select(waiting => waiting.Status).OrderBy(full => full.Name, StringComparer.Ordinal)];
        }
    }

    /// <summary>True once the whole of the initialized table has been tried on the target, and leftovers are gone.</summary>
    public bool HasPruned => Volatile.Read(ref _hasPruned);

    /// <summary>Asks for a prune at the next turn, for a target that is known to have lost or gained entries.</summary>
    public void RequestPrune() => Volatile.Write(ref _pruneRequested, true);

    /// <summary>Runs until cancelled.</summary>
    public async Task RunAsync(CancellationToken cancellation)
    {
        using var feed = _table.Subscribe();
        while (!cancellation.IsCancellationRequested)
        {
            try
            {
                await feed.WaitAsync(UntilNextTurn(), cancellation);
            }
            catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
            {
                return;
            }
            RunOnce(feed);
        }
    }

    /// <summary>One turn: changes, due retries, and the prune when it is due. Public for tests and benchmarks.</summary>
    public void RunOnce(ChangeFeed<TKey, TRow> feed)
    {
        var work = new Dictionary<TKey, Change<TKey, TRow>>();
        foreach (var change in feed.Take())
        {
            LeaveLine(change.Key);
            work[change.Key] = change;
        }
        AddDueRetries(work);
        Apply(work.Values);
        AskForRoom();
        PruneWhenDue();
    }

    private void Apply(IReadOnlyCollection<Change<TKey, TRow>> work)
    {
        var updates = new List<Change<TKey, TRow>>();
        var deletes = new List<Change<TKey, TRow>>();
        foreach (var change in work)
            (change.Row is null ? deletes : updates).Add(change);
        // Deletes first: a full map must not refuse a new row for the sake of one that is leaving in the same batch.
        foreach (var batch in deletes.Chunk(_options.BatchSize))
            Run(batch, fail => _operations.Delete([.. batch.Select(change => change.Key)], fail));
        foreach (var batch in updates.Chunk(_options.BatchSize))
            Run(batch, fail => _operations.Update([.. batch.Select(change => KeyValuePair.Create(change.Key, change.Row!))], fail));
    }

    /// <summary>A changed row is tried at once, also when its key waits for room: the new row may need less, or none.</summary>
    private void LeaveLine(TKey key)
    {
        lock (_retries)
            foreach (var waiting in _full.Values)
                if (waiting.Remove(key))
                {
                    if (waiting.Count == 0)
                        _full.Remove(waiting.Name);
                    return;
                }
    }

    /// <summary>Tries one waiting row of each full part, at most once in <see cref="ReconcilerOptions.RoomInterval"/>; as long as
    /// all find room, twice as many in the same turn.</summary>
    private void AskForRoom()
    {
        var now = _time.GetUtcNow();
        List<WaitingRows<TKey, TRow>> due;
        lock (_retries)
            due = [.. _full.Values.Where(waiting => waiting.AskAt <= now)];
        foreach (var waiting in due)
        {
            for (var size = 1; ; size = Math.Min(size * 2, _options.BatchSize))
            {
                Change<TKey, TRow>[] batch;
                lock (_retries)
                {
                    batch = waiting.Take(size);
                    waiting.AskAt = now + _options.RoomInterval;
                }
                var refused = batch.Length > 0
                    && Run(batch, fail => _operations.Update([.. batch.Select(change => KeyValuePair.Create(change.Key, change.Row!))], fail)) > 0;
                lock (_retries)
                    if (waiting.Count == 0)
                        _full.Remove(waiting.Name);
                if (refused || batch.Length < size)
                    break;
            }
        }
    }

    /// <returns>How many were refused.</returns>
    private int Run(Change<TKey, TRow>[] batch, Action<Action<int, RowFault>> operation)
    {
        var faults = new RowFault?[batch.Length];
        try
        {
            operation((index, fault) => faults[index] = fault);
        }
        catch (Exception exception)
        {
            Array.Fill(faults, exception.Message);
        }
        for (var i = 0; i < batch.Length; i++)
            Conclude(batch[i], faults[i]);
        return faults.Count(fault => fault is not null);
    }

    private void Conclude(Change<TKey, TRow> change, RowFault? fault)
    {
        lock (_retries)
        {
            if (fault is not { Cause: var error })
            {
                _retries.Remove(change.Key);
                _table.SetStatus(change.Key, change.Revision, RowStatus.Done);
                return;
            }
            Interlocked.Increment(ref _failures);
            if (fault is { Full: { } part } && change.Row is not null)
            {
                _retries.Remove(change.Key);
                Wait(change, part, error);
                return;
            }
            var attempts = _retries.TryGetValue(change.Key, out var before) && before.Change.Revision == change.Revision ? before.Attempts + 1 : 1;
            var now = _time.GetUtcNow();
            _retries[change.Key] = new Retry(change, attempts, now + Backoff(attempts));
            _table.SetStatus(change.Key, change.Revision, new RowStatus(RowState.Error, error, attempts, now));
        }
    }

    private void Wait(Change<TKey, TRow> change, string part, string cause)
    {
        if (!_full.TryGetValue(part, out var waiting))
        {
            var now = _time.GetUtcNow();
            _full[part] = waiting = new WaitingRows<TKey, TRow>(part, cause, now) { AskAt = now + _options.RoomInterval };
        }
        waiting.Put(change);
        _table.SetStatus(change.Key, change.Revision, waiting.RowStatus);
    }

    private TimeSpan Backoff(int attempts)
    {
        var exponential = _options.RetryBackoffMin * Math.Pow(2, Math.Min(attempts - 1, 30));
        var capped = exponential < _options.RetryBackoffMax ? exponential : _options.RetryBackoffMax;
        return capped * (0.5 + 0.5 * _random.NextDouble());
    }

    private void AddDueRetries(Dictionary<TKey, Change<TKey, TRow>> work)
    {
        var now = _time.GetUtcNow();
        lock (_retries)
        {
            foreach (var (key, retry) in _retries)
                if (retry.At <= now)
                    work.TryAdd(key, retry.Change);
        }
    }

    private void PruneWhenDue()
    {
        var now = _time.GetUtcNow();
        if (!_table.Initialized.IsCompleted || (now < _nextPrune && !Volatile.Read(ref _pruneRequested)))
            return;
        Volatile.Write(ref _pruneRequested, false);
        _nextPrune = now + _options.PruneInterval;
        try
        {
            Interlocked.Add(ref _pruned, _operations.Prune(_table.Snapshot().ToDictionary(pair => pair.Key, pair => pair.Value.Row)));
            Volatile.Write(ref _hasPruned, true);
        }
        catch (Exception)
        {
            // Leftovers harm nobody at once; the failure is counted and the prune is tried again soon.
            Interlocked.Increment(ref _failures);
            _nextPrune = now + _options.RetryBackoffMax;
        }
    }

    private TimeSpan UntilNextTurn()
    {
        lock (_retries)
        {
            if (_retries.Count == 0 && _full.Count == 0)
                return _options.IdleInterval;
            var wait = _retries.Values.Select(retry => retry.At).Concat(_full.Values.Select(waiting => waiting.AskAt)).Min() - _time.GetUtcNow();
            return wait < TimeSpan.Zero ? TimeSpan.Zero : wait < _options.IdleInterval ? wait : _options.IdleInterval;
        }
    }

    private readonly record struct Retry(Change<TKey, TRow> Change, int Attempts, DateTimeOffset At);
}

public sealed record ReconcilerOptions
{
    /// <summary>Delay before the first retry of a failed row; doubles with each further failure.</summary>
    public TimeSpan RetryBackoffMin { get; init; } = TimeSpan.FromMilliseconds(100);

    /// <summary>Longest delay between retries: how long a user waits at the most after the cause is mended.</summary>
    public TimeSpan RetryBackoffMax { get; init; } = TimeSpan.FromSeconds(30);

    /// <summary>How often a full part of the target is asked whether it has room again, with one of the rows that wait.</summary>
    public TimeSpan RoomInterval { get; init; } = TimeSpan.FromSeconds(1);

    /// <summary>How often the target is compared with the whole table, against drift.</summary>
    public TimeSpan PruneInterval { get; init; } = TimeSpan.FromMinutes(5);

    /// <summary>How long a turn waits for a change before it looks whether the table has been initialized meanwhile.</summary>
    public TimeSpan IdleInterval { get; init; } = TimeSpan.FromMilliseconds(500);

    /// <summary>Rows handed to one operation call; bounds the memory of a batch.</summary>
    public int BatchSize { get; init; } = 16384;
}
