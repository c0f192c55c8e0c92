using Mesh.Bpf;
using Mesh.ControlPlane.LoadBalancing;
using Mesh.Datapath.Maps;
using Mesh.Model;
using Mesh.StateDB.Reconciler;

namespace Mesh.Datapath.LoadBalancing;

/// <summary>
/// Frontends → kernel. One row becomes backends, tables and a header in memory that no program can reach yet; one release store of
/// the service's 8-byte word then shows all of it at once. A new frontend enters the hash map after that, a removed one leaves it
/// first. A reader therefore sees each service all old or all new, wherever we die. What the kernel holds is the only memory of
/// what was written: restart, repeat and comparison are one thing, and an unchanged row or segment is not written again.
/// A row whose traffic policies differ is two services, one for each scope of clients, under one entry of the hash map.
/// Driven by one thread at a time.
/// </summary>
internal sealed class FrontendOperations : IOperations<L3n4Addr, Frontend>
{
    private readonly LbMaps _maps;
    private readonly ServiceStore _store;
    private readonly ClusterLiveness _clusters;
    private readonly SourceRanges _ranges;
    private readonly Dictionary<L3n4Addr, Known> _known = [];

    /// <summary>Ids of the frontends of one port of one service, whose backends are mostly the same.</summary>
    private readonly Dictionary<Siblings, HashSet<uint>> _siblings = [];

    internal FrontendOperations(LbMaps maps, ServiceStore store, ClusterLiveness clusters, SourceRanges ranges)
    {
        _maps = maps;
        _store = store;
        _clusters = clusters;
        _ranges = ranges;
    }

    internal int Count => _known.Count;

    /// <summary>Adds to a row what this node says of services that say nothing of it.</summary>
    internal Func<Frontend, Frontend> Complete { get; init; } = row => row;

    /// <summary>Takes over what the maps hold, without writing. A service that cannot be read is left as it is until its row
    /// comes (and is then written anew) or prune removes it.</summary>
    internal void Adopt()
    {
        _ranges.Adopt();
        foreach (var (frontend, ids) in Dump())
        {
            if (!_store.TryAdopt(ids.Id))
                continue;
            if (ids.InternalId != 0 && !_store.TryAdopt(ids.InternalId))
            {
                _store.Disown(ids.Id);
                continue;
            }
            _known[frontend] = new Known { Ids = ids };
            _ranges.Use(_store.InfoOf(ids.Id).SourceRanges);
            if (ids.InternalId != 0)
                _ranges.Use(_store.InfoOf(ids.InternalId).SourceRanges);
        }
    }

    public void Update(IReadOnlyList<KeyValuePair<L3n4Addr, Frontend>> rows, Action<int, RowFault> fail)
    {
        for (var i = 0; i < rows.Count; i++)
        {
            try
            {
                Apply(Complete(rows[i].Value));
            }
            catch (DatapathException exception)
            {
                fail(i, exception.Of($"frontend {rows[i].Key}"));
            }
        }
    }

    public void Delete(IReadOnlyList<L3n4Addr> keys, Action<int, RowFault> fail)
    {
        for (var i = 0; i < keys.Count; i++)
        {
            try
            {
                Remove(keys[i]);
            }
            catch (BpfException exception)
            {
                fail(i, $"frontend {keys[i]}: {exception.Message}");
            }
        }
    }

    public int Prune(IReadOnlyDictionary<L3n4Addr, Frontend> desired)
    {
        var present = Dump().ToDictionary(pair => pair.Key, pair => pair.Value);
        var pruned = 0;
        foreach (var (frontend, _) in present)
        {
            if (desired.ContainsKey(frontend))
                continue;
            Remove(frontend);
            pruned++;
        }
        // Whoever removed or redirected an entry behind our back finds it mended.
        foreach (var (frontend, known) in _known)
            if (!present.TryGetValue(frontend, out var actual) || actual != known.Ids)
                SetIds(frontend, known.Ids);
        var live = _known.Values.SelectMany(known => (uint[])[known.Ids.Id, known.Ids.InternalId]).ToHashSet();
        return pruned + _store.ClearStale(live) + _ranges.Prune();
    }

    private void Apply(Frontend row)
    {
        var isNew = !_known.TryGetValue(row.Address, out var known);
        known ??= new Known();
        if (known.Row is { } last && OneStateChanged.Between(last, row) is { } change && TryStore(known.Ids, change))
        {
            known.Row = row;
            return;
        }
        var before = known.Ids;
        var wanted = before;
        try
        {
            // Clients of the cluster first: while the external entry is the only one it serves them too.
            if (row.HasTwoScopes)
                wanted.InternalId = Put(before.InternalId, row, LbScope.Internal);
            if (!isNew && wanted != before)
                SetIds(row.Address, wanted);
            wanted.Id = Put(before.Id, row, LbScope.External);
            if (!row.HasTwoScopes)
                wanted.InternalId = 0;
            if (isNew || wanted.InternalId != before.InternalId)
                SetIds(row.Address, wanted);
        }
        catch (Exception refused) when (refused is DatapathException or BpfException)
        {
            if (wanted.InternalId != before.InternalId && wanted.InternalId != 0 && !IsPublished(row.Address, wanted.InternalId))
                Forget(row, wanted.InternalId);
            if (isNew && wanted.Id != 0)
                Forget(row, wanted.Id);
            throw refused as DatapathException ?? new DatapathException(refused.Message, refused);
        }
        if (before.InternalId != 0 && wanted.InternalId == 0)
            Forget(row, before.InternalId);
        known.Ids = wanted;
        known.Row = row;
        _known[row.Address] = known;
    }

    /// <summary>Makes the service of one scope what the row says.</summary>
    /// <param name="id">0 = it has none yet.</param>
    /// <returns>Its id.</returns>
    private uint Put(uint id, Frontend row, LbScope scope)
    {
        var ranges = scope == LbScope.External ? _ranges.Acquire(row.SourceRanges) : 0;
        var isNew = id == 0;
        var before = isNew ? 0 : _store.InfoOf(id).SourceRanges;
        try
        {
            var plan = SegmentPlan.For(row, scope, ranges);
            if (isNew || !_store.TryUpdateInPlace(id, plan))
            {
                foreach (var segment in plan.Segments)
                    _clusters.EnsureUp(segment.ClusterId);
                if (isNew)
                    id = _store.AllocateId();
                _store.Commit(id, plan, isNew, SiblingsOf(row));
            }
        }
        catch (DatapathException)
        {
            if (isNew && id != 0)
                _store.ReleaseId(id);
            _ranges.Release(ranges);
            throw;
        }
        // One use for what the service carries: what it carried before, or the same again, is given back.
        _ranges.Release(before);
        SiblingsOf(row).Add(id);
        return id;
    }

    private HashSet<uint> SiblingsOf(Frontend row)
    {
        var key = Siblings.Of(row);
        if (!_siblings.TryGetValue(key, out var ids))
            _siblings[key] = ids = [];
        return ids;
    }

    private bool TryStore(LbServiceId ids, OneStateChanged change) =>
        _store.TrySetState(ids.Id, change) && (ids.InternalId == 0 || _store.TrySetState(ids.InternalId, change));

    private void Remove(L3n4Addr frontend)
    {
        _store.BeforeStore($"remove frontend {frontend}");
        if (frontend.Address.IsV6)
            _maps.Services6.Remove(Lb6Key.From(frontend));
        else
            _maps.Services4.Remove(Lb4Key.From(frontend));
        if (!_known.Remove(frontend, out var known))
            return;
        Forget(known.Row, known.Ids.Id);
        if (known.Ids.InternalId != 0)
            Forget(known.Row, known.Ids.InternalId);
    }

    /// <summary>Of a service that no entry of the hash maps leads to.</summary>
    /// <param name="row">Null when it was adopted and its row has not come.</param>
    private void Forget(Frontend? row, uint id)
    {
        var ranges = _store.InfoOf(id).SourceRanges;
        _store.Remove(id);
        _ranges.Release(ranges);
        if (row is null || !_siblings.TryGetValue(Siblings.Of(row), out var ids))
            return;
        ids.Remove(id);
        if (ids.Count == 0)
            _siblings.Remove(Siblings.Of(row));
    }

    private bool IsPublished(L3n4Addr frontend, uint internalId) =>
        frontend.Address.IsV6
            ? _maps.Services6.TryGet(Lb6Key.From(frontend), out var ids) && ids.InternalId == internalId
            : _maps.Services4.TryGet(Lb4Key.From(frontend), out ids) && ids.InternalId == internalId;

    private void SetIds(L3n4Addr frontend, LbServiceId ids)
    {
        _store.BeforeStore($"add frontend {frontend}");
        if (frontend.Address.IsV6)
            _maps.Services6.Set(Lb6Key.From(frontend), ids);
        else
            _maps.Services4.Set(Lb4Key.From(frontend), ids);
    }

    private IEnumerable<KeyValuePair<L3n4Addr, LbServiceId>> Dump() =>
        _maps.Services4.Dump().Select(pair => KeyValuePair.Create(pair.Key.ToL3n4Addr(), pair.Value))
            .Concat(_maps.Services6.Dump().Select(pair => KeyValuePair.Create(pair.Key.ToL3n4Addr(), pair.Value)));

    private sealed class Known
    {
        public LbServiceId Ids { get; set; }

        /// <summary>As last applied; null after adoption.</summary>
        public Frontend? Row { get; set; }
    }

    private readonly record struct Siblings(ServiceName Service, string PortName, L4Protocol Protocol, bool IsV6)
    {
        public static Siblings Of(Frontend row) => new(row.Service, row.PortName, row.Address.Protocol, row.Address.Address.IsV6);
    }
}

/// <summary>The one thing that differs between two rows, when it is the state of a backend: the commonest change of all, and the only
/// one that needs no new table.</summary>
internal readonly record struct OneStateChanged(uint ClusterId, MeshAddress Address, BigEndianUInt16 Port, byte State, byte Family)
{
    internal static OneStateChanged? Between(Frontend before, Frontend after)
    {
        var old = before.Backends.AsSpan();
        var now = after.Backends.AsSpan();
        if (old.Length != now.Length || (before with { Backends = default }) != (after with { Backends = default }))
            return null;
        var changed = -1;
        for (var i = 0; i < now.Length; i++)
        {
            ref readonly var left = ref old[i];
            ref readonly var right = ref now[i];
            if (left.Address != right.Address || left.ClusterId != right.ClusterId || left.Tier != right.Tier || left.IsHere != right.IsHere
                || left.InZone != right.InZone)
                return null;
            if (left.State == right.State)
                continue;
            if (changed >= 0)
                return null;
            changed = i;
        }
        if (changed < 0)
            return null;
        var backend = now[changed];
        return new OneStateChanged(backend.ClusterId, MeshAddress.From(backend.Address.Address), BigEndianUInt16.FromHost(backend.Address.Port),
            (byte)backend.State, Maps.Family.Of(backend.Address.Address));
    }
}
