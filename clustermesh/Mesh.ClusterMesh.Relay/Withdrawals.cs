using Mesh.ClusterMesh.Imports;
using Mesh.KVStore;

namespace Mesh.ClusterMesh.Relay;

/// <summary>Deletions of one resource that wait to be judged.</summary>
internal sealed class HeldDeletions(long since)
{
    /// <summary>TimeProvider timestamp.</summary>
    public long Since { get; } = since;

    /// <summary>It was looked at, and waits for its owner to show itself.</summary>
    public bool AwaitsSign { get; set; }

    /// <summary>TimeProvider timestamp of the owner's first sign of life behind it; null before.</summary>
    public long? SignedAt { get; set; }

    /// <summary>Ends of keys, and the source's revision that deleted each.</summary>
    public Dictionary<string, long> Keys { get; } = new(StringComparer.Ordinal);

    /// <summary>Whether what was written at the revision was written after it began.</summary>
    public bool IsOlderThan(long revision) => Keys.Count > 0 && Keys.Values.Min() < revision;
}

/// <summary>
/// Knows a mass withdrawal when it sees one: more of a resource than the peer's breaker allows within its window. Such a one is
/// looked at a moment later: producers write one resource at a time and at most 128 keys per transaction, so a revision that took
/// from two resources, or more, was not made by one.
/// </summary>
internal sealed class Withdrawals(BreakerPolicy policy, TimeProvider time)
{
    private const int TransactionsRemembered = 4096;

    private readonly Dictionary<long, (int Resources, int Keys)> _transactions = [];
    private readonly Queue<long> _order = [];
    private readonly Dictionary<RelayedResource, (long Began, int Count, int Gone)> _windows = [];

    public Dictionary<RelayedResource, HeldDeletions> Held { get; } = [];

    /// <summary>Takes note of deletions. True when they are to be held.</summary>
    /// <param name="count">Keys of the resource before them.</param>
    public bool IsMass(RelayedResource resource, IReadOnlyList<KeyValue> deleted, int count)
    {
        foreach (var item in deleted)
        {
            if (!_transactions.TryGetValue(item.ModRevision, out var transaction))
            {
                _order.Enqueue(item.ModRevision);
                if (_order.Count > TransactionsRemembered)
                    _transactions.Remove(_order.Dequeue());
            }
            _transactions[item.ModRevision] = (transaction.Resources | (1 << (int)resource), transaction.Keys + 1);
        }
        if (!policy.IsOn)
            return false;
        if (Held.ContainsKey(resource))
            return true;
        if (!_windows.TryGetValue(resource, out var window) || time.GetElapsedTime(window.Began) > policy.Window)
            window = (time.GetTimestamp(), count, 0);
        window.Gone += deleted.Count;
        _windows[resource] = window;
        return IsMass(window.Gone, window.Count);
    }

    /// <summary>Whether so many missing of so many are more than the breaker lets pass at once.</summary>
    public bool IsMass(int gone, int count) => policy.IsOn && gone * 100L > count * (long)policy.SharePercent;

    public void Hold(RelayedResource resource, IEnumerable<KeyValuePair<string, long>> keys)
    {
        if (!Held.TryGetValue(resource, out var held))
            Held[resource] = held = new HeldDeletions(time.GetTimestamp());
        foreach (var (suffix, revision) in keys)
            held.Keys[suffix] = revision;
    }

    /// <summary>Whether each key was deleted by itself, as Cilium's exporters do and no lease that ends, nor `del --prefix`.</summary>
    public bool WereOneByOne(HeldDeletions held) => held.Keys.Values.All(revision =>
        _transactions.TryGetValue(revision, out var transaction) && transaction.Keys == 1);

    /// <summary>Whether each of the transactions can have been the producer's.</summary>
    public bool LooksOwn(HeldDeletions held) => held.Keys.Values.Distinct().All(revision =>
        !_transactions.TryGetValue(revision, out var transaction)
        || (int.IsPow2(transaction.Resources) && transaction.Keys <= WriteLimits.MaxOperations));
}
