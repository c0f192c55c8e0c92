using Etcdserverpb;
using Google.Protobuf;
using Mvccpb;

namespace Mesh.KVStore;

/// <summary>
/// Where a reader stands in the history of one etcd, and what it needs to prove that: the keys it holds, the key it read last, and
/// which keys changed since the last audit.
///
/// An audit asks for the number of keys below the prefix and for the names and revisions of those changed since the last audit; that
/// is a digest of the whole, by induction. At audit a the reader held exactly what the store did. Let every key the store names as
/// changed up to r have been seen here at that revision or a later one, and let both counts be equal at r. A key of the store at r
/// either changed after a, then it is named and we have seen it; or it did not, then we held it at a, and no event has touched it.
/// So the reader holds all that the store holds, and by the count nothing else. This needs the count of what is really held: one
/// reckoned from events (a creation +1, a deletion -1) is wrong in the same way as the events are, when some of them are lost.
/// </summary>
/// <param name="random">Seeds the hashes of the keys.</param>
internal sealed class WatchPosition(Random random)
{
    /// <summary>An audit is due early when so many keys changed, which bounds what is remembered.</summary>
    private const int MaxChanges = 65_536;

    private readonly Dictionary<ByteString, long> _changes = [];
    private readonly HeldKeys _held = new((ulong)random.NextInt64());

    /// <summary>The first revision not yet read; 1 before the list.</summary>
    public long Next { get; private set; } = 1;

    public ulong ClusterId { get; private set; }

    /// <summary>Keys held, those that are not UTF-8 included.</summary>
    public long Count => _held.Count;

    /// <summary>The key read last; its version is 0 when that was a delete.</summary>
    public Mvccpb.KeyValue? Anchor { get; private set; }

    /// <summary>The value of <see cref="Anchor"/> is not known.</summary>
    public bool AnchorIsName { get; private set; }

    /// <summary>A stream has stood, or failed to open, since this list.</summary>
    public bool Resuming { get; set; }

    /// <summary>Continuity cannot be proved: list again.</summary>
    public bool Lost { get; set; }

    /// <summary>Up to this revision every change has been seen.</summary>
    public long AuditedTo { get; private set; }

    public PendingAudit? Audit { get; private set; }

    /// <summary>So much changed since the last audit that the next one is due whatever its time.</summary>
    public bool MustAudit => Audit is null && _changes.Count > MaxChanges;

    /// <summary>All that happened up to the store's answer must have arrived, because something newer has.</summary>
    public bool IsAuditRipe => Audit is { } audit && Next > audit.Revision;

    public void Begin(ResponseHeader header)
    {
        ClusterId = header.ClusterId;
        Next = header.Revision + 1;
        AuditedTo = header.Revision;
    }

    /// <summary>Takes a page of the list.</summary>
    /// <param name="namesOnly">Without values.</param>
    public void List(IReadOnlyList<Mvccpb.KeyValue> page, bool namesOnly = false)
    {
        AnchorIsName = namesOnly;
        foreach (var item in page)
            _held.Add(item.Key);
        if (page.Count > 0)
            Anchor = page[^1];
    }

    /// <summary>Whether an answer can come from the history that was listed.</summary>
    public bool Accepts(ResponseHeader header, out string reason)
    {
        reason = header.ClusterId != ClusterId
            ? $"another etcd answers behind the address: cluster ID {header.ClusterId:x16}, before {ClusterId:x16}"
            : header.Revision < Next - 1 ? $"the store went back from revision {Next - 1} to {header.Revision}" : "";
        return reason.Length == 0;
    }

    /// <summary>Takes a complete message: all events of a revision come in one. Returns those not seen before.</summary>
    public List<Event> Apply(IReadOnlyList<Event> events)
    {
        var fresh = new List<Event>(events.Count);
        foreach (var item in events)
        {
            if (item.Kv.ModRevision < Next)
                continue;
            fresh.Add(item);
            if (Audit is { CountThere: null } audit && item.Kv.ModRevision > audit.Revision)
                audit.CountThere = Count;
            if (item.Type == Event.Types.EventType.Delete)
                _held.Remove(item.Kv.Key);
            else
                _held.Add(item.Kv.Key);
            _changes[item.Kv.Key] = item.Kv.ModRevision;
            Anchor = item.Kv;
            AnchorIsName = false;
        }
        if (fresh.Count > 0)
            Next = fresh[^1].Kv.ModRevision + 1;
        return fresh;
    }

    /// <summary>A progress notification: nothing is missing up to this revision. 3.4 may send one older than where we begin.</summary>
    public void Progressed(long revision)
    {
        if (revision >= Next)
            Next = revision + 1;
    }

    /// <summary>The grace of a pending audit runs while the reader listens and hears nothing.</summary>
    public void Listening(long now)
    {
        if (Audit is { } audit)
            audit.SilentSince = now;
    }

    public void BeginAudit(long revision, long count, IReadOnlyList<Mvccpb.KeyValue> changed, long now) =>
        Audit = new PendingAudit(revision, count, changed, now) { CountThere = revision < Next - 1 ? count : null };

    /// <summary>What differs at present between the store as it was asked and what was read; null when nothing does.</summary>
    public string? Difference()
    {
        var audit = Audit!;
        var missed = audit.Changed.FirstOrDefault(c => !_changes.TryGetValue(c.Key, out var seen) || seen < c.ModRevision);
        if (missed is not null)
            return $"the change of {missed.Key.ToStringUtf8()} at revision {missed.ModRevision} never arrived";
        var count = audit.CountThere ?? Count;
        return count == audit.Count ? null : $"the store holds {audit.Count} keys, we hold {count}";
    }

    /// <summary>Ends the audit: with no difference, everything up to the store's answer is known to have been read.</summary>
    public string? FinishAudit()
    {
        var difference = Difference();
        var audit = Audit!;
        Audit = null;
        if (difference is not null)
            return difference;
        AuditedTo = audit.Revision;
        foreach (var (key, revision) in _changes)
        {
            if (revision <= audit.Revision)
                _changes.Remove(key);
        }
        Progressed(audit.Revision);
        return null;
    }

    /// <summary>The store's answer, waiting for the events under way when it was asked.</summary>
    internal sealed class PendingAudit(long revision, long count, IReadOnlyList<Mvccpb.KeyValue> changed, long asked)
    {
        public long Revision { get; } = revision;

        public long Count { get; } = count;

        public IReadOnlyList<Mvccpb.KeyValue> Changed { get; } = changed;

        /// <summary>Timestamp of the last message, or of the answer itself.</summary>
        public long SilentSince { get; set; } = asked;

        /// <summary>Our own count as of <see cref="Revision"/>; null until an event beyond it arrives.</summary>
        public long? CountThere { get; set; }

        /// <summary>The difference has outlived one grace already.</summary>
        public bool Doubted { get; set; }
    }
}
