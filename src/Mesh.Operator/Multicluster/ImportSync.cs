using System.Text.Json;
using System.Text.Json.Nodes;
using Mesh.ClusterMesh.Remote;
using Mesh.Kubernetes;
using Mesh.Kubernetes.Api;
using Mesh.Kubernetes.Objects;
using Mesh.Model;
using Mesh.Multicluster;

namespace Mesh.Operator.Multicluster;

/// <summary>
/// The exports of all clusters as a ServiceImport here, with a derived Service that has its address and its endpoints: a global Service of the same
/// name everywhere, so that backends travel as those of any other. An import that a cluster takes part in of which not everything was heard yet stays
/// as it is; nothing happens in a namespace that this cluster has not.
/// </summary>
internal sealed class ImportSync(OperatorOptions options, KubeClient client, LocalObjects local, PeerView peers, SliceWriter writer, TimeProvider time,
    OperatorLog log)
{
    private const string FieldManager = "mesh-operator";
    private const int AppliedLength = 12;

    public async Task ReconcileAsync(ServiceName name, CancellationToken cancellation)
    {
        var export = local.FindExport(name) is { Metadata.DeletionTimestamp: null } standing ? standing : null;
        var import = local.FindImport(name);
        var remote = peers.Exports(name);
        if (export is null && import is null && remote.Count == 0)
            return;
        var reading = export is null ? default
            : ExportReading.Of(export, local.FindService(name), options.ClusterName, local.IsGlobalNamespace(name.Namespace));
        var exports = reading.Exported is { } own ? remote.Append(own).ToList() : remote;
        var unheard = (import?.Status?.Clusters ?? []).Select(one => one.Cluster ?? "")
            .Where(cluster => cluster != options.ClusterName && peers.Of(cluster, RemoteResource.ServiceExports) == PeerKnowledge.Unheard).ToList();
        MergedExport? merged = null;
        Service? derived = null;
        if (unheard.Count > 0)
        {
            log.Problem(ProblemOf(name), $"stays as it is until {string.Join(", ", unheard)} has been heard");
            derived = local.FindService(DerivedOf(name));
        }
        else if (exports.Count == 0 || !local.HasNamespace(name.Namespace))
        {
            await RemoveAsync(name, import, cancellation);
            log.Mended(ProblemOf(name));
        }
        else
        {
            local.StandFor(DerivedOf(name), name);
            merged = MergedExport.Of(exports);
            (import, derived) = await KeepAsync(name, merged, export, reading.Exported is not null, import, cancellation);
            if (derived is not null)
                log.Mended(ProblemOf(name));
        }
        if (derived is not null)
            await MirrorAsync(name, derived, reading.Exported is not null, cancellation);
        if (export is not null)
            await ReportAsync(export, reading, merged, unheard, derived is not null, cancellation);
    }

    public static string ProblemOf(ServiceName name) => $"serviceimport {name}";

    private static ServiceName DerivedOf(ServiceName name) => new(name.Namespace, MulticlusterNames.Derived(name));

    /// <summary>The derived Service goes with its owner, and its slices with it.</summary>
    private async Task RemoveAsync(ServiceName name, ServiceImport? import, CancellationToken cancellation)
    {
        // One that is not of our making has no Service of ours.
        if (import?.Metadata.Annotations?.GetValueOrDefault(MulticlusterNames.DerivedServiceAnnotation) != DerivedOf(name).Name)
            return;
        if (await client.DeleteAsync(KubeResources.ServiceImports, name.Namespace, name.Name, cancellation, new KubeDelete { Uid = import.Metadata.Uid }))
            log.Line($"{ProblemOf(name)} is removed: no cluster exports it");
    }

    private async Task<(ServiceImport?, Service?)> KeepAsync(ServiceName name, MergedExport merged, ServiceExport? export, bool exported, ServiceImport? import,
        CancellationToken cancellation)
    {
        var derivedName = DerivedOf(name);
        var present = local.FindService(derivedName);
        if (present is not null && present.Metadata.Labels?.GetValueOrDefault(MulticlusterNames.ServiceNameLabel) != name.Name)
        {
            log.Problem(ProblemOf(name), $"Service {derivedName} is not of our making and stands where that of the import belongs: remove it");
            return (import, null);
        }
        import = await ApplyAsync(KubeResources.ServiceImports, name, import, import?.Metadata, ImportOf(name, merged, present), IsSame, cancellation);
        if (present is not null && !IsSameKind(present, merged))
        {
            // Neither the lack of an address nor its family can be changed.
            await client.DeleteAsync(KubeResources.Services, derivedName.Namespace, derivedName.Name, cancellation,
                new KubeDelete { Uid = present.Metadata.Uid });
            log.Line($"service {derivedName} is made anew: the import of {name} became {Type(merged)}");
            present = null;
        }
        var affinity = export?.Metadata.Annotations?.GetValueOrDefault(ServiceAnnotations.AffinityName);
        var wanted = ServiceOf(derivedName, name, merged, import, exported, affinity);
        present = await ApplyAsync(KubeResources.Services, derivedName, present, present?.Metadata, wanted, IsSame, cancellation);
        import = await ApplyAsync(KubeResources.ServiceImports, name, import, import.Metadata, ImportOf(name, merged, present), IsSame, cancellation);
        await TellClustersAsync(name, import, merged, cancellation);
        return (import, present);
    }

    private async Task<T> ApplyAsync<T>(KubeResource<T> resource, ServiceName name, T? present, ObjectMeta? meta, Func<string, T> wanted,
        Func<T, T, bool> isSame, CancellationToken cancellation)
        where T : class
    {
        var mark = MulticlusterNames.Hash(JsonText(resource, wanted("")), AppliedLength);
        // The mark tells what we wanted last; whether somebody has changed it since, the object itself.
        if (present is not null && meta?.Annotations?.GetValueOrDefault(MadeForServices.AppliedAnnotation) == mark && isSame(present, wanted(mark)))
            return present;
        var applied = await client.ApplyAsync(resource, name.Namespace, name.Name, wanted(mark), FieldManager, cancellation);
        if (present is null)
            log.Line($"{resource.Kind} {name} is made");
        return applied;
    }

    private static bool IsSame(ServiceImport one, ServiceImport other) => JsonText(KubeResources.ServiceImports, new() { Spec = one.Spec })
        == JsonText(KubeResources.ServiceImports, new() { Spec = other.Spec });

    private static bool IsSame(Service one, Service other) => (one.Spec.SessionAffinity ?? "None") == other.Spec.SessionAffinity
        && (one.Spec.Ports ?? []).Select(PortOf).SequenceEqual((other.Spec.Ports ?? []).Select(PortOf))
        && other.Metadata.Annotations!.All(wanted => one.Metadata.Annotations?.GetValueOrDefault(wanted.Key) == wanted.Value)
        && other.Metadata.Labels!.All(wanted => one.Metadata.Labels?.GetValueOrDefault(wanted.Key) == wanted.Value);

    private static (string?, string?, int, string?) PortOf(ServicePort port) => (port.Name, port.Protocol, port.Port, port.AppProtocol);

    private static string JsonText<T>(KubeResource<T> resource, T subject)
        where T : class => JsonSerializer.Serialize(subject, resource.Type);

    private static Func<string, ServiceImport> ImportOf(ServiceName name, MergedExport merged, Service? derived) => mark => new ServiceImport
    {
        Metadata = new ObjectMeta
        {
            Name = name.Name,
            Namespace = name.Namespace,
            Labels = merged.Labels,
            Annotations = new Dictionary<string, string>(merged.Annotations, StringComparer.Ordinal)
            {
                [MulticlusterNames.DerivedServiceAnnotation] = DerivedOf(name).Name,
                [MadeForServices.AppliedAnnotation] = mark,
            },
        },
        Spec = new ServiceImportSpec
        {
            Type = Type(merged),
            Ports = [.. merged.Ports.Select(port => new ServiceImportPort
            {
                Name = port.Name.Length == 0 ? null : port.Name,
                Protocol = port.Protocol,
                AppProtocol = port.AppProtocol,
                Port = port.Port,
            })],
            Ips = merged.Oldest.Headless ? [] : [.. (derived?.Spec.ClusterIPs ?? []).Where(address => address != "None")],
            IpFamilies = merged.IpFamilies.Count == 0 ? null : merged.IpFamilies,
            SessionAffinity = Affinity(merged),
            SessionAffinityConfig = AffinityConfig(merged),
            InternalTrafficPolicy = merged.Oldest.InternalTrafficPolicy,
            TrafficDistribution = merged.Oldest.TrafficDistribution,
        },
    };

    private static Func<string, Service> ServiceOf(ServiceName derived, ServiceName name, MergedExport merged, ServiceImport import, bool exported,
        string? affinity) => mark => new Service
        {
            Metadata = new ObjectMeta
            {
                Name = derived.Name,
                Namespace = derived.Namespace,
                Labels = new Dictionary<string, string>(merged.Labels, StringComparer.Ordinal) { [MulticlusterNames.ServiceNameLabel] = name.Name },
                Annotations = Annotations(merged, exported, affinity, mark),
                OwnerReferences = [Owners.Of(KubeResources.ServiceImports.ApiVersion, KubeResources.ServiceImports.Kind, import.Metadata)],
            },
            Spec = new ServiceSpec
            {
                Type = "ClusterIP",
                ClusterIP = merged.Oldest.Headless ? "None" : null,
                Ports = [.. merged.Ports.Select(port => new ServicePort
                {
                    Name = port.Name.Length == 0 ? null : port.Name,
                    Protocol = port.Protocol,
                    AppProtocol = port.AppProtocol,
                    Port = port.Port,
                })],
                // Of two families this cluster may have but one: the server takes what it can.
                IpFamilies = merged.IpFamilies.Count == 1 ? merged.IpFamilies : null,
                IpFamilyPolicy = merged.IpFamilies.Count switch { 0 => null, 1 => "SingleStack", _ => "PreferDualStack" },
                SessionAffinity = Affinity(merged),
                SessionAffinityConfig = AffinityConfig(merged),
                InternalTrafficPolicy = merged.Oldest.InternalTrafficPolicy,
                TrafficDistribution = merged.Oldest.TrafficDistribution,
            },
        };

    /// <summary>Shared where it is exported: elsewhere it has no endpoints to give.</summary>
    private static Dictionary<string, string> Annotations(MergedExport merged, bool exported, string? affinity, string mark)
    {
        var annotations = new Dictionary<string, string>(merged.Annotations, StringComparer.Ordinal)
        {
            [ServiceAnnotations.GlobalName] = "true",
            [ServiceAnnotations.SharedName] = exported ? "true" : "false",
            [MadeForServices.AppliedAnnotation] = mark,
        };
        if (affinity is not null)
            annotations[ServiceAnnotations.AffinityName] = affinity;
        return annotations;
    }

    private static bool IsSameKind(Service present, MergedExport merged)
    {
        if ((present.Spec.ClusterIP == "None") != merged.Oldest.Headless)
            return false;
        return merged.IpFamilies.Count == 0 || present.Spec.IpFamilies is not [var first, ..] || merged.IpFamilies.Contains(first);
    }

    private static string Type(MergedExport merged) => merged.Oldest.Headless ? "Headless" : "ClusterSetIP";

    private static string Affinity(MergedExport merged) => merged.Oldest.ClientIPAffinity ? "ClientIP" : "None";

    private static SessionAffinityConfig? AffinityConfig(MergedExport merged) =>
        merged.Oldest is { ClientIPAffinity: true, AffinityTimeout: { } timeout } ? new() { ClientIP = new() { TimeoutSeconds = (int)timeout } } : null;

    private async Task TellClustersAsync(ServiceName name, ServiceImport import, MergedExport merged, CancellationToken cancellation)
    {
        if ((import.Status?.Clusters ?? []).Select(one => one.Cluster).SequenceEqual(merged.Clusters))
            return;
        var clusters = new JsonArray([.. merged.Clusters.Select(cluster => new JsonObject { ["cluster"] = cluster })]);
        await client.PatchAsync(KubeResources.ServiceImports, name.Namespace, name.Name,
            KubePatch.Merge(new JsonObject { ["status"] = new JsonObject { ["clusters"] = clusters } }), cancellation,
            new KubeWrite { Subresource = "status", FieldManager = FieldManager });
        log.Line($"{ProblemOf(name)} is exported by {string.Join(", ", merged.Clusters)}");
    }

    /// <summary>The Service's own slices once more under the derived Service's name.</summary>
    private async Task MirrorAsync(ServiceName name, Service derived, bool exported, CancellationToken cancellation)
    {
        var derivedName = DerivedOf(name);
        var wanted = exported
            ? local.SlicesOf(name, null).Where(slice => slice.AddressType is "IPv4" or "IPv6").SelectMany(slice => (slice.Endpoints ?? [])
                .SelectMany(one => (one.Addresses ?? []).Select(address =>
                    new WantedEndpoint(slice.AddressType!, one with { Addresses = [address] }, slice.Ports ?? []))))
                .DistinctBy(one => (one.Endpoint.Addresses![0], string.Join(',', one.Ports)))
            : [];
        var meta = new ObjectMeta
        {
            Namespace = name.Namespace,
            Labels = new Dictionary<string, string>(derived.Metadata.Labels ?? new Dictionary<string, string>(), StringComparer.Ordinal)
            {
                [LocalObjects.ServiceNameLabel] = derivedName.Name,
                [MadeForServices.ManagedByLabel] = LocalObjects.LocalMirror,
                [MulticlusterNames.SourceClusterLabel] = options.ClusterName,
            },
            OwnerReferences = [Owners.Of("v1", "Service", derived.Metadata)],
        };
        var plan = SlicePlan.Of(wanted, local.SlicesOf(derivedName, LocalObjects.LocalMirror), $"{derivedName.Name}-{options.ClusterName}", meta);
        await writer.WriteAsync(plan, name.Namespace, $"service {derivedName} for {name}", cancellation);
    }

    private async Task ReportAsync(ServiceExport export, ExportReading reading, MergedExport? merged, List<string> unheard, bool imported,
        CancellationToken cancellation)
    {
        var valid = reading.Exported is not null;
        var conditions = new List<(string Type, bool Status, string Reason, string Message)> { ("Valid", valid, reading.Reason, reading.Message) };
        if (valid && imported)
            conditions.Add(("Ready", true, "Exported", ""));
        else
            conditions.Add(("Ready", false, valid ? "Pending" : reading.Reason, valid ? $"namespace {export.Metadata.Namespace} is going, or its import is"
                : reading.Message));
        // Of those that are not heard nothing is known: what was said of a conflict stands.
        if (!valid)
            conditions.Add(("Conflict", false, "NoConflicts", ""));
        else if (unheard.Count == 0 && merged is not null)
            conditions.Add(merged.Conflicts is [var gravest, ..]
                ? ("Conflict", true, gravest.Reason, string.Join("; ", merged.Conflicts.Select(conflict => conflict.Message)))
                : ("Conflict", false, "NoConflicts", ""));
        await Conditions.TellAsync(client, export, conditions, time, cancellation);
    }
}
