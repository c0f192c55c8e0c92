using System.Globalization;

namespace Mesh.ClusterMesh.Remote;

/// <summary>
/// Reads the peer's clock off its heartbeats, which carry the time at which they were written. One that arrives as an event is as old
/// as the way here took; one that was listed may be a minute old and proves only a clock that is ahead. Written by the connection's
/// loop, read by anybody.
/// </summary>
internal sealed class HeartbeatClock
{
    private long _skewTicks = long.MinValue;

    /// <summary>The peer's clock minus ours; null as long as nothing tells.</summary>
    public TimeSpan? Skew => Volatile.Read(ref _skewTicks) is var ticks and not long.MinValue ? TimeSpan.FromTicks(ticks) : null;

    /// <param name="value">The heartbeat as written: a time, in any other text of which there is nothing to learn.</param>
    /// <param name="listed">It was there before we came.</param>
    public void Beat(ReadOnlySpan<byte> value, bool listed, DateTimeOffset now)
    {
        if (value.Length > 64 || !DateTimeOffset.TryParse(System.Text.Encoding.UTF8.GetString(value), CultureInfo.InvariantCulture,
            DateTimeStyles.AssumeUniversal, out var written))
            return;
        if (!listed || written > now)
            Volatile.Write(ref _skewTicks, (written - now).Ticks);
    }
}
