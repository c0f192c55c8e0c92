using Mesh.ClusterMesh.Remote;
using Mesh.KVStore;

namespace Mesh.ClusterMesh.Relay;

/// <summary>How patient a relay is.</summary>
public sealed record RelayOptions
{
    /// <summary>Agents give a connection up after two minutes without one.</summary>
    public TimeSpan HeartbeatInterval { get; init; } = TimeSpan.FromMinutes(1);

    /// <summary>Silence of a source's heartbeat after which the connection is given up.</summary>
    public TimeSpan HeartbeatTimeout { get; init; } = TimeSpan.FromSeconds(120);

    /// <summary>How long a missing or malformed cluster-config is asked for before connecting anew.</summary>
    public TimeSpan ConfigTimeout { get; init; } = TimeSpan.FromMinutes(3);

    public TimeSpan ConfigRefresh { get; init; } = TimeSpan.FromMinutes(1);

    /// <summary>The n-th failure in a row waits n times this, jittered, up to <see cref="ReconnectBackoffMax"/>.</summary>
    public TimeSpan ReconnectBackoff { get; init; } = TimeSpan.FromSeconds(1);

    public TimeSpan ReconnectBackoffMax { get; init; } = TimeSpan.FromSeconds(30);

    /// <summary>Wait when a connection could not even be tried: a certificate file that is not there yet.</summary>
    public TimeSpan OpenRetry { get; init; } = TimeSpan.FromSeconds(5);

    /// <summary>Between the end of a peer's cluster-config and that of its data: its agents drain it meanwhile by themselves.</summary>
    public TimeSpan RemovalGrace { get; init; } = TimeSpan.FromMinutes(3);

    /// <summary>How long the services of a peer that cannot be reached are kept; everything else of it stays. Zero keeps them for ever.</summary>
    public TimeSpan CacheTtl { get; init; }

    /// <summary>A peer that was not reached within this does not hold readiness up.</summary>
    public TimeSpan PerClusterReadyTimeout { get; init; } = TimeSpan.FromSeconds(15);

    /// <summary>Ready after this in any case.</summary>
    public TimeSpan GlobalReadyTimeout { get; init; } = TimeSpan.FromMinutes(10);
}

/// <summary>One peer as the relay sees it; readable from any thread.</summary>
public sealed record RelayedClusterStatus
{
    public required string Name { get; init; }

    /// <summary>0 until the cluster-config has been read.</summary>
    public uint ClusterId { get; init; }

    public bool Connected { get; init; }

    /// <summary>Connected, configuration read, and every followed resource confirmed complete.</summary>
    public bool Ready { get; init; }

    /// <summary>One line: the etcd state, or why it is not well.</summary>
    public required string Status { get; init; }

    public bool ConfigRetrieved { get; init; }

    public bool SyncedCanaries { get; init; }

    /// <summary>The source is a cache itself.</summary>
    public bool Cached { get; init; }

    public bool? ServiceExportsEnabled { get; init; }

    /// <summary>Confirmed complete since the start of the relay.</summary>
    public IReadOnlySet<RelayedResource> Synced { get; init; } = new HashSet<RelayedResource>();

    /// <summary>Keys in the cache now.</summary>
    public IReadOnlyDictionary<RelayedResource, int> Counts { get; init; } = new Dictionary<RelayedResource, int>();

    /// <summary>Bytes of keys and values in the cache now.</summary>
    public long Bytes { get; init; }

    public int Failures { get; init; }

    /// <summary>When it was last known to be connected; null while it is, and when it never was.</summary>
    public DateTimeOffset? ConnectedUntil { get; init; }

    /// <summary>Why the peer's import file is not in force; null when it is, or there is none.</summary>
    public string? ImportsProblem { get; init; }

    /// <summary>Null when it never failed.</summary>
    public DateTimeOffset? LastFailure { get; init; }

    /// <summary>The certificates towards the peer, ours and its own; null without TLS or without a connection to try.</summary>
    public TlsStatus? Tls { get; init; }

    /// <summary>Which of them end soon or have ended; null when none. Changes once a day.</summary>
    public string? CertificateExpiry { get; init; }

    /// <summary>Puts not taken over because of a quota, and the latest reason.</summary>
    public long Refused { get; init; }

    public string? LastRefusal { get; init; }

    /// <summary>Deletions withheld because the canary of their resource was gone with them: no owner deletes so.</summary>
    public long Withheld { get; init; }

    public long Events { get; init; }
}

/// <summary>Why a connection to a peer is given up; the message becomes its status.</summary>
internal sealed class RelayConnectionException(string message, bool planned = false) : Exception(message)
{
    /// <summary>Nothing failed: the peer has to be read anew, at once.</summary>
    public bool Planned { get; } = planned;

    public PeerFault Fault { get; init; } = PeerFault.Other;
}
