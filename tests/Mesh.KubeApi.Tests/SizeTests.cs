using System.Diagnostics;
using System.Text.Json.Nodes;
using Xunit;

namespace Mesh.KubeApi.Tests;

/// <summary>A cluster of some size is filled and listed within the patience of a test.</summary>
public class SizeTests(ITestOutputHelper output)
{
    [Fact]
    public async Task A_thousand_services_with_slices_and_pods_are_made_and_listed()
    {
        var size = int.Parse(Environment.GetEnvironmentVariable("MESH_KUBEAPI_SERVICES") ?? "1000", System.Globalization.CultureInfo.InvariantCulture);
        var stop = TestContext.Current.CancellationToken;
        await using var api = await KubeApiServer.StartAsync(new() { ServiceCidr = "10.96.0.0/16" }, stop);
        var clock = Stopwatch.StartNew();
        for (var i = 0; i < size; i++)
        {
            api.Apply(new JsonObject
            {
                ["apiVersion"] = "v1",
                ["kind"] = "Service",
                ["metadata"] = new JsonObject { ["name"] = $"s{i}" },
                ["spec"] = new JsonObject { ["selector"] = new JsonObject { ["app"] = $"s{i}" }, ["ports"] = new JsonArray(new JsonObject { ["port"] = 80 }) },
            });
            api.Apply(new JsonObject
            {
                ["apiVersion"] = "discovery.k8s.io/v1",
                ["kind"] = "EndpointSlice",
                ["metadata"] = new JsonObject { ["name"] = $"s{i}", ["labels"] = new JsonObject { ["kubernetes.io/service-name"] = $"s{i}" } },
                ["addressType"] = "IPv4",
                ["endpoints"] = new JsonArray([.. Enumerable.Range(0, 10).Select(n => (JsonNode)new JsonObject
                {
                    ["addresses"] = new JsonArray($"10.{i / 1000}.{i % 1000 / 4}.{n + 1}"),
                    ["conditions"] = new JsonObject { ["ready"] = true },
                })]),
                ["ports"] = new JsonArray(new JsonObject { ["port"] = 8080 }),
            });
            if (i % 2 == 0)
                api.Apply(new JsonObject
                {
                    ["apiVersion"] = "v1",
                    ["kind"] = "Pod",
                    ["metadata"] = new JsonObject { ["name"] = $"p{i}", ["labels"] = new JsonObject { ["app"] = $"s{i}" } },
                    ["spec"] = new JsonObject { ["nodeName"] = "n", ["containers"] = new JsonArray(new JsonObject { ["name"] = "c", ["image"] = "x" }) },
                });
        }
        output.WriteLine($"{size} services, {size} slices x 10, {size / 2} pods made in {clock.ElapsedMilliseconds} ms");
        using var client = api.CreateClient();
        foreach (var (path, count) in new[] { ("/api/v1/services", size + 1),
            ("/apis/discovery.k8s.io/v1/endpointslices", size + 1), ("/api/v1/pods", size / 2) })
        {
            clock.Restart();
            var seen = 0;
            long bytes = 0;
            string? next = null;
            do
            {
                var text = await client.GetStringAsync(new Uri($"{path}?limit=500{(next is null ? "" : $"&continue={next}")}", UriKind.Relative), stop);
                bytes += text.Length;
                var page = JsonNode.Parse(text)!;
                seen += page["items"]!.AsArray().Count;
                next = (string?)page["metadata"]!["continue"];
            }
            while (next is not null);
            output.WriteLine($"{path}: {seen} in pages of 500 in {clock.ElapsedMilliseconds} ms, {bytes} bytes");
            Assert.Equal(count, seen);
        }
    }
}
