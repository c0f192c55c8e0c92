using Mesh.ControlPlane.Endpoints;
using Mesh.ControlPlane.IPCache;
using Mesh.ControlPlane.LoadBalancing;
using Mesh.ControlPlane.Nodes;
using Mesh.ControlPlane.RemoteClusters;
using Mesh.Model;
using Mesh.Policy;
using Mesh.StateDB;

namespace Mesh.ControlPlane;

/// <summary>All tables of one agent: what the node should look like. Sources write them, the datapath follows them, the REST
/// API reads them. Nothing else is shared between these three.</summary>
public sealed class DesiredState
{
    public Table<L3n4Addr, Frontend> Frontends { get; } = new("frontends");

    public Table<IpPrefix, IPCacheEntry> IPCache { get; } = new("ipcache");

    public Table<NodeName, Node> Nodes { get; } = new("nodes");

    public Table<ushort, Endpoint> Endpoints { get; } = new("endpoints");

    /// <summary>Identity number → its labels.</summary>
    public Table<uint, IdentityRow> Identities { get; } = new("identities");

    /// <summary>Verdicts by rule set and peer, and which sets hold for each endpoint.</summary>
    public Table<PolicyKey, PolicyRow> Policies { get; } = new("policies");

    /// <summary>One row per configured peer; its cluster-up bit in the kernel follows this table.</summary>
    public Table<string, RemoteClusterRow> RemoteClusters { get; } = new("remote-clusters");
}
