using System.Collections.Immutable;

namespace Mesh.ClusterMesh.Door.Cache;

/// <summary>
/// An unbroken run of revisions, newest last, bounded in number and bytes. One writer appends; readers look up by revision without
/// a lock and never see a gap: a revision is either here with all its events or it is gone, and gone is told to the reader as
/// compaction. When continuity with etcd is lost a new history begins and the old one is dropped whole.
/// </summary>
internal sealed class History
{
    private readonly RevisionEntry?[] _ring;
    private readonly int _mask;
    private readonly long _bytesMax;
    private RevisionEntry _head;
    private long _oldest;
    private long _bytes;

    /// <param name="first">The listed key space; its revision is the floor of this history.</param>
    /// <param name="revisionsMax">Rounded up to a power of two.</param>
    public History(RevisionEntry first, int revisionsMax, long bytesMax)
    {
        _ring = new RevisionEntry?[System.Numerics.BitOperations.RoundUpToPowerOf2((uint)revisionsMax)];
        _mask = _ring.Length - 1;
        _bytesMax = bytesMax;
        Floor = first.Revision;
        _oldest = first.Revision;
        _head = first;
        _ring[first.Revision & _mask] = first;
    }

    /// <summary>The revision the list was taken at. Its own events are not known, so no watch can begin there,
    /// except at revision 1, which etcd never gives an event.</summary>
    public long Floor { get; }

    public RevisionEntry Head => Volatile.Read(ref _head);

    /// <summary>Oldest revision a Range can still be pinned at: etcd's compacted revision.</summary>
    public long Oldest => Volatile.Read(ref _oldest);

    /// <summary>Oldest revision whose events are all known.</summary>
    public long OldestEvents => Oldest is var oldest && oldest == Floor && oldest > 1 ? oldest + 1 : oldest;

    /// <summary>Null when the revision is compacted (or not there yet).</summary>
    public RevisionEntry? Find(long revision) =>
        revision < Oldest || Volatile.Read(ref _ring[revision & _mask]) is not { } entry || entry.Revision != revision ? null : entry;

    /// <summary>All that is kept, oldest first. For the writer: nobody else may append meanwhile.</summary>
    public IReadOnlyList<RevisionEntry> Entries()
    {
        var entries = new List<RevisionEntry>();
        for (var revision = Oldest; revision <= _head.Revision; revision++)
            entries.Add(Find(revision)!);
        return entries;
    }

    /// <summary>Adds the next revision. Only the follower of etcd calls it.</summary>
    /// <exception cref="InvalidOperationException">The revision is not the next one: a defect of the caller.</exception>
    public RevisionEntry Append(long revision, IReadOnlyList<KeyVersion> versions)
    {
        var entry = After(_head, revision, versions);
        Append(entry);
        return entry;
    }

    /// <summary>Adds a revision that was made <see cref="After"/> the head.</summary>
    public void Append(RevisionEntry entry)
    {
        if (entry.Revision != _head.Revision + 1)
            throw new InvalidOperationException($"revision {entry.Revision} does not follow {_head.Revision}");
        Insert(entry);
    }

    /// <summary>The revision that follows another one, which is in the history or is going to be.</summary>
    public static RevisionEntry After(RevisionEntry head, long revision, IReadOnlyList<KeyVersion> versions)
    {
        var keys = head.Keys.ToBuilder();
        var events = new KeyEvent[versions.Count];
        for (var i = 0; i < events.Length; i++)
            events[i] = Apply(keys, versions[i]);
        return new RevisionEntry(revision, events, keys.ToImmutable());
    }

    private static KeyEvent Apply(ImmutableSortedSet<KeyVersion>.Builder keys, KeyVersion version)
    {
        KeyVersion? previous = null;
        if (keys.TryGetValue(version, out var existing))
        {
            previous = existing;
            previous.SupersededAt = version.ModRevision;
            keys.Remove(existing);
        }
        if (!version.IsDelete)
            keys.Add(version);
        return new KeyEvent(version, previous);
    }

    private void Insert(RevisionEntry entry)
    {
        _bytes += entry.Cost;
        var oldest = _oldest;
        // The floor moves before a slot is reused, so a reader that finds the wrong entry also finds that it is compacted.
        while (entry.Revision - oldest >= _ring.Length || (_bytes > _bytesMax && oldest < entry.Revision))
        {
            _bytes -= _ring[oldest & _mask]!.Cost;
            Volatile.Write(ref _oldest, oldest + 1);
            Volatile.Write(ref _ring[oldest & _mask], null);
            oldest++;
        }
        Volatile.Write(ref _ring[entry.Revision & _mask], entry);
        Volatile.Write(ref _head, entry);
    }
}
