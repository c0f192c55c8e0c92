using Mesh.ClusterMesh.Wire;
using Mesh.Kubernetes;
using Mesh.Kubernetes.Objects;
using Mesh.Model;
using Ports = System.Collections.Generic.IReadOnlyDictionary<string, Mesh.ClusterMesh.Wire.WirePort>;

namespace Mesh.ClusterMesh.ApiServer.Converters;

/// <summary>
/// Service + its EndpointSlices → one service record with all backends of this cluster. Only a global and shared service leaves the
/// cluster; anything else has no record, since a deletion is what peers of every version understand.
/// </summary>
internal static class ServiceConverter
{
    private const string ServiceNameLabel = "kubernetes.io/service-name";
    private const string ManagedByLabel = "endpointslice.kubernetes.io/managed-by";

    /// <summary>Slices that some operator made of a peer's backends: publishing them would send a cluster its own backends.</summary>
    private const string MirroredFromPeers = "endpointslice-mesh-controller.cilium.io";

    /// <summary>The service a slice belongs to; null when it belongs to none of ours.</summary>
    public static ServiceName? ServiceOf(EndpointSlice slice)
    {
        var labels = slice.Metadata.Labels;
        if (labels?.GetValueOrDefault(ServiceNameLabel) is not { Length: > 0 } name
            || labels.GetValueOrDefault(ManagedByLabel) == MirroredFromPeers)
            return null;
        return new ServiceName(slice.Metadata.Namespace!, name);
    }

    /// <param name="slices">All slices of the service; their order does not matter.</param>
    public static Publishable Convert(Service service, IEnumerable<EndpointSlice> slices, ClusterSelf self)
    {
        var annotations = ServiceAnnotations.Read(service.Metadata);
        if (!annotations.Global || !annotations.Shared || service.Spec.Type == "ExternalName")
            return Publishable.Nothing;
        var name = new ServiceName(service.Metadata.Namespace!, service.Metadata.Name!);
        var record = Merge(slices) with
        {
            Cluster = self.Name,
            ClusterId = self.Id,
            Namespace = name.Namespace,
            Name = name.Name,
            Frontends = Frontends(service.Spec),
            Labels = service.Metadata.Labels,
            Selector = service.Spec.Selector,
            IncludeExternal = true,
            Shared = true,
        };
        return Publishable.One(Keys.Service(self.Name, name), ClusterServiceCodec.Encode(record));
    }

    private static Dictionary<string, Ports> Frontends(ServiceSpec spec)
    {
        var ports = new Dictionary<string, WirePort>(StringComparer.Ordinal);
        foreach (var port in spec.Ports ?? [])
            ports[port.Name ?? ""] = Port(port.Protocol, port.Port);
        var frontends = new Dictionary<string, Ports>(StringComparer.Ordinal);
        foreach (var text in (spec.ClusterIPs ?? []).Append(spec.ClusterIP))
        {
            if (IpAddr.TryParse(text, out var address))
                frontends[address.ToString()] = ports;
        }
        return frontends;
    }

    /// <summary>
    /// The backends of all slices as one set. A backend counts when any slice has it ready or serving; its ports are the union over
    /// those slices, and where two disagree about a name, the first slice by name wins: the result does not depend on any order.
    /// </summary>
    internal static ClusterService Merge(IEnumerable<EndpointSlice> slices)
    {
        var backends = new Dictionary<string, Dictionary<string, WirePort>>(StringComparer.Ordinal);
        var hostnames = new Dictionary<string, string>(StringComparer.Ordinal);
        var zones = new Dictionary<string, WireZone>(StringComparer.Ordinal);
        var ready = new HashSet<string>(StringComparer.Ordinal);
        var notReady = new HashSet<string>(StringComparer.Ordinal);
        foreach (var slice in slices.OrderBy(slice => slice.Metadata.Name, StringComparer.Ordinal))
        {
            // FQDN slices hold names, and a record holds addresses.
            if (slice.AddressType is not ("IPv4" or "IPv6"))
                continue;
            foreach (var endpoint in slice.Endpoints ?? [])
            {
                if (!IsUsable(endpoint))
                {
                    // One that goes away no longer counts; one that has yet to come does.
                    if (!(endpoint.Conditions?.Terminating ?? false))
                        notReady.UnionWith((endpoint.Addresses ?? []).Select(text => IpAddr.Parse(text).ToString()));
                    continue;
                }
                foreach (var text in endpoint.Addresses ?? [])
                {
                    var address = IpAddr.Parse(text).ToString();
                    if (!backends.TryGetValue(address, out var ports))
                        backends[address] = ports = new Dictionary<string, WirePort>(StringComparer.Ordinal);
                    if (endpoint.Conditions?.Ready ?? true)
                        ready.Add(address);
                    foreach (var port in slice.Ports ?? [])
                    {
                        if (port.Port is { } number)
                            ports.TryAdd(port.Name ?? "", Port(port.Protocol, number));
                    }
                    if (!string.IsNullOrEmpty(endpoint.Hostname))
                        hostnames.TryAdd(address, endpoint.Hostname);
                    if (!string.IsNullOrEmpty(endpoint.Zone))
                        zones.TryAdd(address, Zone(endpoint));
                }
            }
        }
        return new ClusterService
        {
            Backends = backends.ToDictionary(pair => pair.Key, Ports (pair) => pair.Value, StringComparer.Ordinal),
            Hostnames = hostnames,
            Zones = zones,
            // Serving and not ready: going away, unless a slice knows better.
            Conditions = backends.Keys.Where(address => !ready.Contains(address))
                .Select(address => KeyValuePair.Create(address, ClusterService.Terminating))
                .Concat(notReady.Where(address => !backends.ContainsKey(address))
                    .Select(address => KeyValuePair.Create(address, ClusterService.NotReady)))
                .ToDictionary(StringComparer.Ordinal),
        };
    }

    /// <summary>Ready, or still serving while it terminates. What a slice does not say counts as Kubernetes has it: ready is true,
    /// serving is as ready.</summary>
    private static bool IsUsable(SliceEndpoint endpoint)
    {
        var ready = endpoint.Conditions?.Ready ?? true;
        return ready || (endpoint.Conditions?.Serving ?? ready);
    }

    private static WireZone Zone(SliceEndpoint endpoint) => new()
    {
        Zone = endpoint.Zone,
        ForZones = endpoint.Hints?.ForZones?.Select(zone => new WireForZone { Name = zone.Name }).ToList(),
    };

    private static WirePort Port(string? protocol, int port) =>
        new() { Protocol = string.IsNullOrEmpty(protocol) ? "TCP" : protocol, Port = (ushort)port };
}
