using System.Net;
using Mesh.ClusterMesh.ApiServer.Relaying;
using Mesh.ClusterMesh.Door;
using Mesh.Joining.Listening;
using Mesh.Kubernetes;
using Mesh.KVStore;

namespace Mesh.ClusterMesh.ApiServer;

/// <summary>What the API server was asked to do; every value is possible.</summary>
public sealed record ApiServerOptions
{
    public required ClusterSelf Self { get; init; }

    /// <summary>Where the objects are.</summary>
    public required SourceAddress Source { get; init; }

    /// <summary>An etcd that somebody else runs, of one or several members; null together with a set
    /// <see cref="EmbeddedEtcdDirectory"/>.</summary>
    public EtcdOptions? GivenEtcd { get; init; }

    /// <summary>Where an etcd that we run as a child keeps its data.</summary>
    public string? EmbeddedEtcdDirectory { get; init; }

    /// <summary>Where readers are let in, and who; null for nowhere.</summary>
    public DoorOptions? Door { get; init; }

    /// <summary>Which clusters are mirrored for our own agents; null for none. Needs a door.</summary>
    public RelaySettings? Relay { get; init; }

    /// <summary>Where other clusters join by a token; null for nowhere.</summary>
    public JoinListenerOptions? Join { get; init; }

    /// <summary>What this replica remembers over a restart; null for nothing.</summary>
    public string? StateDirectory { get; init; }

    /// <summary>Where /readyz answers; null for nowhere.</summary>
    public IPEndPoint? Health { get; init; }

    /// <summary>Where /metrics answers; null for nowhere.</summary>
    public IPEndPoint? Metrics { get; init; }

    /// <summary>Whether a namespace that does not say takes part in the mesh.</summary>
    public bool NamespacesAreGlobal { get; init; } = true;

    /// <summary>Whether ServiceExports are published too (MCS-API).</summary>
    public bool ServiceExports { get; init; }

    /// <summary>How long peers keep seeing our keys after we died. Whole seconds, 25 s to 24 h.</summary>
    public TimeSpan LeaseTtl { get; init; } = TimeSpan.FromMinutes(15);

    /// <summary>Of several replicas on a given etcd one writes; this long after it died another does. Whole seconds.</summary>
    public TimeSpan WriterLease { get; init; } = TimeSpan.FromSeconds(5);

    /// <summary>Peers reconnect when they saw no heartbeat for two minutes.</summary>
    public TimeSpan HeartbeatInterval { get; init; } = TimeSpan.FromMinutes(1);
}
