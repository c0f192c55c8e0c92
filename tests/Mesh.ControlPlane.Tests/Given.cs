using Mesh.ClusterMesh.Wire;
using Mesh.Kubernetes;
using Mesh.Kubernetes.Objects;

namespace Mesh.ControlPlane.Tests;

/// <summary>Objects and records in one line each.</summary>
internal static class Given
{
    /// <param name="ports">"http:80/TCP"; ":80/TCP" for an unnamed port.</param>
    public static Service Service(string name, string? ip, string ports = "http:80/TCP", bool global = true, string? affinity = null,
        params string[] moreIPs)
    {
        var annotations = new Dictionary<string, string>();
        if (global)
            annotations[ServiceAnnotations.GlobalName] = "true";
        if (affinity is not null)
            annotations[ServiceAnnotations.AffinityName] = affinity;
        return new Service
        {
            Metadata = new ObjectMeta { Name = name, Namespace = "default", Annotations = annotations },
            Spec = new ServiceSpec
            {
                ClusterIP = ip,
                ClusterIPs = ip is null ? null : [ip, .. moreIPs],
                Ports = [.. ports.Split(' ').Select(Port).Select(port =>
                    new ServicePort { Name = port.Name, Port = port.Number, Protocol = port.Protocol })],
            },
        };
    }

    /// <param name="endpoints">"10.2.0.5", "10.2.0.5 draining", "10.2.0.5 gone".</param>
    public static EndpointSlice Slice(string service, string name, string ports, params string[] endpoints) => new()
    {
        Metadata = new ObjectMeta
        {
            Name = name,
            Namespace = "default",
            Labels = new Dictionary<string, string> { ["kubernetes.io/service-name"] = service },
        },
        AddressType = endpoints.Any(endpoint => endpoint.Contains(':')) ? "IPv6" : "IPv4",
        Ports = [.. ports.Split(' ').Select(Port).Select(port => new SlicePort { Name = port.Name, Port = port.Number, Protocol = port.Protocol })],
        Endpoints = [.. endpoints.Select(Endpoint)],
    };

    /// <param name="backends">"10.1.0.11 http:8080/TCP dns:5353/UDP".</param>
    public static ClusterService Record(string cluster, uint id, string service, params string[] backends) => new()
    {
        Cluster = cluster,
        ClusterId = id,
        Namespace = "default",
        Name = service,
        Shared = true,
        Backends = backends.Select(text => text.Split(' ')).ToDictionary(parts => parts[0],
            parts => (IReadOnlyDictionary<string, WirePort>)parts.Skip(1).Select(Port)
                .ToDictionary(port => port.Name, port => new WirePort { Protocol = port.Protocol, Port = (ushort)port.Number })),
    };

    public static CiliumNode Node(string name, params string[] addresses) => new()
    {
        Metadata = new ObjectMeta { Name = name },
        Spec = new CiliumNodeSpec
        {
            Addresses = [.. addresses.Where(address => !address.Contains('/')).Select(address => address.Split(' '))
                .Select(parts => new CiliumNodeAddress { Type = parts[0], Ip = parts[1] })],
            Ipam = new CiliumNodeIpam { PodCIDRs = [.. addresses.Where(address => address.Contains('/'))] },
        },
    };

    public static NodeRecord NodeRecord(string cluster, uint id, string name, string underlay, string internalIP, string range) => new()
    {
        Name = name,
        Cluster = cluster,
        ClusterID = id,
        IPAddresses = [new WireNodeAddress { Type = "InternalIP", IP = underlay }, new WireNodeAddress { Type = "CiliumInternalIP", IP = internalIP }],
        IPv4AllocCIDR = WireCidr.From(Model.IpPrefix.Parse(range)),
    };

    public static CiliumEndpoint Pod(string name, string ip, uint identity, string node) => new()
    {
        Metadata = new ObjectMeta { Name = name, Namespace = "default" },
        Status = new CiliumEndpointStatus
        {
            Identity = new CiliumEndpointIdentity { Id = identity },
            Networking = new CiliumEndpointNetworking
            {
                Node = node,
                Addressing = [ip.Contains(':') ? new CiliumNodeAddressPair { Ipv6 = ip } : new CiliumNodeAddressPair { Ipv4 = ip }],
            },
        },
    };

    public static IpIdentityPair Address(string ip, uint identity, string host, string pod = "") =>
        new() { IP = ip, ID = identity, HostIP = host, K8sNamespace = pod.Length > 0 ? "default" : null, K8sPodName = pod.Length > 0 ? pod : null };

    private static (string Name, int Number, string Protocol) Port(string text)
    {
        var parts = text.Split(':', '/');
        return (parts[0], int.Parse(parts[1], System.Globalization.CultureInfo.InvariantCulture), parts[2]);
    }

    private static SliceEndpoint Endpoint(string text)
    {
        var parts = text.Split(' ');
        return new SliceEndpoint
        {
            Addresses = [parts[0]],
            Conditions = (parts.Length > 1 ? parts[1] : "") switch
            {
                "draining" => new SliceConditions { Ready = false, Serving = true, Terminating = true },
                "gone" => new SliceConditions { Ready = false, Serving = false },
                _ => new SliceConditions { Ready = true },
            },
        };
    }
}
