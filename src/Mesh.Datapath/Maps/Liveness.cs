using System.Runtime.CompilerServices;

namespace Mesh.Datapath.Maps;

/// <summary>struct cluster_liveness: who may be sent new flows, by the control plane's word and by proof.</summary>
public struct ClusterLivenessValue
{
    public const byte RampFull = 255;

    /// <summary>Configured.</summary>
    public ClusterBits Up;

    /// <summary>Not proved silent.</summary>
    public ClusterBits Alive;

    /// <summary>CLOCK_MONOTONIC in nanoseconds; 0 = no drill.</summary>
    public ClusterDeadlines DrillUntilNs;

    /// <summary>Chance of a new flow, of 255.</summary>
    public ClusterShares Ramp;
}

/// <summary>One bit a cluster.</summary>
[InlineArray(LbLimits.ClusterWords)]
public struct ClusterBits
{
    private ulong _first;

    public static bool Has(ref ClusterBits bits, uint cluster) =>
        cluster < LbLimits.Clusters && (Volatile.Read(ref bits[(int)(cluster / 64)]) >> (int)(cluster % 64) & 1) != 0;

    /// <summary>One store, whoever else writes bits of the same word.</summary>
    public static void Set(ref ClusterBits bits, uint cluster, bool on)
    {
        ref var word = ref bits[(int)(cluster / 64)];
        var bit = 1ul << (int)(cluster % 64);
        if (on)
            Interlocked.Or(ref word, bit);
        else
            Interlocked.And(ref word, ~bit);
    }
}

/// <summary>One time a cluster.</summary>
[InlineArray(LbLimits.Clusters)]
public struct ClusterDeadlines
{
    private ulong _first;
}

/// <summary>One share a cluster.</summary>
[InlineArray(LbLimits.Clusters)]
public struct ClusterShares
{
    private byte _first;
}

/// <summary>struct lb_backend_health, at the backend's index.</summary>
public struct LbBackendHealth
{
    /// <summary>Low 32 bits of CLOCK_MONOTONIC in milliseconds; 0 = not ejected.</summary>
    public uint EjectedUntilMs;

    /// <summary>Index into nodes; 0 = unknown.</summary>
    public ushort Node;

    /// <summary>In a row.</summary>
    public byte Failures;
    public byte Pad;

    /// <param name="nowMs">Low 32 bits of the same clock.</param>
    public readonly bool IsEjected(uint nowMs) => EjectedUntilMs != 0 && (int)(EjectedUntilMs - nowMs) > 0;
}

/// <summary>struct failover: what has been done, and the latest ejections.</summary>
public struct FailoverValue
{
    public ulong Panics;
    public ulong Refused;
    public ulong Unanswered;
    public ulong Recovered;
    public ulong Repicked;
    public ulong SocketsClosed;

    /// <summary>The first question of a connection to a backend is repeated, and counts as unanswered, after this; 0 = the kernel's
    /// 1000.</summary>
    public uint SynTimeoutMs;

    /// <summary>Of a million new flows, those that may fail before the agent ends a drill; 0 = any number.</summary>
    public uint DrillErrorPpm;

    /// <summary>Ejections so far; the next one's place in <see cref="Recent"/> is this, modulo its length.</summary>
    public ulong Ejections;
    public RecentEjections Recent;
}

/// <summary>Backend slots.</summary>
[InlineArray(Length)]
public struct RecentEjections
{
    public const int Length = 256;
    private uint _first;
}
