using System.Text;
using System.Text.Json.Nodes;
using Mesh.KubeApi;
using Mesh.KubeApi.Objects;

namespace Mesh.KubeWorld.Nodes;

/// <summary>The environment of a pod's containers: what its spec says, and where the API server is.</summary>
internal sealed class PodEnvironment(KubeApiServer api, JsonObject pod, Node node, ClusterFacts facts, string address)
{
    public IReadOnlyDictionary<string, string> Of(JsonObject container)
    {
        var all = new Dictionary<string, string>
        {
            ["HOSTNAME"] = pod.Obj("spec").Bool("hostNetwork") == true ? node.Name : pod.Obj("metadata").Str("name")!,
            ["KUBERNETES_SERVICE_HOST"] = facts.ApiHost,
            ["KUBERNETES_SERVICE_PORT"] = $"{ClusterFacts.ApiPort}",
        };
        foreach (var one in container.Arr("env").Objects())
        {
            if ((one.Str("value") is { } text ? Expand(text, all) : From(one.Obj("valueFrom"))) is { } value)
                all[one.Str("name")!] = value;
        }
        return all;
    }

    /// <summary>$(NAME) becomes the variable's value; of a name that is not there it stays.</summary>
    public static string Expand(string text, IReadOnlyDictionary<string, string> environment)
    {
        var expanded = new StringBuilder(text);
        foreach (var (name, value) in environment)
            expanded.Replace($"$({name})", value);
        return expanded.ToString();
    }

    private string? From(JsonObject? source)
    {
        if (source.Obj("fieldRef").Str("fieldPath") is { } path)
            return Field(path);
        var space = pod.Obj("metadata").Str("namespace")!;
        if (source.Obj("configMapKeyRef") is { } map)
            return api.Find("configmaps", space, map.Str("name")!).Obj("data").Str(map.Str("key")!);
        if (source.Obj("secretKeyRef") is { } secret)
            return api.Find("secrets", space, secret.Str("name")!).Obj("data").Str(secret.Str("key")!) is { } data
                ? Encoding.UTF8.GetString(Convert.FromBase64String(data)) : null;
        return null;
    }

    private string? Field(string path) => path switch
    {
        "metadata.name" => pod.Obj("metadata").Str("name"),
        "metadata.namespace" => pod.Obj("metadata").Str("namespace"),
        "metadata.uid" => pod.Obj("metadata").Str("uid"),
        "spec.nodeName" => node.Name,
        "spec.serviceAccountName" => pod.Obj("spec").Str("serviceAccountName"),
        "status.hostIP" => node.Address,
        "status.podIP" => address,
        _ => throw new InvalidOperationException($"fieldRef {path}: not known here"),
    };
}
