namespace Mesh.KubeApi.Store;

/// <summary>The kinds that every cluster has.</summary>
internal static class BuiltIns
{
    private static readonly IReadOnlyList<ServedVersion> V1 = [new("v1")];
    private static readonly IReadOnlyList<ServedVersion> V1Status = [new("v1") { Status = true }];

    private static ResourceType Of(string group, string plural, string kind, bool namespaced = true, bool status = false, bool generation = false,
        string[]? shorts = null, string[]? categories = null, string[]? sub = null, bool createOnly = false, string? singular = null) =>
        new(group, plural, kind)
        {
            Versions = status ? V1Status : V1,
            Namespaced = namespaced,
            Generation = generation,
            ShortNames = shorts ?? [],
            Categories = categories ?? [],
            Subresources = sub ?? [],
            CreateOnly = createOnly,
            Singular = singular ?? kind.ToLowerInvariant(),
        };

    private const string Apps = "apps";
    private const string Rbac = "rbac.authorization.k8s.io";
    private const string Networking = "networking.k8s.io";
    private const string Storage = "storage.k8s.io";
    private const string Admission = "admissionregistration.k8s.io";

    public static ResourceType Namespaces { get; } = Of("", "namespaces", "Namespace", namespaced: false, status: true, shorts: ["ns"], sub: ["finalize"]);

    public static ResourceType Pods { get; } = Of("", "pods", "Pod", status: true, shorts: ["po"], categories: ["all"],
        sub: ["log", "exec", "attach", "portforward", "eviction", "binding", "ephemeralcontainers"]);

    public static ResourceType Services { get; } = Of("", "services", "Service", status: true, shorts: ["svc"], categories: ["all"]);

    public static ResourceType Endpoints { get; } = Of("", "endpoints", "Endpoints", shorts: ["ep"], singular: "endpoints");

    public static ResourceType ConfigMaps { get; } = Of("", "configmaps", "ConfigMap", shorts: ["cm"]);

    public static ResourceType Secrets { get; } = Of("", "secrets", "Secret");

    public static ResourceType ServiceAccounts { get; } = Of("", "serviceaccounts", "ServiceAccount", shorts: ["sa"], sub: ["token"]);

    public static ResourceType Definitions { get; } = Of("apiextensions.k8s.io", "customresourcedefinitions", "CustomResourceDefinition",
        namespaced: false, status: true, generation: true, shorts: ["crd", "crds"], categories: ["api-extensions"]);

    public static ResourceType Roles { get; } = Of(Rbac, "roles", "Role");

    public static ResourceType RoleBindings { get; } = Of(Rbac, "rolebindings", "RoleBinding");

    public static ResourceType ClusterRoles { get; } = Of(Rbac, "clusterroles", "ClusterRole", namespaced: false);

    public static ResourceType ClusterRoleBindings { get; } = Of(Rbac, "clusterrolebindings", "ClusterRoleBinding", namespaced: false);

    public static ResourceType EndpointSlices { get; } = Of("discovery.k8s.io", "endpointslices", "EndpointSlice", generation: true);

    public static ResourceType Leases { get; } = Of("coordination.k8s.io", "leases", "Lease");

    public static IReadOnlyList<ResourceType> All { get; } =
    [
        Namespaces, Pods, Services, Endpoints, ConfigMaps, Secrets, ServiceAccounts,
        Of("", "nodes", "Node", namespaced: false, status: true, shorts: ["no"], sub: ["proxy"]),
        Of("", "events", "Event", shorts: ["ev"]),
        Of("", "persistentvolumes", "PersistentVolume", namespaced: false, status: true, shorts: ["pv"]),
        Of("", "persistentvolumeclaims", "PersistentVolumeClaim", status: true, shorts: ["pvc"]),
        Of("", "replicationcontrollers", "ReplicationController", status: true, generation: true, shorts: ["rc"], categories: ["all"], sub: ["scale"]),
        Of("", "limitranges", "LimitRange", shorts: ["limits"]),
        Of("", "resourcequotas", "ResourceQuota", status: true, shorts: ["quota"]),
        Of("", "podtemplates", "PodTemplate", generation: true),
        Of(Apps, "deployments", "Deployment", status: true, generation: true, shorts: ["deploy"], categories: ["all"], sub: ["scale"]),
        Of(Apps, "replicasets", "ReplicaSet", status: true, generation: true, shorts: ["rs"], categories: ["all"], sub: ["scale"]),
        Of(Apps, "statefulsets", "StatefulSet", status: true, generation: true, shorts: ["sts"], categories: ["all"], sub: ["scale"]),
        Of(Apps, "daemonsets", "DaemonSet", status: true, generation: true, shorts: ["ds"], categories: ["all"]),
        Of(Apps, "controllerrevisions", "ControllerRevision"),
        Of("batch", "jobs", "Job", status: true, generation: true, categories: ["all"]),
        Of("batch", "cronjobs", "CronJob", status: true, generation: true, shorts: ["cj"], categories: ["all"]),
        Of("autoscaling", "horizontalpodautoscalers", "HorizontalPodAutoscaler", status: true, shorts: ["hpa"], categories: ["all"]),
        EndpointSlices,
        Of(Networking, "networkpolicies", "NetworkPolicy", generation: true, shorts: ["netpol"]),
        Of(Networking, "ingresses", "Ingress", status: true, generation: true, shorts: ["ing"]),
        Of(Networking, "ingressclasses", "IngressClass", namespaced: false, generation: true),
        Roles, RoleBindings, ClusterRoles, ClusterRoleBindings, Leases, Definitions,
        Of("policy", "poddisruptionbudgets", "PodDisruptionBudget", status: true, generation: true, shorts: ["pdb"]),
        Of("scheduling.k8s.io", "priorityclasses", "PriorityClass", namespaced: false, generation: true, shorts: ["pc"]),
        Of("node.k8s.io", "runtimeclasses", "RuntimeClass", namespaced: false),
        Of(Storage, "storageclasses", "StorageClass", namespaced: false, shorts: ["sc"]),
        Of(Storage, "csidrivers", "CSIDriver", namespaced: false),
        Of(Storage, "csinodes", "CSINode", namespaced: false),
        Of(Storage, "volumeattachments", "VolumeAttachment", namespaced: false, status: true),
        Of(Admission, "validatingwebhookconfigurations", "ValidatingWebhookConfiguration", namespaced: false, generation: true),
        Of(Admission, "mutatingwebhookconfigurations", "MutatingWebhookConfiguration", namespaced: false, generation: true),
        Of("certificates.k8s.io", "certificatesigningrequests", "CertificateSigningRequest", namespaced: false, status: true, shorts: ["csr"]),
        Of("authentication.k8s.io", "tokenreviews", "TokenReview", namespaced: false, createOnly: true),
        Of("authentication.k8s.io", "selfsubjectreviews", "SelfSubjectReview", namespaced: false, createOnly: true),
        Of("authorization.k8s.io", "subjectaccessreviews", "SubjectAccessReview", namespaced: false, createOnly: true),
        Of("authorization.k8s.io", "selfsubjectaccessreviews", "SelfSubjectAccessReview", namespaced: false, createOnly: true),
        Of("authorization.k8s.io", "selfsubjectrulesreviews", "SelfSubjectRulesReview", namespaced: false, createOnly: true),
        Of("authorization.k8s.io", "localsubjectaccessreviews", "LocalSubjectAccessReview", createOnly: true),
    ];
}
