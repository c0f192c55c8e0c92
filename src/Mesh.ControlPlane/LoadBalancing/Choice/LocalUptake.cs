namespace Mesh.ControlPlane.LoadBalancing.Choice;

/// <summary>
/// How much a local side that began from nothing may take, under affinity local. The first local backend of a service must not
/// receive in one step what all the others carried: as long as backends keep being added, local and remote share in proportion;
/// once none has been added for the slow start, the local share grows to everything in steps. A side that was there when we came,
/// or that only exchanges its backends, is old and takes everything.
/// Immutable; one per service that wants it.
/// </summary>
public sealed record LocalUptake
{
    /// <summary>Steps from the proportional share to everything.</summary>
    public const int Steps = 5;

    private readonly int _backends;
    private readonly DateTimeOffset? _lastAdded;

    private LocalUptake(int backends, DateTimeOffset? lastAdded)
    {
        _backends = backends;
        _lastAdded = lastAdded;
    }

    /// <summary>A side that was there before us.</summary>
    public static LocalUptake Old(int backends) => new(backends, null);

    /// <summary>The same side with another number of live backends.</summary>
    public LocalUptake With(int backends, DateTimeOffset now)
    {
        var growsFromNothing = backends > _backends && (_backends == 0 || _lastAdded is not null);
        return backends == _backends ? this : new LocalUptake(backends, backends == 0 ? null : growsFromNothing ? now : _lastAdded);
    }

    /// <summary>The most that the local side may take now, 0 to 1, and when that will change; null = not by time alone.</summary>
    public (double Share, DateTimeOffset? ChangesAt) At(DateTimeOffset now, int remote, TimeSpan slowStart)
    {
        if (_lastAdded is not { } added || slowStart <= TimeSpan.Zero || remote == 0 || _backends == 0)
            return (1, null);
        var proportional = (double)_backends / (_backends + remote);
        var step = slowStart / Steps;
        var beyond = now - added - slowStart;
        var taken = beyond < TimeSpan.Zero ? 0 : (int)(beyond / step) + 1;
        return taken >= Steps
            ? (1, null)
            : (proportional + (1 - proportional) * taken / Steps, added + slowStart + step * taken);
    }
}
