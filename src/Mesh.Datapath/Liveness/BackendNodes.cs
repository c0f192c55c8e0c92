using Mesh.ControlPlane;
using Mesh.Datapath.LoadBalancing;
using Mesh.Datapath.Nodes;
using Mesh.Model;

namespace Mesh.Datapath.Liveness;

/// <summary>
/// Writes beside each backend which node it is on, so that the state of a node takes its backends out. The records of a backend do not
/// say it; its address does, as the ipcache has it. Follows the tables at a distance: until then the backend's node is unknown, of
/// which nothing bad is known. Driven by one thread at a time.
/// </summary>
internal sealed class BackendNodes(DesiredState desired, LbMaps maps, RangeAllocator slots, NodeIndexes nodes)
{
    private static readonly TimeSpan Interval = TimeSpan.FromMilliseconds(250);

    /// <summary>Rounds after a change: the reconcilers may not have followed it yet.</summary>
    private const int RoundsAfterChange = 4;

    private (long Frontends, long IPCache, long Nodes) _followed = (-1, -1, -1);
    private int _rounds;

    /// <summary>Runs until cancelled.</summary>
    internal async Task RunAsync(TimeProvider time, CancellationToken cancellation)
    {
        using var timer = new PeriodicTimer(Interval, time);
        try
        {
            while (await timer.WaitForNextTickAsync(cancellation))
                Follow();
        }
        catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
        {
            // The normal end.
        }
    }

    internal void Follow()
    {
        var now = (desired.Frontends.Revision, desired.IPCache.Revision, desired.Nodes.Revision);
        if (now != _followed)
            (_followed, _rounds) = (now, RoundsAfterChange);
        if (_rounds == 0)
            return;
        _rounds--;
        Write();
    }

    private void Write()
    {
        var ranges = desired.Nodes.Snapshot().Select(pair => pair.Value.Row)
            .SelectMany(node => node.PodCidrs.Items.Select(range => (Range: range, Endpoint: node.UnderlayAddress(range.Address.IsV6)
                ?? node.UnderlayAddress(!range.Address.IsV6)))).ToList();
        var used = slots.Used;
        for (uint slot = 1; used > 0 && slot < maps.Backends.Info.MaxEntries; slot++)
        {
            if (maps.Backends[slot].ToL3n4Addr() is not { } backend)
                continue;
            used--;
            var node = (ushort)NodeOf(backend.Address);
            if (Volatile.Read(ref maps.Health[slot].Node) != node)
                Volatile.Write(ref maps.Health.Write(slot).Node, node);
        }

        uint NodeOf(IpAddr address)
        {
            var endpoint = desired.IPCache.TryGet(IpPrefix.Host(address), out var entry)
                ? entry.TunnelEndpoint
                : ranges.Where(one => one.Range.Contains(address)).OrderByDescending(one => one.Range.Length).Select(one => one.Endpoint)
                    .FirstOrDefault();
            return endpoint is { } known ? nodes.Find(known) : 0;
        }
    }
}
