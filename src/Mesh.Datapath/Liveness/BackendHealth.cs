using Mesh.Bpf;
using Mesh.Datapath.LoadBalancing;
using Mesh.Datapath.Maps;
using Mesh.Model;

namespace Mesh.Datapath.Liveness;

/// <summary>A backend that connections of this node have found dead.</summary>
/// <param name="Slot">Index into lb_backends.</param>
/// <param name="Node">Index into nodes; 0 = unknown.</param>
/// <param name="Left">Until it is tried again by itself.</param>
/// <param name="Failures">In a row.</param>
public sealed record Ejection(uint Slot, L3n4Addr Address, uint ClusterId, uint Node, TimeSpan Left, int Failures);

/// <summary>
/// Backends ejected one by one. The programs eject (bpf/outcome.bpf.c) until a deadline in the map; whoever follows it up here lets
/// them in as soon as they answer, or keeps them out for longer. With nobody here the deadline alone counts. Used by one thread.
/// </summary>
public sealed class BackendHealth
{
    private readonly LbMaps _maps;
    private readonly MmapArray<FailoverValue> _failover;
    private ulong _taken;

    internal BackendHealth(LbMaps maps, MmapArray<FailoverValue> failover)
    {
        _maps = maps;
        _failover = failover;
    }

    /// <summary>Slots ejected since the last call; the first call gives all that are ejected.</summary>
    public IReadOnlyCollection<uint> TakeNew()
    {
        var now = Volatile.Read(ref _failover[0].Ejections);
        if (now == _taken)
            return [];
        // The list is short: what has been overwritten is looked for.
        var all = _taken == 0 || now - _taken > RecentEjections.Length;
        var slots = new HashSet<uint>();
        if (all)
            slots = [.. Ejected()];
        else
            for (var number = _taken; number != now; number++)
                slots.Add(_failover[0].Recent[(int)(number % RecentEjections.Length)]);
        _taken = now;
        return slots;
    }

    /// <summary>Null when the slot is not ejected, or holds nothing.</summary>
    public Ejection? Find(uint slot)
    {
        if (slot == 0 || slot >= _maps.Backends.Info.MaxEntries)
            return null;
        var health = _maps.Health[slot];
        var backend = _maps.Backends[slot];
        var now = LivenessMap.NowMs;
        return health.IsEjected(now) && backend.ToL3n4Addr() is { } address
            ? new Ejection(slot, address, backend.ClusterId, health.Node, TimeSpan.FromMilliseconds((int)(health.EjectedUntilMs - now)), health.Failures)
            : null;
    }

    /// <summary>It answered. The next connection that is answered forgets its failures.</summary>
    public void Readmit(Ejection ejection)
    {
        if (Find(ejection.Slot)?.Address != ejection.Address)
            return;
        Volatile.Write(ref _maps.Health.Write(ejection.Slot).EjectedUntilMs, 0);
        Interlocked.Increment(ref _failover.Write(0).Recovered);
    }

    /// <summary>It did not answer: out until then at least.</summary>
    /// <param name="length">From now on.</param>
    public void Keep(Ejection ejection, TimeSpan length)
    {
        if (_maps.Backends[ejection.Slot].ToL3n4Addr() != ejection.Address)
            return;
        var until = LivenessMap.NowMs + (uint)length.TotalMilliseconds;
        Volatile.Write(ref _maps.Health.Write(ejection.Slot).EjectedUntilMs, until == 0 ? 1 : until);
    }

    /// <summary>What a connection's first question waits for its answer before it is repeated.</summary>
    public void SetSynTimeout(TimeSpan timeout) => Volatile.Write(ref _failover.Write(0).SynTimeoutMs, (uint)timeout.TotalMilliseconds);

    private IEnumerable<uint> Ejected()
    {
        for (uint slot = 1; slot < _maps.Health.Info.MaxEntries; slot++)
            if (_maps.Health[slot].EjectedUntilMs != 0 && Find(slot) is not null)
                yield return slot;
    }
}
