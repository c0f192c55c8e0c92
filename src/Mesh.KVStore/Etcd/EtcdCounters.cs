using System.Collections.Concurrent;

namespace Mesh.KVStore;

/// <summary>What happened to the watches of one store, for its status.</summary>
internal sealed class EtcdCounters
{
    private long _rejected;
    private long _resumptions;
    private long _relists;
    private long _audits;
    private long _repairs;
    private readonly ConcurrentDictionary<WatchState, bool> _watches = [];

    public string? RelistReason { get; set; }

    public IReadOnlyList<WatchStatus> Watches =>
        [.. _watches.Keys.Select(watch => watch.Status).OrderBy(watch => watch.Prefix, StringComparer.Ordinal)];

    public void Rejected() => Interlocked.Increment(ref _rejected);

    public void Resumed() => Interlocked.Increment(ref _resumptions);

    public void Relisted() => Interlocked.Increment(ref _relists);

    public void Began(WatchState watch) => _watches[watch] = true;

    public void Ended(WatchState watch) => _watches.TryRemove(watch, out _);

    public void Audited() => Interlocked.Increment(ref _audits);

    public void Repaired() => Interlocked.Increment(ref _repairs);

    public KVStoreStatus AddTo(KVStoreStatus status) => status with
    {
        RejectedKeys = Volatile.Read(ref _rejected),
        Resumptions = Volatile.Read(ref _resumptions),
        Relists = Volatile.Read(ref _relists),
        LastRelistReason = RelistReason,
        Audits = Volatile.Read(ref _audits),
        Repairs = Volatile.Read(ref _repairs),
    };
}
