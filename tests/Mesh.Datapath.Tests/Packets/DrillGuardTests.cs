using Mesh.Datapath.Liveness;

namespace Mesh.Datapath.Tests.Packets;

/// <summary>A drill that costs more than it may is ended by whoever looks after the maps, not by the one who began it.</summary>
[Collection("packets")]
public sealed class DrillGuardTests
{
    private readonly ServiceTables _tables;
    private readonly DrillGuard _guard;
    private NewFlows _flows = new(1000, 900);

    public DrillGuardTests(PacketWorld world)
    {
        world.Reset();
        _tables = world.Tables;
        _tables.Liveness[0].DrillUntilNs[2] = ServiceTables.MonotonicNs + 100_000_000_000;
        _tables.Liveness[0].DrillUntilNs[3] = ServiceTables.MonotonicNs + 100_000_000_000;
        _guard = new DrillGuard(_tables.Liveness, _tables.Failover, () => _flows);
    }

    [Fact]
    public void It_ends_when_more_of_the_flows_since_its_begin_have_failed_than_the_map_allows()
    {
        _tables.Failover[0].DrillErrorPpm = 10_000;
        // What failed before it counts for nothing.
        Assert.Empty(_guard.Look().Ended);
        _flows = new NewFlows(1200, 902);
        Assert.Empty(_guard.Look().Ended);
        _flows = new NewFlows(1200, 903);
        var (ended, since) = _guard.Look();
        Assert.Equal([2u, 3u], ended);
        Assert.Equal(new NewFlows(200, 3), since);
        Assert.Equal(0ul, _tables.Liveness[0].DrillUntilNs[2]);
        Assert.Empty(_guard.Look().Ended);
    }

    [Fact]
    public void A_few_flows_say_nothing_and_a_second_drill_counts_anew()
    {
        _tables.Failover[0].DrillErrorPpm = 1;
        Assert.Empty(_guard.Look().Ended);
        _flows = new NewFlows(1019, 919);
        Assert.Empty(_guard.Look().Ended);
        _tables.Liveness[0].DrillUntilNs[2] = _tables.Liveness[0].DrillUntilNs[3] = 0;
        Assert.Empty(_guard.Look().Ended);
        _tables.Liveness[0].DrillUntilNs[2] = ServiceTables.MonotonicNs + 100_000_000_000;
        Assert.Empty(_guard.Look().Ended);
        _flows = new NewFlows(1039, 919);
        Assert.Empty(_guard.Look().Ended);
        _flows = new NewFlows(1040, 920);
        Assert.Equal([2u], _guard.Look().Ended);
    }

    [Fact]
    public void Without_a_limit_nothing_ends_it()
    {
        Assert.Empty(_guard.Look().Ended);
        _flows = new NewFlows(2000, 1900);
        Assert.Empty(_guard.Look().Ended);
        Assert.NotEqual(0ul, _tables.Liveness[0].DrillUntilNs[2]);
    }
}
