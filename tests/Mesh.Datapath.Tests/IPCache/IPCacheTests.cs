using CsCheck;
using Mesh.ControlPlane.IPCache;
using Mesh.Datapath.IPCache;
using Mesh.Datapath.LoadBalancing;
using Mesh.Datapath.Maps;
using Mesh.Datapath.Nodes;
using Mesh.Datapath.Tests.Kernel;
using Mesh.Model;
using Mesh.StateDB.Reconciler;

namespace Mesh.Datapath.Tests.IPCache;

public sealed class IPCacheTests
{
    private static readonly Gen<IpPrefix> s_prefix =
        from v6 in Gen.Bool
        from value in Gen.UInt[0, 63]
        from length in Gen.Int[24, 32]
        select v6
            ? new IpPrefix(IpAddr.V6(((UInt128)0xfd00 << 112) + value), length + 96)
            : new IpPrefix(IpAddr.V4(0x0a010000 + value), length);

    [Fact]
    public void The_kernels_answer_is_the_longest_prefix_of_brute_force() =>
        Gen.Select(s_prefix, Gen.UInt[256, 1000], Gen.UInt[0, 3], Gen.Int[0, 4]).Array[1, 60].Sample(
            steps =>
            {
                using var node = new IPCacheNode();
                var model = new Dictionary<IpPrefix, IPCacheEntry>();
                foreach (var (prefix, identity, tunnel, delete) in steps)
                {
                    if (delete == 0)
                    {
                        model.Remove(prefix);
                        node.Operations.Delete([prefix], (_, fault) => Assert.Fail(fault.Cause));
                        continue;
                    }
                    model[prefix] = Row(prefix, identity, tunnel == 0 ? null : IpAddr.V4(0xac1e0000 + tunnel));
                    node.Operations.Update([KeyValuePair.Create(prefix, model[prefix])], (_, fault) => Assert.Fail(fault.Cause));
                }
                foreach (var address in model.Keys.Select(prefix => prefix.Address).Append(IpAddr.Parse("10.1.0.200")))
                {
                    var expected = model.Values.Where(row => row.Prefix.Contains(address)).MaxBy(row => row.Prefix.Length);
                    Assert.Equal((expected?.Identity, expected?.TunnelEndpoint), node.Lookup(address));
                }
                Assert.Equal(
                    model.Values.Select(row => (row.Prefix, row.Identity, row.TunnelEndpoint)).OrderBy(row => row.Prefix),
                    node.Reader.IPCache().Select(entry => (entry.Prefix, entry.Identity, entry.TunnelEndpoint)));
            },
            iter: 60, threads: 1);

    [Fact]
    public void A_full_map_fails_the_rows_that_do_not_fit_and_names_itself()
    {
        using var node = new IPCacheNode(ipcache: 100);
        var errors = new List<(int Row, RowFault Fault)>();
        var rows = Enumerable.Range(1, 120).Select(i => Row(IpPrefix.Host(IpAddr.V4(0x0a010000u + (uint)i)), 300, null))
            .Append(Row(IpPrefix.Parse("10.9.0.0/16"), 301, null)).ToArray();

        node.Operations.Update([.. rows.Select(row => KeyValuePair.Create(row.Prefix, row))], (row, fault) => errors.Add((row, fault)));

        Assert.Equal(121, node.Reader.IPCache().Count + errors.Count);
        Assert.NotEmpty(errors);
        Assert.All(errors, pair => Assert.Equal(new RowFault("map ipcache4 is full: it holds 100 entries", "ipcache4"), pair.Fault));
        Assert.Contains(node.Reader.IPCache(), entry => entry.Prefix == IpPrefix.Parse("10.9.0.0/16"));
    }

    [Fact]
    public void A_restart_keeps_node_indexes_and_prune_removes_leftovers_and_restores_losses()
    {
        using var node = new IPCacheNode();
        var kept = Row(IpPrefix.Parse("10.1.0.1/32"), 300, IpAddr.Parse("172.30.0.1"));
        var lost = Row(IpPrefix.Parse("10.1.0.2/32"), 301, IpAddr.Parse("172.30.0.1"));
        var left = Row(IpPrefix.Parse("10.2.0.0/24"), 302, IpAddr.Parse("172.30.0.2"));
        var desired = new Dictionary<IpPrefix, IPCacheEntry> { [kept.Prefix] = kept, [lost.Prefix] = lost };
        node.Update(kept, lost, left);
        var before = node.Reader.IPCache();

        node.Restart();
        Assert.Equal(before, node.Reader.IPCache());
        node.Operations.Delete([lost.Prefix], (_, fault) => Assert.Fail(fault.Cause));
        var removed = node.Operations.Prune(desired);

        Assert.Equal(1, removed);
        Assert.Equal(before.Where(entry => entry.Prefix != left.Prefix), node.Reader.IPCache());
    }

    [Fact]
    public void A_node_index_is_reused_only_when_nobody_uses_it_and_a_grace_period_has_passed()
    {
        using var node = new IPCacheNode();
        var first = Row(IpPrefix.Parse("10.1.0.1/32"), 300, IpAddr.Parse("172.30.0.1"));
        var second = Row(IpPrefix.Parse("10.1.0.1/32"), 300, IpAddr.Parse("172.30.0.2"));
        node.Update(first);
        var index = node.Reader.IPCache()[0].Node;

        node.Update(second);
        node.Operations.Prune(new Dictionary<IpPrefix, IPCacheEntry> { [second.Prefix] = second });
        Assert.Contains(node.Reader.Nodes(), entry => entry.Index == index);
        node.Grace.Collect();

        Assert.Equal(["172.30.0.2"], node.Reader.Nodes().Select(entry => entry.TunnelEndpoint.ToString()));
        node.Update(second with { Prefix = IpPrefix.Parse("10.1.0.2/32"), TunnelEndpoint = IpAddr.Parse("172.30.0.3") });
        Assert.Equal(index, node.Reader.IPCache()[1].Node);
    }

    [Fact]
    public void A_full_node_table_fails_its_rows_in_words()
    {
        using var node = new IPCacheNode(nodes: 3);
        var rows = Enumerable.Range(1, 4).Select(i => Row(IpPrefix.Parse($"10.1.0.{i}/32"), 300, IpAddr.Parse($"172.30.0.{i}")));
        var errors = new List<RowFault>();

        node.Operations.Update([.. rows.Select(row => KeyValuePair.Create(row.Prefix, row))], (_, fault) => errors.Add(fault));

        Assert.Equal(Enumerable.Repeat(new RowFault("map nodes is full: it holds 2 tunnel endpoints", "nodes"), 2), errors);
    }

    private static IPCacheEntry Row(IpPrefix prefix, uint identity, IpAddr? tunnel) =>
        new(prefix, identity, tunnel, 0, IPCacheSource.ClusterMesh, "osaka", 2, "default", "");
}

internal sealed class IPCacheNode : IDisposable
{
    private readonly PinnedTestMaps _pinned;
    private IPCacheMaps _maps;
    private Mesh.Bpf.MmapArray<NodeValue> _nodes;

    internal IPCacheNode(uint ipcache = 4096, uint nodes = 64)
    {
        _pinned = new PinnedTestMaps(ipcache: ipcache, nodes: nodes);
        Reader = _pinned.Read();
        (_maps, _nodes, Grace, Operations) = Boot();
    }

    internal PinnedMaps Reader { get; }

    internal GracePeriod Grace { get; private set; }

    internal IPCacheOperations Operations { get; private set; }

    internal void Restart()
    {
        Close();
        (_maps, _nodes, Grace, Operations) = Boot();
    }

    internal long Memory() => Mesh.Bpf.MapInfo.MemoryOf(_maps.Hosts4.Fd);

    internal void Update(params IPCacheEntry[] rows) =>
        Operations.Update([.. rows.Select(row => KeyValuePair.Create(row.Prefix, row))], (_, fault) => Assert.Fail(fault.Cause));

    /// <summary>Asks as the programs do: the exact map, then the trie.</summary>
    internal (uint? Identity, IpAddr? TunnelEndpoint) Lookup(IpAddr address)
    {
        var whole = IpPrefix.Host(address);
        var found = address.IsV6
            ? _maps.Hosts6.TryGet(IPCache6Key.From(address), out var value) || _maps.Ranges6.TryGet(IPCache6PrefixKey.From(whole), out value)
            : _maps.Hosts4.TryGet(IPCache4Key.From(address), out value) || _maps.Ranges4.TryGet(IPCache4PrefixKey.From(whole), out value);
        return found ? (value.Identity, _nodes[value.Node].TunnelEndpoint.ToIpAddr(_nodes[value.Node].Family)) : (null, null);
    }

    public void Dispose()
    {
        Close();
        Reader.Dispose();
        _pinned.Dispose();
    }

    private void Close()
    {
        _maps.Dispose();
        _nodes.Dispose();
        Grace.Dispose();
    }

    private (IPCacheMaps, Mesh.Bpf.MmapArray<NodeValue>, GracePeriod, IPCacheOperations) Boot()
    {
        var maps = IPCacheMaps.OpenPinned(_pinned.Pins.Maps);
        var nodes = Mesh.Bpf.BpfMaps.OpenPinnedArray<NodeValue>(_pinned.Pins.Map("nodes"));
        var grace = new GracePeriod();
        var indexes = new NodeIndexes(nodes, grace);
        indexes.Adopt();
        return (maps, nodes, grace, new IPCacheOperations(maps, indexes));
    }
}
