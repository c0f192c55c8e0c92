using Mesh.Agent.Cni;
using Mesh.Agent.Endpoints;
using Mesh.Agent.HealthChecks;
using Mesh.Agent.Ipam;
using Mesh.Agent.Masquerade;
using Mesh.Agent.Probes;
using Mesh.Agent.Publishing;
using Mesh.ClusterMesh.Config;
using Mesh.ClusterMesh.Remote;
using Mesh.ControlPlane;
using Mesh.ControlPlane.LoadBalancing;
using Mesh.ControlPlane.Nodes;
using Mesh.ControlPlane.Policies;
using Mesh.ControlPlane.Sources;
using Mesh.Kubernetes;
using Mesh.Model;

namespace Mesh.Agent.Api;

/// <summary>Everything the REST API and the metrics page read. They decide nothing and change nothing.</summary>
internal sealed class AgentView
{
    private volatile Datapath.Datapath? _datapath;

    public required AgentOptions Options { get; init; }

    public required DesiredState State { get; init; }

    public required IObjectSource Objects { get; init; }

    public required NodesWriter Nodes { get; init; }

    public required LoadBalancingWriter LoadBalancing { get; init; }

    public required RemoteClusterSource RemoteSource { get; init; }

    public required EndpointRegistry Endpoints { get; init; }

    public required PodAddresses Addresses { get; init; }

    public required CniStage Cni { get; init; }

    public required MasqueradeStage Masquerade { get; init; }

    public required HealthCheckStage HealthChecks { get; init; }

    /// <summary>This node as it is known now; null while it is not.</summary>
    public Node? Local => State.Nodes.TryGet(new NodeName(Options.Cluster.Name, Options.NodeName), out var node) ? node : null;

    public required PolicyWriter Policies { get; init; }

    /// <summary>What is told to the API server; null when the objects are manifests.</summary>
    public ClusterPublisher? Publishing { get; init; }

    /// <summary>Null without --clustermesh-config.</summary>
    public RemoteClusters? Peers { get; init; }

    /// <summary>Null without --clustermesh-config.</summary>
    public ConfigDirectory? PeerConfig { get; init; }

    /// <summary>Null while the kernel is not programmed.</summary>
    public LivenessStage? Liveness { get; set; }

    /// <summary>Null while the kernel is not programmed.</summary>
    public EjectionStage? Ejections { get; set; }

    public FrontendIds FrontendIds { get; } = new();

    /// <summary>Null until the local node is known and the kernel programmed.</summary>
    public Datapath.Datapath? Datapath
    {
        get => _datapath;
        set => _datapath = value;
    }

    public static string Version { get; } = typeof(AgentView).Assembly.GetName().Version?.ToString(3) ?? "0";
}
