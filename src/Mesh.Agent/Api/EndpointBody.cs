using Mesh.Agent.Endpoints;
using Mesh.AgentApi;
using Mesh.ControlPlane;
using Mesh.Model;
using Mesh.StateDB;
using Endpoint = Mesh.AgentApi.Endpoint;
using Row = Mesh.ControlPlane.Endpoints.Endpoint;

namespace Mesh.Agent.Api;

/// <summary>GET /v1/endpoint.</summary>
internal static class EndpointBody
{
    public static IReadOnlyList<Endpoint> Of(DesiredState state) =>
        [.. state.Endpoints.Snapshot().OrderBy(pair => pair.Key).Select(pair => Item(state, pair.Value.Row, pair.Value.Status))];

    /// <summary>Null when there is no such endpoint.</summary>
    public static Endpoint? Of(DesiredState state, ushort id) =>
        Of(state).FirstOrDefault(endpoint => endpoint.Id == id);

    private static Endpoint Item(DesiredState state, Row row, RowStatus status)
    {
        IReadOnlyList<string> labels = row.Identity == 0
            ? ["reserved:init"]
            : state.Identities.TryGet(row.Identity, out var identity) ? [.. identity.Labels] : [];
        var health = status.State == RowState.Error ? "Failure" : status.State == RowState.Pending ? "Pending" : "OK";
        return new Endpoint
        {
            Id = row.Id,
            Spec = new EndpointSpec(),
            Status = new EndpointStatus
            {
                ExternalIdentifiers = new EndpointIdentifiers
                {
                    K8sNamespace = row.Namespace,
                    K8sPodName = row.PodName,
                    PodName = $"{row.Namespace}/{row.PodName}",
                },
                Health = new EndpointHealth { Bpf = health, Connected = status.State == RowState.Done, OverallHealth = health, Policy = "Disabled" },
                Identity = new Identity { Id = row.Identity == 0 ? NumericIdentity.Init : row.Identity, Labels = labels },
                Labels = new EndpointLabels { SecurityRelevant = labels },
                Networking = new EndpointNetworking
                {
                    Addressing = [new AddressPair { Ipv4 = First(row, v6: false), Ipv6 = First(row, v6: true) }],
                    HostMac = MacText.Format(row.HostMac),
                    InterfaceIndex = row.InterfaceIndex,
                    InterfaceName = row.InterfaceName,
                    Mac = MacText.Format(row.PodMac),
                },
                Policy = new EndpointPolicyStatus { Realized = new EndpointPolicy { Id = row.Identity }, Spec = new EndpointPolicy { Id = row.Identity } },
                Realized = new EndpointSpec(),
                State = row.Identity == 0 ? "waiting-for-identity" : status.State switch
                {
                    RowState.Done => "ready",
                    RowState.Error => "not-ready",
                    _ => "regenerating",
                },
            },
        };
    }

    private static string? First(Row row, bool v6)
    {
        foreach (var address in row.Addresses)
            if (address.IsV6 == v6)
                return address.ToString();
        return null;
    }
}
