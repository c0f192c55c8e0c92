using Mesh.Model;

namespace Mesh.Operator.Ipam;

/// <summary>
/// The pod ranges of one family: pools cut into pieces of one size, each given to one node. What nodes hold is the only memory: the pool is filled
/// from them at every start, and a range that lies in no pool is theirs all the same. Pure; not for several threads.
/// </summary>
internal sealed class RangePool
{
    private readonly IReadOnlyList<IpPrefix> _pools;
    private readonly int _size;
    private readonly Dictionary<IpPrefix, string> _taken = [];
    private UInt128 _next;

    /// <param name="size">Length of the prefixes that are handed out.</param>
    /// <exception cref="ArgumentException">A pool is smaller than a piece, or two overlap; says which.</exception>
    public RangePool(IReadOnlyList<IpPrefix> pools, int size)
    {
        foreach (var pool in pools.Where(pool => pool.Length > size))
            throw new ArgumentException($"pool {pool} is smaller than the /{size} that each node is to have");
        foreach (var (one, other) in pools.SelectMany((one, i) => pools.Skip(i + 1).Select(other => (one, other))))
        {
            if (one.Overlaps(other))
                throw new ArgumentException($"pools {one} and {other} overlap");
        }
        (_pools, _size) = (pools, size);
    }

    /// <summary>For messages: "10.0.0.0/8 in pieces of /24".</summary>
    public string Description => $"{string.Join(", ", _pools)} in pieces of /{_size}";

    /// <summary>Notes that a node has a range.</summary>
    /// <returns>The node that has it or a part of it already; null for nobody.</returns>
    public string? Take(IpPrefix range, string node)
    {
        foreach (var (other, owner) in _taken)
        {
            if (owner != node && other.Overlaps(range))
                return owner;
        }
        _taken[range] = node;
        return null;
    }

    public void Release(string node)
    {
        foreach (var range in _taken.Where(pair => pair.Value == node).Select(pair => pair.Key).ToList())
            _taken.Remove(range);
    }

    /// <summary>A range that nobody has. Ranges come in turn: one that became free is used again last, when caches elsewhere have forgotten it.</summary>
    /// <returns>Null when all are taken.</returns>
    public IpPrefix? Give(string node)
    {
        var all = Pieces();
        for (UInt128 tries = 0; tries < all; tries++)
        {
            var piece = Piece((_next + tries) % all);
            if (_taken.Keys.Any(piece.Overlaps))
                continue;
            _next = (_next + tries + 1) % all;
            _taken[piece] = node;
            return piece;
        }
        return null;
    }

    private UInt128 Pieces() => _pools.Aggregate(UInt128.Zero, (sum, pool) => sum + (UInt128.One << (_size - pool.Length)));

    private IpPrefix Piece(UInt128 index)
    {
        foreach (var pool in _pools)
        {
            var here = UInt128.One << (_size - pool.Length);
            if (index >= here)
            {
                index -= here;
                continue;
            }
            var offset = index << (pool.Address.Bits - _size);
            return new IpPrefix(pool.Address.IsV6 ? IpAddr.V6(pool.Address.Value + offset) : IpAddr.V4((uint)(pool.Address.Value + offset)), _size);
        }
        throw new ArgumentOutOfRangeException(nameof(index));
    }
}
