using System.Text;
using Mesh.Lab.Plan;

namespace Mesh.Lab.Making;

/// <summary>
/// A cluster's objects as ordinary Kubernetes YAML. Files are replaced by rename, so that a watcher never reads half of one.
/// </summary>
public static class Manifests
{
    /// <summary>Holds the backends of default/rebel-base: deleting or replacing it is how a lab's backends go and come.</summary>
    public const string BackendsFile = "rebel-base-endpoints.yaml";

    internal static void Write(LabPlan plan)
    {
        foreach (var cluster in plan.Clusters)
        {
            Directory.CreateDirectory(cluster.Manifests);
            Replace($"{cluster.Manifests}/nodes.yaml", Nodes(cluster));
            Replace($"{cluster.Manifests}/pods.yaml", Pods(cluster));
            Replace($"{cluster.Manifests}/rebel-base.yaml", Service(cluster));
            SetBackends(cluster, true);
        }
    }

    /// <summary>All pods of the cluster are backends of rebel-base, or none is.</summary>
    public static void SetBackends(ClusterPlan cluster, bool present) =>
        Replace($"{cluster.Manifests}/{BackendsFile}", Slices(cluster, present));

    /// <summary>What all pods of a cluster are.</summary>
    public static uint Identity(ClusterPlan cluster) => (cluster.Id << 16) + 1;

    private static string Nodes(ClusterPlan cluster)
    {
        var yaml = new StringBuilder("""
            apiVersion: v1
            kind: Namespace
            metadata: {name: default}

            """);
        foreach (var node in cluster.Nodes)
            yaml.Append($$"""
                ---
                apiVersion: cilium.io/v2
                kind: CiliumNode
                metadata:
                  name: {{node.Name}}
                  labels: {topology.kubernetes.io/region: {{cluster.Name}}}
                spec:
                  addresses:
                  - {type: InternalIP, ip: {{node.Ip}}}
                  - {type: CiliumInternalIP, ip: {{node.InternalIPv4}}}
                  - {type: CiliumInternalIP, ip: "{{node.InternalIPv6}}"}
                  ipam: {podCIDRs: ["{{node.PodCidrIPv4}}", "{{node.PodCidrIPv6}}"]}

                """);
        return yaml.ToString();
    }

    private static string Pods(ClusterPlan cluster)
    {
        var id = Identity(cluster);
        var yaml = new StringBuilder($$"""
            apiVersion: cilium.io/v2
            kind: CiliumIdentity
            metadata: {name: "{{id}}", labels: {name: rebel-base, io.kubernetes.pod.namespace: default} }
            security-labels:
              "k8s:name": rebel-base
              "k8s:io.kubernetes.pod.namespace": default
              "k8s:io.cilium.k8s.policy.cluster": {{cluster.Name}}
              "k8s:io.cilium.k8s.policy.serviceaccount": default

            """);
        foreach (var node in cluster.Nodes)
            foreach (var pod in node.Pods)
                yaml.Append($$"""
                    ---
                    apiVersion: cilium.io/v2
                    kind: CiliumEndpoint
                    metadata: {name: {{pod.Name}}, namespace: default}
                    status:
                      identity: {id: {{id}}}
                      networking:
                        addressing: [{ipv4: {{pod.IPv4}}, ipv6: "{{pod.IPv6}}"}]
                        node: {{node.Ip}}
                      state: ready

                    """);
        return yaml.ToString();
    }

    private static string Service(ClusterPlan cluster) => $$"""
        apiVersion: v1
        kind: Service
        metadata:
          name: rebel-base
          namespace: default
          annotations: {service.cilium.io/global: "true"}
        spec:
          type: ClusterIP
          clusterIP: {{cluster.ServiceIPv4}}
          clusterIPs: [{{cluster.ServiceIPv4}}, "{{cluster.ServiceIPv6}}"]
          ipFamilies: [IPv4, IPv6]
          ipFamilyPolicy: RequireDualStack
          selector: {name: rebel-base}
          ports:
          - {name: http, port: 80, targetPort: {{LabPlanner.EchoTcpPort}}, protocol: TCP}
          - {name: dns, port: 53, targetPort: {{LabPlanner.EchoUdpPort}}, protocol: UDP}

        """;

    private static string Slices(ClusterPlan cluster, bool present)
    {
        var yaml = new StringBuilder();
        foreach (var (family, suffix) in new[] { ("IPv4", "v4"), ("IPv6", "v6") })
        {
            yaml.Append($$"""
                ---
                apiVersion: discovery.k8s.io/v1
                kind: EndpointSlice
                metadata:
                  name: rebel-base-{{suffix}}
                  namespace: default
                  labels: {kubernetes.io/service-name: rebel-base}
                addressType: {{family}}
                ports:
                - {name: http, port: {{LabPlanner.EchoTcpPort}}, protocol: TCP}
                - {name: dns, port: {{LabPlanner.EchoUdpPort}}, protocol: UDP}

                """);
            yaml.Append(present ? "endpoints:\n" : "endpoints: []\n");
            if (!present)
                continue;
            foreach (var node in cluster.Nodes)
                foreach (var pod in node.Pods)
                {
                    var address = family == "IPv4" ? pod.IPv4 : pod.IPv6;
                    yaml.Append($$"""
                        - addresses: ["{{address}}"]
                          conditions: {ready: true, serving: true, terminating: false}
                          nodeName: {{node.Name}}

                        """);
                }
        }
        return yaml.ToString();
    }

    private static void Replace(string path, string text)
    {
        // A leading dot: no watcher takes it for a manifest or a peer.
        var fresh = Path.Combine(Path.GetDirectoryName(path)!, $".{Path.GetFileName(path)}.new");
        File.WriteAllText(fresh, text);
        File.Move(fresh, path, overwrite: true);
    }
}
