using System.Collections.Immutable;
using Mesh.Kubernetes;
using Mesh.Kubernetes.Objects;
using Mesh.Model;

namespace Mesh.ControlPlane.LoadBalancing;

/// <summary>What the merge needs of a local Service object.</summary>
/// <param name="ClusterIPs">One per family at the most; empty for a headless service and for one that has not got its address yet:
/// neither has frontends.</param>
/// <param name="Global">Backends of other clusters may answer for it.</param>
/// <param name="Affinity">None unless global.</param>
public sealed record LocalService(
    ServiceName Name,
    EquatableArray<IpAddr> ClusterIPs,
    EquatableArray<FrontendPort> Ports,
    bool Global,
    ServiceAffinity Affinity)
{
    public static LocalService From(Service service)
    {
        var annotations = ServiceAnnotations.Read(service.Metadata);
        return new LocalService(
            new ServiceName(service.Metadata.Namespace ?? "", service.Metadata.Name ?? ""),
            new EquatableArray<IpAddr>(AddressesOf(service.Spec)),
            new EquatableArray<FrontendPort>(PortsOf(service.Spec)),
            annotations.Global,
            annotations.Global ? annotations.Affinity : ServiceAffinity.None);
    }

    private static IEnumerable<IpAddr> AddressesOf(ServiceSpec spec)
    {
        var texts = spec.ClusterIPs is { Count: > 0 } many ? many : [spec.ClusterIP ?? ""];
        return texts.Select(text => (Ok: IpAddr.TryParse(text, out var address), Address: address))
            .Where(parsed => parsed.Ok && !parsed.Address.IsUnspecified)
            .Select(parsed => parsed.Address)
            .Distinct();
    }

    private static IEnumerable<FrontendPort> PortsOf(ServiceSpec spec) =>
        from port in spec.Ports ?? []
        let protocol = L4Protocols.Parse(string.IsNullOrEmpty(port.Protocol) ? "TCP" : port.Protocol)
        where protocol != L4Protocol.None && port.Port is > 0 and <= ushort.MaxValue
        select new FrontendPort(port.Name ?? "", (ushort)port.Port, protocol);
}

/// <param name="Name">"" for an unnamed port.</param>
public readonly record struct FrontendPort(string Name, ushort Port, L4Protocol Protocol);

/// <summary>One address with one of its port names, as an EndpointSlice or a remote record lists it.</summary>
public readonly record struct NamedBackend(L3n4Addr Address, string PortName, BackendState State, string NodeName, string Zone);

/// <summary>What one cluster offers for a service.</summary>
/// <param name="Sequence">Grows with each write of any record: of two clusters that claim one address, the last writer has it.</param>
public sealed record RemoteService(string Cluster, uint ClusterId, long Sequence, ImmutableArray<NamedBackend> Backends);
