namespace Mesh.Install.Values;

/// <summary>Values of Cilium's chart that people bring along and that Mesh does not do: they are told so, and not guessed at. The one value of each that
/// asks for nothing is in values.schema.json, and taken.</summary>
internal static class Unsupported
{
    private const string NoProxy = "Mesh has no proxy and no L7 rules";
    private const string NoCloud = "addresses are given by ipam.mode, whoever runs the nodes";
    private const string NoOperatorObjects = "scrape the metrics' ports, or bring an object of that kind along";

    /// <summary>By the beginning of a path; the longest one counts.</summary>
    private static readonly Dictionary<string, string> Reasons = new(StringComparer.Ordinal)
    {
        ["encryption"] = "Mesh encrypts nothing",
        ["hubble"] = "Mesh has no Hubble; `mesh observe` shows flows",
        ["envoy"] = NoProxy,
        ["envoyConfig"] = NoProxy,
        ["ingressController"] = NoProxy,
        ["gatewayAPI"] = NoProxy,
        ["l7Proxy"] = NoProxy,
        ["bpf.tproxy"] = NoProxy,
        ["loadBalancer.l7"] = NoProxy,
        ["bgpControlPlane"] = "Mesh announces no routes",
        ["l2announcements"] = "Mesh announces no addresses",
        ["egressGateway"] = "Mesh has no egress gateway",
        ["etcd"] = "identities are Kubernetes objects; the API server has an etcd of its own",
        ["identityAllocationMode"] = "identities are Kubernetes objects; the API server has an etcd of its own",
        ["policyEnforcementMode"] = "policies are enforced as `default` does; policyAuditMode counts without enforcing",
        ["autoDirectNodeRoutes"] = "there is no routing without tunnel",
        ["endpointRoutes"] = "pods of a node have one route",
        ["bpf.masquerade"] = "enableIPv4Masquerade and enableIPv6Masquerade masquerade by rules of the kernel",
        ["bpf.lbExternalClusterIP"] = "a ClusterIP is not reached from outside; use NodePort or LoadBalancer",
        ["ipMasqAgent"] = "ipv4NativeRoutingCIDR and ipv6NativeRoutingCIDR say what is not masqueraded",
        ["enableMasqueradeRouteSource"] = "masqueraded packets get an address of the device by which they leave",
        ["authentication"] = "Mesh has no mutual authentication",
        ["hostFirewall"] = "Mesh has no host firewall",
        ["bandwidthManager"] = "Mesh has no bandwidth manager",
        ["localRedirectPolicy"] = "Mesh has no local redirect policies",
        ["localRedirectPolicies"] = "Mesh has no local redirect policies",
        ["enableLBIPAM"] = "somebody else gives services of type LoadBalancer their addresses",
        ["defaultLBServiceIPAM"] = "somebody else gives services of type LoadBalancer their addresses",
        ["nodeIPAM"] = "somebody else gives services of type LoadBalancer their addresses",
        ["cgroup.autoMount"] = "the node's own system mounts it; cgroup.hostRoot says where it is",
        ["cni.customConf"] = "the agent writes the configuration; cni.install=false leaves it to others",
        ["cni.uninstall"] = "`mesh uninstall` removes the plugin",
        ["eni"] = NoCloud,
        ["azure"] = NoCloud,
        ["alibabacloud"] = NoCloud,
        ["gke"] = NoCloud,
        ["aksbyocni"] = NoCloud,
        ["preflight"] = "`mesh preflight` looks at every node",
        ["debug"] = "agents log every change of state, and no more; `mesh observe` and `mesh explain` say the rest",
        ["prometheus.serviceMonitor"] = NoOperatorObjects,
        ["operator.prometheus.serviceMonitor"] = NoOperatorObjects,
        ["clustermesh.apiserver.metrics.serviceMonitor"] = NoOperatorObjects,
        ["dashboards"] = "dashboards are files of this release (deploy/dashboards)",
        ["operator.dashboards"] = "dashboards are files of this release (deploy/dashboards)",
        ["image.useDigest"] = "an image is named by its tag; image.override takes a whole reference",
        ["image.digest"] = "an image is named by its tag; image.override takes a whole reference",
    };

    /// <returns>": Mesh does not …", or "" when there is nothing to say.</returns>
    public static string Reason(string path, object? value)
    {
        switch (path)
        {
            case "routingMode" when value is "native":
                return " (there is no routing without tunnel)";
            case "tunnelProtocol" when value is "geneve":
                return " (peers would have to speak it too)";
            case "externalWorkloads.enabled":
                return " (a bare host joins as a cluster of its own)";
        }
        for (var beginning = path; beginning.Length > 0; beginning = Parent(beginning))
        {
            if (Reasons.TryGetValue(beginning, out var reason))
                return $": {reason}";
        }
        return "";
    }

    private static string Parent(string path) => path.LastIndexOf('.') is > 0 and var dot ? path[..dot] : "";
}
