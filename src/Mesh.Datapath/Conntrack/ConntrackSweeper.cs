using System.Diagnostics;
using Mesh.Bpf;
using Mesh.Datapath.Maps;

namespace Mesh.Datapath.Conntrack;

/// <summary>
/// Takes conntrack entries out that have been silent for too long, so that the LRU maps give up dead flows and not idle ones. One
/// <see cref="Turn"/> looks at one batch of a map, a few hundred microseconds, and the next goes on where it stopped: nobody waits for a
/// sweep. An expired entry counts for nothing in the programs already, so being late is harmless. Driven by one thread at a time.
/// </summary>
internal sealed class ConntrackSweeper
{
    /// <summary>A flow that speaks again just now has its entry made anew by the program; this keeps us off entries that young.</summary>
    private const uint GraceSeconds = 5;

    private readonly Walk<Conntrack4Key> _flows4;
    private readonly Walk<Conntrack6Key> _flows6;
    private readonly Func<uint> _now;

    /// <param name="now">Seconds of the monotonic clock, as the programs read it.</param>
    internal ConntrackSweeper(
        BpfMap<Conntrack4Key, ConntrackValue> flows4, BpfMap<Conntrack6Key, ConntrackValue> flows6, Func<uint>? now = null)
    {
        _flows4 = new(flows4);
        _flows6 = new(flows6);
        _now = now ?? (() => (uint)(Stopwatch.GetTimestamp() / Stopwatch.Frequency));
    }

    /// <summary>Entries of conntrack4 when it was last walked to its end; two a flow.</summary>
    internal int Entries4 => _flows4.Last;

    internal int Entries6 => _flows6.Last;

    /// <summary>Entries taken out since the start.</summary>
    internal long Removed => _flows4.Removed + _flows6.Removed;

    /// <summary>Looks at one batch of each map.</summary>
    /// <returns>True when both walks have come to an end, and the next turn begins anew.</returns>
    internal bool Turn()
    {
        var now = _now();
        var done4 = _flows4.IsAtEnd || _flows4.Turn(now);
        var done6 = _flows6.IsAtEnd || _flows6.Turn(now);
        if (!done4 || !done6)
            return false;
        _flows4.Restart();
        _flows6.Restart();
        return true;
    }

    private sealed class Walk<TKey>(BpfMap<TKey, ConntrackValue> map)
        where TKey : unmanaged, IConntrackKey
    {
        private readonly BpfMapWalk<TKey, ConntrackValue> _walk = new(map);
        private int _seen;

        public bool IsAtEnd { get; private set; }

        public int Last { get; private set; }

        public long Removed { get; private set; }

        public bool Turn(uint now)
        {
            IsAtEnd = !_walk.Next();
            var expired = new List<TKey>();
            foreach (var (key, value) in _walk.Batch)
                if ((int)(now - value.LastSeen) > (int)(value.TimeoutSeconds(key.Protocol) + GraceSeconds))
                    expired.Add(key);
            _seen += _walk.Batch.Count - expired.Count;
            if (expired.Count > 0)
                Removed += map.RemoveBatch(System.Runtime.InteropServices.CollectionsMarshal.AsSpan(expired));
            return IsAtEnd;
        }

        public void Restart()
        {
            (Last, _seen) = (_seen, 0);
            IsAtEnd = false;
            _walk.Restart();
        }
    }
}
