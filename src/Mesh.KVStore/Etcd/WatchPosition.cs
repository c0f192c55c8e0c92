using Etcdserverpb;
using Google.Protobuf;
using Mvccpb;

namespace Mesh.KVStore;

/// <summary>
/// Where a reader stands in the history of one etcd, and what it needs to prove that: the number of keys below the prefix, the key
/// it read last, and which keys changed since the last audit.
/// </summary>
internal sealed class WatchPosition
{
    /// <summary>An audit is due early when so many keys changed, which bounds what is remembered.</summary>
    private const int MaxChanges = 65_536;

    private readonly Dictionary<ByteString, long> _changes = [];
    private long _auditedAt;

    /// <summary>The first revision not yet read; 1 before the list.</summary>
    public long Next { get; private set; } = 1;

    public ulong ClusterId { get; private set; }

    /// <summary>Keys below the prefix, those that are not UTF-8 included.</summary>
    public long Count { get; private set; }

    /// <summary>The key read last; its version is 0 when that was a delete.</summary>
    public Mvccpb.KeyValue? Anchor { get; set; }

    /// <summary>A stream has stood, or failed to open, since this list.</summary>
    public bool Resuming { get; set; }

    /// <summary>Continuity cannot be proved: list again.</summary>
    public bool Lost { get; set; }

    /// <summary>Up to this revision the reader is known to be complete.</summary>
    public long AuditedTo { get; private set; }

    public PendingAudit? Audit { get; private set; }

    public void Begin(ResponseHeader header, long count)
    {
        ClusterId = header.ClusterId;
        Next = header.Revision + 1;
        AuditedTo = header.Revision;
        Count = count;
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
            var deleted = item.Type == Event.Types.EventType.Delete;
            if (deleted)
                Count--;
            else if (item.Kv.Version == 1)
                Count++;
            _changes[item.Kv.Key] = item.Kv.ModRevision;
            Anchor = item.Kv;
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

    /// <summary>How long until the next step of the audit; infinite when audits are off.</summary>
    public TimeSpan AuditDue(TimeProvider time, EtcdOptions options)
    {
        if (options.AuditInterval == Timeout.InfiniteTimeSpan)
            return Timeout.InfiniteTimeSpan;
        if (_auditedAt == 0)
            _auditedAt = time.GetTimestamp();
        if (Audit is null && _changes.Count > MaxChanges)
            return TimeSpan.Zero;
        var left = Audit is null
            ? options.AuditInterval - time.GetElapsedTime(_auditedAt)
            : options.AuditGrace - time.GetElapsedTime(Audit.Asked);
        return left > TimeSpan.Zero ? left : TimeSpan.Zero;
    }

    public void BeginAudit(long revision, long count, IReadOnlyList<Mvccpb.KeyValue> changed, long now) =>
        Audit = new PendingAudit(revision, count, changed, now) { CountThere = revision < Next - 1 ? count : null };

    /// <summary>What differs between the store as it was asked and what was read by now; null when nothing does.</summary>
    public string? FinishAudit(long now)
    {
        var audit = Audit!;
        Audit = null;
        _auditedAt = now;
        var missed = audit.Changed.FirstOrDefault(c => !_changes.TryGetValue(c.Key, out var seen) || seen < c.ModRevision);
        if (missed is not null)
            return $"the change of {missed.Key.ToStringUtf8()} at revision {missed.ModRevision} never arrived";
        var count = audit.CountThere ?? Count;
        if (count != audit.Count)
            return $"the store holds {audit.Count} keys, we read {count}";
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

        public long Asked { get; } = asked;

        /// <summary>Our own count as of <see cref="Revision"/>; null until an event beyond it arrives.</summary>
        public long? CountThere { get; set; }
    }
}
