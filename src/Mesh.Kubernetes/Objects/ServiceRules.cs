using System.Globalization;
using Mesh.Model;

namespace Mesh.Kubernetes.Objects;

/// <summary>What a Service must satisfy beyond its ports: the fields that say who may reach it, from where, and how.</summary>
internal static class ServiceRules
{
    private const int MaxAffinitySeconds = 86400;

    /// <summary>Null when it is sound, otherwise the first fault.</summary>
    public static string? Check(Service service)
    {
        var spec = service.Spec;
        return OneOf("spec.type", spec.Type, "ClusterIP", "NodePort", "LoadBalancer", "ExternalName")
            ?? OneOf("spec.internalTrafficPolicy", spec.InternalTrafficPolicy, "Cluster", "Local")
            ?? OneOf("spec.externalTrafficPolicy", spec.ExternalTrafficPolicy, "Cluster", "Local")
            ?? OneOf("spec.sessionAffinity", spec.SessionAffinity, "None", "ClientIP")
            ?? CheckTimeout(spec.SessionAffinityConfig?.ClientIP?.TimeoutSeconds)
            ?? CheckNodePorts(spec.Ports)
            ?? CheckHealthPort(spec.HealthCheckNodePort)
            ?? CheckAddresses("spec.externalIPs", spec.ExternalIPs)
            ?? CheckAddresses("status.loadBalancer.ingress", service.Status?.LoadBalancer?.Ingress?.Select(ingress => ingress?.Ip ?? ""))
            ?? CheckRanges(spec.LoadBalancerSourceRanges)
            ?? Annotation(service, ServiceAnnotations.GlobalName, "true", "false")
            ?? Annotation(service, ServiceAnnotations.GlobalAlias, "true", "false")
            ?? Annotation(service, ServiceAnnotations.SharedName, "true", "false")
            ?? Annotation(service, ServiceAnnotations.SharedAlias, "true", "false")
            ?? Annotation(service, ServiceAnnotations.ForwardingName, "snat", "dsr")
            ?? Annotation(service, ServiceAnnotations.AlgorithmName, "maglev", "random");
    }

    private static string? OneOf(string field, string? value, params ReadOnlySpan<string> allowed)
    {
        if (string.IsNullOrEmpty(value) || allowed.Contains(value))
            return null;
        return $"{field} '{ObjectRules.Shown(value)}' must be one of {string.Join(", ", allowed.ToArray())}";
    }

    private static string? Annotation(Service service, string name, params ReadOnlySpan<string> allowed) =>
        service.Metadata.Annotations is { } annotations && annotations.TryGetValue(name, out var value)
            ? OneOf($"metadata.annotations '{name}'", value.ToLowerInvariant(), allowed)
            : null;

    private static string? CheckTimeout(int? seconds) =>
        seconds is null or (>= 1 and <= MaxAffinitySeconds)
            ? null
            : string.Create(CultureInfo.InvariantCulture,
                $"spec.sessionAffinityConfig.clientIP.timeoutSeconds {seconds} must be 1 to {MaxAffinitySeconds}");

    private static string? CheckNodePorts(IReadOnlyList<ServicePort>? ports)
    {
        var taken = new HashSet<(int, string)>();
        for (var i = 0; i < (ports?.Count ?? 0); i++)
        {
            var port = ports![i];
            if (port.NodePort is < 0 or > ushort.MaxValue)
                return string.Create(CultureInfo.InvariantCulture, $"spec.ports[{i}].nodePort {port.NodePort} must be 1 to 65535, or 0 for none");
            if (port.NodePort > 0 && !taken.Add((port.NodePort, string.IsNullOrEmpty(port.Protocol) ? "TCP" : port.Protocol)))
                return string.Create(CultureInfo.InvariantCulture, $"spec.ports[{i}].nodePort {port.NodePort} is used twice: give each port one of its own");
        }
        return null;
    }

    private static string? CheckHealthPort(int port) => port is >= 0 and <= ushort.MaxValue
        ? null
        : string.Create(CultureInfo.InvariantCulture, $"spec.healthCheckNodePort {port} must be 1 to 65535, or 0 for none");

    private static string? CheckAddresses(string field, IEnumerable<string>? addresses)
    {
        var i = 0;
        foreach (var text in addresses ?? [])
        {
            if (!string.IsNullOrEmpty(text) && (!IpAddr.TryParse(text, out var address) || address.IsUnspecified))
                return $"{field}[{i}] '{ObjectRules.Shown(text)}' is not an IP address that a service could have";
            i++;
        }
        return null;
    }

    private static string? CheckRanges(IReadOnlyList<string>? ranges)
    {
        for (var i = 0; i < (ranges?.Count ?? 0); i++)
            if (ranges![i] is not { } text || !IpPrefix.TryParse(text.Trim(), out _))
                return $"spec.loadBalancerSourceRanges[{i}] '{ObjectRules.Shown(ranges[i])}' is not an address range such as 10.1.0.0/24";
        return null;
    }
}
