using Mesh.ClusterMesh.Imports;
using Mesh.ClusterMesh.Wire;
using Xunit;

namespace Mesh.ClusterMesh.Tests.Remote;

/// <summary>What is held is looked at again by its own timer: nothing else may come to wake the connection for a minute.</summary>
public sealed class InspectionTimerTests : RemoteClusterStory
{
    private static readonly TimeSpan Settle = TimeSpan.FromMilliseconds(200);

    /// <summary>A clock that has gone on whenever it is looked at again, as on a machine that gives others their turn in between. What ticks
    /// at intervals stands still, so that only timers of one time wake anybody.</summary>
    private sealed class HurriedClock : TimeProvider
    {
        private long _ahead;

        /// <summary>How much passes between two looks.</summary>
        public TimeSpan Step { get; set; }

        public override DateTimeOffset GetUtcNow() => base.GetUtcNow() + TimeSpan.FromTicks(Interlocked.Add(ref _ahead, Step.Ticks));

        public override ITimer CreateTimer(TimerCallback callback, object? state, TimeSpan dueTime, TimeSpan period) =>
            base.CreateTimer(callback, state, period == Timeout.InfiniteTimeSpan ? dueTime : Timeout.InfiniteTimeSpan, Timeout.InfiniteTimeSpan);
    }

    /// <summary>The hold falls due behind the first, second, third … look at the clock after it began, so also between the question whether
    /// it is due and the setting of the timer.</summary>
    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(4)]
    public async Task A_hold_that_falls_due_between_two_looks_at_the_clock_is_looked_at_still(int looks)
    {
        await _falcon.EverythingAsync();
        var clock = new HurriedClock();
        await using var following = Follow(time: clock, options: Following.Options with
        {
            ConfigRefresh = TimeSpan.FromHours(1),
            DefaultImports = ImportPolicy.Default with { Breaker = new() { Settle = Settle } },
        });
        await _sink.UntilReadyAsync("falcon");
        clock.Step = Settle / (looks + 0.5);
        await _falcon.DeleteAsync(Keys.Node("falcon", "n1"));
        await _sink.UntilAsync(sink => sink.Statuses["falcon"].Holds > 0, "it is held, being all nodes that there are");
        await _sink.UntilAsync(sink => sink.Nodes.Count == 0, "it is gone, being one deletion that nothing speaks against");
    }
}
