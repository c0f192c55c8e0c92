using Mesh.Agent.Endpoints;
using Mesh.AgentApi;
using Mesh.ControlPlane;
using Mesh.Model;
using Mesh.Policy;
using Mesh.StateDB;
using Endpoint = Mesh.AgentApi.Endpoint;
using Row = Mesh.ControlPlane.Endpoints.Endpoint;

namespace Mesh.Agent.Api;

/// <summary>GET /v1/endpoint.</summary>
internal static class EndpointBody
{
    public static IReadOnlyList<Endpoint> Of(AgentView view)
    {
        // Before the rows: what is in the kernel by then is of this revision at least.
        var revision = view.Policies.Read(engine => engine.Revision);
        return [.. view.State.Endpoints.Snapshot().OrderBy(pair => pair.Key).Select(pair => Item(view, pair.Value.Row, pair.Value.Status, revision))];
    }

    /// <summary>Null when there is no such endpoint.</summary>
    public static Endpoint? Of(AgentView view, ushort id) =>
        Of(view).FirstOrDefault(endpoint => endpoint.Id == id);

    private static Endpoint Item(AgentView view, Row row, RowStatus status, long revision)
    {
        var state = view.State;
        var registration = view.Endpoints.Registration(row.Id);
        var policy = PolicyOf(state, row, revision);
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
                    CniAttachmentId = registration?.Attachment,
                    ContainerId = registration?.ContainerId,
                    K8sNamespace = row.Namespace,
                    K8sPodName = row.PodName,
                    PodName = $"{row.Namespace}/{row.PodName}",
                },
                Health = new EndpointHealth
                {
                    Bpf = health,
                    Connected = status.State == RowState.Done,
                    OverallHealth = health,
                    Policy = policy.PolicyEnabled == "none" ? "Disabled" : health,
                },
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
                Policy = new EndpointPolicyStatus { Realized = policy, Spec = policy with { PolicyRevision = revision } },
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

    /// <summary>What holds in the kernel; of an older revision while the newest waits to be written, or for the flows that run to be learnt:
    /// until then nothing is denied that was not before.</summary>
    private static EndpointPolicy PolicyOf(DesiredState state, Row row, long revision)
    {
        var words = state.Policies.Find(PolicyKey.Endpoint(row.Id));
        var word = words?.Row as EndpointPolicyRow;
        var holds = words?.Status.State == RowState.Done && word is not ({ Ingress: EndpointPolicyRow.Learning } or { Egress: EndpointPolicyRow.Learning });
        var (ingress, egress) = (word?.Ingress is 0 or >= EndpointPolicyRow.Learning, word?.Egress is 0 or >= EndpointPolicyRow.Learning);
        return new EndpointPolicy
        {
            Id = row.Identity,
            PolicyEnabled = (ingress, egress) switch { (true, true) => "both", (true, false) => "ingress", (false, true) => "egress", _ => "none" },
            PolicyRevision = holds ? revision : revision - 1,
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
