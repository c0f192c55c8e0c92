using System.Text.Json.Nodes;
using Mesh.ClusterMesh.Wire;
using Mesh.Model;
using Xunit;

namespace Mesh.Operator.Tests.Multicluster;

/// <summary>Exports of two clusters become one import here.</summary>
public sealed class ImportTests : IAsyncLifetime
{
    private static readonly DateTimeOffset LongAgo = new(2020, 1, 1, 0, 0, 0, TimeSpan.Zero);
    private static readonly ServiceName Cart = new("shop", "cart");

    private MeshWorld _world = null!;

    public async ValueTask InitializeAsync() => _world = await MeshWorld.StartAsync();

    public ValueTask DisposeAsync() => _world.DisposeAsync();

    private static ExportedService OfOsaka(string name = "cart", params ExportedPort[] ports) => new()
    {
        Cluster = "osaka",
        Namespace = "shop",
        Name = name,
        Created = LongAgo,
        Ports = ports.Length > 0 ? ports : [new("http", "TCP", 80)],
        IpFamilies = ["IPv4"],
    };

    [Fact]
    public async Task Exports_of_two_clusters_are_one_import_with_the_address_of_its_derived_service()
    {
        _world.StartOperator();
        await _world.ExportHereAsync(exported: "{exportedLabels: {team: a}}");
        _world.Apply("""
            {apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: cart-1, namespace: shop, labels: {kubernetes.io/service-name: cart} },
             addressType: IPv4, ports: [{name: http, port: 8080}], endpoints: [{addresses: [10.1.0.9], conditions: {ready: true}, hostname: cart-0}]}
            """);
        await _world.UntilAsync(() => _world.Clusters() == "tokyo" && _world.Condition("cart", "Ready")?.Status == "True");
        Assert.Equal(("True", "Valid", ""), _world.Condition("cart", "Valid"));
        Assert.Equal(("False", "NoConflicts", ""), _world.Condition("cart", "Conflict"));

        // The derived Service has the cluster's endpoints once more, and is global and shared: an API server publishes it as any other.
        await _world.UntilAsync(() => _world.Endpoints("derived-bsqa4s8pq5", "endpointslice-local-mcsapi-controller.cilium.io") == "tokyo/10.1.0.9");
        var slice = Assert.Single(_world.Slices("derived-bsqa4s8pq5", "endpointslice-local-mcsapi-controller.cilium.io"));
        Assert.Equal("cart", $"{slice["metadata"]!["labels"]!["multicluster.kubernetes.io/service-name"]}");
        Assert.Equal("cart-0", $"{slice["endpoints"]![0]!["hostname"]}");
        var annotations = _world.Derived()!["metadata"]!["annotations"]!;
        Assert.Equal(("true", "true"), ($"{annotations["service.cilium.io/global"]}", $"{annotations["service.cilium.io/shared"]}"));

        // The file of a peer appears; what it exports is here.
        await _world.PublishAsync("osaka", 2);
        await _world.ExportAsync(OfOsaka("cart", new("http", "TCP", 80), new("grpc", "TCP", 90)));
        _world.Connect("osaka");
        await _world.UntilAsync(() => _world.Clusters() == "osaka tokyo");
        await _world.UntilAsync(() => (_world.Import()!["spec"]!["ports"] as JsonArray)!.Count == 2);
        var import = _world.Import()!;
        Assert.Equal("ClusterSetIP", $"{import["spec"]!["type"]}");
        Assert.Equal($"{_world.Derived()!["spec"]!["clusterIP"]}", $"{Assert.Single(import["spec"]!["ips"]!.AsArray())}");
        Assert.Equal("derived-bsqa4s8pq5", $"{import["metadata"]!["annotations"]!["multicluster.kubernetes.io/derived-service"]}");
        await _world.UntilAsync(() => (_world.Derived()!["spec"]!["ports"] as JsonArray)!.Count == 2);
    }

    /// <summary>With the rights that the chart gives an operator whose features are off.</summary>
    [Fact]
    public async Task Turned_off_it_takes_its_objects_away_and_leaves_those_of_people()
    {
        await _world.PublishAsync("osaka", 2);
        await _world.ServiceAsync("osaka", 2, "db", ("10.2.0.9", ""));
        _world.Apply("""
            {apiVersion: v1, kind: Service, metadata: {name: db, namespace: shop, annotations: {service.cilium.io/global: "true"} },
             spec: {clusterIP: None, ports: [{name: http, port: 80}]} }
            """);
        _world.Connect("osaka");
        _world.StartOperator();
        await _world.ExportHereAsync();
        await _world.UntilAsync(() => _world.Derived() is not null && _world.Address.Length > 0 && _world.Endpoints("db") == "osaka/10.2.0.9");
        _world.Apply("""
            {apiVersion: multicluster.x-k8s.io/v1alpha1, kind: ServiceImport, metadata: {name: of-others, namespace: shop},
             spec: {type: ClusterSetIP, ports: [{port: 80}]} }
            """);
        await _world.StopOperatorAsync();

        _world.Grant("{}");
        _world.StartOperator(sync: false, imports: false);
        await _world.UntilAsync(() => _world.Import() is null && _world.Derived() is null && _world.Slices("db").Count == 0);
        Assert.NotNull(_world.Import("of-others"));
        Assert.NotNull(_world.Api.Find("serviceexports.multicluster.x-k8s.io", "shop", "cart"));
        Assert.NotNull(_world.Api.Find("services", "shop", "db"));
        Assert.Empty(_world.Log.Problems);
    }

    [Fact]
    public async Task A_service_that_only_others_export_is_imported_where_its_namespace_is()
    {
        await _world.PublishAsync("osaka", 2);
        await _world.ExportAsync(OfOsaka());
        await _world.ExportAsync(OfOsaka() with { Namespace = "nowhere" });
        _world.Connect("osaka");
        _world.StartOperator();
        await _world.UntilAsync(() => _world.Clusters() == "osaka");
        await _world.UntilAsync(() => _world.Derived() is { } derived && $"{derived["metadata"]!["annotations"]!["service.cilium.io/shared"]}" == "false");
        await _world.RoundAsync();
        Assert.Empty(_world.Api.List("serviceimports.multicluster.x-k8s.io", "nowhere"));
        Assert.DoesNotContain("service nowhere/cart", _world.Log.Problems.Keys);

        _world.Apply("{apiVersion: v1, kind: Namespace, metadata: {name: nowhere} }");
        await _world.UntilAsync(() => _world.Api.List("serviceimports.multicluster.x-k8s.io", "nowhere").Count == 1);

        // Withdrawn by its owner, it goes, and the derived Service with it.
        await _world.DeleteAsync(Keys.ServiceExport("osaka", Cart));
        await _world.UntilAsync(() => _world.Import() is null && _world.Derived() is null);
        Assert.Single(_world.Api.List("serviceimports.multicluster.x-k8s.io", "nowhere"));
    }

    [Fact]
    public async Task The_oldest_is_right_and_the_others_read_on_their_export_why()
    {
        await _world.PublishAsync("osaka", 2);
        await _world.ExportAsync(OfOsaka("cart", new ExportedPort("http", "TCP", 81)) with { Headless = true, ClientIPAffinity = true, AffinityTimeout = 60 });
        _world.Connect("osaka");
        _world.StartOperator();
        await _world.ExportHereAsync();
        await _world.UntilAsync(() => _world.Condition("cart", "Conflict")?.Status == "True");
        var conflict = _world.Condition("cart", "Conflict")!.Value;
        Assert.Equal("PortConflict", conflict.Reason);
        Assert.Equal("ports: http TCP 80 of tokyo beside http TCP 81 of osaka, which holds; "
            + "type: Headless of osaka holds, the oldest, not ClusterSetIP of tokyo; sessionAffinity: ClientIP of osaka holds, the oldest, not None of tokyo",
            conflict.Message);
        await _world.UntilAsync(() => _world.Derived() is { } derived && $"{derived["spec"]!["clusterIP"]}" == "None");
        Assert.Equal("Headless", $"{_world.Import()!["spec"]!["type"]}");

        // It agrees with us from now on: the conflict is over, and the derived Service has an address.
        await _world.ExportAsync(OfOsaka());
        await _world.UntilAsync(() => _world.Condition("cart", "Conflict") is { Status: "False", Reason: "NoConflicts" });
        await _world.UntilAsync(() => _world.Derived() is { } derived && $"{derived["spec"]!["clusterIP"]}".StartsWith("10.96.", StringComparison.Ordinal)
            && _world.Address == $"{derived["spec"]!["clusterIP"]}");
        Assert.Equal("ClusterSetIP", $"{_world.Import()!["spec"]!["type"]}");
    }

    [Fact]
    public async Task A_restart_while_a_cluster_is_away_takes_nothing_of_it_and_its_own_word_does()
    {
        await _world.PublishAsync("osaka", 2);
        await _world.ExportAsync(OfOsaka("cart", new("http", "TCP", 80), new("grpc", "TCP", 90)));
        _world.Connect("osaka");
        _world.StartOperator();
        await _world.ExportHereAsync();
        await _world.UntilAsync(() => _world.Clusters() == "osaka tokyo" && _world.Condition("cart", "Ready")?.Status == "True");
        var before = _world.Import()!["spec"]!.ToJsonString();
        var address = $"{_world.Derived()!["spec"]!["clusterIP"]}";

        _world.Wire.Cut();
        await _world.RoundAsync();
        Assert.Equal("osaka tokyo", _world.Clusters());
        await _world.StopOperatorAsync();
        _world.StartOperator();
        await _world.UntilAsync(() => _world.HasProblem("serviceimport shop/cart", "until osaka has been heard"));
        await _world.RoundAsync();
        Assert.Equal(("osaka tokyo", before), (_world.Clusters(), _world.Import()!["spec"]!.ToJsonString()));
        Assert.Equal(address, $"{_world.Derived()!["spec"]!["clusterIP"]}");

        // Back, and it has ended its export meanwhile.
        await _world.DeleteAsync(Keys.ServiceExport("osaka", Cart));
        _world.Wire.Heal();
        await _world.UntilAsync(() => _world.Clusters() == "tokyo" && (_world.Import()!["spec"]!["ports"] as JsonArray)!.Count == 1);
        Assert.Equal(address, $"{_world.Derived()!["spec"]!["clusterIP"]}");
    }

    [Fact]
    public async Task A_cluster_whose_file_goes_takes_its_exports_with_it_also_while_nobody_looked()
    {
        await _world.PublishAsync("osaka", 2);
        await _world.ExportAsync(OfOsaka());
        await _world.ExportAsync(OfOsaka("web"));
        _world.Connect("osaka");
        _world.StartOperator();
        await _world.ExportHereAsync();
        await _world.UntilAsync(() => _world.Clusters() == "osaka tokyo" && _world.Clusters("web") == "osaka");
        await _world.StopOperatorAsync();
        _world.Disconnect("osaka");
        _world.StartOperator();
        await _world.UntilAsync(() => _world.Clusters() == "tokyo" && _world.Import("web") is null && _world.Derived("web") is null);
    }

    [Fact]
    public async Task A_directory_that_is_not_there_removes_nobody()
    {
        await _world.PublishAsync("osaka", 2);
        await _world.ExportAsync(OfOsaka("web"));
        await _world.ServiceAsync("osaka", 2, "db", ("10.2.0.9", ""));
        _world.Apply("""
            {apiVersion: v1, kind: Service, metadata: {name: db, namespace: shop, annotations: {service.cilium.io/global: "true"} },
             spec: {clusterIP: None, ports: [{name: http, port: 80}]} }
            """);
        _world.Connect("osaka");
        _world.StartOperator();
        await _world.UntilAsync(() => _world.Clusters("web") == "osaka" && _world.Endpoints("db") == "osaka/10.2.0.9");
        await _world.StopOperatorAsync();
        _world.HidePeers();
        _world.StartOperator();
        await _world.UntilAsync(() => _world.HasProblem("serviceimport shop/web", "until osaka has been heard"));
        await _world.RoundAsync();
        Assert.Equal(("osaka", "osaka/10.2.0.9"), (_world.Clusters("web"), _world.Endpoints("db")));

        _world.ShowPeers();
        _world.Disconnect("osaka");
        await _world.UntilAsync(() => _world.Import("web") is null && _world.Endpoints("db") == "");
    }

    [Fact]
    public async Task Bad_exports_are_named_and_disturb_nothing()
    {
        await _world.PublishAsync("osaka", 2);
        await _world.ExportAsync(OfOsaka("good"));
        await _world.PutAsync(Keys.ServiceExport("osaka", new ServiceName("shop", "bad")),
            """{"cluster":"osaka","namespace":"shop","name":"bad","exportCreationTimestamp":"yesterday","type":"ClusterSetIP","sessionAffinity":"None"}""");
        await _world.PutAsync(Keys.ServiceExport("osaka", new ServiceName("shop", "worse")),
            """
            {"cluster":"osaka","namespace":"shop","name":"worse","exportCreationTimestamp":"2026-02-01T10:00:00Z","type":"ClusterSetIP",
             "sessionAffinity":"None","ports":[{"port":0}],"labels":{"a b":"c"}}
            """);
        await _world.PutAsync(Keys.ServiceExport("osaka", new ServiceName("shop", "foreign")),
            """
            {"cluster":"berlin","namespace":"shop","name":"foreign","exportCreationTimestamp":"2026-02-01T10:00:00Z","type":"Headless",
             "sessionAffinity":"None"}
            """);
        _world.Connect("osaka");
        // A Service that somebody made where that of the import belongs.
        _world.Apply("{apiVersion: v1, kind: Service, metadata: {name: derived-bsqa4s8pq5, namespace: shop}, spec: {ports: [{port: 1}]} }");
        _world.StartOperator();
        await _world.ExportHereAsync();
        await _world.UntilAsync(() => _world.Clusters("good") == "osaka");
        await _world.UntilAsync(() => _world.HasProblem("serviceimport shop/cart", "is not of our making"));
        await _world.UntilAsync(() => _world.Condition("cart", "Ready") is { Status: "False", Reason: "Pending" });
        await _world.RoundAsync();
        Assert.Equal(["good"], _world.Api.List("serviceimports.multicluster.x-k8s.io", "shop").Select(one => $"{one["metadata"]!["name"]}"));
        Assert.Equal("1", $"{_world.Derived()!["spec"]!["ports"]![0]!["port"]}");

        _world.Api.Delete("services", "shop", "derived-bsqa4s8pq5");
        await _world.UntilAsync(() => _world.Clusters() == "tokyo" && _world.Condition("cart", "Ready")?.Status == "True");
        _world.Api.Delete("services", "shop", "cart");
        await _world.UntilAsync(() => _world.Condition("cart", "Valid") is { Status: "False", Reason: "NoService" } && _world.Import() is null);
    }

    [Fact]
    public async Task A_relays_copy_is_read_like_the_cluster_and_a_cluster_that_gives_the_feature_up_takes_its_exports_along()
    {
        await _world.PublishAsync("osaka", 2, cached: true);
        await _world.ExportAsync(OfOsaka(), cached: true);
        await _world.PublishAsync("berlin", 3);
        await _world.ExportAsync(OfOsaka() with { Cluster = "berlin" });
        await _world.ExportAsync(OfOsaka("web") with { Cluster = "berlin" });
        _world.Connect("osaka");
        _world.Connect("berlin");
        _world.StartOperator();
        await _world.UntilAsync(() => _world.Clusters() == "berlin osaka" && _world.Clusters("web") == "berlin");
        Assert.Contains("cilium_operator_clustermesh_remote_cluster_service_exports{target_cluster=\"berlin\"} 2\n", _world.Metrics, StringComparison.Ordinal);
        Assert.Contains("cilium_operator_clustermesh_remote_cluster_readiness_status{target_cluster=\"osaka\"} 1\n", _world.Metrics, StringComparison.Ordinal);

        await _world.PublishAsync("berlin", 3, exports: false);
        await _world.UntilAsync(() => _world.Clusters() == "osaka" && _world.Import("web") is null);
    }

    [Fact]
    public async Task What_somebody_changes_by_hand_is_put_right()
    {
        _world.StartOperator();
        await _world.ExportHereAsync();
        await _world.UntilAsync(() => _world.Condition("cart", "Ready")?.Status == "True");
        _world.Api.Delete("services", "shop", "derived-bsqa4s8pq5");
        await _world.UntilAsync(() => _world.Derived() is { } derived && $"{derived["spec"]!["clusterIP"]}" == _world.Address);
        _world.Api.Delete("serviceimports.multicluster.x-k8s.io", "shop", "cart");
        await _world.UntilAsync(() => _world.Clusters() == "tokyo" && _world.Derived() is { } derived
            && $"{derived["metadata"]!["ownerReferences"]![0]!["uid"]}" == $"{_world.Import()!["metadata"]!["uid"]}");
    }
}
