using System.Globalization;
using Mesh.Kubernetes.Policies;
using Mesh.Model;

namespace Mesh.Kubernetes.Objects;

/// <summary>
/// What an object must satisfy before anything else of the mesh sees it. A Kubernetes API server enforces the same and more; a file
/// enforces nothing. Names are checked because they become segments of etcd keys.
/// </summary>
public static class ObjectRules
{
    private const int MaxNameLength = 253;
    private const int MaxLabelLength = 63;

    /// <summary>Null when the object is sound, otherwise the first fault: the field, its value and what is allowed.</summary>
    public static string? Check(KubernetesObject subject) =>
        CheckMeta(subject) ?? subject switch
        {
            Service service => CheckService(service.Spec) ?? ServiceRules.Check(service),
            EndpointSlice slice => CheckSlice(slice),
            CiliumNode node => CheckNode(node.Spec),
            CiliumIdentity identity => CheckIdentity(identity),
            CiliumEndpoint endpoint => CheckEndpoint(endpoint.Status),
            ServiceExport export => NullValue("spec.exportedLabels", export.Spec?.ExportedLabels)
                ?? NullValue("spec.exportedAnnotations", export.Spec?.ExportedAnnotations),
            NetworkPolicy or CiliumNetworkPolicy or CiliumClusterwideNetworkPolicy => CheckPolicy(subject),
            _ => null,
        };

    /// <summary>True for the kinds that live in a namespace.</summary>
    public static bool IsNamespaced(ObjectKind kind) => kind is ObjectKind.Service or ObjectKind.EndpointSlice
        or ObjectKind.CiliumEndpoint or ObjectKind.NetworkPolicy or ObjectKind.CiliumNetworkPolicy or ObjectKind.ServiceExport;

    private static string? CheckMeta(KubernetesObject subject)
    {
        var metadata = subject.Metadata;
        if (string.IsNullOrEmpty(metadata.Name))
            return "metadata.name is missing: give the object a name";
        if (!IsName(metadata.Name, MaxNameLength, dots: true))
            return $"metadata.name '{Shown(metadata.Name)}' must be 1 to {MaxNameLength} of a-z, 0-9, '-' and '.', "
                + "beginning and ending with a letter or digit";
        if (IsNamespaced(subject.Kind) && !IsName(metadata.Namespace ?? "", MaxLabelLength, dots: false))
            return $"metadata.namespace '{Shown(metadata.Namespace)}' must be 1 to {MaxLabelLength} of a-z, 0-9 and '-', "
                + "beginning and ending with a letter or digit";
        return NullValue("metadata.labels", metadata.Labels) ?? NullValue("metadata.annotations", metadata.Annotations);
    }

    private static string? CheckService(ServiceSpec spec)
    {
        foreach (var (field, address) in ClusterAddresses(spec))
        {
            if (address is not (null or "" or "None") && !IpAddr.TryParse(address, out _))
                return $"{field} '{Shown(address)}' is not an IP address: write one, or None, or leave it out";
        }
        var names = new HashSet<string>(StringComparer.Ordinal);
        for (var i = 0; i < (spec.Ports?.Count ?? 0); i++)
        {
            if (spec.Ports![i] is not { } port)
                return $"spec.ports[{i}] is empty: give it a port or remove it";
            var fault = CheckPort($"spec.ports[{i}]", port.Port, port.Protocol);
            if (fault is not null)
                return fault;
            if (!names.Add(port.Name ?? ""))
                return $"spec.ports[{i}].name '{Shown(port.Name)}' is used twice: give each port a name of its own";
        }
        return NullValue("spec.selector", spec.Selector);
    }

    private static IEnumerable<(string Field, string? Address)> ClusterAddresses(ServiceSpec spec)
    {
        yield return ("spec.clusterIP", spec.ClusterIP);
        for (var i = 0; i < (spec.ClusterIPs?.Count ?? 0); i++)
            yield return ($"spec.clusterIPs[{i}]", spec.ClusterIPs![i]);
    }

    private static string? CheckSlice(EndpointSlice slice)
    {
        if (slice.AddressType is not ("IPv4" or "IPv6" or "FQDN"))
            return $"addressType '{Shown(slice.AddressType)}' must be IPv4, IPv6 or FQDN";
        var names = new HashSet<string>(StringComparer.Ordinal);
        for (var i = 0; i < (slice.Ports?.Count ?? 0); i++)
        {
            if (slice.Ports![i] is not { } port)
                return $"ports[{i}] is empty: give it a port or remove it";
            // No number means "every port", which Kubernetes allows and no backend can be made of.
            var fault = CheckPort($"ports[{i}]", port.Port ?? 1, port.Protocol);
            if (fault is not null)
                return fault;
            if (!names.Add(port.Name ?? ""))
                return $"ports[{i}].name '{Shown(port.Name)}' is used twice: give each port a name of its own";
        }
        for (var i = 0; i < (slice.Endpoints?.Count ?? 0); i++)
        {
            var fault = CheckSliceEndpoint($"endpoints[{i}]", slice.Endpoints![i], slice.AddressType);
            if (fault is not null)
                return fault;
        }
        return null;
    }

    private static string? CheckSliceEndpoint(string field, SliceEndpoint? endpoint, string addressType)
    {
        if (endpoint?.Addresses is not { Count: > 0 } addresses)
            return $"{field}.addresses is empty: give the endpoint an address or remove it";
        if (endpoint.Hints?.ForZones is { } zones && zones.Any(zone => zone?.Name is null))
            return $"{field}.hints.forZones holds a zone without a name";
        if (addressType == "FQDN")
            return null;
        for (var i = 0; i < addresses.Count; i++)
        {
            if (!IpAddr.TryParse(addresses[i], out var address) || address.IsV6 != (addressType == "IPv6"))
                return $"{field}.addresses[{i}] '{Shown(addresses[i])}' is not an {addressType} address, as addressType says";
        }
        return null;
    }

    private static string? CheckNode(CiliumNodeSpec spec)
    {
        for (var i = 0; i < (spec.Addresses?.Count ?? 0); i++)
        {
            var address = spec.Addresses![i];
            if (string.IsNullOrEmpty(address?.Type) || string.IsNullOrEmpty(address.Ip))
                return $"spec.addresses[{i}] needs both type and ip";
            if (address.Type is "InternalIP" or "ExternalIP" or "CiliumInternalIP" && !IpAddr.TryParse(address.Ip, out _))
                return $"spec.addresses[{i}].ip '{Shown(address.Ip)}' is not an IP address";
        }
        for (var i = 0; i < (spec.Ipam?.PodCIDRs?.Count ?? 0); i++)
        {
            var cidr = spec.Ipam!.PodCIDRs![i];
            if (cidr is null || !cidr.Contains('/') || !IpPrefix.TryParse(cidr, out _))
                return $"spec.ipam.podCIDRs[{i}] '{Shown(cidr)}' is not an address range such as 10.1.0.0/24";
        }
        return CheckPair("spec.health", spec.Health) ?? CheckPair("spec.ingress", spec.Ingress)
            ?? CheckEncryptionKey("spec.encryption.key", spec.Encryption?.Key);
    }

    private static string? CheckIdentity(CiliumIdentity identity)
    {
        if (!uint.TryParse(identity.Metadata.Name, NumberStyles.None, CultureInfo.InvariantCulture, out var number) || number == 0
            || number.ToString(CultureInfo.InvariantCulture) != identity.Metadata.Name)
            return $"metadata.name '{Shown(identity.Metadata.Name)}' must be the identity's number, 1 to {uint.MaxValue}";
        foreach (var (label, value) in identity.SecurityLabels ?? new Dictionary<string, string>())
        {
            if (label.IndexOf(':', StringComparison.Ordinal) <= 0)
                return $"security-labels '{Shown(label)}' has no source: write it as k8s:{Shown(label)}";
            if (label.Contains('=', StringComparison.Ordinal) || label.Contains(';', StringComparison.Ordinal)
                || value?.Contains(';', StringComparison.Ordinal) == true)
                return $"security-labels '{Shown(label)}' holds ';' or '=', which a label cannot carry to another cluster";
        }
        return NullValue("security-labels", identity.SecurityLabels);
    }

    private static string? CheckPolicy(KubernetesObject policy)
    {
        try
        {
            PolicyReading.Of(policy);
            return null;
        }
        catch (PolicyFaultException fault)
        {
            return fault.Message;
        }
    }

    private static string? CheckEndpoint(CiliumEndpointStatus? status)
    {
        if (status?.Networking is not { } networking)
            return null;
        if (!IsAddressOrUnset(networking.Node))
            return $"status.networking.node '{Shown(networking.Node)}' is not an IP address";
        for (var i = 0; i < (networking.Addressing?.Count ?? 0); i++)
        {
            var fault = CheckPair($"status.networking.addressing[{i}]", networking.Addressing![i]);
            if (fault is not null)
                return fault;
        }
        return CheckEncryptionKey("status.encryption.key", status.Encryption?.Key);
    }

    private static string? CheckPort(string field, int port, string? protocol)
    {
        if (port is < 1 or > ushort.MaxValue)
            return $"{field}.port {port.ToString(CultureInfo.InvariantCulture)} must be 1 to 65535";
        return string.IsNullOrEmpty(protocol) || L4Protocols.Parse(protocol) != L4Protocol.None
            ? null
            : $"{field}.protocol '{Shown(protocol)}' must be TCP, UDP or SCTP";
    }

    private static string? CheckPair(string field, CiliumNodeAddressPair? pair)
    {
        if (!IsAddressOrUnset(pair?.Ipv4) || (IpAddr.TryParse(pair?.Ipv4, out var v4) && v4.IsV6))
            return $"{field}.ipv4 '{Shown(pair?.Ipv4)}' is not an IPv4 address";
        if (!IsAddressOrUnset(pair?.Ipv6) || (IpAddr.TryParse(pair?.Ipv6, out var v6) && !v6.IsV6))
            return $"{field}.ipv6 '{Shown(pair?.Ipv6)}' is not an IPv6 address";
        return null;
    }

    private static string? CheckEncryptionKey(string field, int? key) =>
        key is null or (>= 0 and <= byte.MaxValue) ? null : $"{field} {key} must be 0 to 255";

    private static string? NullValue(string field, IReadOnlyDictionary<string, string>? map)
    {
        foreach (var (key, value) in map ?? new Dictionary<string, string>())
        {
            if (value is null)
                return $"{field} '{Shown(key)}' has no value: write \"\" for an empty one";
        }
        return null;
    }

    private static bool IsAddressOrUnset(string? text) => string.IsNullOrEmpty(text) || IpAddr.TryParse(text, out _);

    private static bool IsName(string name, int maxLength, bool dots)
    {
        if (name.Length == 0 || name.Length > maxLength || !char.IsAsciiLetterOrDigit(name[0]) || !char.IsAsciiLetterOrDigit(name[^1]))
            return false;
        foreach (var c in name)
        {
            if (!(char.IsAsciiLetterLower(c) || char.IsAsciiDigit(c) || c == '-' || (dots && c == '.')))
                return false;
        }
        return true;
    }

    /// <summary>A hostile value must not fill the log, nor break its line.</summary>
    internal static string Shown(string? value)
    {
        var shown = value is { Length: > 80 } ? value[..80] + "…" : value ?? "";
        return shown.AsSpan().ContainsAnyInRange('\0', '\x1f') ? new string([.. shown.Select(c => c < ' ' ? '?' : c)]) : shown;
    }
}
