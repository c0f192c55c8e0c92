namespace Mesh.ClusterMesh.Door.Cache;

/// <summary>
/// A half-open interval of keys in byte order, as etcd's key and range_end name it: no range_end is the one key, a single zero byte
/// is everything from the key on, anything else ends before itself.
/// </summary>
internal sealed class KeyRange
{
    private static ReadOnlySpan<byte> FromKeyOn => [0];

    private KeyRange(byte[] start, byte[]? end)
    {
        Start = start;
        End = end;
    }

    public byte[] Start { get; }

    /// <summary>The first key behind the range; null when it has no end.</summary>
    public byte[]? End { get; }

    /// <summary>No key can lie in it: etcd answers such a Range with nothing and refuses such a watch.</summary>
    public bool IsEmpty => End is not null && Start.AsSpan().SequenceCompareTo(End) >= 0;

    public static KeyRange Of(ReadOnlySpan<byte> key, ReadOnlySpan<byte> rangeEnd) =>
        rangeEnd.Length == 0 ? Single(key)
        : rangeEnd.SequenceEqual(FromKeyOn) ? new KeyRange(key.ToArray(), null)
        : new KeyRange(key.ToArray(), rangeEnd.ToArray());

    public static KeyRange Single(ReadOnlySpan<byte> key) => new(key.ToArray(), [.. key, 0]);

    public static KeyRange Prefix(ReadOnlySpan<byte> prefix)
    {
        for (var i = prefix.Length - 1; i >= 0; i--)
        {
            if (prefix[i] == 0xff)
                continue;
            var end = prefix[..(i + 1)].ToArray();
            end[i]++;
            return new KeyRange(prefix.ToArray(), end);
        }
        return new KeyRange(prefix.ToArray(), null);
    }

    /// <summary>The range [start, end); an absent end has no bound.</summary>
    public static KeyRange Between(byte[] start, byte[]? end) => new(start, end);

    public bool Contains(ReadOnlySpan<byte> key) =>
        key.SequenceCompareTo(Start) >= 0 && (End is null || key.SequenceCompareTo(End) < 0);

    public bool Contains(KeyRange other) =>
        other.Start.AsSpan().SequenceCompareTo(Start) >= 0
        && (End is null || (other.End is not null && other.End.AsSpan().SequenceCompareTo(End) <= 0));
}
