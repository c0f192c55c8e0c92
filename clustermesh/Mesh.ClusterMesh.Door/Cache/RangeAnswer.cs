using System.Collections.Immutable;
using Etcdserverpb;
using Mesh.ClusterMesh.Door.Protocol;
using Target = Etcdserverpb.RangeRequest.Types.SortTarget;

namespace Mesh.ClusterMesh.Door.Cache;

/// <summary>
/// What a Range gives, with etcd's own order of steps: the range at its revision, then the limit unless something needs all of it,
/// then the filters, the sort, and the cut that sets `more`. `count` is that of the range before any of it.
/// </summary>
internal sealed record RangeAnswer(HeaderIds Ids, long Revision, IReadOnlyList<KeyVersion> Keys, bool More, long Count, bool KeysOnly)
{
    /// <exception cref="EtcdFault">The revision is compacted or in the future.</exception>
    public static RangeAnswer Of(RangeRequest request, KeyRange range, CacheView view)
    {
        var head = view.History.Head;
        var entry = head;
        if (request.Revision > head.Revision)
            throw EtcdFault.FutureRevision();
        if (request.Revision > 0)
            entry = view.History.Find(request.Revision) ?? throw EtcdFault.Compacted();
        var (first, behind) = Bounds(entry.Keys, range);
        var count = behind - first;
        if (request.CountOnly)
            return new RangeAnswer(view.Ids, head.Revision, [], false, count, false);

        var filtered = request.MinModRevision != 0 || request.MaxModRevision != 0
            || request.MinCreateRevision != 0 || request.MaxCreateRevision != 0;
        var sorted = request.SortOrder != RangeRequest.Types.SortOrder.None;
        var limit = request.Limit > 0 ? request.Limit : long.MaxValue;
        var keys = ChangedSince(request, range, view.History, entry, count);
        if (keys is null)
        {
            // One key too many tells whether there are more; a filter or a sort must see them all.
            var taken = filtered || sorted || limit == long.MaxValue ? count : (int)Math.Min(count, limit + 1);
            keys = new List<KeyVersion>(filtered ? 0 : taken);
            for (var i = first; i < first + taken; i++)
            {
                var key = entry.Keys[i];
                if (!filtered || Passes(request, key))
                    keys.Add(key);
            }
        }
        if (sorted || request.SortTarget != Target.Key)
            keys = Sort(keys, request.SortTarget, request.SortOrder == RangeRequest.Types.SortOrder.Descend);
        var more = keys.Count > limit;
        if (more)
            keys.RemoveRange((int)limit, keys.Count - (int)limit);
        return new RangeAnswer(view.Ids, head.Revision, keys, more, count, request.KeysOnly);
    }

    /// <summary>Size of the encoded RangeResponse.</summary>
    public long Size()
    {
        var size = ResponseHeaderBytes.FieldSize(Ids, Revision) + Proto.FieldSize(More ? 1u : 0u) + Proto.FieldSize((ulong)Count);
        long sum = size;
        foreach (var key in Keys)
            sum += Proto.BytesSize(KeysOnly ? key.SizeWithoutValue : key.Message.Length);
        return sum;
    }

    /// <summary>
    /// What changed since a revision that is still in memory, out of the revisions themselves: an audit asks so every second and
    /// must not cost a walk over all keys. Null when the walk is the shorter way, or the only one.
    /// </summary>
    private static List<KeyVersion>? ChangedSince(
        RangeRequest request, KeyRange range, History history, RevisionEntry entry, int count)
    {
        var since = request.MinModRevision;
        if (since <= 0 || entry.Revision - since >= count)
            return null;
        if (since > entry.Revision)
            return [];
        if (since < history.OldestEvents)
            return null;
        var keys = new List<KeyVersion>();
        var budget = count;
        for (var revision = since; revision <= entry.Revision; revision++)
        {
            if (history.Find(revision) is not { Listed: false } changed || (budget -= changed.Events.Length) < 0)
                return null;
            foreach (var (version, _) in changed.Events)
            {
                if (!version.IsDelete && version.SupersededAt is var end && (end == 0 || end > entry.Revision)
                    && range.Contains(version.Key) && Passes(request, version))
                    keys.Add(version);
            }
        }
        keys.Sort(KeyOrder.Instance);
        return keys;
    }

    private static (int First, int Behind) Bounds(ImmutableSortedSet<KeyVersion> keys, KeyRange range)
    {
        if (range.IsEmpty)
            return (0, 0);
        return (IndexOf(keys, range.Start), range.End is null ? keys.Count : IndexOf(keys, range.End));
    }

    private static int IndexOf(ImmutableSortedSet<KeyVersion> keys, byte[] key)
    {
        var index = keys.IndexOf(KeyVersion.Probe(key));
        return index >= 0 ? index : ~index;
    }

    private static bool Passes(RangeRequest request, KeyVersion key) =>
        (request.MinModRevision == 0 || key.ModRevision >= request.MinModRevision)
        && (request.MaxModRevision == 0 || key.ModRevision <= request.MaxModRevision)
        && (request.MinCreateRevision == 0 || key.CreateRevision >= request.MinCreateRevision)
        && (request.MaxCreateRevision == 0 || key.CreateRevision <= request.MaxCreateRevision);

    /// <summary>Equal ones stay in key order, whichever way the sort goes.</summary>
    private static List<KeyVersion> Sort(List<KeyVersion> keys, Target target, bool descending)
    {
        Comparison<KeyVersion> by = target switch
        {
            Target.Key => KeyOrder.Instance.Compare,
            Target.Version => static (left, right) => left.Version.CompareTo(right.Version),
            Target.Create => static (left, right) => left.CreateRevision.CompareTo(right.CreateRevision),
            Target.Mod => static (left, right) => left.ModRevision.CompareTo(right.ModRevision),
            Target.Value => static (left, right) => left.Value.SequenceCompareTo(right.Value),
            _ => static (_, _) => 0,
        };
        var order = Comparer<KeyVersion>.Create(by);
        return [.. descending ? keys.OrderDescending(order) : keys.Order(order)];
    }
}
