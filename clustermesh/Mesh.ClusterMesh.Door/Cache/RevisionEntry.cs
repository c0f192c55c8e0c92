using System.Collections.Immutable;

namespace Mesh.ClusterMesh.Door.Cache;

/// <summary>A change to one key. <paramref name="Previous"/> is the version it replaced, null when the key was created.</summary>
internal readonly record struct KeyEvent(KeyVersion Version, KeyVersion? Previous);

/// <summary>
/// What one revision did and the whole key space as it was after it. The sets share all but the changed path, so holding thousands
/// of them costs little more than the changes, and a Range at an old revision is as exact and as cheap as one at the newest.
/// </summary>
internal sealed class RevisionEntry(long revision, KeyEvent[] events, ImmutableSortedSet<KeyVersion> keys, bool listed = false)
{
    /// <summary>Rough cost of the path that a change copies in the sorted set, and of the objects around it.</summary>
    private const int OverheadPerEvent = 1024;

    public long Revision { get; } = revision;

    /// <summary>The first entry of a history comes from a list, which shows no deletions: its events are not all there.</summary>
    public bool Listed { get; } = listed;

    /// <summary>In the order etcd sent them.</summary>
    public KeyEvent[] Events { get; } = events;

    public ImmutableSortedSet<KeyVersion> Keys { get; } = keys;

    public IReadOnlyList<KeyVersion> Versions() => Array.ConvertAll(Events, static change => change.Version);

    /// <summary>What the entry is charged in the history's byte budget.</summary>
    public long Cost { get; } = Charge(events);

    private static long Charge(KeyEvent[] events)
    {
        long sum = 0;
        foreach (var change in events)
            sum += change.Version.Message.Length + OverheadPerEvent;
        return sum;
    }
}
