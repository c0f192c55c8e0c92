using System.Globalization;
using System.Text;
using System.Text.Json.Nodes;
using Mesh.KubeApi.Objects;
using Mesh.KubeApi.Store;

namespace Mesh.KubeApi.Api;

/// <summary>Rows as `kubectl get` shows them. Kinds without columns of their own have name and age; CRDs bring their own.</summary>
internal static class Tables
{
    private sealed record Column(string Name, Func<StoredObject, DateTimeOffset, JsonNode?> Cell, string Type = "string", bool Wide = false);

    private static JsonNode? Text(string? text) => text is null or "" ? "<none>" : text;

    private static readonly Column NameColumn = new("Name", (stored, _) => stored.Name) { Type = "string" };

    private static readonly Column Age = new("Age", (stored, now) => Since((string?)stored.Node["metadata"]!["creationTimestamp"], now));

    private static readonly Dictionary<string, Column[]> ByKind = new()
    {
        ["Pod"] =
        [
            new("Ready", (pod, _) => $"{Statuses(pod).Count(one => one.Bool("ready") == true)}/{pod.Node.Obj("spec").Arr("containers")?.Count ?? 0}"),
            new("Status", (pod, _) => PodStatus(pod)),
            new("Restarts", (pod, _) => Statuses(pod).Sum(one => one.Num("restartCount") ?? 0).ToString(CultureInfo.InvariantCulture)),
            Age,
            new("IP", (pod, _) => Text(pod.Node.Obj("status").Str("podIP")), Wide: true),
            new("Node", (pod, _) => Text(pod.Node.Obj("spec").Str("nodeName")), Wide: true),
            new("Nominated Node", (pod, _) => Text(pod.Node.Obj("status").Str("nominatedNodeName")), Wide: true),
            new("Readiness Gates", (_, _) => "<none>", Wide: true),
        ],
        ["Service"] =
        [
            new("Type", (service, _) => service.Node.Obj("spec").Str("type")),
            new("Cluster-IP", (service, _) => Text(service.Node.Obj("spec").Str("clusterIP"))),
            new("External-IP", (service, _) => ExternalAddress(service)),
            new("Port(s)", (service, _) => Text(string.Join(',', service.Node.Obj("spec").Arr("ports").Objects().Select(port =>
                $"{port.Num("port")}{(port.Num("nodePort") is { } node and > 0 ? $":{node}" : "")}/{port.Str("protocol")}")))),
            Age,
            new("Selector", (service, _) => Labels(service.Node.Obj("spec").Obj("selector")), Wide: true),
        ],
        ["Deployment"] =
        [
            new("Ready", (one, _) => $"{one.Node.Obj("status").Num("readyReplicas") ?? 0}/{one.Node.Obj("spec").Num("replicas") ?? 1}"),
            Status("Up-to-date", "updatedReplicas"), Status("Available", "availableReplicas"), Age,
            new("Containers", (one, _) => Containers(one, "name"), Wide: true), new("Images", (one, _) => Containers(one, "image"), Wide: true),
            new("Selector", (one, _) => Labels(one.Node.Obj("spec").Obj("selector").Obj("matchLabels")), Wide: true),
        ],
        ["DaemonSet"] =
        [
            Status("Desired", "desiredNumberScheduled"), Status("Current", "currentNumberScheduled"), Status("Ready", "numberReady"),
            Status("Up-to-date", "updatedNumberScheduled"), Status("Available", "numberAvailable"),
            new("Node Selector", (one, _) => Labels(one.Node.Obj("spec").Obj("template").Obj("spec").Obj("nodeSelector"))), Age,
        ],
        ["ReplicaSet"] =
        [
            new("Desired", (one, _) => one.Node.Obj("spec").Num("replicas") ?? 0, "integer"),
                Status("Current", "replicas"), Status("Ready", "readyReplicas"), Age,
        ],
        ["Job"] =
        [
            new("Completions", (job, _) => $"{job.Node.Obj("status").Num("succeeded") ?? 0}/{job.Node.Obj("spec").Num("completions") ?? 1}"), Age,
        ],
        ["Node"] =
        [
            new("Status", (node, _) => NodeStatus(node)),
            new("Roles", (node, _) => Text(string.Join(',', (node.Node["metadata"].Obj("labels") ?? []).Select(pair => pair.Key)
                .Where(key => key.StartsWith("node-role.kubernetes.io/", StringComparison.Ordinal)).Select(key => key[24..])))),
            Age,
            new("Version", (node, _) => node.Node.Obj("status").Obj("nodeInfo").Str("kubeletVersion") ?? ""),
            new("Internal-IP", (node, _) => Text(NodeAddress(node, "InternalIP")), Wide: true),
            new("External-IP", (node, _) => Text(NodeAddress(node, "ExternalIP")), Wide: true),
        ],
        ["Namespace"] = [new("Status", (one, _) => one.Node.Obj("status").Str("phase")), Age],
        ["ConfigMap"] = [new("Data", (one, _) => (one.Node.Obj("data")?.Count ?? 0) + (one.Node.Obj("binaryData")?.Count ?? 0), "string"), Age],
        ["Secret"] = [new("Type", (one, _) => one.Node.Str("type")), new("Data", (one, _) => one.Node.Obj("data")?.Count ?? 0, "string"), Age],
        ["ServiceAccount"] = [new("Secrets", (one, _) => one.Node.Arr("secrets")?.Count ?? 0, "string"), Age],
        ["Endpoints"] = [new("Endpoints", (one, _) => Text(EndpointsOf(one))), Age],
        ["EndpointSlice"] =
        [
            new("AddressType", (one, _) => one.Node.Str("addressType")),
            new("Ports", (one, _) => one.Node.Arr("ports") is { Count: > 0 } ports
                ? string.Join(',', ports.Objects().Select(port => port.Num("port"))) : "<unset>"),
            new("Endpoints", (one, _) => one.Node.Arr("endpoints") is { Count: > 0 } all
                ? string.Join(',', all.Objects().SelectMany(end => end.Arr("addresses") ?? []).Take(3)) : "<unset>"),
            Age,
        ],
        ["Event"] =
        [
            new("Last Seen", (one, now) => Since(one.Node.Str("lastTimestamp") ?? one.Node.Str("eventTime"), now)),
            new("Type", (one, _) => one.Node.Str("type")), new("Reason", (one, _) => one.Node.Str("reason")),
            new("Object", (one, _) => $"{one.Node.Obj("involvedObject").Str("kind")?.ToLowerInvariant()}/{one.Node.Obj("involvedObject").Str("name")}"),
            new("Message", (one, _) => one.Node.Str("message")?.Trim()),
        ],
        ["CustomResourceDefinition"] = [new("Created At", (one, _) => (string?)one.Node["metadata"]!["creationTimestamp"])],
        ["Lease"] = [new("Holder", (one, _) => one.Node.Obj("spec").Str("holderIdentity")), Age],
        ["NetworkPolicy"] = [new("Pod-Selector", (one, _) => Labels(one.Node.Obj("spec").Obj("podSelector").Obj("matchLabels"))), Age],
        ["Role"] = [CreatedAt],
        ["ClusterRole"] = [CreatedAt],
        ["RoleBinding"] = [Role, Age],
        ["ClusterRoleBinding"] = [Role, Age],
    };

    private static Column CreatedAt => new("Created At", (one, _) => (string?)one.Node["metadata"]!["creationTimestamp"]);

    private static Column Role => new("Role", (one, _) => $"{one.Node.Obj("roleRef").Str("kind")}/{one.Node.Obj("roleRef").Str("name")}");

    private static Column Status(string name, string field) => new(name, (one, _) => one.Node.Obj("status").Num(field) ?? 0, "integer");

    private static IEnumerable<JsonObject> Statuses(StoredObject pod) => pod.Node.Obj("status").Arr("containerStatuses").Objects();

    private static string Containers(StoredObject one, string field) =>
        string.Join(',', one.Node.Obj("spec").Obj("template").Obj("spec").Arr("containers").Objects().Select(container => container.Str(field)));

    private static string Labels(JsonObject? labels) =>
        labels is { Count: > 0 } ? string.Join(',', labels.Select(pair => $"{pair.Key}={pair.Value}")) : "<none>";

    private static string? NodeAddress(StoredObject node, string type) =>
        node.Node.Obj("status").Arr("addresses").Objects().FirstOrDefault(one => one.Str("type") == type).Str("address");

    private static string NodeStatus(StoredObject node)
    {
        var ready = node.Node.Obj("status").Arr("conditions").Objects().FirstOrDefault(one => one.Str("type") == "Ready").Str("status");
        return (ready switch { "True" => "Ready", "False" => "NotReady", _ => ready is null ? "Unknown" : "NotReady" })
            + (node.Node.Obj("spec").Bool("unschedulable") == true ? ",SchedulingDisabled" : "");
    }

    private static string PodStatus(StoredObject pod)
    {
        if (pod.Deleting)
            return "Terminating";
        var status = pod.Node.Obj("status");
        var reason = status.Str("reason") ?? status.Str("phase") ?? "Pending";
        var initial = status.Arr("initContainerStatuses").Objects().ToList();
        for (var i = 0; i < initial.Count; i++)
        {
            if (initial[i].Obj("state").Obj("terminated") is { } ended && ended.Num("exitCode") == 0)
                continue;
            var why = initial[i].Obj("state").Obj("terminated").Str("reason") ?? initial[i].Obj("state").Obj("waiting").Str("reason");
            return why is null or "PodInitializing" ? $"Init:{i}/{pod.Node.Obj("spec").Arr("initContainers")?.Count}" : $"Init:{why}";
        }
        foreach (var container in Statuses(pod))
            reason = container.Obj("state").Obj("waiting").Str("reason") ?? container.Obj("state").Obj("terminated").Str("reason") ?? reason;
        return reason;
    }

    private static string ExternalAddress(StoredObject service)
    {
        var spec = service.Node.Obj("spec");
        if (spec.Str("type") == "ExternalName")
            return spec.Str("externalName") ?? "<none>";
        var all = (spec.Arr("externalIPs") ?? []).Select(one => (string?)one).Concat(service.Node.Obj("status").Obj("loadBalancer").Arr("ingress").Objects()
            .Select(one => one.Str("ip") ?? one.Str("hostname"))).ToList();
        return all.Count > 0 ? string.Join(',', all) : spec.Str("type") == "LoadBalancer" ? "<pending>" : "<none>";
    }

    private static string EndpointsOf(StoredObject one) => string.Join(',', (
        from subset in one.Node.Arr("subsets").Objects()
        from port in subset.Arr("ports").Objects()
        from address in subset.Arr("addresses").Objects()
        select $"{address.Str("ip")}:{port.Num("port")}").Take(3));

    /// <summary>Time since, as short as `kubectl` prints it: 42s, 5m3s, 3h, 2d.</summary>
    private static string Since(string? time, DateTimeOffset now)
    {
        if (time is null || !DateTimeOffset.TryParse(time, CultureInfo.InvariantCulture, DateTimeStyles.AssumeUniversal, out var then))
            return "<unknown>";
        var age = now - then;
        return string.Create(CultureInfo.InvariantCulture, $"{age switch
        {
            { TotalSeconds: < 0 } => "0s",
            { TotalSeconds: < 120 } => $"{(int)age.TotalSeconds}s",
            { TotalMinutes: < 10 } => age.Seconds == 0 ? $"{(int)age.TotalMinutes}m" : $"{(int)age.TotalMinutes}m{age.Seconds}s",
            { TotalHours: < 3 } => $"{(int)age.TotalMinutes}m",
            { TotalHours: < 48 } => $"{(int)age.TotalHours}h",
            _ => $"{(int)age.TotalDays}d",
        }}");
    }

    private static IEnumerable<Column> Columns(ResourceType type, string version)
    {
        yield return NameColumn;
        if (!type.Custom)
        {
            foreach (var column in ByKind.GetValueOrDefault(type.Kind, [Age]))
                yield return column;
            yield break;
        }
        var printed = type.Served(version).PrinterColumns;
        foreach (var column in printed.Objects())
        {
            var path = column.Str("jsonPath") ?? "";
            var kind = column.Str("type") ?? "string";
            yield return new(column.Str("name") ?? "", (one, now) => kind == "date" ? Since((string?)Walk(one.Node, path), now) : Cell(Walk(one.Node, path)),
                kind == "date" ? "string" : kind, (column.Num("priority") ?? 0) > 0);
        }
        if (printed is not { Count: > 0 })
            yield return Age;
    }

    private static JsonNode? Cell(JsonNode? value) => value is JsonObject or JsonArray ? Json.Text(value) : value?.DeepClone();

    /// <summary>The simple JSON paths of printer columns: .a.b, [0], ['a.b'], [?(@.type=="Ready")].</summary>
    private static JsonNode? Walk(JsonNode? node, string path)
    {
        var at = 0;
        while (at < path.Length && node is not null)
        {
            if (path[at] == '.')
            {
                var end = path.AsSpan(at + 1).IndexOfAny('.', '[');
                var name = end < 0 ? path[(at + 1)..] : path[(at + 1)..(at + 1 + end)];
                name = name.Replace("\\", "", StringComparison.Ordinal);
                node = name == "" ? node : (node as JsonObject)?[name];
                at = end < 0 ? path.Length : at + 1 + end;
            }
            else if (path[at] == '[' && path.IndexOf(']', at) is var close and > 0)
            {
                var inside = path[(at + 1)..close];
                if (inside.StartsWith("?(@.", StringComparison.Ordinal) && inside.IndexOf("==", StringComparison.Ordinal) is var equals and > 0)
                    node = (node as JsonArray).Objects()
                        .FirstOrDefault(one => one.Str(inside[4..equals].Trim()) == inside[(equals + 2)..].Trim(' ', '"', '\'', ')'));
                else if (int.TryParse(inside, CultureInfo.InvariantCulture, out var index))
                    node = node is JsonArray list && index < list.Count ? list[index] : null;
                else if (inside == "*")
                    node = node is JsonArray { Count: > 0 } all ? all[0] : null;
                else
                    node = (node as JsonObject)?[inside.Trim('\'', '"')];
                at = close + 1;
            }
            else
            {
                return null;
            }
        }
        return node;
    }

    public static void Write(Stream output, ResourceType type, string version, IReadOnlyList<StoredObject> rows, ResponseForm form, JsonObject metadata,
        TimeProvider time, bool headings)
    {
        var now = time.GetUtcNow();
        var columns = Columns(type, version).ToList();
        output.Write(Encoding.UTF8.GetBytes($"{{\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/{form.TableVersion}\",\"metadata\":{Json.Text(metadata)}"));
        output.Write(",\"columnDefinitions\":"u8);
        output.Write(Encoding.UTF8.GetBytes(headings ? Json.Text(new JsonArray([.. columns.Select(column => (JsonNode)new JsonObject
        {
            ["name"] = column.Name,
            ["type"] = column.Type,
            ["format"] = column.Name == "Name" ? "name" : "",
            ["description"] = column.Name,
            ["priority"] = column.Wide ? 1 : 0,
        })])) : "null"));
        output.Write(",\"rows\":["u8);
        for (var i = 0; i < rows.Count; i++)
        {
            if (i > 0)
                output.WriteByte((byte)',');
            var cells = new JsonArray([.. columns.Select(column => column.Cell(rows[i], now))]);
            output.Write(Encoding.UTF8.GetBytes($"{{\"cells\":{Json.Text(cells)}"));
            if (form.IncludeObject != "None")
            {
                output.Write(",\"object\":"u8);
                if (form.IncludeObject == "Object")
                    rows[i].WriteTo(output, version, bare: false);
                else
                    WritePartial(output, rows[i]);
            }
            output.WriteByte((byte)'}');
        }
        output.Write("]}"u8);
    }

    public static void WritePartial(Stream output, StoredObject stored) => output.Write(Encoding.UTF8.GetBytes(
        $"{{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{Json.Text(stored.Node["metadata"])}}}"));
}
