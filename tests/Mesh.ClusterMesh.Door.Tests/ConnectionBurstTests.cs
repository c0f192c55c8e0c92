using Mesh.ClusterMesh.Door.Serving;
using Xunit;

namespace Mesh.ClusterMesh.Door.Tests;

public class ConnectionBurstTests
{
    private long _heap = 1 << 20;
    private int _compactions;

    private ConnectionBurst NewBurst() => new(() => _heap, () => _compactions++);

    [Fact]
    public void A_burst_is_tidied_up_once_when_it_is_over()
    {
        var burst = NewBurst();
        foreach (var connections in (int[])[0, 100, 700, 1000])
            burst.Look(connections);
        Assert.Equal(0, _compactions);
        for (var second = 0; second < 5; second++)
            burst.Look(1000);
        Assert.Equal(1, _compactions);

        // A few more are none; as many again are one, also when it is the same readers who have come back.
        burst.Look(1000 + ConnectionBurst.Connections - 1);
        burst.Look(1000 + ConnectionBurst.Connections - 1);
        Assert.Equal(1, _compactions);
        burst.Look(200);
        burst.Look(1000);
        burst.Look(1000);
        Assert.Equal(2, _compactions);
    }

    [Fact]
    public void A_large_heap_is_left_alone()
    {
        var burst = NewBurst();
        _heap = ConnectionBurst.LargestHeap + 1;
        burst.Look(1000);
        burst.Look(1000);
        Assert.Equal(0, _compactions);
    }
}
