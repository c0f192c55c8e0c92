using Mesh.ClusterMesh.Remote;
using Mesh.ClusterMesh.Wire;
using Mesh.Kubernetes;
using Mesh.Kubernetes.Api;
using Mesh.Kubernetes.Objects;
using Mesh.Model;
using Mesh.Multicluster;

namespace Mesh.Operator.Multicluster;

/// <summary>
/// Endpoints of other clusters as EndpointSlices of a global Service here, so that names of headless ones resolve to them. Slices are owned by the
/// Service; those of a cluster go when it is no peer any more, when its whole list lacks the service, or when the Service here wants none.
/// </summary>
internal sealed class EndpointSync(OperatorOptions options, LocalObjects local, PeerView peers, SliceWriter writer)
{
    public const string Annotation = "service.cilium.io/global-sync-endpoint-slices";

    public async Task ReconcileAsync(ServiceName name, CancellationToken cancellation)
    {
        var present = local.SlicesOf(name, MadeForServices.MeshMirror);
        var service = local.FindService(name);
        var wanted = service is not null && Wants(service);
        if (present.Count == 0 && !wanted)
            return;
        var sources = present.Select(SourceOf).Concat(wanted ? peers.Clusters : []).Distinct(StringComparer.Ordinal).Order(StringComparer.Ordinal);
        KubeApiException? failure = null;
        foreach (var cluster in sources)
        {
            var knowledge = peers.Of(cluster, RemoteResource.Services);
            if (wanted && knowledge == PeerKnowledge.Unheard)
                continue;
            var endpoints = wanted && peers.FindService(cluster, name) is { } record ? Endpoints(record, cluster) : [];
            var meta = service is null ? new ObjectMeta { Namespace = name.Namespace } : MetaOf(service, cluster);
            var plan = SlicePlan.Of(endpoints, [.. present.Where(slice => SourceOf(slice) == cluster)], $"{name.Name}-{cluster}", meta);
            try
            {
                await writer.WriteAsync(plan, name.Namespace, $"service {name} of {(cluster.Length == 0 ? "nobody" : cluster)}", cancellation);
            }
            catch (KubeApiException e)
            {
                // What is wrong with one cluster's endpoints keeps none of another's away.
                failure ??= e;
            }
        }
        if (failure is not null)
            throw failure;
    }

    /// <summary>Headless ones unless they say otherwise, others if they say so. Of derived Services also where the feature is off but for them.</summary>
    private bool Wants(Service service)
    {
        var derived = options.Imports && service.Metadata.Labels?.ContainsKey(MulticlusterNames.ServiceNameLabel) == true;
        if ((!options.SyncsEndpoints && !derived) || service.Metadata.DeletionTimestamp is not null
            || !ServiceAnnotations.Says(service.Metadata, ServiceAnnotations.GlobalName, "true"))
            return false;
        return service.Metadata.Annotations?.ContainsKey(Annotation) == true
            ? ServiceAnnotations.Says(service.Metadata, Annotation, "true") : service.Spec.ClusterIP == "None";
    }

    private static string SourceOf(EndpointSlice slice) => slice.Metadata.Labels?.GetValueOrDefault(MulticlusterNames.SourceClusterLabel) ?? "";

    private static ObjectMeta MetaOf(Service service, string cluster)
    {
        var labels = new Dictionary<string, string>(service.Metadata.Labels ?? new Dictionary<string, string>(), StringComparer.Ordinal)
        {
            [LocalObjects.ServiceNameLabel] = service.Metadata.Name!,
            [MadeForServices.ManagedByLabel] = MadeForServices.MeshMirror,
            [MulticlusterNames.SourceClusterLabel] = cluster,
        };
        if (service.Spec.ClusterIP == "None")
            labels["service.kubernetes.io/headless"] = "";
        return new ObjectMeta { Namespace = service.Metadata.Namespace, Labels = labels, OwnerReferences = [Owners.Of("v1", "Service", service.Metadata)] };
    }

    /// <summary>What an API server would refuse, and all of the slice with it.</summary>
    private static bool IsPort(KeyValuePair<string, WirePort> port) =>
        port.Value is { Port: > 0, Protocol: "TCP" or "UDP" or "SCTP" } && (port.Key.Length == 0 || IsName(port.Key));

    private static bool IsName(string text) => text.Length is > 0 and <= 63 && text[0] != '-' && text[^1] != '-'
        && text.All(c => char.IsAsciiLetterLower(c) || char.IsAsciiDigit(c) || c == '-');

    /// <summary>Node and zone are the cluster: there is no better place on this side.</summary>
    private static IEnumerable<WantedEndpoint> Endpoints(ClusterService record, string cluster)
    {
        foreach (var (text, ports) in record.Backends ?? new Dictionary<string, IReadOnlyDictionary<string, WirePort>>())
        {
            if (!IpAddr.TryParse(text, out var address))
                continue;
            var terminating = record.Conditions?.GetValueOrDefault(text) == ClusterService.Terminating;
            var hostname = record.Hostnames?.GetValueOrDefault(text);
            yield return new WantedEndpoint(address.IsV6 ? "IPv6" : "IPv4", new SliceEndpoint
            {
                Addresses = [address.ToString()],
                Conditions = new SliceConditions { Ready = !terminating, Serving = true, Terminating = terminating },
                Hostname = hostname is not null && IsName(hostname) ? hostname : null,
                NodeName = cluster,
                Zone = cluster,
            }, [.. ports.Where(IsPort).OrderBy(port => port.Key, StringComparer.Ordinal).Select(port => new SlicePort
            {
                Name = port.Key,
                Protocol = port.Value.Protocol,
                Port = port.Value.Port,
            })]);
        }
    }
}

internal static class Owners
{
    public static OwnerReference Of(string apiVersion, string kind, ObjectMeta meta) =>
        new() { ApiVersion = apiVersion, Kind = kind, Name = meta.Name!, Uid = meta.Uid!, Controller = true };
}
