namespace Mesh.KVStore;

/// <summary>
/// Spaces the audits of many watches, so that their frequency gives way and not the processor: with few peers each watch is audited as
/// often as it wants; with many they take turns, and what was lost is found later in proportion, up to a bound. For any thread.
/// </summary>
/// <param name="perSecond">Audits per second, at least one.</param>
public sealed class AuditPace(int perSecond, TimeProvider time)
{
    private readonly Lock _lock = new();
    private long _free;

    /// <summary>About 2 % of a processor when all turns are taken: an audit of a quiet prefix costs 0.8 ms with TLS. Three peers of six
    /// watches each are audited every second.</summary>
    public static AuditPace OfProcess { get; } = new(20, TimeProvider.System);

    /// <summary>The same for the questions whether a store lives, which are further apart: turns are only fair among equals. Up to 40
    /// stores are asked every four seconds, 100 every ten; beyond that the audits of their watches ask along.</summary>
    internal static AuditPace OfLiveness { get; } = new(10, TimeProvider.System);

    /// <summary>The same for looks at certificate files, of which a peer has three: 100 peers every ten seconds.</summary>
    internal static AuditPace OfFiles { get; } = new(10, TimeProvider.System);

    /// <summary>Books the first free turn that is at least this far away, and says how far it is.</summary>
    /// <param name="atMost">Nobody waits longer than this, however many there are.</param>
    public TimeSpan Book(TimeSpan wanted, TimeSpan atMost)
    {
        lock (_lock)
        {
            var now = time.GetTimestamp();
            var latest = now + (long)(atMost.TotalSeconds * time.TimestampFrequency);
            var turn = Math.Min(latest, Math.Max(now + (long)(wanted.TotalSeconds * time.TimestampFrequency), _free));
            _free = turn + time.TimestampFrequency / perSecond;
            return time.GetElapsedTime(now, turn);
        }
    }
}
