using Mesh.AgentApi;

namespace Mesh.Agent.Api;

/// <summary>GET /v1/config and /v1/debuginfo.</summary>
internal static class ConfigBody
{
    public static DaemonConfiguration Of(AgentView view)
    {
        var options = view.Options;
        var spec = new DaemonConfigurationSpec { PolicyEnforcement = "default" };
        return new DaemonConfiguration
        {
            Spec = spec,
            Status = new DaemonConfigurationStatus
            {
                Addressing = view.Nodes.LocalNode is { IsCompletedSuccessfully: true } local ? NodeBody.Primary(local.Result) : null,
                DatapathMode = "veth",
                DeviceMTU = view.Datapath?.PodMtu ?? 0,
                RouteMTU = view.Datapath?.PodMtu ?? 0,
                Realized = spec,
                DaemonConfigurationMap = new DaemonConfigurationMap
                {
                    ClusterName = options.Cluster.Name,
                    ClusterId = options.Cluster.Id,
                    MaxConnectedClusters = options.Numbering.MaxConnectedClusters,
                    TunnelPort = options.TunnelPort,
                    BPFRoot = options.BpfRoot,
                    CGroupRoot = options.CgroupRoot,
                    SocketPath = options.SocketPath,
                    StateDir = options.StateDirectory,
                    NodeName = options.NodeName,
                },
            },
        };
    }

    public static DebugInfo Debug(AgentView view) => new()
    {
        CiliumVersion = $"{SpokenVersion.Of(AgentView.Version)} mesh-agent",
        KernelVersion = Environment.OSVersion.Version.ToString(),
        CiliumStatus = StatusBody.Of(view),
        ServiceList = ServiceBody.Of(view),
        EndpointList = EndpointBody.Of(view),
    };
}
