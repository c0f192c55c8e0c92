using Mesh.ClusterMesh.Wire;
using Mesh.Kubernetes.Objects;
using Mesh.Model;

namespace Mesh.Multicluster;

/// <summary>
/// ServiceExport + Service → what the other clusters are told. The producer publishes it, the operator says on the object whether it is so: both
/// read here, so that they agree.
/// </summary>
/// <param name="Exported">Null when nothing is exported.</param>
/// <param name="Reason">One word, as condition Valid has it.</param>
/// <param name="Message">What must be mended; "" when all is well.</param>
public readonly record struct ExportReading(ExportedService? Exported, string Reason, string Message)
{
    private const string InvalidType = "InvalidServiceType";
    private const string InvalidExport = "InvalidExport";

    /// <param name="service">Of the same name; null for none.</param>
    /// <param name="globalNamespace">Whether the namespace takes part in the mesh.</param>
    public static ExportReading Of(ServiceExport export, Service? service, string cluster, bool globalNamespace)
    {
        var name = new ServiceName(export.Metadata.Namespace!, export.Metadata.Name!);
        if (service is null)
            return new(null, "NoService", $"there is no Service {name}: make it, or remove the export");
        if (service.Spec.Type == "ExternalName")
            return new(null, InvalidType, $"Service {name} is of type ExternalName and has no endpoints to give");
        if (service.Metadata.Labels?.ContainsKey(MulticlusterNames.ServiceNameLabel) == true)
            return new(null, InvalidType, $"Service {name} is itself made of exports: export the original");
        if (!globalNamespace)
            return new(null, "NamespaceNotGlobal", $"namespace {name.Namespace} is not global: annotate it clustermesh.cilium.io/global: \"true\"");
        if (export.Metadata.CreationTimestamp is not { } created)
            return new(null, InvalidExport, "metadata.creationTimestamp is missing: write one, where clusters disagree the oldest export is right");
        var exported = Convert(export, service.Spec, name, cluster, created);
        // What peers would reject they would not have at all.
        return ExportedServiceCodec.TryDecode(ExportedServiceCodec.Encode(exported), out _, out var rejection)
            ? new(exported, "Valid", "") : new(null, InvalidExport, rejection);
    }

    private static ExportedService Convert(ServiceExport export, ServiceSpec spec, ServiceName name, string cluster, DateTimeOffset created) => new()
    {
        Cluster = cluster,
        Namespace = name.Namespace,
        Name = name.Name,
        Created = created,
        Ports = [.. (spec.Ports ?? []).Select(port => new ExportedPort(
            port.Name ?? "", string.IsNullOrEmpty(port.Protocol) ? "TCP" : port.Protocol, (ushort)port.Port, port.AppProtocol))],
        Headless = spec.ClusterIP == "None",
        ClientIPAffinity = spec.SessionAffinity == "ClientIP",
        AffinityTimeout = spec.SessionAffinity == "ClientIP" ? (uint?)spec.SessionAffinityConfig?.ClientIP?.TimeoutSeconds : null,
        Labels = Given(export.Spec?.ExportedLabels),
        Annotations = Given(export.Spec?.ExportedAnnotations),
        IpFamilies = spec.IpFamilies is { Count: > 0 } families ? families : FamiliesOf(spec),
        InternalTrafficPolicy = spec.InternalTrafficPolicy,
        TrafficDistribution = spec.TrafficDistribution,
    };

    private static Dictionary<string, string> Given(IReadOnlyDictionary<string, string>? map) =>
        (map ?? new Dictionary<string, string>()).Where(pair => !MulticlusterNames.IsReserved(pair.Key)).ToDictionary(StringComparer.Ordinal);

    private static string[] FamiliesOf(ServiceSpec spec)
    {
        var addresses = spec.ClusterIPs ?? (spec.ClusterIP is { } one ? [one] : []);
        return [.. addresses.Where(text => IpAddr.TryParse(text, out _)).Select(text => IpAddr.Parse(text).IsV6 ? "IPv6" : "IPv4").Distinct()];
    }
}
