using Mesh.Bpf;
using Mesh.ControlPlane.IPCache;
using Mesh.Datapath.Maps;
using Mesh.Datapath.Nodes;
using Mesh.Model;
using Mesh.StateDB.Reconciler;

namespace Mesh.Datapath.IPCache;

/// <summary>
/// IPCache rows → kernel: single addresses into the exact hash maps, ranges into the tries. Nothing is compared and nothing
/// remembered here: writing an entry that is already there costs half a microsecond in a batch and no packet notices. Prune dumps
/// the maps, removes what nobody wants, restores what has gone missing, and sweeps unused node indexes.
/// Driven by one thread at a time.
/// </summary>
internal sealed class IPCacheOperations : IOperations<IpPrefix, IPCacheEntry>
{
    private readonly IPCacheMaps _maps;
    private readonly NodeIndexes _nodes;
    private readonly Func<uint, bool>? _isJudged;

    /// <param name="isJudged">Whether the verdicts about an address range's identity are in the kernel: before, none of its addresses
    /// may show it. Null = always.</param>
    internal IPCacheOperations(IPCacheMaps maps, NodeIndexes nodes, Func<uint, bool>? isJudged = null)
    {
        _isJudged = isJudged;
        _maps = maps;
        _nodes = nodes;
    }

    public void Update(IReadOnlyList<KeyValuePair<IpPrefix, IPCacheEntry>> rows, Action<int, RowFault> fail)
    {
        var hosts4 = new Batch<IPCache4Key>(rows.Count);
        var hosts6 = new Batch<IPCache6Key>();
        var ranges4 = new Batch<IPCache4PrefixKey>();
        var ranges6 = new Batch<IPCache6PrefixKey>();
        for (var i = 0; i < rows.Count; i++)
        {
            var (prefix, row) = rows[i];
            IPCacheValue value;
            try
            {
                value = ValueOf(row);
            }
            catch (DatapathException exception)
            {
                fail(i, exception.Of($"ipcache {prefix}"));
                continue;
            }
            switch (prefix.IsHost, prefix.Address.IsV6)
            {
                case (true, false): hosts4.Add(i, IPCache4Key.From(prefix.Address), value); break;
                case (true, true): hosts6.Add(i, IPCache6Key.From(prefix.Address), value); break;
                case (false, false): ranges4.Add(i, IPCache4PrefixKey.From(prefix), value); break;
                case (false, true): ranges6.Add(i, IPCache6PrefixKey.From(prefix), value); break;
            }
        }
        void Fail(int row, BpfException cause) => fail(row, cause is BpfMapFullException full
            ? new RowFault(full.Message, full.Map)
            : $"ipcache {rows[row].Key}: {cause.Message}");
        hosts4.Set(_maps.Hosts4, Fail);
        hosts6.Set(_maps.Hosts6, Fail);
        ranges4.Set(_maps.Ranges4, Fail);
        ranges6.Set(_maps.Ranges6, Fail);
    }

    public void Delete(IReadOnlyList<IpPrefix> keys, Action<int, RowFault> fail)
    {
        var kinds = keys.ToLookup(key => (key.IsHost, key.Address.IsV6));
        _maps.Hosts4.RemoveBatch([.. kinds[(true, false)].Select(key => IPCache4Key.From(key.Address))]);
        _maps.Hosts6.RemoveBatch([.. kinds[(true, true)].Select(key => IPCache6Key.From(key.Address))]);
        _maps.Ranges4.RemoveBatch([.. kinds[(false, false)].Select(IPCache4PrefixKey.From)]);
        _maps.Ranges6.RemoveBatch([.. kinds[(false, true)].Select(IPCache6PrefixKey.From)]);
    }

    public int Prune(IReadOnlyDictionary<IpPrefix, IPCacheEntry> desired)
    {
        var right = new HashSet<IpPrefix>();
        var used = new HashSet<uint>();
        var removed = Prune(_maps.Hosts4, key => key.ToPrefix(), desired, right, used)
            + Prune(_maps.Hosts6, key => key.ToPrefix(), desired, right, used)
            + Prune(_maps.Ranges4, key => key.ToPrefix(), desired, right, used)
            + Prune(_maps.Ranges6, key => key.ToPrefix(), desired, right, used);
        // Rows that failed stay with the reconciler's retries; here a failure only means that nothing may be swept.
        var failed = false;
        Update([.. desired.Where(pair => !right.Contains(pair.Key))], (_, _) => failed = true);
        if (failed)
            return removed;
        foreach (var row in desired.Values)
            if (row.TunnelEndpoint is { } endpoint)
                used.Add(_nodes.IndexOf(endpoint, row.ClusterId));
        _nodes.Sweep(used);
        return removed;
    }

    private IPCacheValue ValueOf(IPCacheEntry row)
    {
        if (row.Source == IPCacheSource.Policy && _isJudged?.Invoke(row.Identity) == false)
            throw new DatapathException("waits for the verdicts about its identity");
        return new IPCacheValue { Identity = row.Identity, Node = NodeOf(row) };
    }

    private uint NodeOf(IPCacheEntry row) => row.TunnelEndpoint is { } endpoint ? _nodes.IndexOf(endpoint, row.ClusterId) : 0;

    /// <summary>Removes leftovers; notes which entries are right as they are, and the nodes they use.</summary>
    private int Prune<TKey>(BpfMap<TKey, IPCacheValue> map, Func<TKey, IpPrefix> prefixOf,
        IReadOnlyDictionary<IpPrefix, IPCacheEntry> desired, HashSet<IpPrefix> right, HashSet<uint> used)
        where TKey : unmanaged
    {
        var leftovers = new List<TKey>();
        foreach (var (key, value) in map.Dump())
        {
            var prefix = prefixOf(key);
            if (!desired.TryGetValue(prefix, out var row))
                leftovers.Add(key);
            else if (row.Identity == value.Identity && NodeOf(row) == value.Node)
            {
                right.Add(prefix);
                used.Add(value.Node);
            }
        }
        return map.RemoveBatch([.. leftovers]);
    }

    /// <summary>Keys, values and the rows they came from, in step.</summary>
    private readonly struct Batch<TKey>(int capacity = 0)
        where TKey : unmanaged
    {
        private readonly List<TKey> _keys = new(capacity);
        private readonly List<IPCacheValue> _values = new(capacity);
        private readonly List<int> _rows = new(capacity);

        public Batch()
            : this(0)
        {
        }

        internal void Add(int row, TKey key, IPCacheValue value)
        {
            _rows.Add(row);
            _keys.Add(key);
            _values.Add(value);
        }

        internal void Set(BpfMap<TKey, IPCacheValue> map, Action<int, BpfException> fail)
        {
            var rows = _rows;
            map.SetBatch(System.Runtime.InteropServices.CollectionsMarshal.AsSpan(_keys),
                System.Runtime.InteropServices.CollectionsMarshal.AsSpan(_values), (index, cause) => fail(rows[index], cause));
        }
    }
}

/// <summary>The four maps of the ipcache. Owns them.</summary>
internal sealed class IPCacheMaps : IDisposable
{
    internal required BpfMap<IPCache4Key, IPCacheValue> Hosts4 { get; init; }

    internal required BpfMap<IPCache6Key, IPCacheValue> Hosts6 { get; init; }

    internal required BpfMap<IPCache4PrefixKey, IPCacheValue> Ranges4 { get; init; }

    internal required BpfMap<IPCache6PrefixKey, IPCacheValue> Ranges6 { get; init; }

    internal static IPCacheMaps OpenPinned(string directory, bool readOnly = false) => new()
    {
        Hosts4 = BpfMaps.OpenPinned<IPCache4Key, IPCacheValue>(Path.Combine(directory, "ipcache4"), readOnly),
        Hosts6 = BpfMaps.OpenPinned<IPCache6Key, IPCacheValue>(Path.Combine(directory, "ipcache6"), readOnly),
        Ranges4 = BpfMaps.OpenPinned<IPCache4PrefixKey, IPCacheValue>(Path.Combine(directory, "ipcache4_prefixes"), readOnly),
        Ranges6 = BpfMaps.OpenPinned<IPCache6PrefixKey, IPCacheValue>(Path.Combine(directory, "ipcache6_prefixes"), readOnly),
    };

    public void Dispose()
    {
        Hosts4.Dispose();
        Hosts6.Dispose();
        Ranges4.Dispose();
        Ranges6.Dispose();
    }
}
