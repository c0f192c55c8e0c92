using Mesh.Model;

namespace Mesh.ClusterMesh.Imports;

/// <summary>Address ranges that are asked about once per record: a lookup per distinct length, whatever their number. Immutable.</summary>
public sealed class PrefixSet
{
    public static readonly PrefixSet Empty = new([]);

    private readonly HashSet<IpPrefix> _prefixes;
    private readonly int[] _lengthsV4;
    private readonly int[] _lengthsV6;

    public PrefixSet(IEnumerable<IpPrefix> prefixes)
    {
        _prefixes = [.. prefixes];
        _lengthsV4 = Lengths(v6: false);
        _lengthsV6 = Lengths(v6: true);
    }

    public int Count => _prefixes.Count;

    public IEnumerable<IpPrefix> Ranges => _prefixes;

    public static PrefixSet Of(params IEnumerable<string> texts) => new(texts.Select(text => IpPrefix.Parse(text)));

    public bool Contains(IpAddr address) => Covers(IpPrefix.Host(address));

    /// <summary>One range of the set holds all of it.</summary>
    public bool Covers(IpPrefix prefix)
    {
        foreach (var length in prefix.Address.IsV6 ? _lengthsV6 : _lengthsV4)
        {
            if (length > prefix.Length)
                return false;
            if (_prefixes.Contains(new IpPrefix(prefix.Address, length)))
                return true;
        }
        return false;
    }

    /// <summary>Any address of it is in the set. Cheap for a single address.</summary>
    public bool Overlaps(IpPrefix prefix) => Covers(prefix) || (!prefix.IsHost && _prefixes.Any(prefix.Overlaps));

    public override string ToString() => _prefixes.Count == 0 ? "none" : string.Join(", ", _prefixes.Order());

    private int[] Lengths(bool v6) =>
        [.. _prefixes.Where(prefix => prefix.Address.IsV6 == v6).Select(prefix => (int)prefix.Length).Distinct().Order()];
}
