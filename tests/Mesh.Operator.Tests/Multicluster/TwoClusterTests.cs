using Xunit;

namespace Mesh.Operator.Tests.Multicluster;

/// <summary>Two whole clusters, each with its API server for the mesh and its operator, and the rights that the chart gives these.</summary>
public sealed class TwoClusterTests
{
    private const string Objects = """
        {apiVersion: v1, kind: Service, metadata: {name: db, namespace: shop}, spec: {clusterIP: None, ports: [{name: http, port: 80}]} }
        ---
        {apiVersion: multicluster.x-k8s.io/v1alpha1, kind: ServiceExport, metadata: {name: db, namespace: shop} }
        ---
        {apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: db-1, namespace: shop, labels: {kubernetes.io/service-name: db} },
         addressType: IPv4, ports: [{name: http, port: 8080}], endpoints: [{addresses: [ADDRESS], conditions: {ready: true}, hostname: db-0}]}
        """;

    [Fact]
    public async Task A_headless_service_that_both_export_has_the_endpoints_of_both_in_both()
    {
        await using var tokyo = await MeshWorld.StartAsync("tokyo", 1);
        await using var osaka = await MeshWorld.StartAsync("osaka", 2);
        foreach (var (cluster, other) in new[] { (tokyo, osaka), (osaka, tokyo) })
        {
            cluster.StartOperator();
            await cluster.UntilAsync(() => cluster.Served("serviceexports") && cluster.Served("serviceimports"));
            cluster.StartApiServer();
            cluster.Connect(other);
        }
        tokyo.Apply(Objects.Replace("ADDRESS", "10.1.0.9", StringComparison.Ordinal));
        osaka.Apply(Objects.Replace("ADDRESS", "10.2.0.9", StringComparison.Ordinal));
        var derived = Mesh.Multicluster.MulticlusterNames.Derived(new("shop", "db"));
        const string mirror = "endpointslice-local-mcsapi-controller.cilium.io";
        await tokyo.UntilAsync(() => tokyo.Clusters("db") == "osaka tokyo" && tokyo.Endpoints(derived) == "osaka/10.2.0.9");
        await osaka.UntilAsync(() => osaka.Clusters("db") == "osaka tokyo" && osaka.Endpoints(derived) == "tokyo/10.1.0.9");
        Assert.Equal(("tokyo/10.1.0.9", "osaka/10.2.0.9"), (tokyo.Endpoints(derived, mirror), osaka.Endpoints(derived, mirror)));
        Assert.Equal("Headless", $"{tokyo.Import("db")!["spec"]!["type"]}");

        // osaka ends its export: tokyo has its own alone, and osaka goes on importing.
        osaka.Api.Delete("serviceexports.multicluster.x-k8s.io", "shop", "db");
        await tokyo.UntilAsync(() => tokyo.Clusters("db") == "tokyo" && tokyo.Endpoints(derived) == "");
        await osaka.UntilAsync(() => osaka.Clusters("db") == "tokyo" && osaka.Endpoints(derived) == "tokyo/10.1.0.9" && osaka.Endpoints(derived, mirror) == "");
    }
}
