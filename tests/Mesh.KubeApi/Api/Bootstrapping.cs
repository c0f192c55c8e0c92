using System.Net;
using System.Text.Json.Nodes;
using Mesh.KubeApi.Objects;

namespace Mesh.KubeApi.Api;

/// <summary>The objects that every new cluster has.</summary>
internal static class Bootstrapping
{
    public static string FirstAddress(string cidr) => ServiceAllocator.Add(IPNetwork.Parse(cidr).BaseAddress, 1);

    private const string Roles = """
        apiVersion: rbac.authorization.k8s.io/v1
        kind: ClusterRole
        metadata: {name: cluster-admin, labels: {kubernetes.io/bootstrapping: rbac-defaults}}
        rules:
        - {apiGroups: ['*'], resources: ['*'], verbs: ['*']}
        - {nonResourceURLs: ['*'], verbs: ['*']}
        ---
        apiVersion: rbac.authorization.k8s.io/v1
        kind: ClusterRoleBinding
        metadata: {name: cluster-admin, labels: {kubernetes.io/bootstrapping: rbac-defaults}}
        roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
        subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: 'system:masters'}]
        ---
        apiVersion: rbac.authorization.k8s.io/v1
        kind: ClusterRole
        metadata: {name: 'system:discovery', labels: {kubernetes.io/bootstrapping: rbac-defaults}}
        rules:
        - {nonResourceURLs: [/api, '/api/*', /apis, '/apis/*', /healthz, /livez, /openapi, '/openapi/*', /readyz, /version, /version/], verbs: [get]}
        ---
        apiVersion: rbac.authorization.k8s.io/v1
        kind: ClusterRoleBinding
        metadata: {name: 'system:discovery', labels: {kubernetes.io/bootstrapping: rbac-defaults}}
        roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: 'system:discovery'}
        subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: 'system:authenticated'}]
        ---
        apiVersion: rbac.authorization.k8s.io/v1
        kind: ClusterRole
        metadata: {name: 'system:public-info-viewer', labels: {kubernetes.io/bootstrapping: rbac-defaults}}
        rules: [{nonResourceURLs: [/healthz, /livez, /readyz, /version, /version/], verbs: [get]}]
        ---
        apiVersion: rbac.authorization.k8s.io/v1
        kind: ClusterRoleBinding
        metadata: {name: 'system:public-info-viewer', labels: {kubernetes.io/bootstrapping: rbac-defaults}}
        roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: 'system:public-info-viewer'}
        subjects:
        - {apiGroup: rbac.authorization.k8s.io, kind: Group, name: 'system:authenticated'}
        - {apiGroup: rbac.authorization.k8s.io, kind: Group, name: 'system:unauthenticated'}
        ---
        apiVersion: rbac.authorization.k8s.io/v1
        kind: ClusterRole
        metadata: {name: 'system:basic-user', labels: {kubernetes.io/bootstrapping: rbac-defaults}}
        rules:
        - {apiGroups: [authorization.k8s.io], resources: [selfsubjectaccessreviews, selfsubjectrulesreviews], verbs: [create]}
        - {apiGroups: [authentication.k8s.io], resources: [selfsubjectreviews], verbs: [create]}
        ---
        apiVersion: rbac.authorization.k8s.io/v1
        kind: ClusterRoleBinding
        metadata: {name: 'system:basic-user', labels: {kubernetes.io/bootstrapping: rbac-defaults}}
        roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: 'system:basic-user'}
        subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: 'system:authenticated'}]
        ---
        apiVersion: rbac.authorization.k8s.io/v1
        kind: ClusterRole
        metadata: {name: view, labels: {kubernetes.io/bootstrapping: rbac-defaults}}
        rules:
        - apiGroups: ['', apps, batch, discovery.k8s.io, networking.k8s.io, policy, autoscaling]
          resources: [configmaps, endpoints, persistentvolumeclaims, pods, pods/log, pods/status, services, services/status, serviceaccounts, namespaces,
            events, deployments, deployments/scale, deployments/status, daemonsets, replicasets, statefulsets, jobs, cronjobs, endpointslices,
            networkpolicies, ingresses, poddisruptionbudgets, horizontalpodautoscalers]
          verbs: [get, list, watch]
        ---
        apiVersion: rbac.authorization.k8s.io/v1
        kind: ClusterRole
        metadata: {name: 'system:node', labels: {kubernetes.io/bootstrapping: rbac-defaults}}
        rules:
        - {apiGroups: [''], resources: [nodes, nodes/status], verbs: [create, get, list, watch, update, patch, delete]}
        - {apiGroups: [''], resources: [pods, pods/status], verbs: [create, get, list, watch, update, patch, delete]}
        - {apiGroups: [''], resources: [configmaps, secrets, services, serviceaccounts, persistentvolumeclaims], verbs: [get, list, watch]}
        - {apiGroups: [''], resources: [serviceaccounts/token, events], verbs: [create, patch, update]}
        - {apiGroups: [coordination.k8s.io], resources: [leases], verbs: [create, get, update, patch, delete]}
        - {apiGroups: [node.k8s.io], resources: [runtimeclasses], verbs: [get, list, watch]}
        - {apiGroups: [storage.k8s.io], resources: [csinodes, csidrivers, volumeattachments], verbs: [create, get, list, watch, update, patch, delete]}
        ---
        apiVersion: rbac.authorization.k8s.io/v1
        kind: ClusterRoleBinding
        metadata: {name: 'system:node', labels: {kubernetes.io/bootstrapping: rbac-defaults}}
        roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: 'system:node'}
        subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: 'system:nodes'}]
        """;

    /// <summary>Namespaces, roles, and the Service by which pods reach the API at the address given.</summary>
    public static void Make(Writes writes, KubeApiOptions options, IPAddress address, int port)
    {
        foreach (var name in new[] { "default", "kube-system", "kube-public", "kube-node-lease" })
            writes.ApplyAll($"{{\"apiVersion\":\"v1\",\"kind\":\"Namespace\",\"metadata\":{{\"name\":\"{name}\"}}}}", "");
        writes.ApplyAll(Roles, "");
        writes.ApplyAll($$$"""
            apiVersion: v1
            kind: Service
            metadata: {name: kubernetes, namespace: default, labels: {component: apiserver, provider: kubernetes}}
            spec:
              clusterIP: {{{FirstAddress(options.ServiceCidr)}}}
              ports: [{name: https, port: 443, protocol: TCP, targetPort: {{{port}}}}]
            ---
            apiVersion: v1
            kind: Endpoints
            metadata: {name: kubernetes, namespace: default, labels: {endpointslice.kubernetes.io/skip-mirror: 'true'}}
            subsets: [{addresses: [{ip: '{{{address}}}'}], ports: [{name: https, port: {{{port}}}, protocol: TCP}]}]
            ---
            apiVersion: discovery.k8s.io/v1
            kind: EndpointSlice
            metadata: {name: kubernetes, namespace: default, labels: {kubernetes.io/service-name: kubernetes}}
            addressType: IPv4
            endpoints: [{addresses: ['{{{address}}}'], conditions: {ready: true}}]
            ports: [{name: https, port: {{{port}}}, protocol: TCP}]
            """, "default");
    }

    /// <summary>ServiceAccount default and ConfigMap kube-root-ca.crt of a namespace.</summary>
    public static IEnumerable<(Store.ResourceType Type, JsonObject Node)> OfNamespace(string authority)
    {
        yield return (Store.BuiltIns.ServiceAccounts, new() { ["metadata"] = new JsonObject { ["name"] = "default" } });
        yield return (Store.BuiltIns.ConfigMaps, new()
        {
            ["metadata"] = new JsonObject
            {
                ["name"] = "kube-root-ca.crt",
                ["annotations"] = new JsonObject { ["kubernetes.io/description"] = "Contains a CA bundle that can be used to verify the kube-apiserver." },
            },
            ["data"] = new JsonObject { ["ca.crt"] = authority },
        });
    }
}
