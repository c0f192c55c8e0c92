using System.Runtime.InteropServices;
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
/// Driven by one thread at a time.
/// </summary>
internal sealed class FrontendOperations : IOperations<L3n4Addr, Frontend>
{
    private readonly LbMaps _maps;
    private readonly ServiceStore _store;
    private readonly ClusterLiveness _clusters;
    private readonly Dictionary<L3n4Addr, uint> _ids = [];

    internal FrontendOperations(LbMaps maps, ServiceStore store, ClusterLiveness clusters)
    {
        _maps = maps;
        _store = store;
        _clusters = clusters;
    }

    internal int Count => _ids.Count;

    /// <summary>Takes over what the maps hold, without writing. A service that cannot be read is left as it is until its row
    /// comes (and is then written anew) or prune removes it.</summary>
    internal void Adopt()
    {
        foreach (var (frontend, id) in Dump())
            if (_store.TryAdopt(id))
                _ids[frontend] = id;
    }

    public void Update(IReadOnlyList<KeyValuePair<L3n4Addr, Frontend>> rows, Action<int, RowFault> fail)
    {
        for (var i = 0; i < rows.Count; i++)
        {
            try
            {
                Apply(rows[i].Value);
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
        foreach (var (frontend, id) in _ids)
            if (!present.TryGetValue(frontend, out var actual) || actual != id)
                SetId(frontend, id);
        return pruned + _store.ClearStale(_ids.Values.ToHashSet());
    }

    private void Apply(Frontend row)
    {
        var known = _ids.TryGetValue(row.Address, out var id);
        var desired = SegmentPlan.For(row);
        if (known && _store.TryUpdateInPlace(id, desired))
            return;
        if (!known)
            id = _store.AllocateId();
        try
        {
            foreach (var segment in desired.Segments)
                _clusters.EnsureUp(segment.ClusterId);
            _store.Commit(id, desired, isNew: !known);
        }
        catch (DatapathException) when (!known)
        {
            _store.ReleaseId(id);
            throw;
        }
        if (known)
            return;
        try
        {
            SetId(row.Address, id);
        }
        catch (BpfException refused)
        {
            _store.Remove(id);
            throw new DatapathException(refused.Message, refused);
        }
        _ids[row.Address] = id;
    }

    private void Remove(L3n4Addr frontend)
    {
        _store.BeforeStore($"remove frontend {frontend}");
        if (frontend.Address.IsV6)
            _maps.Services6.Remove(Lb6Key.From(frontend));
        else
            _maps.Services4.Remove(Lb4Key.From(frontend));
        if (_ids.Remove(frontend, out var id))
            _store.Remove(id);
    }

    private void SetId(L3n4Addr frontend, uint id)
    {
        _store.BeforeStore($"add frontend {frontend}");
        if (frontend.Address.IsV6)
            _maps.Services6.Set(Lb6Key.From(frontend), new LbServiceId { Id = id });
        else
            _maps.Services4.Set(Lb4Key.From(frontend), new LbServiceId { Id = id });
    }

    private IEnumerable<KeyValuePair<L3n4Addr, uint>> Dump() =>
        _maps.Services4.Dump().Select(pair => KeyValuePair.Create(pair.Key.ToL3n4Addr(), pair.Value.Id))
            .Concat(_maps.Services6.Dump().Select(pair => KeyValuePair.Create(pair.Key.ToL3n4Addr(), pair.Value.Id)));
}

/// <summary>A row's segments as they should stand in the kernel, sorted by tier and cluster; backends by address.</summary>
internal sealed record SegmentPlan(LbServiceFlags Flags, LbServiceInfo Info, IReadOnlyList<PlannedSegment> Segments)
{
    internal static SegmentPlan For(Frontend row)
    {
        var flags = LbServiceFlags.Present | row.Affinity switch
        {
            ServiceAffinity.Local => LbServiceFlags.AffinityLocal,
            ServiceAffinity.Remote => LbServiceFlags.AffinityRemote,
            _ => LbServiceFlags.None,
        };
        var segments = new List<PlannedSegment>();
        foreach (var group in row.Backends.GroupBy(backend => (backend.Tier, backend.ClusterId)).OrderBy(group => group.Key))
        {
            var backends = group.OrderBy(backend => backend.Address).Select(backend => Encode(row, backend)).ToArray();
            if (group.Key.ClusterId >= LbLimits.Clusters)
                throw new DatapathException($"cluster ID {group.Key.ClusterId}: the datapath knows 0 to {LbLimits.Clusters - 1}");
            if (backends.Length > Maglev.BackendsMax)
                throw new DatapathException(
                    $"{backends.Length} backends in cluster {group.Key.ClusterId}: a segment's table holds at most {Maglev.BackendsMax}");
            segments.Add(new PlannedSegment(group.Key.Tier, (ushort)group.Key.ClusterId, backends, Weight: 0));
        }
        return segments.Count <= LbLimits.SegmentsMax
            ? new SegmentPlan(flags, new LbServiceInfo { Kind = (byte)row.Type }, segments)
            : throw new DatapathException($"backends in {segments.Count} groups of one cluster and tier: at most {LbLimits.SegmentsMax}");
    }

    private static LbBackend Encode(Frontend row, Backend backend)
    {
        if (backend.Address.Address.IsV6 != row.Address.Address.IsV6)
            throw new DatapathException($"backend {backend.Address} is of the other IP family");
        return new LbBackend
        {
            Address = MeshAddress.From(backend.Address.Address),
            Port = BigEndianUInt16.FromHost(backend.Address.Port),
            Protocol = (byte)backend.Address.Protocol,
            State = (byte)backend.State,
            ClusterId = (ushort)backend.ClusterId,
            Family = Family.Of(backend.Address.Address),
        };
    }
}

/// <param name="Weight">Share of the tier's flows; 0 = as many as backends. Two segments may have the same backends.</param>
internal sealed record PlannedSegment(byte Tier, ushort ClusterId, LbBackend[] Backends, uint Weight)
{
    internal ReadOnlySpan<byte> Bytes => MemoryMarshal.AsBytes(Backends.AsSpan());
}
