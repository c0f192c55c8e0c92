using System.Text.Json.Nodes;

namespace Mesh.Install.Tests;

/// <summary>
/// Fields of the Kubernetes API, as far as our objects may have any use for them: a name that is not among them is a typo. A kube-apiserver
/// would drop such a field with a warning that nobody reads.
/// </summary>
internal static class KnownFields
{
    private const string Any = "*";

    private static readonly Dictionary<string, string> Kinds = new(StringComparer.Ordinal)
    {
        ["Metadata"] = "name namespace labels:* annotations:*",
        ["ServiceAccount"] = "metadata:Metadata automountServiceAccountToken imagePullSecrets",
        ["ConfigMap"] = "metadata:Metadata data:* immutable",
        ["Secret"] = "metadata:Metadata data:* type immutable",
        ["ClusterRole"] = "metadata:Metadata rules:Rule",
        ["Role"] = "metadata:Metadata rules:Rule",
        ["Rule"] = "apiGroups resources resourceNames verbs nonResourceURLs",
        ["ClusterRoleBinding"] = "metadata:Metadata roleRef:RoleRef subjects:Subject",
        ["RoleBinding"] = "metadata:Metadata roleRef:RoleRef subjects:Subject",
        ["RoleRef"] = "apiGroup kind name",
        ["Subject"] = "apiGroup kind name namespace",
        ["Service"] = "metadata:Metadata spec:ServiceSpec",
        ["ServiceSpec"] = "type selector:* ports:ServicePort clusterIP loadBalancerIP externalTrafficPolicy internalTrafficPolicy ipFamilies ipFamilyPolicy "
            + "publishNotReadyAddresses",
        ["ServicePort"] = "name port targetPort nodePort protocol appProtocol",
        ["DaemonSet"] = "metadata:Metadata spec:DaemonSetSpec",
        ["DaemonSetSpec"] = "selector:Selector updateStrategy:* template:Template minReadySeconds revisionHistoryLimit",
        ["Deployment"] = "metadata:Metadata spec:DeploymentSpec",
        ["DeploymentSpec"] = "replicas selector:Selector strategy:* template:Template minReadySeconds revisionHistoryLimit progressDeadlineSeconds",
        ["Selector"] = "matchLabels:* matchExpressions",
        ["Template"] = "metadata:Metadata spec:PodSpec",
        ["PodSpec"] = "serviceAccountName hostNetwork hostPID hostIPC dnsPolicy dnsConfig restartPolicy terminationGracePeriodSeconds priorityClassName "
            + "imagePullSecrets:* nodeSelector:* affinity:* tolerations:Toleration hostAliases:HostAlias initContainers:Container containers:Container "
            + "volumes:Volume securityContext:PodSecurity automountServiceAccountToken nodeName activeDeadlineSeconds topologySpreadConstraints:*",
        ["Toleration"] = "key operator value effect tolerationSeconds",
        ["HostAlias"] = "ip hostnames",
        ["Container"] = "name image imagePullPolicy command args env:Env envFrom ports:Port terminationMessagePolicy terminationMessagePath startupProbe:Probe "
            + "livenessProbe:Probe readinessProbe:Probe resources:* securityContext:Security volumeMounts:Mount lifecycle:* workingDir",
        ["Env"] = "name value valueFrom:*",
        ["Port"] = "name containerPort hostPort hostIP protocol",
        ["Probe"] = "exec:Exec httpGet:HttpGet tcpSocket initialDelaySeconds failureThreshold successThreshold periodSeconds timeoutSeconds",
        ["Exec"] = "command",
        ["HttpGet"] = "host path port scheme httpHeaders",
        ["Security"] = "privileged allowPrivilegeEscalation readOnlyRootFilesystem capabilities:Capabilities seccompProfile:Profile appArmorProfile:Profile "
            + "runAsUser runAsGroup runAsNonRoot seLinuxOptions:* procMount",
        ["PodSecurity"] = "runAsNonRoot runAsUser runAsGroup fsGroup seccompProfile:Profile appArmorProfile:Profile "
            + "seLinuxOptions:* sysctls supplementalGroups",
        ["Capabilities"] = "add drop",
        ["Profile"] = "type localhostProfile",
        ["Mount"] = "name mountPath mountPropagation readOnly subPath",
        ["Volume"] = "name configMap:NamedFiles secret:SecretFiles projected:Projected hostPath:HostPath emptyDir:* downwardAPI",
        ["NamedFiles"] = "name optional items:Item defaultMode",
        ["SecretFiles"] = "secretName optional items:Item defaultMode",
        ["Projected"] = "defaultMode sources:Source",
        ["Source"] = "secret:NamedFiles configMap:NamedFiles serviceAccountToken downwardAPI",
        ["Item"] = "key path mode",
        ["HostPath"] = "path type",
    };

    /// <returns>Paths of fields that there are not.</returns>
    public static IEnumerable<string> Unknown(JsonObject body) =>
        Unknown(body, (string)body["kind"]!, (string)body["kind"]!).Where(path => !path.EndsWith(".apiVersion", StringComparison.Ordinal)
            && path != $"{body["kind"]}.kind");

    private static IEnumerable<string> Unknown(JsonNode? node, string type, string path)
    {
        if (type == Any)
            yield break;
        var fields = Kinds[type].Split(' ').Select(field => field.Split(':')).ToDictionary(field => field[0], field => field.Length > 1 ? field[1] : null);
        foreach (var one in node as IEnumerable<JsonNode?> ?? new[] { node })
        {
            if (one is not JsonObject members)
            {
                yield return $"{path} is no map";
                continue;
            }
            foreach (var (name, value) in members)
            {
                if (!fields.TryGetValue(name, out var inner))
                    yield return $"{path}.{name}";
                else if (inner is not null)
                {
                    foreach (var unknown in Unknown(value, inner, $"{path}.{name}"))
                        yield return unknown;
                }
            }
        }
    }
}
