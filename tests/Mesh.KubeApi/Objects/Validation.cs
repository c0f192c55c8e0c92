using System.Globalization;
using System.Text.Json.Nodes;
using Mesh.KubeApi.Store;

namespace Mesh.KubeApi.Objects;

/// <summary>What a kube-apiserver refuses in built-in kinds, as far as a wrong manifest of ours could run into it.</summary>
internal static class Validation
{
    public static void Check(ResourceType type, JsonObject node, JsonObject? old)
    {
        var causes = new List<KubeApiException.Cause>();
        var spec = node.Obj("spec");
        switch (type.Kind)
        {
            case "Pod":
                PodSpec(spec!, "spec", causes);
                break;
            case "Deployment" or "DaemonSet" or "ReplicaSet" or "StatefulSet":
                Workload(type, node, old, causes);
                break;
            case "Job":
                PodSpec(spec.Obj("template").Obj("spec") ?? [], "spec.template.spec", causes);
                if (spec.Obj("template").Obj("spec").Str("restartPolicy") is not ("Never" or "OnFailure"))
                    causes.Add(KubeApiException.Cause.Unsupported("spec.template.spec.restartPolicy",
                        $"\"{spec.Obj("template").Obj("spec").Str("restartPolicy")}\"", ["OnFailure", "Never"]));
                break;
            case "ConfigMap":
                Strings(node, "data", causes);
                Immutable(node, old, causes);
                break;
            case "Secret":
                Secret(node, old, causes);
                Immutable(node, old, causes);
                break;
            case "EndpointSlice":
                if (node.Str("addressType") is not ("IPv4" or "IPv6" or "FQDN"))
                    causes.Add(node.Str("addressType") is null ? KubeApiException.Cause.Required("addressType")
                        : KubeApiException.Cause.Unsupported("addressType", $"\"{node.Str("addressType")}\"", ["FQDN", "IPv4", "IPv6"]));
                if (old is not null && old.Str("addressType") != node.Str("addressType"))
                    causes.Add(KubeApiException.Cause.Invalid("addressType", $"\"{node.Str("addressType")}\"", "field is immutable"));
                break;
            case "RoleBinding" or "ClusterRoleBinding":
                if (old is not null && !Json.Same(old["roleRef"], node["roleRef"]))
                    causes.Add(KubeApiException.Cause.Invalid("roleRef", Json.Text(node["roleRef"]), "cannot change roleRef"));
                break;
            case "Lease":
                if (spec.Num("leaseDurationSeconds") is <= 0)
                    causes.Add(KubeApiException.Cause.Invalid("spec.leaseDurationSeconds", Json.Text(spec!["leaseDurationSeconds"]), "must be greater than 0"));
                break;
        }
        if (causes.Count > 0)
            throw KubeApiException.Invalid(type.Kind, type.Group, node["metadata"].Str("name") ?? "", causes);
    }

    private static void Immutable(JsonObject node, JsonObject? old, List<KubeApiException.Cause> causes)
    {
        if (old?.Bool("immutable") == true && !Json.Same(old["data"], node["data"]))
            causes.Add(new("data", "FieldValueForbidden", "Forbidden: field is immutable when `immutable` is set"));
    }

    private static void Strings(JsonObject node, string part, List<KubeApiException.Cause> causes)
    {
        foreach (var (key, value) in node.Obj(part) ?? [])
            if (value?.GetValueKind() != System.Text.Json.JsonValueKind.String)
                throw KubeApiException.BadRequest($"ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal "
                    + $"{value?.GetValueKind().ToString().ToLowerInvariant()} into Go struct field ConfigMap.{part} of type string");
    }

    private static void Secret(JsonObject node, JsonObject? old, List<KubeApiException.Cause> causes)
    {
        foreach (var (key, value) in node.Obj("data") ?? [])
        {
            var text = value is null ? "" : value.GetValueKind() == System.Text.Json.JsonValueKind.String ? (string)value! : "\0";
            if (!Convert.TryFromBase64String(text, new byte[text.Length], out _))
                throw KubeApiException.BadRequest($"Secret in version \"v1\" cannot be handled as a Secret: illegal base64 data at input byte 0 (key {key})");
        }
        if (old is not null && old.Str("type") != node.Str("type"))
            causes.Add(KubeApiException.Cause.Invalid("type", $"\"{node.Str("type")}\"", "field is immutable"));
        if (node.Str("type") == "kubernetes.io/tls")
            foreach (var key in new[] { "tls.crt", "tls.key" })
                if (node.Obj("data")?.ContainsKey(key) != true)
                    causes.Add(KubeApiException.Cause.Required($"data[{key}]"));
    }

    private static void Workload(ResourceType type, JsonObject node, JsonObject? old, List<KubeApiException.Cause> causes)
    {
        var spec = node.Obj("spec")!;
        var template = spec.Obj("template");
        if (spec.Obj("selector") is not { Count: > 0 } selector)
            causes.Add(KubeApiException.Cause.Required("spec.selector"));
        else
        {
            foreach (var (key, value) in selector.Obj("matchLabels") ?? [])
                if (template.Obj("metadata").Obj("labels").Str(key) != (string?)value)
                {
                    causes.Add(KubeApiException.Cause.Invalid("spec.template.metadata.labels", Json.Text(template.Obj("metadata").Obj("labels")),
                        "`selector` does not match template `labels`"));
                    break;
                }
            if (old is not null && !Json.Same(old.Obj("spec")!["selector"], selector))
                causes.Add(KubeApiException.Cause.Invalid("spec.selector", Json.Text(selector), "field is immutable"));
        }
        if (spec.Num("replicas") is < 0)
            causes.Add(KubeApiException.Cause.Invalid("spec.replicas", Json.Text(spec["replicas"]), "must be greater than or equal to 0"));
        PodSpec(template.Obj("spec") ?? [], "spec.template.spec", causes);
        if (template.Obj("spec").Str("restartPolicy") is { } policy && policy != "Always")
            causes.Add(KubeApiException.Cause.Unsupported("spec.template.spec.restartPolicy", $"\"{policy}\"", ["Always"]));
    }

    private static void PodSpec(JsonObject spec, string path, List<KubeApiException.Cause> causes)
    {
        if (spec.Arr("containers") is not { Count: > 0 })
            causes.Add(KubeApiException.Cause.Required($"{path}.containers"));
        var volumes = spec.Arr("volumes").Objects().Select(volume => volume.Str("name")).ToHashSet();
        var names = new HashSet<string>();
        foreach (var list in new[] { "initContainers", "containers" })
        {
            var index = 0;
            foreach (var container in spec.Arr(list).Objects())
            {
                var at = string.Create(CultureInfo.InvariantCulture, $"{path}.{list}[{index++}]");
                if (container.Str("name") is not { Length: > 0 } name)
                    causes.Add(KubeApiException.Cause.Required($"{at}.name"));
                else if (!names.Add(name))
                    causes.Add(new($"{at}.name", "FieldValueDuplicate", $"Duplicate value: \"{name}\""));
                if (container.Str("image") is not { Length: > 0 })
                    causes.Add(KubeApiException.Cause.Required($"{at}.image"));
                var place = 0;
                foreach (var mount in container.Arr("volumeMounts").Objects())
                {
                    if (!volumes.Contains(mount.Str("name")))
                        causes.Add(new(string.Create(CultureInfo.InvariantCulture, $"{at}.volumeMounts[{place}].name"), "FieldValueNotFound",
                            $"Not found: \"{mount.Str("name")}\""));
                    if (mount.Str("mountPath") is not { Length: > 0 })
                        causes.Add(KubeApiException.Cause.Required(string.Create(CultureInfo.InvariantCulture, $"{at}.volumeMounts[{place}].mountPath")));
                    place++;
                }
                place = 0;
                foreach (var port in container.Arr("ports").Objects())
                {
                    if (port.Num("containerPort") is not (>= 1 and <= 65535))
                        causes.Add(KubeApiException.Cause.Invalid(string.Create(CultureInfo.InvariantCulture, $"{at}.ports[{place}].containerPort"),
                            Json.Text(port["containerPort"]), "must be between 1 and 65535, inclusive"));
                    place++;
                }
                foreach (var variable in container.Arr("env").Objects())
                    if (variable["value"] is { } value && value.GetValueKind() != System.Text.Json.JsonValueKind.String)
                        throw KubeApiException.BadRequest($"Pod in version \"v1\" cannot be handled as a Pod: json: cannot unmarshal "
                            + $"{value.GetValueKind().ToString().ToLowerInvariant()} into Go struct field EnvVar.{path}.{list}.env.value of type string");
            }
        }
    }
}
