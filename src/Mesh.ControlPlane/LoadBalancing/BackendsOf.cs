using System.Collections.Immutable;
using Mesh.ClusterMesh.Wire;
using Mesh.Kubernetes.Api;
using Mesh.Kubernetes.Objects;
using Mesh.Model;

namespace Mesh.ControlPlane.LoadBalancing;

/// <summary>The backends that an EndpointSlice or a remote cluster's record lists. Both come validated; what cannot become a
/// backend (a port without a number, an unknown protocol) is passed over, as every consumer does.</summary>
internal static class BackendsOf
{
    private const string ServiceNameLabel = "kubernetes.io/service-name";

    /// <summary>Service the slice belongs to; null when it belongs to none, or must not be counted.</summary>
    public static ServiceName? ServiceOf(EndpointSlice slice)
    {
        if (slice.Metadata.Labels is not { } labels || !labels.TryGetValue(ServiceNameLabel, out var name) || name.Length == 0)
            return null;
        // They mirror remote endpoints for DNS: these arrive by the mesh already.
        if (labels.TryGetValue(MadeForServices.ManagedByLabel, out var manager) && manager == MadeForServices.MeshMirror)
            return null;
        return new ServiceName(slice.Metadata.Namespace ?? "", name);
    }

    /// <param name="ready">False for those that are there and must not be used.</param>
    public static ImmutableArray<NamedBackend> Slice(EndpointSlice slice, bool ready = true)
    {
        var backends = ImmutableArray.CreateBuilder<NamedBackend>();
        foreach (var endpoint in slice.Endpoints ?? [])
        {
            var found = StateOf(endpoint.Conditions);
            if (found is not null != ready)
                continue;
            var state = found ?? BackendState.Dead;
            foreach (var text in endpoint.Addresses ?? [])
                foreach (var port in slice.Ports ?? [])
                    if (IpAddr.TryParse(text, out var address) && AddressOf(address, port) is { } l3n4)
                        backends.Add(new NamedBackend(l3n4, port.Name ?? "", state, endpoint.NodeName ?? "", endpoint.Zone ?? ""));
        }
        return backends.DrainToImmutable();
    }

    /// <summary>Endpoints that are there but not ready.</summary>
    public static int NotReady(EndpointSlice slice) => (slice.Endpoints ?? []).Count(
        endpoint => StateOf(endpoint.Conditions) is null && !(endpoint.Conditions?.Terminating ?? false));

    /// <summary>As far as the cluster says so.</summary>
    public static int NotReady(ClusterService record) =>
        record.Conditions?.Values.Count(condition => condition == ClusterService.NotReady) ?? 0;

    public static ImmutableArray<NamedBackend> Record(ClusterService record)
    {
        var backends = ImmutableArray.CreateBuilder<NamedBackend>();
        // Sorted, so that two records which say the same are equal whatever the order of their members.
        foreach (var (text, ports) in (record.Backends ?? Empty).OrderBy(pair => pair.Key, StringComparer.Ordinal))
        {
            if (!IpAddr.TryParse(text, out var address) || address.IsUnspecified)
                continue;
            var state = record.IsTerminating(text) ? BackendState.Draining : BackendState.Active;
            var zone = record.Zones is { } zones && zones.TryGetValue(text, out var found) ? found.Zone ?? "" : "";
            foreach (var (name, port) in ports.OrderBy(pair => pair.Key, StringComparer.Ordinal))
                if (L4Protocols.Parse(port.Protocol) is var protocol and not L4Protocol.None && port.Port != 0)
                    backends.Add(new NamedBackend(new L3n4Addr(address, port.Port, protocol), name, state, "", zone));
        }
        return backends.DrainToImmutable();
    }

    private static readonly IReadOnlyDictionary<string, IReadOnlyDictionary<string, WirePort>> Empty =
        new Dictionary<string, IReadOnlyDictionary<string, WirePort>>();

    /// <summary>Ready takes new flows; one that goes away but still serves keeps its old ones; any other is no backend.</summary>
    private static BackendState? StateOf(SliceConditions? conditions)
    {
        if (conditions?.Ready ?? true)
            return BackendState.Active;
        return (conditions?.Serving ?? true) && (conditions?.Terminating ?? false) ? BackendState.Draining : null;
    }

    private static L3n4Addr? AddressOf(IpAddr address, SlicePort port)
    {
        var protocol = L4Protocols.Parse(string.IsNullOrEmpty(port.Protocol) ? "TCP" : port.Protocol);
        return protocol == L4Protocol.None || port.Port is not (> 0 and <= ushort.MaxValue) || address.IsUnspecified
            ? null
            : new L3n4Addr(address, (ushort)port.Port.Value, protocol);
    }
}
