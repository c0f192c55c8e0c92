using System.Text.Json.Nodes;
using Mesh.KubeApi.Store;

namespace Mesh.KubeApi.Objects;

/// <summary>What a kube-apiserver fills in for built-in kinds, as far as controllers, kubelets and clients rely on it.</summary>
internal static class Defaults
{
    public static void Apply(ResourceType type, JsonObject node)
    {
        var spec = node["spec"] as JsonObject;
        switch (type.Kind)
        {
            case "Pod":
                PodSpec(node.Need("spec"), node);
                break;
            case "Deployment":
                spec = node.Need("spec");
                spec.Default("replicas", 1);
                spec.Default("revisionHistoryLimit", 10);
                spec.Default("progressDeadlineSeconds", 600);
                var strategy = spec.Need("strategy");
                strategy.Default("type", "RollingUpdate");
                if (strategy.Str("type") == "RollingUpdate")
                {
                    strategy.Need("rollingUpdate").Default("maxUnavailable", "25%");
                    strategy.Need("rollingUpdate").Default("maxSurge", "25%");
                }
                Template(spec);
                break;
            case "DaemonSet":
                spec = node.Need("spec");
                spec.Default("revisionHistoryLimit", 10);
                var update = spec.Need("updateStrategy");
                update.Default("type", "RollingUpdate");
                if (update.Str("type") == "RollingUpdate")
                {
                    update.Need("rollingUpdate").Default("maxUnavailable", 1);
                    update.Need("rollingUpdate").Default("maxSurge", 0);
                }
                Template(spec);
                break;
            case "StatefulSet":
                spec = node.Need("spec");
                spec.Default("replicas", 1);
                spec.Default("revisionHistoryLimit", 10);
                spec.Default("podManagementPolicy", "OrderedReady");
                spec.Need("updateStrategy").Default("type", "RollingUpdate");
                Template(spec);
                break;
            case "ReplicaSet":
                spec = node.Need("spec");
                spec.Default("replicas", 1);
                Template(spec);
                break;
            case "Job":
                Job(node, node.Need("spec"));
                break;
            case "CronJob":
                spec = node.Need("spec");
                spec.Default("concurrencyPolicy", "Allow");
                spec.Default("suspend", false);
                spec.Default("successfulJobsHistoryLimit", 3);
                spec.Default("failedJobsHistoryLimit", 1);
                break;
            case "Secret":
                node.Default("type", "Opaque");
                if (node["stringData"] is JsonObject plain)
                {
                    foreach (var (name, value) in plain)
                        node.Need("data")[name] = Convert.ToBase64String(System.Text.Encoding.UTF8.GetBytes((string?)value ?? ""));
                    node.Remove("stringData");
                }
                break;
            case "EndpointSlice":
                foreach (var port in node.Arr("ports").Objects())
                {
                    port.Default("name", "");
                    port.Default("protocol", "TCP");
                }
                break;
            case "Endpoints":
                foreach (var port in node.Arr("subsets").Objects().SelectMany(subset => subset.Arr("ports").Objects()))
                    port.Default("protocol", "TCP");
                break;
            case "NetworkPolicy":
                NetworkPolicy(node.Need("spec"));
                break;
            case "Namespace":
                node.Need("metadata").Need("labels")["kubernetes.io/metadata.name"] = node["metadata"].Str("name");
                break;
            case "RoleBinding" or "ClusterRoleBinding":
                node.Obj("roleRef")?.Default("apiGroup", "rbac.authorization.k8s.io");
                foreach (var subject in node.Arr("subjects").Objects())
                    subject.Default("apiGroup", subject.Str("kind") == "ServiceAccount" ? "" : "rbac.authorization.k8s.io");
                foreach (var subject in node.Arr("subjects").Objects())
                    if (subject.Str("apiGroup") == "")
                        subject.Remove("apiGroup");
                break;
            case "PersistentVolumeClaim":
                node.Need("spec").Default("volumeMode", "Filesystem");
                break;
        }
    }

    private static void NetworkPolicy(JsonObject spec)
    {
        if (spec["policyTypes"] is null)
            spec["policyTypes"] = spec["egress"] is JsonArray { Count: > 0 } ? new JsonArray("Ingress", "Egress") : new JsonArray("Ingress");
        foreach (var rule in spec.Arr("ingress").Objects().Concat(spec.Arr("egress").Objects()))
            foreach (var port in rule.Arr("ports").Objects())
                port.Default("protocol", "TCP");
    }

    private static void Job(JsonObject node, JsonObject spec)
    {
        if (spec["completions"] is null && spec["parallelism"] is null)
            spec["completions"] = 1;
        spec.Default("parallelism", 1);
        spec.Default("backoffLimit", 6);
        spec.Default("completionMode", "NonIndexed");
        spec.Default("suspend", false);
        if (spec["selector"] is null && spec.Bool("manualSelector") != true && node["metadata"].Str("uid") is { } uid)
        {
            spec["selector"] = new JsonObject { ["matchLabels"] = new JsonObject { ["batch.kubernetes.io/controller-uid"] = uid } };
            var labels = spec.Need("template").Need("metadata").Need("labels");
            labels["batch.kubernetes.io/controller-uid"] = uid;
            labels["controller-uid"] = uid;
            labels["batch.kubernetes.io/job-name"] = node["metadata"].Str("name");
            labels["job-name"] = node["metadata"].Str("name");
        }
        Template(spec);
    }

    private static void Template(JsonObject spec)
    {
        if (spec["template"] is not JsonObject template)
            return;
        if (template["metadata"] is JsonObject metadata && !metadata.ContainsKey("creationTimestamp"))
            metadata["creationTimestamp"] = null;
        PodSpec(template.Need("spec"), null);
    }

    private static void PodSpec(JsonObject spec, JsonObject? pod)
    {
        spec.Default("restartPolicy", "Always");
        spec.Default("dnsPolicy", "ClusterFirst");
        spec.Default("schedulerName", "default-scheduler");
        spec.Default("securityContext", new JsonObject());
        spec.Default("terminationGracePeriodSeconds", 30);
        if (spec.Str("serviceAccountName") is { } account)
            spec["serviceAccount"] = account;
        else if (spec.Str("serviceAccount") is { } old)
            spec["serviceAccountName"] = old;
        if (pod is not null)
        {
            spec.Default("enableServiceLinks", true);
            spec.Default("preemptionPolicy", "PreemptLowerPriority");
            spec.Default("priority",
                spec.Str("priorityClassName") switch { "system-node-critical" => 2000001000, "system-cluster-critical" => 2000000000, _ => 0 });
        }
        foreach (var container in spec.Arr("initContainers").Objects().Concat(spec.Arr("containers").Objects()))
            Container(container, spec.Bool("hostNetwork") == true);
        foreach (var volume in spec.Arr("volumes").Objects())
            Volume(volume);
    }

    private static void Volume(JsonObject volume)
    {
        // A volume that says nothing of its kind is an emptyDir.
        if (volume.Count == 1)
            volume["emptyDir"] = new JsonObject();
        volume.Obj("secret")?.Default("defaultMode", 420);
        volume.Obj("configMap")?.Default("defaultMode", 420);
        volume.Obj("downwardAPI")?.Default("defaultMode", 420);
        volume.Obj("hostPath")?.Default("type", "");
        if (volume.Obj("projected") is not { } projected)
            return;
        projected.Default("defaultMode", 420);
        foreach (var source in projected.Arr("sources").Objects())
            source.Obj("serviceAccountToken")?.Default("expirationSeconds", 3600);
    }

    private static void Container(JsonObject container, bool hostNetwork)
    {
        container.Default("terminationMessagePath", "/dev/termination-log");
        container.Default("terminationMessagePolicy", "File");
        var image = container.Str("image") ?? "";
        var name = image[(image.LastIndexOf('/') + 1)..];
        container.Default("imagePullPolicy", !image.Contains('@', StringComparison.Ordinal)
            && (!name.Contains(':', StringComparison.Ordinal) || name.EndsWith(":latest", StringComparison.Ordinal)) ? "Always" : "IfNotPresent");
        container.Default("resources", new JsonObject());
        foreach (var port in container.Arr("ports").Objects())
        {
            port.Default("protocol", "TCP");
            if (hostNetwork && port["containerPort"] is { } number)
                port.Default("hostPort", number.DeepClone());
        }
        foreach (var variable in container.Arr("env").Objects())
            variable.Obj("valueFrom").Obj("fieldRef")?.Default("apiVersion", "v1");
        foreach (var probe in new[] { "livenessProbe", "readinessProbe", "startupProbe" })
        {
            if (container[probe] is not JsonObject there)
                continue;
            there.Default("timeoutSeconds", 1);
            there.Default("periodSeconds", 10);
            there.Default("successThreshold", 1);
            there.Default("failureThreshold", 3);
            if (there["httpGet"] is JsonObject http)
            {
                http.Default("path", "/");
                http.Default("scheme", "HTTP");
            }
        }
    }

    /// <summary>
    /// ServiceAccount admission: a pod runs as "default" unless it says otherwise, and its token, the authority and the namespace are
    /// mounted where in-cluster configuration looks for them.
    /// </summary>
    public static void AdmitServiceAccount(JsonObject pod, bool automount)
    {
        const string Where = "/var/run/secrets/kubernetes.io/serviceaccount";
        var spec = pod.Need("spec");
        spec.Default("serviceAccountName", "default");
        spec["serviceAccount"] = spec.Str("serviceAccountName");
        if (!(spec.Bool("automountServiceAccountToken") ?? automount))
            return;
        var name = $"kube-api-access-{Names.Suffix(5)}";
        var used = false;
        foreach (var container in spec.Arr("initContainers").Objects().Concat(spec.Arr("containers").Objects()))
        {
            if (container.Arr("volumeMounts").Objects().Any(mount => mount.Str("mountPath") == Where))
                continue;
            if (container["volumeMounts"] is not JsonArray mounts)
                container["volumeMounts"] = mounts = [];
            mounts.Add((JsonNode)new JsonObject { ["name"] = name, ["readOnly"] = true, ["mountPath"] = Where });
            used = true;
        }
        if (!used)
            return;
        if (spec["volumes"] is not JsonArray volumes)
            spec["volumes"] = volumes = [];
        volumes.Add((JsonNode)new JsonObject
        {
            ["name"] = name,
            ["projected"] = new JsonObject
            {
                ["defaultMode"] = 420,
                ["sources"] = new JsonArray(
                    new JsonObject { ["serviceAccountToken"] = new JsonObject { ["expirationSeconds"] = 3607, ["path"] = "token" } },
                    new JsonObject
                    {
                        ["configMap"] = new JsonObject
                        {
                            ["name"] = "kube-root-ca.crt",
                            ["items"] = new JsonArray(new JsonObject { ["key"] = "ca.crt", ["path"] = "ca.crt" }),
                        },
                    },
                    new JsonObject
                    {
                        ["downwardAPI"] = new JsonObject
                        {
                            ["items"] = new JsonArray(new JsonObject
                            {
                                ["path"] = "namespace",
                                ["fieldRef"] = new JsonObject { ["apiVersion"] = "v1", ["fieldPath"] = "metadata.namespace" },
                            }),
                        },
                    }),
            },
        });
    }
}
