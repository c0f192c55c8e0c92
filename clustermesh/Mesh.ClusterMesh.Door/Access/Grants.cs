using System.Text;
using Mesh.ClusterMesh.Door.Cache;
using Mesh.ClusterMesh.Wire;

namespace Mesh.ClusterMesh.Door.Access;

/// <summary>The key ranges a user may read. Neighbouring and overlapping ranges count as one, as in etcd. Nobody writes at the door.</summary>
internal sealed class Grants
{
    private readonly KeyRange[] _merged;

    private Grants(KeyRange[] merged) => _merged = merged;

    public static Grants None { get; } = new([]);

    public static Grants Everything { get; } = Of(KeyRange.Between([0], null));

    public bool IsNone => _merged.Length == 0;

    public static Grants Of(params IEnumerable<KeyRange> ranges)
    {
        var merged = new List<KeyRange>();
        foreach (var range in ranges.Where(range => !range.IsEmpty).OrderBy(range => range.Start, ByteOrder))
        {
            if (merged.Count > 0 && Touches(merged[^1], range))
                merged[^1] = KeyRange.Between(merged[^1].Start, Later(merged[^1].End, range.End));
            else
                merged.Add(range);
        }
        return new Grants([.. merged]);
    }

    /// <summary>An empty range is within nothing: etcd refuses it too.</summary>
    public bool Allows(KeyRange range) => Array.Exists(_merged, granted => granted.Contains(range) && granted.Contains(range.Start));

    private static readonly Comparer<byte[]> ByteOrder =
        Comparer<byte[]>.Create(static (left, right) => left.AsSpan().SequenceCompareTo(right));

    private static bool Touches(KeyRange earlier, KeyRange later) =>
        earlier.End is null || later.Start.AsSpan().SequenceCompareTo(earlier.End) <= 0;

    private static byte[]? Later(byte[]? left, byte[]? right) =>
        left is null || right is null ? null : left.AsSpan().SequenceCompareTo(right) >= 0 ? left : right;
}

/// <summary>The roles of kvstore contract §4.1 by name, and the ranges each may read.</summary>
internal sealed class Roles
{
    public const string Remote = "remote";
    public const string Local = "local";
    public const string Root = "root";

    private readonly Dictionary<string, Grants> _byName;

    public Roles(IEnumerable<KeyValuePair<string, Grants>> byName) => _byName = new(byName, StringComparer.Ordinal);

    /// <summary>Null when there is no such role.</summary>
    public Grants? Find(string name) => _byName.GetValueOrDefault(name);

    public static Roles Cilium(string cluster) => new(
    [
        new(Remote, Grants.Of(Prefix(Keys.Heartbeat), Prefix(State), KeyRange.Single(Encoding.UTF8.GetBytes(Keys.ClusterConfig(cluster))),
            Prefix(Keys.SyncedPrefix(cluster)))),
        new(Local, Grants.Of(Prefix(Keys.Heartbeat), Prefix(Cache), Prefix(Keys.ClusterConfigPrefix), Prefix(Synced))),
        new(Root, Grants.Everything),
    ]);

    private const string State = "cilium/state/";
    private const string Cache = "cilium/cache/";
    private const string Synced = "cilium/synced/";

    private static KeyRange Prefix(string prefix) => KeyRange.Prefix(Encoding.UTF8.GetBytes(prefix));
}
