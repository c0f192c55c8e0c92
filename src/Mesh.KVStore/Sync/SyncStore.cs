using System.Threading.Channels;

namespace Mesh.KVStore;

/// <summary>
/// Makes a prefix of the store equal to a map in memory, and keeps it so: the producer's half of the mesh.
///
/// Level-triggered: <see cref="Set"/>, <see cref="Remove"/>, and every event of a watch on its own prefix only mark keys as
/// different; a worker writes what differs, up to 128 keys per transaction, each key at most once at a time and always with its
/// latest value. So a change that is overtaken is never written, a key that somebody else deletes or overwrites is put right, and a
/// store that lost its leases or comes back empty is filled again. Nothing is written that is there already.
/// </summary>
public sealed partial class SyncStore : IAsyncDisposable
{
    /// <summary>Transactions in flight. While they are under way further changes gather into larger ones.</summary>
    private const int TransactionsInFlight = 4;

    /// <summary>How often a key that the store refused is tried again.</summary>
    private static readonly TimeSpan RefusedRetry = TimeSpan.FromMinutes(1);

    /// <summary>A watch of the own prefix that ended for good (permission denied) is opened again after this.</summary>
    private static readonly TimeSpan WatchRetry = TimeSpan.FromSeconds(5);

    private readonly IKVStore _store;
    private readonly SyncStoreOptions _options;
    private readonly TimeProvider _time;
    private readonly Backoff _backoff;
    private readonly CancellationTokenSource _stop = new();
    private readonly Channel<bool> _wake = Channel.CreateBounded<bool>(
        new BoundedChannelOptions(1) { FullMode = BoundedChannelFullMode.DropWrite });
    private readonly TaskCompletionSource _firstSync = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly SyncCanary? _canary;
    private readonly Task[] _loops;

    // The lock protects all of the following.
    private readonly Lock _lock = new();
    private readonly Dictionary<string, SyncEntry> _entries = new(StringComparer.Ordinal);
    private readonly Queue<SyncEntry> _ready = new();
    private readonly PriorityQueue<SyncEntry, long> _delayed = new();
    private readonly Queue<(SyncEntry Entry, long Revision, long At)> _unconfirmed = new();
    private int _desired;
    private int _queue;
    private int _holding;
    private int _refused;
    private int _round;
    private bool _listing;
    private bool _listed;
    private bool _synced;
    private bool _reported;
    private long _written;
    private long _repaired;
    private long _errors;
    private string? _lastError;

    private SyncStore(IKVStore store, SyncStoreOptions options, TimeProvider time, Random random)
    {
        _store = store;
        _options = options;
        _time = time;
        _backoff = new Backoff(options.RetryMin, options.RetryMax, time, random);
        _canary = options.CanaryKey is { } key ? new SyncCanary(store, key, options.Leases, time, Wake) : null;
        List<Task> loops = [OwnAsync(WorkAsync), OwnAsync(() => WatchAsync(options.Prefix, ApplyAsync))];
        if (options.Leases is not null)
            loops.Add(OwnAsync(WatchLeasesAsync));
        if (_canary is not null)
            loops.Add(OwnAsync(() => WatchAsync(_canary.Key, _canary.ApplyAsync)));
        _loops = [.. loops];
    }

    public SyncStoreStatus Status
    {
        get
        {
            lock (_lock)
            {
                return new(_options.Prefix, _desired, _queue, _reported && _holding == 0 && _canary is null or { Written: true },
                    _written, _repaired, _refused, _holding, _errors, _lastError);
            }
        }
    }

    /// <summary>Starts to list the prefix; nothing is written before that list is complete.</summary>
    public static SyncStore Start(IKVStore store, SyncStoreOptions options, TimeProvider? time = null, Random? random = null) =>
        new(store, options, time ?? TimeProvider.System, random ?? new Random());

    /// <summary>Wants the key to have this value. The bytes must not change afterwards.</summary>
    public void Set(string key, ReadOnlyMemory<byte> value) => Decide(key, value);

    /// <summary>Wants the key to be absent.</summary>
    public void Remove(string key) => Decide(key, null);

    /// <summary>All that is wanted has been Set: what else is below the prefix is a leftover and goes; then comes the canary.</summary>
    public void MarkSynced()
    {
        lock (_lock)
        {
            _synced = true;
            if (_listed)
                Review_NeedsLock();
        }
        Wake();
    }

    /// <summary>Completes when everything wanted at <see cref="MarkSynced"/> was written for the first time, and the canary after
    /// it.</summary>
    public Task WaitForSyncedAsync(CancellationToken cancellation) => _firstSync.Task.WaitAsync(cancellation);

    /// <summary>Stops. What is in the store stays there.</summary>
    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync().ConfigureAwait(false);
        foreach (var loop in _loops)
            await loop.ConfigureAwait(false);
        _stop.Dispose();
    }

    /// <summary>A loop that ends by a fault of ours says so in the status at once, and throws when the store is disposed.</summary>
    private Task OwnAsync(Func<Task> loop) => Task.Run(async () =>
    {
        try
        {
            await loop().ConfigureAwait(false);
        }
        catch (Exception e)
        {
            lock (_lock)
            {
                _errors++;
                _lastError = $"stopped: {e.Message}";
            }
            throw;
        }
    });

    private void Decide(string key, ReadOnlyMemory<byte>? value)
    {
        if (!key.StartsWith(_options.Prefix, StringComparison.Ordinal))
            throw new ArgumentException($"'{key}' is not below '{_options.Prefix}'", nameof(key));
        lock (_lock)
        {
            var entry = EntryOf_NeedsLock(key);
            _desired += (value is null ? 0 : 1) - (entry is { Decided: true, Desired: not null } ? 1 : 0);
            entry.Decided = true;
            entry.Desired = value;
            if (entry.Refusals > 0)
            {
                entry.Refusals = 0;
                _refused--;
            }
            Hasten_NeedsLock(entry);
            Mark_NeedsLock(entry);
            Forget_NeedsLock(entry);
        }
        Wake();
    }

    // --- What is in the store ---------------------------------------------------------------------------------------------------

    private async Task WatchAsync(string prefix, Func<WatchBatch, ValueTask> apply)
    {
        while (!_stop.IsCancellationRequested)
        {
            try
            {
                await foreach (var batch in _store.ListWatchAsync(prefix, _stop.Token).ConfigureAwait(false))
                {
                    await apply(batch).ConfigureAwait(false);
                    Wake();
                }
            }
            catch (OperationCanceledException) when (_stop.IsCancellationRequested)
            {
                return;
            }
            catch (KVStoreException e)
            {
                Failed(e);
                await Task.Delay(WatchRetry, _time, _stop.Token).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            }
        }
    }

    private async ValueTask ApplyAsync(WatchBatch batch)
    {
        if (batch.Kind == WatchBatchKind.ListEnd)
            await AdoptLeasesAsync().ConfigureAwait(false);
        lock (_lock)
        {
            switch (batch.Kind)
            {
                case WatchBatchKind.ListStart:
                    _round++;
                    _listing = true;
                    break;
                case WatchBatchKind.ListEnd:
                    EndList_NeedsLock(batch.Revision);
                    break;
                default:
                    foreach (var item in batch.Events)
                        Saw_NeedsLock(item, batch.Kind == WatchBatchKind.Put);
                    break;
            }
        }
    }

    private void Saw_NeedsLock(in KeyValue item, bool present)
    {
        var entry = EntryOf_NeedsLock(item.Key);
        entry.ListedIn = _round;
        // Our own write is newer than what this event or list page tells.
        if (entry.ActualRound == _round && item.ModRevision < entry.ActualRevision)
            return;
        var expected = present && entry.Desired is { } wanted && wanted.Span.SequenceEqual(item.Value.Span);
        entry.Present = present;
        // Keep one copy of equal bytes.
        entry.Actual = expected ? entry.Desired!.Value : item.Value;
        entry.ActualLease = item.Lease;
        entry.ActualRevision = item.ModRevision;
        entry.ActualRound = _round;
        entry.Unconfirmed = 0;
        if (_listing)
            return;
        if (_listed && !entry.Queued && !entry.InFlight && entry.NeedsWriting(_synced, _options.Leases is not null))
            Repair_NeedsLock(entry);
        Forget_NeedsLock(entry);
    }

    private void Repair_NeedsLock(SyncEntry entry)
    {
        _repaired++;
        var now = _time.GetTimestamp();
        var since = entry.RepairedAt == 0 ? TimeSpan.MaxValue : _time.GetElapsedTime(entry.RepairedAt, now);
        entry.RepairedAt = now;
        if (since >= _options.RepairInterval)
            Mark_NeedsLock(entry);
        else
            Delay_NeedsLock(entry, _options.RepairInterval);
        // A canary lost together with its data must not come back before it.
        if (entry.Desired is not null)
            Hold_NeedsLock(entry);
    }

    private void EndList_NeedsLock(long revision)
    {
        foreach (var entry in _entries.Values)
        {
            var ours = entry.ActualRound == _round && entry.ActualRevision > revision;
            if (ours)
                continue;
            entry.Unconfirmed = 0;
            if (entry.Present && entry.ListedIn != _round)
            {
                entry.Present = false;
                entry.Actual = default;
                entry.ActualRevision = 0;
            }
        }
        _listing = false;
        _listed = true;
        Review_NeedsLock();
    }

    /// <summary>Looks at every key: after a list, a lost lease, or MarkSynced. The canary waits for all that differs now.</summary>
    private void Review_NeedsLock()
    {
        foreach (var entry in _entries.Values.ToArray())
        {
            Mark_NeedsLock(entry);
            if (entry.Queued || entry.InFlight)
                Hold_NeedsLock(entry);
            Forget_NeedsLock(entry);
        }
        if (_synced)
            _reported = true;
    }

    private void Hold_NeedsLock(SyncEntry entry)
    {
        if (!_synced || entry.HoldsCanary || entry.Refusals > 0)
            return;
        entry.HoldsCanary = true;
        _holding++;
    }

    /// <summary>Before the end of a list: keys that a predecessor left need not be written again if its leases still stand.</summary>
    private async Task AdoptLeasesAsync()
    {
        if (_options.Leases is not { } leases)
            return;
        IGrouping<long, SyncEntry>[] orphans;
        lock (_lock)
        {
            orphans = [.. _entries.Values.Where(e => e is { Present: true, Lease: null, ActualLease: not 0 } && e.ListedIn == _round)
                .GroupBy(e => e.ActualLease)];
        }
        foreach (var group in orphans)
        {
            var entries = group.ToArray();
            if (await leases.AdoptAsync(group.Key, entries.Length, _stop.Token).ConfigureAwait(false) is not { } lease)
                continue;
            lock (_lock)
            {
                foreach (var entry in entries)
                    entry.Lease = lease;
            }
        }
    }

    private async Task WatchLeasesAsync()
    {
        var leases = _options.Leases!;
        for (var seen = leases.Epoch; ;)
        {
            try
            {
                seen = await leases.WaitForEpochChangeAsync(seen, _stop.Token).ConfigureAwait(false);
            }
            catch (OperationCanceledException)
            {
                return;
            }
            lock (_lock)
            {
                if (_listed)
                    Review_NeedsLock();
            }
            Wake();
        }
    }
}
