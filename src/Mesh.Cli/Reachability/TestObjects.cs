using System.Text.Json.Nodes;
using Mesh.Cli.Kube;

namespace Mesh.Cli.Reachability;

/// <summary>What runs in the containers: the image that the agents run already, so that nothing else need be pulled.</summary>
internal sealed record TestImage(string Name, string? PullPolicy, JsonArray? PullSecrets)
{
    /// <exception cref="CliException">The cluster has no DaemonSet of ours.</exception>
    public static TestImage Of(string cluster, JsonObject? daemonSet)
    {
        var spec = daemonSet.At("spec", "template", "spec");
        var container = spec.Items("containers").FirstOrDefault(one => one.Text("name") == "cilium-agent");
        return container.Text("image") is { Length: > 0 } image
            ? new TestImage(image, container.Text("imagePullPolicy"), spec.At("imagePullSecrets") as JsonArray)
            : throw new CliException($"{cluster}: there is no DaemonSet cilium with a container cilium-agent: install with `mesh install --context {cluster}`");
    }
}

/// <summary>Where a workload's pod must stand.</summary>
internal sealed record TestNode(string Name, string? Hostname, IReadOnlyList<string> Addresses)
{
    /// <summary>Nodes that take pods without being asked to tolerate anything, by name.</summary>
    public static IReadOnlyList<TestNode> Suitable(IEnumerable<JsonObject> nodes) =>
    [
        .. nodes.Where(node => node.Items("status", "conditions").Any(one => one.Text("type") == "Ready" && one.Text("status") == "True")
                && node.Text("spec", "unschedulable") != "true"
                && node.Items("spec", "taints").All(taint => taint.Text("effect") == "PreferNoSchedule"))
            .Select(node => new TestNode(node.Name(), node.Text("metadata", "labels", "kubernetes.io/hostname"),
                [.. node.Items("status", "addresses").Where(one => one.Text("type") == "InternalIP").Select(one => one.Text("address")).OfType<string>()]))
            .OrderBy(node => node.Name, StringComparer.Ordinal),
    ];
}

/// <summary>The objects of the test: a namespace, Deployments that answer with their name, Services.</summary>
internal static class TestObjects
{
    public const string FieldManager = "mesh-connectivity-test";
    private const string OwnerLabel = "app.kubernetes.io/managed-by";

    public static bool IsOurs(JsonObject ns) => ns.Text("metadata", "labels", OwnerLabel) == FieldManager;

    /// <summary>Global on purpose: a mesh may share no namespaces by default.</summary>
    public static JsonObject Namespace(string name) => new()
    {
        ["metadata"] = new JsonObject
        {
            ["name"] = name,
            ["labels"] = new JsonObject { [OwnerLabel] = FieldManager },
            ["annotations"] = new JsonObject { ["clustermesh.cilium.io/global"] = "true" },
        },
    };

    public static JsonObject Deployment(string ns, string name, string kind, TestImage image, TestNode node)
    {
        var labels = new JsonObject { ["name"] = name, ["kind"] = kind };
        var container = new JsonObject
        {
            ["name"] = name,
            ["image"] = image.Name,
            ["command"] = new JsonArray("mesh", "lab", "echo", "--name", name),
            ["ports"] = new JsonArray(new JsonObject { ["name"] = "http", ["containerPort"] = Actions.Port, ["protocol"] = "TCP" }),
            ["readinessProbe"] = new JsonObject
            {
                ["tcpSocket"] = new JsonObject { ["port"] = Actions.Port },
                ["periodSeconds"] = 1,
                ["failureThreshold"] = 30,
            },
            ["securityContext"] = new JsonObject
            {
                ["allowPrivilegeEscalation"] = false,
                ["readOnlyRootFilesystem"] = true,
                ["runAsNonRoot"] = true,
                ["runAsUser"] = 65532,
                ["capabilities"] = new JsonObject { ["drop"] = new JsonArray("ALL") },
                ["seccompProfile"] = new JsonObject { ["type"] = "RuntimeDefault" },
            },
        };
        if (image.PullPolicy is { } policy)
            container["imagePullPolicy"] = policy;
        var pod = new JsonObject
        {
            ["automountServiceAccountToken"] = false,
            ["terminationGracePeriodSeconds"] = 1,
            ["containers"] = new JsonArray(container),
        };
        if (node.Hostname is { } hostname)
            pod["nodeSelector"] = new JsonObject { ["kubernetes.io/hostname"] = hostname };
        else
            pod["nodeName"] = node.Name;
        if (image.PullSecrets is { } secrets)
            pod["imagePullSecrets"] = secrets.DeepClone();
        return new JsonObject
        {
            ["metadata"] = new JsonObject { ["name"] = name, ["namespace"] = ns, ["labels"] = labels },
            ["spec"] = new JsonObject
            {
                ["replicas"] = 1,
                ["selector"] = new JsonObject { ["matchLabels"] = labels.DeepClone() },
                ["template"] = new JsonObject { ["metadata"] = new JsonObject { ["labels"] = labels.DeepClone() }, ["spec"] = pod },
            },
        };
    }

    /// <summary>A Service of both families where the cluster has both. Global when headless ones are mirrored too.</summary>
    public static JsonObject Service(string ns, string name, string selects, bool headless, bool global)
    {
        var annotations = new JsonObject();
        if (global)
        {
            annotations["service.cilium.io/global"] = "true";
            annotations["io.cilium/global-service"] = "true";
            if (headless)
                annotations["service.cilium.io/global-sync-endpoint-slices"] = "true";
        }
        var spec = new JsonObject
        {
            ["selector"] = new JsonObject { ["name"] = selects },
            ["ipFamilyPolicy"] = "PreferDualStack",
            ["ports"] = new JsonArray(new JsonObject
            {
                ["name"] = "http",
                ["port"] = Actions.Port,
                ["targetPort"] = Actions.Port,
                ["protocol"] = "TCP",
            }),
        };
        if (headless)
            spec["clusterIP"] = "None";
        else
            spec["type"] = "NodePort";
        return new JsonObject
        {
            ["metadata"] = new JsonObject
            {
                ["name"] = name,
                ["namespace"] = ns,
                ["labels"] = new JsonObject { ["kind"] = "echo" },
                ["annotations"] = annotations,
            },
            ["spec"] = spec,
        };
    }
}
