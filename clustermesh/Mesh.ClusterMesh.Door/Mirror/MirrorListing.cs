using System.Collections;
using System.Collections.Immutable;
using System.Text;
using Mesh.ClusterMesh.Door.Cache;

namespace Mesh.ClusterMesh.Door;

/// <summary>
/// The keys below a prefix at one revision, each with one bit: whether a list of the source showed it. What stays unseen when the
/// list is complete is gone there. Costs a bit per key and no text, in whatever order the list comes.
/// </summary>
public sealed class MirrorListing
{
    private readonly ImmutableSortedSet<KeyVersion> _keys;
    private readonly int _first;
    private readonly BitArray _seen;

    private MirrorListing(ImmutableSortedSet<KeyVersion> keys, int first, int count)
    {
        (_keys, _first, Count) = (keys, first, count);
        _seen = new BitArray(count);
    }

    public int Count { get; }

    /// <summary>How many of them were seen.</summary>
    public int Seen { get; private set; }

    internal IEnumerable<KeyVersion> Keys
    {
        get
        {
            for (var i = 0; i < Count; i++)
                yield return _keys[_first + i];
        }
    }

    /// <summary>A key that is not below the prefix, or was not there, is no matter.</summary>
    public void See(string key)
    {
        var index = _keys.IndexOf(KeyVersion.Probe(Encoding.UTF8.GetBytes(key))) - _first;
        if (index < 0 || index >= Count || _seen[index])
            return;
        _seen[index] = true;
        Seen++;
    }

    public IReadOnlyList<string> Unseen()
    {
        var unseen = new List<string>();
        for (var i = 0; i < Count; i++)
        {
            if (!_seen[i])
                unseen.Add(MirrorView.Text(_keys[_first + i]));
        }
        return unseen;
    }

    internal static MirrorListing Of(ImmutableSortedSet<KeyVersion> keys, string prefix)
    {
        var range = KeyRange.Prefix(Encoding.UTF8.GetBytes(prefix));
        var first = IndexOf(keys, range.Start);
        return new MirrorListing(keys, first, (range.End is null ? keys.Count : IndexOf(keys, range.End)) - first);
    }

    internal static IReadOnlyList<string> SegmentsBelow(ImmutableSortedSet<KeyVersion> keys, string prefix)
    {
        var segments = new List<string>();
        var at = IndexOf(keys, Encoding.UTF8.GetBytes(prefix));
        while (at < keys.Count && MirrorView.Text(keys[at]) is var key && key.StartsWith(prefix, StringComparison.Ordinal))
        {
            var segment = key[prefix.Length..].Split('/')[0];
            segments.Add(segment);
            // '0' follows '/': behind everything below the segment, and behind the key that is the segment itself.
            at = Math.Max(at + 1, IndexOf(keys, Encoding.UTF8.GetBytes($"{prefix}{segment}0")));
        }
        return [.. segments.Distinct()];
    }

    private static int IndexOf(ImmutableSortedSet<KeyVersion> keys, byte[] key)
    {
        var index = keys.IndexOf(KeyVersion.Probe(key));
        return index >= 0 ? index : ~index;
    }
}
