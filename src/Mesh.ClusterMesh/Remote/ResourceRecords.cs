using Mesh.ClusterMesh.Imports;

namespace Mesh.ClusterMesh.Remote;

/// <summary>One resource of one peer, as the breaker sees it: how much there is, how much of it is held, and in which store's
/// history it was read.</summary>
internal abstract class ResourceRecords(RemoteResource resource, TimeProvider time)
{
    /// <summary>Deletes of one transaction of the store: more at one revision are no producer's (etcd allows 128 operations).</summary>
    protected const int LargestTransaction = 128;

    private (ulong StoreId, long Revision, (long Revision, byte[] Value)? Canary)? _later;

    public RemoteResource Resource { get; } = resource;

    public Hold? Hold { get; protected set; }

    /// <summary>Withdrawn lately, in weight.</summary>
    public SlidingSum Removed { get; } = new(time);

    /// <summary>The canary is gone: whatever is deleted meanwhile is not the owner's doing until it is back.</summary>
    public bool CanaryLost { get; set; }

    /// <summary>etcd's cluster ID of the history believed in; 0 before the first list.</summary>
    public ulong StoreId { get; private set; }

    /// <summary>Up to here that history was read.</summary>
    public long LastRevision { get; private set; }

    /// <summary>The canary of the last list believed in.</summary>
    public (long Revision, byte[] Value)? Canary { get; private set; }

    public abstract int Count { get; }

    public abstract long Bytes { get; }

    /// <summary>What counts: backends for services, records otherwise.</summary>
    public abstract int Weight { get; }

    public abstract int HeldCount { get; }

    public abstract int HeldWeight { get; }

    public string Unit => Resource switch
    {
        RemoteResource.Services => "backends",
        RemoteResource.Nodes => "nodes",
        RemoteResource.Identities => "identities",
        RemoteResource.ServiceExports => "exports",
        _ => "addresses",
    };

    public abstract int CountOfLeaseId(long id);

    /// <summary>Ends of the keys whose deletion is held.</summary>
    public abstract IReadOnlyList<string> HeldDeletions { get; }

    /// <summary>The store has these after all.</summary>
    public abstract void Keep(IReadOnlySet<string> present);

    /// <summary>A list of so many keys begins.</summary>
    public abstract void Expect(int count);

    /// <summary>Believes everything held.</summary>
    public abstract void LetGo(RemoteChanges changes);

    public void ReadUpTo(ulong storeId, long revision)
    {
        if (storeId == StoreId)
            LastRevision = Math.Max(LastRevision, revision);
    }

    /// <summary>The same, once nothing is held any more.</summary>
    public void BelieveLater(ulong storeId, long revision, (long Revision, byte[] Value)? canary) => _later = (storeId, revision, canary);

    public void Believe(ulong storeId, long revision, (long Revision, byte[] Value)? canary)
    {
        StoreId = storeId;
        LastRevision = revision;
        Canary = canary;
        _later = null;
    }

    public bool Exceeds(BreakerPolicy policy, int weight)
    {
        var before = Removed.Over(policy.Window);
        return (before + weight) * 100 > policy.SharePercent * (Weight + before);
    }

    /// <summary>Holds begun since the start.</summary>
    public long Holds { get; private set; }

    protected void EndHold()
    {
        Hold = null;
        if (_later is { } later)
            Believe(later.StoreId, later.Revision, later.Canary);
    }

    protected Hold BeginHold(BreakerPolicy policy, string reason, long revision)
    {
        Holds++;
        var now = time.GetUtcNow();
        return Hold = new Hold(reason, revision, now, now + policy.Settle);
    }
}

/// <summary>Records by key. Everything that would take something from the sink passes <see cref="Withdraw"/> or
/// <see cref="Put"/>, which hold it back when it is too much at once to be believed.</summary>
/// <param name="keyText">The end of the record's key in the store.</param>
/// <param name="list">Where changes of this resource go.</param>
internal sealed class ResourceRecords<TKey, TRecord>(
    RemoteResource resource, TimeProvider time, Func<TKey, string> keyText, Func<RemoteChanges, List<KeyValuePair<TKey, TRecord?>>> list)
    : ResourceRecords(resource, time)
    where TKey : notnull
    where TRecord : class
{
    private readonly HashSet<TKey> _heldDeletions = [];
    private readonly Dictionary<TKey, Update> _heldPuts = [];

    /// <summary>Shown by the list that is being read, and older than what is in force: that store may have been put back.</summary>
    private readonly Dictionary<TKey, Update> _backwards = [];

    /// <summary>Withdrawn by what their keys hold (not shared any more, or spoilt): that they are in the store says nothing.</summary>
    private readonly HashSet<TKey> _standing = [];

    /// <summary>Backends of each service; other records weigh one each.</summary>
    private readonly Dictionary<TKey, int>? _weights = resource == RemoteResource.Services ? [] : null;
    private int _weight;

    /// <summary>Whose writes took all that was lost within the window; default when several did.</summary>
    private TKey? _loser;

    private readonly record struct Update(TRecord Record, int Weight, long Lease, long Revision, int Bytes, int Hash);

    public KnownKeys<TKey> Known { get; } = new();

    /// <summary>Records of the present list that would put known ones back.</summary>
    public int Backwards => _backwards.Count;

    public override int Count => Known.Count;

    public override long Bytes => Known.Bytes;

    public override int Weight => _weights is null ? Known.Count : _weight;

    public override int HeldCount => _heldDeletions.Count + _heldPuts.Count;

    public override int HeldWeight =>
        _heldDeletions.Sum(WeightOf) + _heldPuts.Sum(held => Loss(held.Key, held.Value.Weight));

    public override IReadOnlyList<string> HeldDeletions => [.. _heldDeletions.Where(key => !_standing.Contains(key)).Select(keyText)];

    public override int CountOfLeaseId(long id) => Known.CountOfLeaseId(id);

    /// <summary>Takes a sound record over.</summary>
    /// <param name="weight">Backends of a service; one for anything else.</param>
    /// <param name="listedIn">etcd's cluster ID of the store that lists it; null for a change.</param>
    /// <param name="bytes">Of key and value.</param>
    public void Put(TKey key, TRecord record, in KVStore.KeyValue item, int bytes, int weight, ulong? listedIn, BreakerPolicy policy,
        RemoteChanges changes)
    {
        var revision = item.ModRevision;
        var hash = default(HashCode);
        hash.AddBytes(item.Value.Span);
        var update = new Update(record, weight, item.Lease, revision, bytes, hash.ToHashCode());
        var before = Known.RevisionOf(key);
        // Another store, or one that went back, may list what is long outdated; the same value is no change wherever it comes from.
        if (listedIn is { } store && policy.IsOn && before != 0 && (store != StoreId || revision < before)
            && !Known.IsInForce(key, bytes, update.Hash))
        {
            Known.Seen(key);
            _backwards[key] = update;
            return;
        }
        if (_heldDeletions.Remove(key))
            Hold!.Returned++;
        _standing.Remove(key);
        var loss = Loss(key, weight);
        var own = listedIn is null && IsOnlyLoser(key, policy);
        if (loss > 0 && policy.IsOn && (_heldPuts.ContainsKey(key) || (!own && Exceeds(policy, loss))))
        {
            // The next record of the same service replaces this one, held or not.
            (Hold ?? BeginHold(policy, $"{loss} of {Weight} backends taken out of their services", revision)).Join(revision);
            Known.Seen(key);
            _heldPuts[key] = update;
            return;
        }
        if (loss > 0)
            Lose(key, loss, policy);
        Take(key, update, changes);
        EndEmptyHold();
    }

    /// <summary>A record written while we watch is its owner's word, not a store's loss. One service may so be scaled to zero at once,
    /// whatever its share of the peer; several within the window are a step to look at.</summary>
    private bool IsOnlyLoser(TKey key, BreakerPolicy policy) =>
        Hold is null && (Removed.Over(policy.Window) == 0 || (_loser is { } loser && loser.Equals(key)));

    private void Lose(TKey key, int loss, BreakerPolicy policy)
    {
        _loser = IsOnlyLoser(key, policy) ? key : default;
        Removed.Add(loss);
    }

    /// <summary>The list is complete and its owner has begun it anew: what it says is newer whatever the revisions.</summary>
    public void TakeBackwards(RemoteChanges changes)
    {
        foreach (var (key, update) in _backwards)
            Take(key, update, changes);
        _backwards.Clear();
    }

    public void HoldBackwards(BreakerPolicy policy, string reason)
    {
        if (_backwards.Count == 0)
            return;
        var hold = Hold ?? BeginHold(policy, reason, 1);
        hold.Reason = reason;
        hold.Settling = false;
        hold.Join(1);
        foreach (var (key, update) in _backwards)
        {
            if (!_heldDeletions.Contains(key))
                _heldPuts[key] = update;
        }
        _backwards.Clear();
    }

    public bool ExceedsBy(BreakerPolicy policy, IEnumerable<TKey> gone) =>
        Exceeds(policy, gone.Sum(WeightOf) + _backwards.Sum(update => Loss(update.Key, update.Value.Weight)));

    /// <summary>The key will be withdrawn though it is in the store.</summary>
    public void Stand(TKey key)
    {
        if (Known.Contains(key))
            _standing.Add(key);
    }

    public void BeginList()
    {
        Known.BeginList();
        _standing.Clear();
        _backwards.Clear();
    }

    /// <summary>Keys that the store no longer has. Those that are not known are passed over.</summary>
    /// <param name="reason">Why they are not to be believed at all before the owner or time confirms them; null to judge by their
    /// number and how they went.</param>
    /// <param name="transactions">The revisions are those of the producer's own transactions: not so for what is missing from a list,
    /// or what a relay deleted.</param>
    public void Withdraw(IReadOnlyList<(TKey Key, long Revision)> gone, BreakerPolicy policy, RemoteChanges changes, string? reason = null,
        bool transactions = true)
    {
        var known = gone.Where(one => Known.Contains(one.Key) && !_heldDeletions.Contains(one.Key)).ToList();
        if (known.Count == 0)
            return;
        var (hand, lease) = policy.IsOn && transactions ? ForeignHand(known) : default;
        var weight = known.Sum(one => WeightOf(one.Key));
        var why = !policy.IsOn ? null
            : reason ?? (CanaryLost ? "deleted while the canary is gone" : null)
            ?? Hold?.Reason ?? hand ?? (lease != 0 ? $"lease {lease:x} has lost its keys" : null)
            ?? (Exceeds(policy, weight) ? $"{weight} of {Weight} {Unit} withdrawn at once" : null);
        if (why is null)
        {
            _loser = default;
            Removed.Add(weight);
            foreach (var (key, _) in known)
                Remove(key, changes);
            EndEmptyHold();
            return;
        }
        var hold = Hold ?? BeginHold(policy, why, known.Min(one => one.Revision));
        if (reason is not null)
            hold.Reason = reason;
        // What is doubted from the start has nothing to settle.
        hold.Settling &= reason is null;
        hold.ForeignHand ??= hand ?? (CanaryLost ? "its canary was deleted" : null);
        if (lease != 0)
            hold.Lease = lease;
        foreach (var (key, revision) in known)
        {
            hold.Join(revision);
            _heldPuts.Remove(key);
            _heldDeletions.Add(key);
        }
    }

    /// <summary>Not a withdrawal by the peer but our own refusal: at once.</summary>
    public void Refuse(TKey key, RemoteChanges changes)
    {
        if (Known.Contains(key))
            Remove(key, changes);
        EndEmptyHold();
    }

    public override void Expect(int count) => Known.Expect(count);

    public override void Keep(IReadOnlySet<string> present)
    {
        _heldDeletions.RemoveWhere(key => !_standing.Contains(key) && present.Contains(keyText(key)));
        EndEmptyHold();
    }

    public override void LetGo(RemoteChanges changes)
    {
        foreach (var key in _heldDeletions.ToList())
            Remove(key, changes);
        foreach (var (key, update) in _heldPuts.ToList())
            Take(key, update, changes);
        _heldDeletions.Clear();
        Removed.Clear();
        EndHold();
    }

    public void Clear()
    {
        Known.Clear();
        _standing.Clear();
        _heldDeletions.Clear();
        _heldPuts.Clear();
        _backwards.Clear();
        _weights?.Clear();
        _weight = 0;
        Removed.Clear();
        Hold = null;
        CanaryLost = false;
        Believe(0, 0, null);
    }

    private int Loss(TKey key, int weight) => Math.Max(0, WeightOf(key) - weight);

    private void Take(TKey key, in Update update, RemoteChanges changes)
    {
        _heldPuts.Remove(key);
        Known.Add(key, update.Lease, update.Bytes, update.Revision, update.Hash);
        Weigh(key, update.Weight);
        list(changes).Add(new(key, update.Record));
    }

    private void Remove(TKey key, RemoteChanges changes)
    {
        _heldDeletions.Remove(key);
        _heldPuts.Remove(key);
        _standing.Remove(key);
        if (_weights is not null && _weights.Remove(key, out var weight))
            _weight -= weight;
        Known.Remove(key);
        list(changes).Add(new(key, null));
    }

    private void EndEmptyHold()
    {
        if (Hold is not null && _heldDeletions.Count == 0 && _heldPuts.Count == 0)
            EndHold();
    }

    private int WeightOf(TKey key) => _weights is null ? (Known.Contains(key) ? 1 : 0) : _weights.GetValueOrDefault(key);

    private void Weigh(TKey key, int weight)
    {
        if (_weights is null)
            return;
        _weight += weight - _weights.GetValueOrDefault(key);
        _weights[key] = weight;
    }

    /// <summary>How deletes look that no producer makes: more at one revision than a transaction holds, or all keys of a lease.</summary>
    private (string? Text, long Lease) ForeignHand(List<(TKey Key, long Revision)> gone)
    {
        if (gone.Count < 2)
            return default;
        foreach (var block in gone.GroupBy(one => one.Revision))
        {
            var keys = block.Count();
            if (keys > LargestTransaction)
                return ($"{keys} keys were deleted in one transaction, which no producer does", 0);
            if (keys < 2)
                continue;
            foreach (var lease in block.GroupBy(one => Known.LeaseOf(one.Key)).Where(group => group.Key != 0))
            {
                if (lease.Count() >= 2 && lease.Count() == Known.CountOfLease(lease.Key))
                    return (null, Known.LeaseId(lease.Key));
            }
        }
        return default;
    }
}
