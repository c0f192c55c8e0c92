using Mesh.ControlPlane.IPCache;
using Mesh.Model;
using Mesh.StateDB;
using Mesh.StateDB.Reconciler;
using Microsoft.Extensions.Time.Testing;

namespace Mesh.Datapath.Tests.IPCache;

/// <summary>A real map that is too small, and the loop that fills it.</summary>
public sealed class FullMapTests : IDisposable
{
    private readonly IPCacheNode _node = new(ipcache: 64);
    private readonly Table<IpPrefix, IPCacheEntry> _table = new("ipcache");
    private readonly FakeTimeProvider _time = new();
    private readonly Reconciler<IpPrefix, IPCacheEntry> _reconciler;

    public FullMapTests() => _reconciler = new(_table, _node.Operations, time: _time);

    public void Dispose() => _node.Dispose();

    [Fact]
    public void A_full_map_is_asked_once_a_second_and_takes_what_fits_when_room_appears()
    {
        using var feed = _table.Subscribe();
        Put([.. Enumerable.Range(0, 100).Select(i => Row($"10.1.0.{i}/32", 300)), Row("fd00:1::1/128", 300), Row("10.9.0.0/16", 300)]);
        _reconciler.RunOnce(feed);
        var full = Assert.Single(_reconciler.Full);
        Assert.Equal(("ipcache4", "map ipcache4 is full: it holds 64 entries", 36), (full.Name, full.Cause, full.Waiting));
        // The other maps have room.
        Assert.Equal(66, _node.Reader.IPCache().Count);

        // One attempt a second, and none between.
        for (var second = 0; second < 3; second++)
        {
            var before = _reconciler.Failures;
            _reconciler.RunOnce(feed);
            Assert.Equal(before, _reconciler.Failures);
            _time.Advance(TimeSpan.FromSeconds(1));
            _reconciler.RunOnce(feed);
            Assert.Equal(before + 1, _reconciler.Failures);
        }

        // What is in can be changed, and what leaves makes room for as many.
        var held = _node.Reader.IPCache().Where(entry => entry.Prefix.IsHost && !entry.Prefix.Address.IsV6).Select(entry => entry.Prefix).ToList();
        Put(Row(held[0].ToString(), 999));
        _table.Write(transaction => held.Skip(10).Take(10).ToList().ForEach(transaction.Delete));
        _reconciler.RunOnce(feed);
        Assert.Equal(999u, _node.Lookup(held[0].Address).Identity);
        Assert.Equal(56, _node.Reader.IPCache().Count);
        _time.Advance(TimeSpan.FromSeconds(1));
        _reconciler.RunOnce(feed);
        Assert.Equal(66, _node.Reader.IPCache().Count);
        Assert.Equal(26, Assert.Single(_reconciler.Full).Waiting);

        // And when the rest fits too, nothing is left of it.
        _table.Write(transaction => held.Skip(20).Take(30).ToList().ForEach(transaction.Delete));
        _reconciler.RunOnce(feed);
        _time.Advance(TimeSpan.FromSeconds(1));
        _reconciler.RunOnce(feed);
        Assert.Empty(_reconciler.Full);
        Assert.Equal(0, _reconciler.Failing);
        Assert.Equal(_table.Snapshot().Select(pair => pair.Key).Order(), _node.Reader.IPCache().Select(entry => entry.Prefix));
    }

    private void Put(params IPCacheEntry[] rows) => _table.Write(transaction =>
    {
        foreach (var row in rows)
            transaction.Upsert(row.Prefix, row);
    });

    private static IPCacheEntry Row(string prefix, uint identity) =>
        new(IpPrefix.Parse(prefix), identity, null, 0, IPCacheSource.ClusterMesh, "osaka", 2, "default", "");
}
