using Mesh.ClusterMesh.Wire;
using Mesh.KubeApi;
using Mesh.Kubernetes.Objects;
using Mesh.Model;
using Mesh.Operator.Multicluster;
using Xunit;

namespace Mesh.Operator.Tests.Multicluster;

/// <summary>Endpoints of other clusters as slices of headless global services.</summary>
public sealed class EndpointSyncTests : IAsyncLifetime
{
    private static readonly ServiceName Db = new("shop", "db");

    private MeshWorld _world = null!;

    public async ValueTask InitializeAsync() => _world = await MeshWorld.StartAsync();

    public ValueTask DisposeAsync() => _world.DisposeAsync();

    private void Headless(string annotations = "service.cilium.io/global: \"true\"", string clusterIP = "None") => _world.Apply($$"""
        {apiVersion: v1, kind: Service, metadata: {name: db, namespace: shop, labels: {team: a}, annotations: { {{annotations}} } },
         spec: {clusterIP: {{clusterIP}}, ports: [{name: http, port: 80}]} }
        """);

    [Fact]
    public async Task A_headless_global_service_has_the_endpoints_of_every_cluster()
    {
        await _world.PublishAsync("osaka", 2);
        await _world.ServiceAsync("osaka", 2, "db", ("10.2.0.9", "db-0"), ("fd00:2::9", ""));
        await _world.PublishAsync("berlin", 3, exports: false);
        await _world.ServiceAsync("berlin", 3, "db", ("10.3.0.9", "Not a name"));
        Headless();
        _world.StartOperator(imports: false);
        _world.Connect("osaka");
        await _world.UntilAsync(() => _world.Endpoints("db") == "osaka/10.2.0.9 osaka/fd00:2::9");
        _world.Connect("berlin");
        await _world.UntilAsync(() => _world.Endpoints("db") == "berlin/10.3.0.9 osaka/10.2.0.9 osaka/fd00:2::9");
        var slice = _world.Slices("db").Single(slice => slice["endpoints"]!.ToJsonString().Contains("10.2.0.9", StringComparison.Ordinal));
        Assert.StartsWith("db-osaka-", $"{slice["metadata"]!["name"]}", StringComparison.Ordinal);
        Assert.Equal(("a", "Service", "db"), ($"{slice["metadata"]!["labels"]!["team"]}", $"{slice["metadata"]!["ownerReferences"]![0]!["kind"]}",
            $"{slice["metadata"]!["ownerReferences"]![0]!["name"]}"));
        var endpoint = slice["endpoints"]![0]!;
        Assert.Equal("""{"addresses":["10.2.0.9"],"conditions":{"ready":true,"serving":true,"terminating":false},"hostname":"db-0","""
            + """ "nodeName":"osaka","zone":"osaka"}""".TrimStart(), endpoint.ToJsonString());
        Assert.Equal(("http", "8080", "IPv4"), ($"{slice["ports"]![0]!["name"]}", $"{slice["ports"]![0]!["port"]}", $"{slice["addressType"]}"));

        // One endpoint more changes the slice that is there.
        await _world.ServiceAsync("osaka", 2, "db", ("10.2.0.9", "db-0"), ("10.2.0.8", "db-1"));
        await _world.UntilAsync(() => _world.Endpoints("db") == "berlin/10.3.0.9 osaka/10.2.0.8 osaka/10.2.0.9");
        Assert.Contains(_world.Slices("db"), one => $"{one["metadata"]!["uid"]}" == $"{slice["metadata"]!["uid"]}");

        // What the Service wants no more goes, and the Service's end is the slices' end.
        Headless("service.cilium.io/global: \"true\", service.cilium.io/global-sync-endpoint-slices: \"false\"");
        await _world.UntilAsync(() => _world.Slices("db").Count == 0);
        Headless("service.cilium.io/global: \"true\", service.cilium.io/global-sync-endpoint-slices: \"true\"");
        await _world.UntilAsync(() => _world.Slices("db").Count == 2);
        _world.Api.Delete("services", "shop", "db");
        await _world.UntilAsync(() => _world.Slices("db").Count == 0);
    }

    [Fact]
    public async Task Nothing_goes_while_a_cluster_is_away_and_what_it_has_ended_goes_when_it_is_back()
    {
        await _world.PublishAsync("osaka", 2);
        await _world.ServiceAsync("osaka", 2, "db", ("10.2.0.9", ""));
        Headless();
        _world.Connect("osaka");
        _world.StartOperator();
        await _world.UntilAsync(() => _world.Endpoints("db") == "osaka/10.2.0.9");
        await _world.UntilAsync(() => _world.Served("serviceexports"));
        _world.Wire.Cut();
        await _world.RoundAsync();
        await _world.StopOperatorAsync();
        _world.StartOperator();
        await _world.UntilAsync(() => _world.Log.Problems.ContainsKey("cluster osaka"));
        await _world.RoundAsync();
        Assert.Equal("osaka/10.2.0.9", _world.Endpoints("db"));

        await _world.DeleteAsync(Keys.Service("osaka", Db));
        _world.Wire.Heal();
        await _world.UntilAsync(() => _world.Endpoints("db") == "");
    }

    /// <summary>Two peers with a backend each, and the Service here.</summary>
    private async Task TwoPeersAsync()
    {
        await _world.PublishAsync("osaka", 2);
        await _world.PublishAsync("berlin", 3);
        await _world.ServiceAsync("osaka", 2, "db", ("10.2.0.9", ""));
        await _world.ServiceAsync("berlin", 3, "db", ("10.3.0.9", ""));
        Headless();
        _world.Connect("osaka");
        _world.Connect("berlin");
    }

    [Fact]
    public async Task The_slices_of_a_cluster_go_with_its_file()
    {
        await TwoPeersAsync();
        _world.StartOperator(imports: false);
        await _world.UntilAsync(() => _world.Endpoints("db") == "berlin/10.3.0.9 osaka/10.2.0.9");
        _world.Disconnect("osaka");
        await _world.UntilAsync(() => _world.Endpoints("db") == "berlin/10.3.0.9");
    }

    [Fact]
    public async Task A_write_that_the_server_refuses_is_told_and_tried_again()
    {
        await TwoPeersAsync();
        using (_world.Api.Faults.Add(new Fault(FaultKind.InternalError) { Resource = "endpointslices", Verb = "create" }))
        {
            _world.StartOperator(imports: false);
            await _world.UntilAsync(() => _world.Log.Problems.ContainsKey("service shop/db"));
            Assert.Empty(_world.Slices("db"));
        }
        await _world.UntilAsync(() => _world.Endpoints("db") == "berlin/10.3.0.9 osaka/10.2.0.9");
        await _world.UntilAsync(() => !_world.Log.Problems.ContainsKey("service shop/db"));
    }

    [Fact]
    public async Task An_import_that_is_headless_has_every_clusters_endpoints_under_its_names()
    {
        await _world.PublishAsync("osaka", 2);
        await _world.ExportAsync(new ExportedService
        {
            Cluster = "osaka",
            Namespace = "shop",
            Name = "db",
            Created = DateTimeOffset.UnixEpoch,
            Headless = true,
            Ports = [new("http", "TCP", 80)],
        });
        var derived = Mesh.Multicluster.MulticlusterNames.Derived(Db);
        await _world.ServiceAsync("osaka", 2, derived, ("10.2.0.9", "db-0"));
        _world.Connect("osaka");
        // The feature is off but for imports.
        _world.StartOperator(sync: false);
        await _world.UntilAsync(() => _world.Endpoints(derived) == "osaka/10.2.0.9");
        var labels = Assert.Single(_world.Slices(derived))["metadata"]!["labels"]!;
        Assert.Equal(("db", "osaka"), ($"{labels["multicluster.kubernetes.io/service-name"]}", $"{labels["multicluster.kubernetes.io/source-cluster"]}"));
    }

    [Fact]
    public void Endpoints_stay_in_their_slices()
    {
        static WantedEndpoint One(int number) =>
            new("IPv4", new SliceEndpoint { Addresses = [$"10.2.{number / 250}.{(number % 250) + 1}"] }, [new SlicePort { Name = "http", Port = 80 }]);
        var meta = new ObjectMeta { Namespace = "shop" };
        var first = SlicePlan.Of(Enumerable.Range(0, 250).Select(One), [], "db-osaka", meta);
        Assert.Equal([100, 100, 50], first.Writes.Select(slice => slice.Endpoints!.Count));
        Assert.Equal(3, first.Writes.Select(slice => slice.Metadata.Name).Distinct().Count());
        Assert.Empty(SlicePlan.Of(Enumerable.Range(0, 250).Select(One), first.Writes, "db-osaka", meta).Writes);

        // One goes and another comes: one slice is written.
        var second = SlicePlan.Of(Enumerable.Range(1, 250).Select(One), first.Writes, "db-osaka", meta);
        Assert.Single(second.Writes);
        Assert.Empty(second.Deletes);

        var last = SlicePlan.Of([One(7)], first.Writes, "db-osaka", meta);
        Assert.Equal((1, 2), (last.Writes.Count, last.Deletes.Count));
        Assert.Equal(3, SlicePlan.Of([], first.Writes, "db-osaka", meta).Deletes.Count);
    }
}
