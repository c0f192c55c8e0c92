using System.Runtime;

namespace Mesh.ClusterMesh.Door.Serving;

/// <summary>
/// Gives memory back to the system when many readers have come at once, as after a restart of the door. What handshakes and first
/// requests leave behind lies scattered between what the connections keep, and a door whose readers are silent would allocate too
/// little afterwards to be collected again for hours. One compacting collection, when the burst is over; it stops the process for as
/// long as the heap is large, so not where a relay keeps other clusters' state in it.
/// </summary>
/// <param name="heapBytes">Size of the heap at present.</param>
/// <param name="compact">Collects and compacts.</param>
internal sealed class ConnectionBurst(Func<long> heapBytes, Action compact)
{
    /// <summary>Connections that make a burst.</summary>
    public const int Connections = 250;

    /// <summary>A tenth of a second of standing still, about.</summary>
    public const long LargestHeap = 256L << 20;

    private int _compactedAt;
    private int _before;

    /// <summary>Called once a second with the number of open connections.</summary>
    public void Look(int connections)
    {
        // Who left makes room for another burst.
        _compactedAt = Math.Min(_compactedAt, connections);
        var still = connections == _before;
        _before = connections;
        if (!still || connections - _compactedAt < Connections)
            return;
        _compactedAt = connections;
        if (heapBytes() <= LargestHeap)
            compact();
    }

    /// <summary>What is done to the heap of this process.</summary>
    public static void Compact()
    {
        GCSettings.LargeObjectHeapCompactionMode = GCLargeObjectHeapCompactionMode.CompactOnce;
        GC.Collect(GC.MaxGeneration, GCCollectionMode.Aggressive, blocking: true, compacting: true);
    }
}
