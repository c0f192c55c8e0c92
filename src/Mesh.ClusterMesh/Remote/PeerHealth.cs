using Mesh.KVStore;

namespace Mesh.ClusterMesh.Remote;

/// <summary>
/// What can be said of a peer at this moment, with the evidence. Healthy is only what was proved a moment ago: a connection on which
/// nothing was heard is not. It decides nothing; records stay in use whatever it says.
/// </summary>
public sealed record PeerHealth
{
    /// <summary>None only when everything is proved to be well.</summary>
    public required PeerFault Fault { get; init; }

    /// <summary>The fault lies between the relay that is read and the peer, and is told in the relay's words.</summary>
    public bool AtRelay { get; init; }

    /// <summary>One line: the cause in its own words. Null when there is none.</summary>
    public string? Cause { get; init; }

    /// <summary>Time since the newest evidence that what we hold is what the peer has; null when there never was any, or nobody needs to
    /// ask (a store in memory).</summary>
    public TimeSpan? ProofAge { get; init; }

    /// <summary>What the last reconnection was for; null when there was none.</summary>
    public string? LastReconnection { get; init; }

    public IReadOnlyList<ResourceHealth> Resources { get; init; } = [];

    public TlsStatus? Tls { get; init; }

    /// <summary>The peer's clock minus ours; null when unknown.</summary>
    public TimeSpan? ClockSkew { get; init; }

    /// <summary>A door of ours answers, and not an etcd.</summary>
    public bool IsDoor { get; init; }

    /// <summary>Audits done, and how many of them found something lost, on this connection.</summary>
    public long Audits { get; init; }

    public long Repairs { get; init; }

    public string? Endpoint { get; init; }
}

/// <param name="ProofAge">See <see cref="PeerHealth.ProofAge"/>.</param>
/// <param name="AuditAge">Time since an audit found nothing missing.</param>
/// <param name="Relists">Times it was read anew on this connection.</param>
public sealed record ResourceHealth(
    RemoteResource Resource, bool Synced, int Entries, TimeSpan? ProofAge, TimeSpan? AuditAge, int Relists, string? RelistReason);
