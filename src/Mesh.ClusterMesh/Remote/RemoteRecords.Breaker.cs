using System.Globalization;
using Mesh.ClusterMesh.Imports;
using Mesh.KVStore;

namespace Mesh.ClusterMesh.Remote;

/// <summary>What a second look at the store found about one resource with a hold.</summary>
/// <param name="StillThere">Ends of held keys that the store has.</param>
internal sealed record Inspection(
    RemoteResource Resource, ulong StoreId, KeyValue? Config, KeyValue? Canary, bool HasCanaries, IReadOnlySet<string> StillThere);

/// <content>
/// The breaker: nothing is withdrawn without proof. A withdrawal is believed at once while it is small. One that takes more than the
/// allowed share is held and looked at again after a second:
/// <para>
/// It was the owner's will when what no delete of its own ever touches is untouched: cluster-config and canary are there and older
/// than the withdrawal, nothing of it came back, no other resource lost keys in the same transaction (producers write one resource
/// at a time), no transaction was larger than etcd allows a producer, and the lease of the keys still carries others. Then it is
/// believed, of more than one deletion once the owner has shown itself alive behind it and had a moment to object: somebody may have deleted the
/// keys while it is away. Our exporters beat behind what they withdraw, so a service scaled to zero is gone within two seconds.
/// </para>
/// <para>
/// Cilium's exporters beat once a minute, and nobody need wait for that: they delete one key at a time, which no lease that ends and no
/// `del --prefix` does. So where each deletion has a revision of its own, a heartbeat was seen within the last beat or so, and a second look at the
/// same store finds the keys gone and everything else in place, that is sign enough. Not at a door of ours: what its owner did it has beaten behind.
/// </para>
/// <para>
/// Otherwise the store lost its data: leases revoked, keys deleted wholesale, an etcd wiped, restored or exchanged. Then only the
/// owner settles it, by writing again what it means to keep and its canary after that; what it left out goes if that is little.
/// More goes only when a complete list still says so a configured time later and the owner has written something meanwhile: its
/// heartbeat at the least.
/// </para>
/// </content>
internal sealed partial class RemoteRecords
{
    private const int DeletionsRemembered = 4_096;
    private static readonly TimeSpan LookAgain = TimeSpan.FromSeconds(1);

    private readonly bool[] _listing = new bool[RemoteResources.All.Count];

    /// <summary>A heartbeat every minute and a little: who beat within it was there a moment ago.</summary>
    private static readonly TimeSpan LastBeat = TimeSpan.FromSeconds(75);

    /// <summary>Revision of a transaction that deleted → the resources it took from, one bit each, and how many keys.</summary>
    private readonly Dictionary<long, (int Resources, int Keys)> _deletions = [];
    private readonly Queue<long> _deletionOrder = [];
    private volatile bool _release;

    /// <summary>Newest revision of what was written while we watched, in the store of this connection.</summary>
    private long _alive;

    /// <summary>When the heartbeat was written last while we watched; null before, on this connection.</summary>
    private DateTimeOffset? _beatAt;

    /// <summary>Holds since the start.</summary>
    public long Holds => _all.Sum(records => records.Holds);

    /// <summary>Records whose withdrawal is held.</summary>
    public int Held
    {
        get
        {
            var held = 0;
            foreach (var records in _all)
                held += records.HeldCount;
            return held;
        }
    }

    /// <summary>When the next hold wants to be looked at; null without one.</summary>
    public DateTimeOffset? NextInspection
    {
        get
        {
            DateTimeOffset? next = null;
            foreach (var records in _all)
            {
                if (records.Hold is { BeingInspected: false } hold && (next is null || hold.Due < next))
                    next = hold.Due;
            }
            return next;
        }
    }

    public DateTimeOffset? HeldSince => Held == 0 ? null : _all.Where(records => records.Hold is not null).Min(records => records.Hold?.Since);

    /// <summary>One line for people: what is held, since when, why, and when it is let go. Null without a hold.</summary>
    public string? HeldText(BreakerPolicy policy)
    {
        if (Held == 0)
            return null;
        var parts = _all.Where(records => records.Hold is not null).Select(records => Text(records, records.Hold!, policy)).ToList();
        return string.Join("; ", parts);
    }

    /// <summary>What the last connection began and did not end is begun anew.</summary>
    public void BeginConnection()
    {
        Array.Clear(_listing);
        _alive = 0;
        _beatAt = null;
        foreach (var records in _all)
        {
            if (records.Hold is { } hold)
                hold.BeingInspected = false;
        }
    }

    /// <summary>An operator has looked and means it: everything held goes at the next turn. From any thread.</summary>
    public void ReleaseHeld() => _release = true;

    /// <summary>An operator's word waits for the next turn.</summary>
    public bool IsReleaseTold => _release;

    /// <summary>Something was written while we watched, a heartbeat or anything else: the owner is alive.</summary>
    /// <param name="revision">Of the store, when it was written: what is older than a withdrawal says nothing of who made that.</param>
    public void SeenAlive(long revision)
    {
        _alive = Math.Max(_alive, revision);
        foreach (var records in _all)
        {
            if (records.Hold is not { SeenAlive: false } hold || (hold.Settling && revision <= hold.FirstRevision))
                continue;
            hold.SeenAlive = true;
            hold.AliveAt = _time.GetUtcNow();
            if (!hold.Settling)
                hold.Due = _time.GetUtcNow();
        }
    }

    /// <summary>The heartbeat was written while we watched.</summary>
    public void SeenBeat() => _beatAt = _time.GetUtcNow();

    public void CanaryDeleted(RemoteResource resource) => Of(resource).CanaryLost = true;

    public void CanaryWritten(RemoteResource resource)
    {
        var records = Of(resource);
        records.CanaryLost = false;
        if (records.Hold is { Settling: false } hold)
            hold.Due = _time.GetUtcNow();
    }

    /// <summary>Resources whose holds are to be looked at now, each with the held keys' ends; the caller answers with
    /// <see cref="Judge"/> or <see cref="NotInspected"/>.</summary>
    public IReadOnlyList<(RemoteResource Resource, IReadOnlyList<string> Deletions)> TakeDue()
    {
        var due = new List<(RemoteResource, IReadOnlyList<string>)>();
        foreach (var records in _all)
        {
            if (records.Hold is not { BeingInspected: false } hold || hold.Due > _time.GetUtcNow())
                continue;
            hold.BeingInspected = true;
            due.Add((records.Resource, records.HeldDeletions));
        }
        return due;
    }

    public void NotInspected(RemoteResource resource)
    {
        if (Of(resource).Hold is not { } hold)
            return;
        hold.BeingInspected = false;
        hold.Due = _time.GetUtcNow() + LookAgain;
    }

    public void ReleaseIfTold(ImportSession session, RemoteChanges changes)
    {
        if (!_release)
            return;
        _release = false;
        foreach (var records in _all)
            records.LetGo(changes);
        FollowNodes(session, changes);
    }

    public void Judge(Inspection found, ImportSession session, RemoteChanges changes)
    {
        var records = Of(found.Resource);
        if (records.Hold is not { } hold)
            return;
        hold.Returned += found.StillThere.Count;
        records.Keep(found.StillThere);
        hold.BeingInspected = false;
        var now = _time.GetUtcNow();
        if (records.Hold is null)
            return;
        var policy = session.Policy.Breaker;
        if (hold.Settling && Doubt(records, hold, found, session.Layout.Cached) is { } doubt)
        {
            hold.Settling = false;
            hold.Reason = $"{hold.Reason}: {doubt}";
        }
        // Its sign may have been seen before the withdrawal that it follows.
        if (hold.Settling && hold.AliveAt is null && _alive > hold.FirstRevision)
            SeenAlive(_alive);
        // Nothing speaks against it but that somebody else may have done it while the owner is away: one who comes back puts things right.
        if (hold.Settling && !session.Layout.Cached && records.HeldDeletions.Count > 1 && !(now - hold.AliveAt >= policy.Settle)
            && (policy.OwnerBeatsBehind(session.IsDoor()) || !WasOneByOne(hold, now)))
        {
            hold.AwaitsSign = true;
            hold.Due = hold.AliveAt + policy.Settle ?? now + LookAgain;
            return;
        }
        if (!hold.Settling && !WrittenAnew(records, hold, found, policy) && !ConfirmedLater(hold, found, policy, now))
        {
            var confirm = hold.Since + policy.ConfirmAfter;
            hold.Due = confirm > now ? confirm : now + LookAgain;
            return;
        }
        records.LetGo(changes);
        FollowNodes(session, changes);
    }

    /// <summary>Each key was deleted by itself, and its owner was there not longer ago than it beats: that, and the look at the store just now,
    /// is as good as its next heartbeat.</summary>
    private bool WasOneByOne(Hold hold, DateTimeOffset now) => now - _beatAt <= LastBeat && !hold.Unknown
        && hold.Revisions.All(revision => _deletions.TryGetValue(revision, out var taken) && taken.Keys == 1);

    /// <summary>Why a mass withdrawal does not look like its owner's will; null when it does.</summary>
    /// <param name="relayed">Read from a relay's cache, whose commits are no producer's transactions.</param>
    private string? Doubt(ResourceRecords records, Hold hold, Inspection found, bool relayed)
    {
        if (found.StoreId != records.StoreId)
            return "another etcd answers";
        if (found.Config is not { } config)
            return "the cluster-config is gone too";
        if (config.ModRevision >= hold.FirstRevision)
            return "the cluster-config was written anew since";
        if (found.HasCanaries && found.Canary is null)
            return "its canary is gone too";
        if (found.Canary is { } canary && canary.ModRevision >= hold.FirstRevision)
            return "its canary was written anew since";
        if (hold.Returned > 0)
            return $"{hold.Returned} of them came back";
        if (hold.ForeignHand is { } hand)
            return hand;
        if (relayed)
            return null;
        if (hold.Revisions.Any(revision => _deletions.TryGetValue(revision, out var taken) && !int.IsPow2(taken.Resources)))
            return "other resources lost keys in the same transaction, which no producer does";
        return hold.Lease != 0 && !_all.Any(other => other != records && other.CountOfLeaseId(hold.Lease) > 0)
            ? $"lease {hold.Lease:x} has lost all its keys"
            : null;
    }

    /// <summary>The owner has published itself anew after the loss, and leaves out only what may go at once.</summary>
    private static bool WrittenAnew(ResourceRecords records, Hold hold, Inspection found, BreakerPolicy policy)
    {
        if (found.Canary is not { } canary || found.Config is null)
            return false;
        // In another store the canary alone is no proof: it may be a copy that nobody writes any more.
        var anew = found.StoreId == records.StoreId && !hold.OtherHistory
            ? canary.ModRevision >= hold.FirstRevision
            : hold.SeenAlive && records.Canary is { } before && !Same(before, canary);
        return anew && !records.Exceeds(policy, records.HeldWeight);
    }

    private static bool ConfirmedLater(Hold hold, Inspection found, BreakerPolicy policy, DateTimeOffset now) =>
        now >= hold.Since + policy.ConfirmAfter && hold.SeenAlive && found.Config is not null && (found.Canary is not null || !found.HasCanaries);

    private void BeginList(RemoteResource resource)
    {
        _listing[(int)resource] = true;
        Quarantine.BeginList(resource);
        switch (resource)
        {
            case RemoteResource.Nodes: _nodes.BeginList(); break;
            case RemoteResource.Services: _services.BeginList(); break;
            case RemoteResource.IpEntries:
                _ipEntries.BeginList();
                _awaitingNode.Clear();
                break;
            case RemoteResource.Identities: _identities.BeginList(); break;
            case RemoteResource.ServiceExports: _exports.BeginList(); break;
        }
    }

    private void EndList(RemoteResource resource, in WatchBatch end, KeyValue? canary, ImportSession session, RemoteChanges changes)
    {
        _listing[(int)resource] = false;
        Quarantine.EndList(resource);
        switch (resource)
        {
            case RemoteResource.Nodes: EndList(_nodes, end, canary, session, changes); break;
            case RemoteResource.Services: EndList(_services, end, canary, session, changes); break;
            case RemoteResource.IpEntries: EndList(_ipEntries, end, canary, session, changes); break;
            case RemoteResource.Identities: EndList(_identities, end, canary, session, changes); break;
            case RemoteResource.ServiceExports: EndList(_exports, end, canary, session, changes); break;
        }
    }

    /// <summary>What a complete list leaves out is withdrawn, by the proof the list itself gives.</summary>
    private void EndList<TKey, TRecord>(ResourceRecords<TKey, TRecord> records, in WatchBatch end, KeyValue? canary, ImportSession session,
        RemoteChanges changes)
        where TKey : notnull
        where TRecord : class
    {
        records.CanaryLost = false;
        var policy = session.Policy.Breaker;
        var (storeId, revision) = (_storeId, end.Revision);
        // A record older than the one in force proves that the store was put back, even when its revisions have caught up since.
        var sameHistory = records.StoreId == storeId && revision >= records.LastRevision && records.Backwards == 0 && !end.OtherHistory;
        var writtenAnew = canary is { } present && records.Canary is { } before
            && (sameHistory ? present.ModRevision > records.LastRevision : !Same(before, present));
        var since = sameHistory ? records.LastRevision + 1 : 1;
        List<(TKey Key, long)> gone = [.. records.Known.Unlisted().Select(key => (key, since))];
        string? doubt = null;
        if (policy.IsOn && gone.Count + records.Backwards > 0 && records.StoreId != 0)
        {
            var what = $"{gone.Count} of {records.Count} missing, {records.Backwards} other than known,";
            if (!sameHistory)
            {
                doubt = writtenAnew
                    ? $"{what} in another store whose owner has not been seen alive there"
                    : $"{what} in a store that went back, or is another with the canary of before";
            }
            else if (writtenAnew && records.ExceedsBy(policy, gone.Select(one => one.Key)))
                doubt = $"{what} in a list that its owner began anew";
        }
        if (doubt is null)
            records.TakeBackwards(changes);
        else
            records.HoldBackwards(policy, doubt);
        // One list is one step: what its transactions were is not known.
        records.Withdraw(gone, policy, changes, doubt, transactions: false);
        if (records.Hold is { } hold && doubt is not null)
        {
            hold.OtherHistory |= !sameHistory;
            records.BelieveLater(storeId, revision, Remember(canary));
        }
        else
        {
            records.Believe(storeId, revision, Remember(canary));
        }
    }

    private void Withdraw<TKey, TRecord>(ResourceRecords<TKey, TRecord> records, IReadOnlyList<(TKey Key, long Revision)> gone,
        ImportSession session, RemoteChanges changes)
        where TKey : notnull
        where TRecord : class
    {
        foreach (var (key, revision) in gone)
        {
            if (!records.Known.Contains(key))
                continue;
            if (!_deletions.ContainsKey(revision))
            {
                _deletionOrder.Enqueue(revision);
                if (_deletionOrder.Count > DeletionsRemembered)
                    _deletions.Remove(_deletionOrder.Dequeue());
            }
            var (resources, keys) = _deletions.GetValueOrDefault(revision);
            _deletions[revision] = (resources | 1 << (int)records.Resource, keys + 1);
        }
        records.Withdraw(gone, session.Policy.Breaker, changes, transactions: !session.Layout.Cached);
    }

    private static bool Same((long Revision, byte[] Value) before, in KeyValue canary) =>
        before.Revision == canary.ModRevision && before.Value.AsSpan().SequenceEqual(canary.Value.Span);

    private static (long Revision, byte[] Value)? Remember(KeyValue? canary) =>
        canary is { } present ? (present.ModRevision, present.Value.ToArray()) : null;

    private static string Text(ResourceRecords records, Hold hold, BreakerPolicy policy)
    {
        var until = hold is { Settling: true, AwaitsSign: true } ? "let go at the next sign of life of its owner"
            : hold.Settling ? "being confirmed"
            : $"let go when the cluster has written itself anew, or a list still lacks them after {Time(hold.Since + policy.ConfirmAfter)} "
                + "with its heartbeat alive";
        return $"{records.HeldCount} of {records.Count} {records.Resource} held since {Time(hold.Since)}: {hold.Reason}; {until}";
    }

    private static string Time(DateTimeOffset time) => time.ToString("HH:mm:ss'Z'", CultureInfo.InvariantCulture);
}
