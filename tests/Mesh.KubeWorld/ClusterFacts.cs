using System.Text;
using System.Text.Json.Nodes;
using Mesh.KubeApi;
using Mesh.KubeApi.Objects;

namespace Mesh.KubeWorld;

/// <summary>What every node of a cluster knows of it.</summary>
internal sealed class ClusterFacts(KubeApiServer api, string apiHost, Action<string> report)
{
    /// <summary>Where the API server is reached by nodes and pods: its machine's address, as a kube-proxy would lead there.</summary>
    public string ApiHost => apiHost;

    public static int ApiPort => KubeClusterPlan.ApiPort;

    public string Authority => api.CertificateAuthorityPem;

    public void Report(string problem) => report(problem);

    /// <summary>A token of a ServiceAccount of the namespace.</summary>
    public Func<string, string> Token(string space) => account => api.TokenFor(new KubeUser($"system:serviceaccount:{space}:{account}",
        "system:serviceaccounts", $"system:serviceaccounts:{space}"));

    /// <summary>Files of a container's root that a kubelet writes.</summary>
    /// <param name="nameserver">The node: each answers for its pods, as with a DNS cache on nodes.</param>
    public static IReadOnlyDictionary<string, string> Files(JsonObject pod, string address, string nameserver)
    {
        var hosts = new StringBuilder("127.0.0.1 localhost\n::1 localhost\n");
        if (address.Length > 0)
            hosts.Append($"{address} {pod.Obj("metadata").Str("name")}\n");
        foreach (var alias in pod.Obj("spec").Arr("hostAliases").Objects())
            hosts.Append($"{alias.Str("ip")} {string.Join(' ', alias.Arr("hostnames")?.Select(one => $"{one}") ?? [])}\n");
        var space = pod.Obj("metadata").Str("namespace");
        return new Dictionary<string, string>
        {
            ["/etc/hosts"] = hosts.ToString(),
            ["/etc/resolv.conf"] = $"nameserver {nameserver}\nsearch {space}.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5 timeout:2\n",
        };
    }
}
