using Mesh.Bpf;
using Mesh.Datapath.Maps;
using Mesh.Model;

namespace Mesh.Datapath.LoadBalancing;

/// <summary>
/// Sets of source ranges by a number that services carry in their header, so that a changed set changes with the service's one store:
/// the new set is complete under a new number before, and the old one is emptied when no program can be looking at it any more. Services
/// with the same ranges share a set. One writer at a time.
/// </summary>
internal sealed class SourceRanges
{
    private readonly LbMaps _maps;
    private readonly GracePeriod _grace;
    private readonly RangeAllocator _ids;
    private readonly Dictionary<EquatableArray<IpPrefix>, uint> _idOf = [];
    private readonly Dictionary<uint, Set> _sets = [];

    internal SourceRanges(LbMaps maps, GracePeriod grace)
    {
        _maps = maps;
        _grace = grace;
        _ids = new RangeAllocator("lb4_source_ranges", 1, maps.SourceRanges4.Info.MaxEntries + 1, (id, _) => Empty(id));
    }

    /// <summary>Takes over what the maps hold; none of it is in use until <see cref="Use"/> says so.</summary>
    internal void Adopt()
    {
        var held = _maps.SourceRanges4.Dump().Select(pair => (pair.Key.Id, Range: pair.Key.ToPrefix()))
            .Concat(_maps.SourceRanges6.Dump().Select(pair => (pair.Key.Id, Range: pair.Key.ToPrefix())));
        foreach (var group in held.GroupBy(pair => pair.Id, pair => pair.Range))
            if (_ids.TryReserve(group.Key, 1))
            {
                var ranges = new EquatableArray<IpPrefix>(group.Order());
                _sets[group.Key] = new Set(ranges);
                _idOf.TryAdd(ranges, group.Key);
            }
    }

    /// <summary>A service that was found in the kernel carries this number.</summary>
    internal void Use(uint id)
    {
        if (_sets.TryGetValue(id, out var set))
            set.Uses++;
    }

    /// <summary>The number of a set that holds these ranges, to be given back by <see cref="Release"/>; 0 for none.</summary>
    internal uint Acquire(EquatableArray<IpPrefix> ranges)
    {
        if (ranges.Count == 0)
            return 0;
        if (!_idOf.TryGetValue(ranges, out var id))
            id = Write(ranges);
        _sets[id].Uses++;
        return id;
    }

    /// <summary>After the store that made the service stop to carry the number.</summary>
    internal void Release(uint id)
    {
        if (id == 0 || !_sets.TryGetValue(id, out var set) || --set.Uses > 0)
            return;
        _idOf.Remove(set.Ranges);
        _grace.Retire(_ids, id, 1);
    }

    /// <summary>Gives up adopted sets that no service turned out to use.</summary>
    internal int Prune()
    {
        var unused = _sets.Where(pair => pair.Value.Uses == 0 && _idOf.GetValueOrDefault(pair.Value.Ranges) == pair.Key).Select(pair => pair.Key).ToList();
        foreach (var id in unused)
        {
            _idOf.Remove(_sets[id].Ranges);
            _grace.Retire(_ids, id, 1);
        }
        return unused.Count;
    }

    private uint Write(EquatableArray<IpPrefix> ranges)
    {
        var id = _ids.TryAllocate(1)
            ?? throw new DatapathException($"map lb4_source_ranges is full: {_ids.Used} sets of source ranges are in use");
        _sets[id] = new Set(ranges);
        try
        {
            foreach (var range in ranges)
                if (range.Address.IsV6)
                    _maps.SourceRanges6.Set(Lb6RangeKey.From(id, range), 1);
                else
                    _maps.SourceRanges4.Set(Lb4RangeKey.From(id, range), 1);
        }
        catch (BpfException refused)
        {
            // No service carries the number yet, so nobody has to be waited for.
            _ids.Free(id, 1);
            throw new DatapathException(refused.Message, refused);
        }
        _idOf[ranges] = id;
        return id;
    }

    private void Empty(uint id)
    {
        if (!_sets.Remove(id, out var set))
            return;
        foreach (var range in set.Ranges)
            if (range.Address.IsV6)
                _maps.SourceRanges6.Remove(Lb6RangeKey.From(id, range));
            else
                _maps.SourceRanges4.Remove(Lb4RangeKey.From(id, range));
    }

    private sealed class Set(EquatableArray<IpPrefix> ranges)
    {
        public EquatableArray<IpPrefix> Ranges => ranges;

        public int Uses { get; set; }
    }
}
