namespace Mesh.Install.Values;

/// <summary>Values of Cilium's chart that people bring along and that Mesh does not do: they are told so, and not guessed at.</summary>
internal static class Unsupported
{
    private static readonly Dictionary<string, string> Reasons = new(StringComparer.Ordinal)
    {
        ["encryption"] = "Mesh encrypts nothing",
        ["hubble"] = "Mesh has no Hubble; `mesh observe` shows flows",
        ["envoy"] = "Mesh has no proxy and no L7 rules",
        ["ingressController"] = "Mesh has no proxy and no L7 rules",
        ["gatewayAPI"] = "Mesh has no proxy and no L7 rules",
        ["l7Proxy"] = "Mesh has no proxy and no L7 rules",
        ["bgpControlPlane"] = "Mesh announces no routes",
        ["egressGateway"] = "Mesh has no egress gateway",
        ["etcd"] = "identities are Kubernetes objects; the API server has an etcd of its own",
        ["policyEnforcementMode"] = "policies are enforced as `default` does; policyAuditMode counts without enforcing",
        ["autoDirectNodeRoutes"] = "there is no routing without tunnel",
        ["ipMasqAgent"] = "ipv4NativeRoutingCIDR and ipv6NativeRoutingCIDR say what is not masqueraded",
        ["enableMasqueradeRouteSource"] = "masqueraded packets get an address of the device by which they leave",
        ["authentication"] = "Mesh has no mutual authentication",
        ["hostFirewall"] = "Mesh has no host firewall",
        ["bandwidthManager"] = "Mesh has no bandwidth manager",
    };

    /// <returns>": Mesh does not …", or "" when there is nothing to say.</returns>
    public static string Reason(string path, object? value) => path switch
    {
        "routingMode" when value is "native" => " (there is no routing without tunnel)",
        "tunnelProtocol" when value is "geneve" => " (peers would have to speak it too)",
        "externalWorkloads.enabled" => " (a bare host joins as a cluster of its own)",
        _ => Reasons.TryGetValue(path.Split('.')[0], out var reason) ? $": {reason}" : "",
    };
}
