using Mesh.ClusterMesh.Imports;
using Mesh.Model;

namespace Mesh.ClusterMesh.Remote;

/// <summary>What a consumer of remote clusters must know of itself, and how patient it is.</summary>
public sealed record RemoteClusterOptions
{
    /// <summary>Own cluster name; a peer file of this name is ignored.</summary>
    public required string LocalCluster { get; init; }

    /// <summary>A peer that claims this ID is refused. 0 for a cluster that is not a member itself.</summary>
    public required uint LocalClusterId { get; init; }

    public required IdentityNumbering Numbering { get; init; }

    /// <summary>What is read of each peer; one that does not publish a thing is not waited for.</summary>
    public IReadOnlyList<RemoteResource> Resources { get; init; } = RemoteResources.OfEveryCluster;

    /// <summary>Silence of cilium/.heartbeat after which the connection is given up. Producers beat every minute.</summary>
    public TimeSpan HeartbeatTimeout { get; init; } = TimeSpan.FromSeconds(120);

    /// <summary>How long a missing or malformed cluster-config is asked for before connecting anew.</summary>
    public TimeSpan ConfigTimeout { get; init; } = TimeSpan.FromMinutes(3);

    /// <summary>Wait between two reads of a peer's cluster-config, besides those that an event suggests.</summary>
    public TimeSpan ConfigRefresh { get; init; } = TimeSpan.FromMinutes(1);

    /// <summary>The n-th failure in a row waits n times this, jittered, up to <see cref="ReconnectBackoffMax"/>.</summary>
    public TimeSpan ReconnectBackoff { get; init; } = TimeSpan.FromSeconds(1);

    public TimeSpan ReconnectBackoffMax { get; init; } = TimeSpan.FromSeconds(30);

    /// <summary>What is this cluster's own at present; asked for each record, so it must be cheap.</summary>
    public Func<OwnGround> OwnGround { get; init; } = () => Imports.OwnGround.Unknown;

    /// <summary>For peers without a file of their own.</summary>
    public ImportPolicy DefaultImports { get; init; } = ImportPolicy.Default;

    /// <summary>The services of a peer that was not reached for so long are withdrawn, and nothing else of it: what is known stays right, but
    /// nobody is sent there any more. Counts from the first failed attempt until the cluster-config is read again. Zero keeps them for ever.</summary>
    public TimeSpan CacheTtl { get; init; }

    /// <summary>Wait when the store could not even be opened: a certificate file that is not there yet.</summary>
    public TimeSpan OpenRetry { get; init; } = TimeSpan.FromSeconds(5);
}

/// <summary>Why a connection to a peer is given up; the message becomes the peer's status.</summary>
internal sealed class RemoteConnectionException(string message, bool planned = false) : Exception(message)
{
    /// <summary>Nothing failed: the peer has to be read anew, at once.</summary>
    public bool Planned { get; } = planned;

    public PeerFault Fault { get; set; } = PeerFault.Other;
}
