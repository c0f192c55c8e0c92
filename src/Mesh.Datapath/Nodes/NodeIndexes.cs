using Mesh.Bpf;
using Mesh.Datapath.LoadBalancing;
using Mesh.Datapath.Maps;
using Mesh.Model;

namespace Mesh.Datapath.Nodes;

/// <summary>
/// Tunnel endpoint → index into the nodes map, which ipcache values carry. An index is given out with its node already written, and
/// is reused only after a sweep found nobody using it and a grace period has passed. Nobody counts references: with hundreds of
/// thousands of entries and hundreds of nodes, a sweep at prune time is cheaper than a counter per write. Thread-safe.
/// </summary>
internal sealed class NodeIndexes
{
    private readonly Lock _lock = new();
    private readonly MmapArray<NodeValue> _nodes;
    private readonly GracePeriod _grace;
    private readonly BpfMap<EndpointKey, NodeIndexValue>? _senders;
    private readonly RangeAllocator _indexes;
    private readonly Dictionary<IpAddr, uint> _byEndpoint = [];
    private readonly HashSet<uint> _duplicates = [];
    private readonly HashSet<IpAddr> _takesDsr = [];

    /// <param name="senders">tunnel_senders; null where nobody asks who sends.</param>
    internal NodeIndexes(MmapArray<NodeValue> nodes, GracePeriod grace, BpfMap<EndpointKey, NodeIndexValue>? senders = null)
    {
        _senders = senders;
        _nodes = nodes;
        _grace = grace;
        _indexes = new RangeAllocator("nodes", 1, nodes.Info.MaxEntries,
            (start, length) => nodes.Write(start, length).Clear());
    }

    internal RangeAllocator Indexes => _indexes;

    internal int Count
    {
        get
        {
            lock (_lock)
                return _byEndpoint.Count;
        }
    }

    /// <summary>Takes over the nodes that the map holds, without writing.</summary>
    internal void Adopt()
    {
        lock (_lock)
        {
            for (uint index = 1; index < _nodes.Info.MaxEntries; index++)
            {
                var node = _nodes[index];
                // Of two indexes with one endpoint, left by a crash before a grace period, the first is used on; the sweep frees the other.
                if (node.TunnelEndpoint.ToIpAddr(node.Family) is { } endpoint && _indexes.TryReserve(index, 1))
                    if (!_byEndpoint.TryAdd(endpoint, index))
                        _duplicates.Add(index);
            }
            MendSenders();
        }
    }

    /// <summary>Set once every node that may send has an index: called when a prune has seen the whole table.</summary>
    internal Action? WhenComplete { get; set; }

    internal IReadOnlyList<KeyValuePair<IpAddr, uint>> All()
    {
        lock (_lock)
            return [.. _byEndpoint];
    }

    /// <summary>Writes a next hop if it is another than the map has. Programs that read in between see none, and ask the stack.</summary>
    internal void SetPath(uint index, NodePath path)
    {
        lock (_lock)
        {
            ref var node = ref _nodes[index];
            if (node.Family == Family.None || (node.InterfaceIndex == path.Interface && node.NextHopMac.Value == path.NextHop.Value
                && node.SourceMac.Value == path.Source.Value))
                return;
            Volatile.Write(ref _nodes.Write(index).InterfaceIndex, 0);
            if (path.Interface == 0)
                return;
            _nodes.Write(index).NextHopMac = path.NextHop;
            _nodes.Write(index).SourceMac = path.Source;
            Volatile.Write(ref _nodes.Write(index).InterfaceIndex, path.Interface);
        }
    }

    /// <summary>Says whether a node understands the virtual address in a packet. Nothing happens when no index leads to it.</summary>
    internal void SetTakesDsr(IpAddr endpoint, bool takes)
    {
        lock (_lock)
        {
            if (takes)
                _takesDsr.Add(endpoint);
            else
                _takesDsr.Remove(endpoint);
            if (_byEndpoint.TryGetValue(endpoint, out var index))
                _nodes.Write(index).Flags = FlagsOf(endpoint);
        }
    }

    private NodeFlags FlagsOf(IpAddr endpoint) => _takesDsr.Contains(endpoint) ? NodeFlags.TakesDsr : NodeFlags.None;

    /// <summary>The senders are those with an index, no more and no fewer.</summary>
    private void MendSenders()
    {
        if (_senders is null)
            return;
        foreach (var (endpoint, index) in _byEndpoint)
            _senders.Set(EndpointKey.From(endpoint), new NodeIndexValue { Index = index });
        _senders.RemoveBatch([.. _senders.Dump().Where(entry => !_byEndpoint.ContainsValue(entry.Value.Index)).Select(entry => entry.Key)]);
    }

    /// <summary>The index of a node; 0 when it has none.</summary>
    internal uint Find(IpAddr endpoint)
    {
        lock (_lock)
            return _byEndpoint.GetValueOrDefault(endpoint);
    }

    /// <summary>The index of a node, written to the map when it is new.</summary>
    /// <exception cref="DatapathException">The nodes map is full.</exception>
    internal uint IndexOf(IpAddr endpoint, uint clusterId)
    {
        lock (_lock)
        {
            if (_byEndpoint.TryGetValue(endpoint, out var index))
                return index;
            if (_indexes.TryAllocate(1) is not { } fresh)
            {
                _grace.Collect();
                fresh = _indexes.TryAllocate(1) ?? throw new DatapathException(
                    $"map nodes is full: it holds {_nodes.Info.MaxEntries - 1} tunnel endpoints")
                {
                    FullMap = _indexes.Map,
                };
            }
            _nodes.Write(fresh) = new NodeValue { TunnelEndpoint = MeshAddress.From(endpoint), ClusterId = (ushort)clusterId, Flags = FlagsOf(endpoint) };
            // Last: a slot with a family is one that adoption takes for whole.
            Volatile.Write(ref _nodes.Write(fresh).Family, Family.Of(endpoint));
            _senders?.Set(EndpointKey.From(endpoint), new NodeIndexValue { Index = fresh });
            _byEndpoint[endpoint] = fresh;
            return fresh;
        }
    }

    /// <summary>Frees, after a grace period, every index that is not among those in use.</summary>
    internal void Sweep(IReadOnlySet<uint> used)
    {
        lock (_lock)
        {
            foreach (var (endpoint, index) in _byEndpoint.Where(pair => !used.Contains(pair.Value)).ToList())
            {
                _byEndpoint.Remove(endpoint);
                _senders?.Remove(EndpointKey.From(endpoint));
                _grace.Retire(_indexes, index, 1);
            }
            foreach (var index in _duplicates.Where(index => !used.Contains(index)).ToList())
            {
                _duplicates.Remove(index);
                _grace.Retire(_indexes, index, 1);
            }
            WhenComplete?.Invoke();
        }
    }
}
