using System.Collections.Frozen;
using System.Text.Json.Serialization.Metadata;
using Mesh.Kubernetes.Objects;

namespace Mesh.Kubernetes.Api;

/// <summary>The resources that the mesh reads and writes. Those with a model of ours are typed; the others are used raw.</summary>
public static class KubeResources
{
    public static readonly KubeResource<Service> Services = new("", "v1", "services", "Service", true, ObjectJson.Default.Service);
    public static readonly KubeResource<Namespace> Namespaces = new("", "v1", "namespaces", "Namespace", false, ObjectJson.Default.Namespace);
    public static readonly KubeResource<KubeNode> Nodes = new("", "v1", "nodes", "Node", false, ObjectJson.Default.KubeNode);
    public static readonly KubeResource<Pod> Pods = new("", "v1", "pods", "Pod", true, ObjectJson.Default.Pod);
    public static readonly KubeResource<EndpointSlice> EndpointSlices = new("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", true,
        ObjectJson.Default.EndpointSlice);
    public static readonly KubeResource<NetworkPolicy> NetworkPolicies = new("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", true,
        ObjectJson.Default.NetworkPolicy);
    public static readonly KubeResource<CiliumNode> CiliumNodes = Cilium("ciliumnodes", "CiliumNode", false, ObjectJson.Default.CiliumNode);
    public static readonly KubeResource<CiliumIdentity> CiliumIdentities = Cilium("ciliumidentities", "CiliumIdentity", false,
        ObjectJson.Default.CiliumIdentity);
    public static readonly KubeResource<CiliumEndpoint> CiliumEndpoints = Cilium("ciliumendpoints", "CiliumEndpoint", true,
        ObjectJson.Default.CiliumEndpoint);
    public static readonly KubeResource<CiliumNetworkPolicy> CiliumNetworkPolicies = Cilium("ciliumnetworkpolicies", "CiliumNetworkPolicy", true,
        ObjectJson.Default.CiliumNetworkPolicy);
    public static readonly KubeResource<CiliumClusterwideNetworkPolicy> CiliumClusterwideNetworkPolicies = Cilium(
        "ciliumclusterwidenetworkpolicies", "CiliumClusterwideNetworkPolicy", false, ObjectJson.Default.CiliumClusterwideNetworkPolicy);
    /// <summary>v1alpha1, which every definition of these kinds serves, whoever installed it.</summary>
    public static readonly KubeResource<ServiceExport> ServiceExports = new("multicluster.x-k8s.io", "v1alpha1", "serviceexports", "ServiceExport", true,
        ObjectJson.Default.ServiceExport);
    public static readonly KubeResource<ServiceImport> ServiceImports = new("multicluster.x-k8s.io", "v1alpha1", "serviceimports", "ServiceImport", true,
        ObjectJson.Default.ServiceImport);
    public static readonly KubeResource<Lease> Leases = new("coordination.k8s.io", "v1", "leases", "Lease", true, KubeJson.Default.Lease);

    public static readonly KubeResource ConfigMaps = new("", "v1", "configmaps", "ConfigMap", true);
    public static readonly KubeResource Secrets = new("", "v1", "secrets", "Secret", true);
    public static readonly KubeResource ServiceAccounts = new("", "v1", "serviceaccounts", "ServiceAccount", true);
    public static readonly KubeResource Events = new("", "v1", "events", "Event", true);
    public static readonly KubeResource DaemonSets = new("apps", "v1", "daemonsets", "DaemonSet", true);
    public static readonly KubeResource Deployments = new("apps", "v1", "deployments", "Deployment", true);
    public static readonly KubeResource ReplicaSets = new("apps", "v1", "replicasets", "ReplicaSet", true);
    public static readonly KubeResource StatefulSets = new("apps", "v1", "statefulsets", "StatefulSet", true);
    public static readonly KubeResource Jobs = new("batch", "v1", "jobs", "Job", true);
    public static readonly KubeResource CronJobs = new("batch", "v1", "cronjobs", "CronJob", true);
    public static readonly KubeResource Roles = new("rbac.authorization.k8s.io", "v1", "roles", "Role", true);
    public static readonly KubeResource RoleBindings = new("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding", true);
    public static readonly KubeResource ClusterRoles = new("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", false);
    public static readonly KubeResource ClusterRoleBindings = new("rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding",
        false);
    public static readonly KubeResource CustomResourceDefinitions = new("apiextensions.k8s.io", "v1", "customresourcedefinitions",
        "CustomResourceDefinition", false);
    public static readonly KubeResource PodDisruptionBudgets = new("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", true);

    private static readonly FrozenDictionary<(string, string), KubeResource> ByKind = new KubeResource[]
    {
        Services, Namespaces, Nodes, Pods, EndpointSlices, NetworkPolicies, CiliumNodes, CiliumIdentities, CiliumEndpoints,
        CiliumNetworkPolicies, CiliumClusterwideNetworkPolicies, ServiceExports, ServiceImports, Leases, ConfigMaps, Secrets, ServiceAccounts, Events,
        DaemonSets, Deployments, ReplicaSets, StatefulSets, Jobs, CronJobs, Roles, RoleBindings, ClusterRoles, ClusterRoleBindings, CustomResourceDefinitions,
        PodDisruptionBudgets,
    }.ToFrozenDictionary(resource => (resource.ApiVersion, resource.Kind));

    /// <summary>Null for what is not listed here; <see cref="KubeClient.ResolveAsync"/> asks the server.</summary>
    public static KubeResource? Of(string apiVersion, string kind) => ByKind.GetValueOrDefault((apiVersion, kind));

    private static KubeResource<T> Cilium<T>(string plural, string kind, bool namespaced, JsonTypeInfo<T> type)
        where T : class => new("cilium.io", "v2", plural, kind, namespaced, type);
}
