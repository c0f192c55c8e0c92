using System.Net;
using Mesh.Agent.Endpoints;
using Mesh.Agent.Ipam;
using Mesh.AgentApi;
using Mesh.Model;

namespace Mesh.Agent.Api;

/// <summary>GET, POST and DELETE /v1/ipam.</summary>
internal static class IpamBody
{
    /// <exception cref="EndpointRefusedException">The pod cannot be added now; the message says why.</exception>
    public static IpamResponse Reserve(AgentView view, string? address, string family, string owner, string attachment)
    {
        var datapath = view.Datapath ?? throw NotReady(view);
        if (owner.Length == 0)
            throw new EndpointRefusedException(HttpStatusCode.BadRequest, "owner is missing: say for whom, as ?owner=NAMESPACE/POD");
        bool? v6 = family switch
        {
            "" => null,
            "ipv4" => false,
            "ipv6" => true,
            _ => throw new EndpointRefusedException(HttpStatusCode.BadRequest, $"family '{family}' must be ipv4 or ipv6, or left out for both"),
        };
        var key = attachment.Length == 0 ? owner : attachment;
        if (address is not null && !IpAddr.TryParse(address, out _))
            throw new EndpointRefusedException(HttpStatusCode.BadRequest, $"'{address}' is not an IP address");
        var given = address is null ? view.Addresses.Reserve(key, owner, v6) : [view.Addresses.Reserve(IpAddr.Parse(address), key, owner)];
        var node = view.Local ?? throw NotReady(view);
        IpamAddress? Of(bool six) => given.Where(one => one.Address.IsV6 == six).Select(one => new IpamAddress
        {
            Ip = one.Address.ToString(),
            Cidrs = [one.Range.ToString()],
            Gateway = PodAddresses.RouterOf(node, six)?.ToString(),
        }).FirstOrDefault();
        var (v4, six) = (Of(six: false), Of(six: true));
        return new IpamResponse
        {
            Address = new AddressPair { Ipv4 = v4?.Ip, Ipv6 = six?.Ip },
            HostAddressing = NodeBody.Primary(node),
            Ipv4 = v4,
            Ipv6 = six,
            DeviceMtu = datapath.PodMtu,
        };
    }

    public static IpamStatus Of(AgentView view)
    {
        var status = view.Addresses.Status();
        return view.Datapath is null ? status with { Problem = NotReady(view).Message } : status;
    }

    private static EndpointRefusedException NotReady(AgentView view) =>
        new(HttpStatusCode.ServiceUnavailable, $"the agent is not ready: {StatusBody.WaitingFor(view)}");
}
