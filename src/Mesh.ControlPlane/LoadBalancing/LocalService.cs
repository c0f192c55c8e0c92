using System.Collections.Immutable;
using Mesh.ControlPlane.LoadBalancing.Choice;
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
    private const int DefaultAffinitySeconds = 10800;

    /// <summary>How backends are chosen; the default for a service that is not global, but for its zones.</summary>
    public ServiceChoice Choice { get; init; } = ServiceChoice.Default;

    /// <summary>Addresses that a load balancer in front of the cluster was given for it.</summary>
    public EquatableArray<IpAddr> LoadBalancerIPs { get; init; }

    public EquatableArray<IpAddr> ExternalIPs { get; init; }

    /// <summary>Clients outside the cluster are given backends of the node that they reached.</summary>
    public bool ExternalLocal { get; init; }

    /// <summary>Port at which a load balancer in front of the cluster asks each node for its backends; 0 = none. Only under
    /// <see cref="ExternalLocal"/>.</summary>
    public ushort HealthCheckNodePort { get; init; }

    /// <summary>Pods and hosts of the cluster are given backends of their own node.</summary>
    public bool InternalLocal { get; init; }

    /// <summary>Session affinity; 0 = none.</summary>
    public uint AffinitySeconds { get; init; }

    /// <summary>Who may use the addresses of a load balancer; empty = everyone.</summary>
    public EquatableArray<IpPrefix> SourceRanges { get; init; }

    public ForwardingMode Forwarding { get; init; }

    public BackendAlgorithm Algorithm { get; init; }

    /// <summary>Virtual addresses, the first of each kind first; 0.0.0.0 and :: stand for the port on every node. Empty for a headless
    /// service, one of type ExternalName, and one that has not got its address yet: none of them has frontends.</summary>
    public IEnumerable<(L3n4Addr Address, FrontendPort Port, ServiceType Type)> Frontends()
    {
        var said = new HashSet<L3n4Addr>();
        foreach (var (addresses, type) in new[]
        {
            (ClusterIPs, ServiceType.ClusterIP), (LoadBalancerIPs, ServiceType.LoadBalancer), (ExternalIPs, ServiceType.ExternalIPs),
        })
            foreach (var virtualIP in addresses)
                foreach (var port in Ports)
                    if (new L3n4Addr(virtualIP, port.Port, port.Protocol) is var address && said.Add(address))
                        yield return (address, port, type);
        foreach (var v6 in ClusterIPs.Select(address => address.IsV6).Distinct())
            foreach (var port in Ports)
                if (port.NodePort > 0)
                    yield return (new L3n4Addr(v6 ? IpAddr.V6(0) : IpAddr.V4(0), port.NodePort, port.Protocol), port, ServiceType.NodePort);
    }

    /// <param name="choice">As read from its annotations.</param>
    public static LocalService From(Service service, ServiceChoice choice)
    {
        var annotations = ServiceAnnotations.Read(service.Metadata);
        var spec = service.Spec;
        var named = new LocalService(
            new ServiceName(service.Metadata.Namespace ?? "", service.Metadata.Name ?? ""),
            new EquatableArray<IpAddr>(AddressesOf(spec)),
            new EquatableArray<FrontendPort>(PortsOf(service.Spec)),
            annotations.Global,
            annotations.Global ? choice.Affinity : ServiceAffinity.None)
        {
            Choice = annotations.Global ? choice : ServiceChoice.Default with { PreferZone = choice.PreferZone, MinHealthy = choice.MinHealthy },
        };
        // A headless service stands for its pods, and one of type ExternalName for a name: nothing of them is translated.
        if (named.ClusterIPs.Count == 0)
            return named;
        return named with
        {
            LoadBalancerIPs = spec.Type == "LoadBalancer" ? new(Parsed(IngressOf(service))) : default,
            ExternalIPs = new(Parsed(spec.ExternalIPs ?? [])),
            ExternalLocal = spec.ExternalTrafficPolicy == "Local",
            InternalLocal = spec.InternalTrafficPolicy == "Local",
            HealthCheckNodePort = spec is { Type: "LoadBalancer", ExternalTrafficPolicy: "Local" } ? (ushort)spec.HealthCheckNodePort : (ushort)0,
            AffinitySeconds = spec.SessionAffinity == "ClientIP"
                ? (uint)(spec.SessionAffinityConfig?.ClientIP?.TimeoutSeconds ?? DefaultAffinitySeconds)
                : 0,
            SourceRanges = new((spec.LoadBalancerSourceRanges ?? []).Select(text => IpPrefix.Parse(text.Trim())).Distinct().Order()),
            Forwarding = ServiceAnnotations.Says(service.Metadata, ServiceAnnotations.ForwardingName, "dsr") ? ForwardingMode.Dsr : ForwardingMode.Snat,
            Algorithm = ServiceAnnotations.Says(service.Metadata, ServiceAnnotations.AlgorithmName, "random")
                ? BackendAlgorithm.Random
                : BackendAlgorithm.Maglev,
        };
    }

    private static IEnumerable<string> IngressOf(Service service) =>
        (service.Status?.LoadBalancer?.Ingress ?? []).Where(ingress => ingress.IpMode != "Proxy").Select(ingress => ingress.Ip ?? "");

    private static IEnumerable<IpAddr> AddressesOf(ServiceSpec spec)
    {
        if (spec.Type == "ExternalName")
            return [];
        return Parsed(spec.ClusterIPs is { Count: > 0 } many ? many : [spec.ClusterIP ?? ""]);
    }

    private static IEnumerable<IpAddr> Parsed(IEnumerable<string> texts) =>
        texts.Select(text => (Ok: IpAddr.TryParse(text, out var address), Address: address))
            .Where(parsed => parsed.Ok && !parsed.Address.IsUnspecified)
            .Select(parsed => parsed.Address)
            .Distinct();

    private static IEnumerable<FrontendPort> PortsOf(ServiceSpec spec) =>
        from port in spec.Ports ?? []
        let protocol = L4Protocols.Parse(string.IsNullOrEmpty(port.Protocol) ? "TCP" : port.Protocol)
        where protocol != L4Protocol.None && port.Port is > 0 and <= ushort.MaxValue
        select new FrontendPort(port.Name ?? "", (ushort)port.Port, protocol)
        {
            NodePort = spec.Type is "NodePort" or "LoadBalancer" ? (ushort)port.NodePort : (ushort)0,
        };
}

/// <param name="Name">"" for an unnamed port.</param>
public readonly record struct FrontendPort(string Name, ushort Port, L4Protocol Protocol)
{
    /// <summary>0 = none.</summary>
    public ushort NodePort { get; init; }
}

/// <summary>One address with one of its port names, as an EndpointSlice or a remote record lists it.</summary>
public readonly record struct NamedBackend(L3n4Addr Address, string PortName, BackendState State, string NodeName, string Zone);

/// <summary>What one cluster offers for a service.</summary>
/// <param name="Sequence">Grows with each write of any record: of two clusters that claim one address, the last writer has it.</param>
public sealed record RemoteService(string Cluster, uint ClusterId, long Sequence, ImmutableArray<NamedBackend> Backends)
{
    /// <summary>Backends that are there but not ready, when the cluster tells.</summary>
    public int NotReady { get; init; }

    /// <summary>Of the record in its cluster's etcd; 0 = unknown.</summary>
    public long Revision { get; init; }

    /// <summary>When the record came.</summary>
    public DateTimeOffset Since { get; init; }
}
