namespace Mesh.ClusterMesh.Door.Cache;

/// <summary>
/// Who watches a key, found without asking everybody: a change costs a few look-ups whether ten streams are open or ten thousand. A
/// watch of a prefix or of one key lies under its first bytes, of which a changed key can have only as many as there are lengths in
/// use; the rare watch of any other range is asked each time. Not for several threads at once: its owner locks.
/// </summary>
internal sealed class WatchIndex
{
    private readonly Dictionary<byte[], List<Watched>> _byStart = new(BytesComparer.Instance);
    private readonly SortedDictionary<int, int> _lengths = [];
    private readonly List<Watched> _others = [];
    private int[] _lengthsInUse = [];

    private readonly record struct Watched(IRevisionListener Listener, KeyRange Range);

    public void Add(IRevisionListener listener, KeyRange range)
    {
        if (!BeginsEveryKey(range))
        {
            _others.Add(new Watched(listener, range));
            return;
        }
        if (!_byStart.TryGetValue(range.Start, out var watched))
        {
            _byStart[range.Start] = watched = [];
            _lengths[range.Start.Length] = _lengths.GetValueOrDefault(range.Start.Length) + 1;
            _lengthsInUse = [.. _lengths.Keys];
        }
        watched.Add(new Watched(listener, range));
    }

    /// <summary>Takes one watch of the range away, of however many the listener has there.</summary>
    public void Remove(IRevisionListener listener, KeyRange range)
    {
        if (!_byStart.TryGetValue(range.Start, out var watched) || !TakeOut(watched, listener, range))
        {
            TakeOut(_others, listener, range);
            return;
        }
        if (watched.Count > 0)
            return;
        _byStart.Remove(range.Start);
        if (--_lengths[range.Start.Length] == 0)
            _lengths.Remove(range.Start.Length);
        _lengthsInUse = [.. _lengths.Keys];
    }

    /// <summary>Tells each whose watch has the key in its range of the revision; one with several such watches more than once.</summary>
    public void Tell(ReadOnlySpan<byte> key, long revision)
    {
        var starts = _byStart.GetAlternateLookup<ReadOnlySpan<byte>>();
        foreach (var length in _lengthsInUse)
        {
            if (length > key.Length)
                break;
            if (starts.TryGetValue(key[..length], out var watched))
                Tell(watched, key, revision);
        }
        Tell(_others, key, revision);
    }

    private static void Tell(List<Watched> watched, ReadOnlySpan<byte> key, long revision)
    {
        foreach (var one in watched)
        {
            if (one.Range.Contains(key))
                one.Listener.Concerned(revision);
        }
    }

    private static bool TakeOut(List<Watched> watched, IRevisionListener listener, KeyRange range)
    {
        var index = watched.FindIndex(one => ReferenceEquals(one.Listener, listener) && ReferenceEquals(one.Range, range));
        if (index < 0)
            return false;
        watched[index] = watched[^1];
        watched.RemoveAt(watched.Count - 1);
        return true;
    }

    /// <summary>Whether every key in the range begins with its first bytes: a prefix, or one key.</summary>
    private static bool BeginsEveryKey(KeyRange range) =>
        range.Start.Length > 0 && range.End is { } end
        && (end.AsSpan().SequenceEqual(KeyRange.Single(range.Start).End) || end.AsSpan().SequenceEqual(KeyRange.Prefix(range.Start).End));

    private sealed class BytesComparer : IEqualityComparer<byte[]>, IAlternateEqualityComparer<ReadOnlySpan<byte>, byte[]>
    {
        public static readonly BytesComparer Instance = new();

        public bool Equals(byte[]? x, byte[]? y) => x.AsSpan().SequenceEqual(y);

        public int GetHashCode(byte[] obj) => GetHashCode(obj.AsSpan());

        public bool Equals(ReadOnlySpan<byte> alternate, byte[] other) => alternate.SequenceEqual(other);

        public int GetHashCode(ReadOnlySpan<byte> alternate)
        {
            var hash = default(HashCode);
            hash.AddBytes(alternate);
            return hash.ToHashCode();
        }

        public byte[] Create(ReadOnlySpan<byte> alternate) => alternate.ToArray();
    }
}
