using Mesh.AgentApi;
using Mesh.ControlPlane.LoadBalancing;
using Mesh.Model;

namespace Mesh.Agent.Api;

/// <summary>GET /v1/service: one item per frontend, by id.</summary>
internal static class ServiceBody
{
    private const ushort Weight = 100;

    public static IReadOnlyList<Service> Of(AgentView view)
    {
        var rows = view.State.Frontends.Snapshot();
        var ids = view.FrontendIds.Of([.. rows.Select(row => row.Key)]);
        return [.. rows.Select(row => Item(row.Value.Row, ids[row.Key])).OrderBy(item => item.Spec!.Id)];
    }

    private static Service Item(Frontend row, long id)
    {
        var spec = new ServiceSpec
        {
            Id = id,
            FrontendAddress = new FrontendAddress
            {
                Ip = row.Address.Address.ToString(),
                Port = row.Address.Port,
                Protocol = row.Address.Protocol.ToString(),
                Scope = "external",
            },
            BackendAddresses = row.Backends.Count == 0 ? null : [.. row.Backends.Select(backend => Address(backend, row.Affinity))],
            Flags = new ServiceFlags
            {
                Name = row.Service.Name,
                Namespace = row.Service.Namespace,
                Type = row.Type.ToString(),
                TrafficPolicy = Policy(row.ExternalLocal),
                ExtTrafficPolicy = Policy(row.ExternalLocal),
                IntTrafficPolicy = Policy(row.InternalLocal),
            },
        };
        return new Service { Spec = spec, Status = new ServiceStatus { Realized = spec } };
    }

    private static BackendAddress Address(Backend backend, ServiceAffinity affinity) => new()
    {
        Ip = backend.Address.Address.ToString(),
        Port = backend.Address.Port,
        Protocol = backend.Address.Protocol.ToString(),
        NodeName = OrNull(backend.NodeName),
        Zone = OrNull(backend.Zone),
        Weight = Weight,
        Preferred = affinity != ServiceAffinity.None && backend.Tier == 0,
        State = backend.State switch
        {
            BackendState.Draining => "terminating",
            BackendState.Dead => "quarantined",
            BackendState.Maintenance => "maintenance",
            _ => "active",
        },
        MeshCluster = OrNull(backend.Cluster),
    };

    private static string Policy(bool local) => local ? "Local" : "Cluster";

    private static string? OrNull(string text) => text.Length == 0 ? null : text;
}
