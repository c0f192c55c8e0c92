using System.Globalization;
using System.Net;
using Mesh.Install.Text;
using Mesh.Model;

namespace Mesh.Install.Values;

/// <summary>What a schema cannot say: values that are each allowed and together make no sense.</summary>
internal static class ValueSense
{
    public static IEnumerable<string> Faults(Map values)
    {
        var highest = (long)values.At("clustermesh.maxConnectedClusters")!;
        if ((long)values.At("cluster.id")! > highest)
            yield return $"cluster.id is {values.At("cluster.id")}: must be 1 to {highest}, as clustermesh.maxConnectedClusters says";
        if (values.At("ipv4.enabled") is false && values.At("ipv6.enabled") is false)
            yield return "ipv4.enabled and ipv6.enabled are both false: pods would have no address";
        if (values.At("clustermesh.cacheTTL") is string ttl && GoDuration.Parse(ttl) is null)
            yield return $"clustermesh.cacheTTL is '{ttl}': must be a duration such as 15m, up to {GoDuration.Longest.TotalHours}h, or 0s";
        foreach (var fault in Pool(values, "IPv4", 32).Concat(Pool(values, "IPv6", 128)))
            yield return fault;
        foreach (var (name, bits) in new[] { ("ipv4NativeRoutingCIDR", 32), ("ipv6NativeRoutingCIDR", 128) })
        {
            if (values.At(name) is string { Length: > 0 } native && RangeFault(name, native, bits) is { } fault)
                yield return fault;
        }
        if (values.At("nodePort.range") is string range && range.Split(',') is var ports
            && !(ushort.TryParse(ports[0], CultureInfo.InvariantCulture, out var first)
                && ushort.TryParse(ports[1], CultureInfo.InvariantCulture, out var last) && 0 < first && first <= last))
            yield return $"nodePort.range is '{range}': must be the first and the last port, such as 30000,32767";
        var (cert, key) = ((string)values.At("tls.ca.cert")!, (string)values.At("tls.ca.key")!);
        if (cert.Length == 0 != (key.Length == 0))
            yield return $"tls.ca.{(cert.Length == 0 ? "cert" : "key")} is missing: certificate and key go together";
        if (values.At("clustermesh.config.clusters") is IReadOnlyList<object?> list)
        {
            foreach (var twice in list.Cast<Map>().GroupBy(peer => (string)peer["name"]!).Where(group => group.Count() > 1))
                yield return $"clustermesh.config.clusters names {twice.Key} twice: remove one";
        }
        if (values.At("clustermesh.apiserver.kvstoremesh.enabled") is true && values.At("clustermesh.useAPIServer") is false
            && values.At("clustermesh.config.enabled") is true)
            yield return "clustermesh.config.enabled needs clustermesh.useAPIServer: KVStoreMesh, which reads the peers, is part of it "
                + "(or set clustermesh.apiserver.kvstoremesh.enabled=false)";
    }

    /// <summary>A pattern of the schema in words.</summary>
    public static string Pattern(string path, string pattern) => pattern switch
    {
        "^/" => "be a path that begins with /",
        "^[0-9a-fA-F:.]+/[0-9]{1,3}$" => "be a range such as 10.0.0.0/8",
        "^[0-9]+,[0-9]+$" => "be the first and the last port, such as 30000,32767",
        "^[0-9]+$" or "^[0-9]*$" => "be a number",
        _ when path.EndsWith("name", StringComparison.Ordinal) => "be 1 to 32 of a-z, 0-9 and '-', neither first nor last '-'",
        _ when pattern.StartsWith("^[A-Za-z0-9+/=", StringComparison.Ordinal) => "be base64 of a PEM file",
        _ => $"match {pattern}",
    };

    private static string? RangeFault(string name, string range, int bits)
    {
        // Some versions of .NET clear the bits behind the mask, others refuse them.
        if (!IPNetwork.TryParse(range, out var network) || !network.BaseAddress.Equals(IPAddress.Parse(range.Split('/')[0])))
            return IPAddress.TryParse(range.Split('/')[0], out _)
                ? $"{name} has '{range}': bits behind the mask must be 0, and the mask 0 to {bits}"
                : $"{name} has '{range}': must be a range such as {(bits == 32 ? "10.0.0.0/8" : "fd00::/104")}";
        return network.BaseAddress.GetAddressBytes().Length * 8 != bits ? $"{name} has '{range}': it is of the other family" : null;
    }

    private static IEnumerable<string> Pool(Map values, string family, int bits)
    {
        var name = $"ipam.operator.clusterPool{family}PodCIDRList";
        var mask = (long)values.At($"ipam.operator.clusterPool{family}MaskSize")!;
        foreach (var range in ((IReadOnlyList<object?>)values.At(name)!).Cast<string>())
        {
            if (RangeFault(name, range, bits) is { } fault)
                yield return fault;
            else if (mask < IPNetwork.Parse(range).PrefixLength)
                yield return $"ipam.operator.clusterPool{family}MaskSize is {mask}: a node's range cannot be larger than the pool {range}";
        }
    }
}
