using System.Text.Json.Nodes;
using Mesh.KubeApi.Objects;

namespace Mesh.KubeWorld.Controllers;

/// <summary>EndpointSlices of Services with a selector: one a family, with the pods' conditions as a kube-controller-manager sets them.</summary>
internal sealed class Slices(KubeObjects objects)
{
    private const string ManagedBy = "endpointslice-controller.k8s.io";

    public async Task ReconcileAsync(CancellationToken stop)
    {
        var pods = objects.List("pods");
        var slices = objects.List("endpointslices.discovery.k8s.io");
        foreach (var service in objects.List("services").Where(service => !service.Deleting() && service.Obj("spec").Obj("selector") is { Count: > 0 }))
        {
            var chosen = pods.Where(pod => pod.Space() == service.Space() && Selecting.HasLabels(pod, service.Obj("spec").Obj("selector"))
                && !Selecting.Ended(pod) && pod.Obj("status").Arr("podIPs") is { Count: > 0 }).ToList();
            foreach (var family in service.Obj("spec").Arr("ipFamilies")?.Select(one => one!.ToString()) ?? ["IPv4"])
            {
                var wanted = Slice(service, family, chosen);
                var path = $"/apis/discovery.k8s.io/v1/namespaces/{service.Space()}/endpointslices";
                var there = slices.FirstOrDefault(slice => slice.Space() == service.Space() && slice.Name() == wanted.Name());
                if (there is null)
                    await objects.CreateAsync(path, wanted, stop);
                else if (!JsonNode.DeepEquals(there["endpoints"], wanted["endpoints"]) || !JsonNode.DeepEquals(there["ports"], wanted["ports"]))
                    await objects.MergeAsync($"{path}/{wanted.Name()}", new JsonObject
                    {
                        ["endpoints"] = wanted["endpoints"]!.DeepClone(),
                        ["ports"] = wanted["ports"]!.DeepClone(),
                    }, stop);
            }
        }
    }

    private static JsonObject Slice(JsonObject service, string family, List<JsonObject> pods)
    {
        var endpoints = new JsonArray();
        foreach (var pod in pods.OrderBy(pod => pod.Name(), StringComparer.Ordinal))
        {
            var address = pod.Obj("status").Arr("podIPs").Objects().Select(one => one.Str("ip")!).FirstOrDefault(ip => ip.Contains(':') == (family == "IPv6"));
            if (address is null)
                continue;
            var ready = Selecting.IsReady(pod);
            endpoints.Add((JsonNode)new JsonObject
            {
                ["addresses"] = new JsonArray(address),
                ["conditions"] = new JsonObject { ["ready"] = ready && !pod.Deleting(), ["serving"] = ready, ["terminating"] = pod.Deleting() },
                ["nodeName"] = pod.Obj("spec").Str("nodeName"),
                ["targetRef"] = new JsonObject { ["kind"] = "Pod", ["namespace"] = pod.Space(), ["name"] = pod.Name(), ["uid"] = pod.Uid() },
            });
        }
        var ports = new JsonArray();
        foreach (var port in service.Obj("spec").Arr("ports").Objects())
        {
            if (Number(port, pods) is { } number)
                ports.Add((JsonNode)new JsonObject { ["name"] = port.Str("name") ?? "", ["port"] = number, ["protocol"] = port.Str("protocol") ?? "TCP" });
        }
        return new JsonObject
        {
            ["apiVersion"] = "discovery.k8s.io/v1",
            ["kind"] = "EndpointSlice",
            ["metadata"] = new JsonObject
            {
                ["name"] = $"{service.Name()}-{family.ToLowerInvariant()}",
                ["namespace"] = service.Space(),
                ["labels"] = new JsonObject { ["kubernetes.io/service-name"] = service.Name(), ["endpointslice.kubernetes.io/managed-by"] = ManagedBy },
                ["ownerReferences"] = new JsonArray(Selecting.Owner(service, "v1", "Service")),
            },
            ["addressType"] = family,
            ["endpoints"] = endpoints,
            ["ports"] = ports,
        };
    }

    private static long? Number(JsonObject port, List<JsonObject> pods)
    {
        if (port["targetPort"] is null)
            return port.Num("port");
        if (port.Num("targetPort") is { } number and > 0)
            return number;
        return pods.SelectMany(pod => pod.Obj("spec").Arr("containers").Objects()).SelectMany(container => container.Arr("ports").Objects())
            .FirstOrDefault(one => one.Str("name") == port.Str("targetPort"))?.Num("containerPort");
    }
}
