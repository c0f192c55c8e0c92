using System.Text;
using Mesh.ClusterMesh.Wire;
using Mesh.TestKit;
using Xunit;

namespace Mesh.ClusterMesh.ApiServer.Tests;

/// <summary>ServiceExports of the source in etcd.</summary>
public sealed class ServiceExportTests
{
    private const string Key = "cilium/state/serviceexports/v1/tokyo/shop/cart";

    private static string Export(string created = "creationTimestamp: \"2026-02-01T10:00:00Z\"") => $$"""
        apiVersion: multicluster.x-k8s.io/v1alpha1
        kind: ServiceExport
        metadata: {name: cart, namespace: shop, {{created}} }
        spec: {exportedLabels: {team: a, kubernetes.io/service-name: x} }
        """;

    [Fact]
    public async Task An_export_is_published_as_long_as_its_service_is_there_and_the_config_says_so()
    {
        await using var etcd = await EtcdServer.StartAsync();
        await using var store = new Mesh.KVStore.EtcdKVStore(etcd.Options);
        await using var tokyo = new TestCluster();
        tokyo.Write("export.yaml", Export());
        await tokyo.StartAsync(tokyo.Options() with { GivenEtcd = etcd.Options, StateDirectory = Path.Combine(tokyo.Home, "state"), ServiceExports = true });
        Assert.Contains("\"serviceExportsEnabled\":true", await store.TextAsync("cilium/cluster-config/tokyo"), StringComparison.Ordinal);
        Assert.NotNull(await store.TextAsync("cilium/synced/tokyo/cilium/state/serviceexports/v1"));
        Assert.Null(await store.TextAsync(Key));
        Assert.Contains("ServiceExport shop/cart: there is no Service shop/cart", (await tokyo.PageAsync("/problems")).Text, StringComparison.Ordinal);

        tokyo.Write("cart.yaml", Yaml.Service("cart", annotations: "", spec: "clusterIP: 10.96.0.9, ports: [{name: http, port: 80}]"));
        await Deadline.Until(async () => await store.TextAsync(Key) is not null, "the export");
        Assert.Equal("""
            {"cluster":"tokyo","name":"cart","namespace":"shop","labels":{"team":"a"},"Labels":{"team":"a"},"exportCreationTimestamp":"2026-02-01T10:00:00Z",
            """.Trim() + """
            "ports":[{"name":"http","protocol":"TCP","port":80}],"type":"ClusterSetIP","sessionAffinity":"None","ipFamilies":["IPv4"]}
            """.Trim(), await store.TextAsync(Key));
        Assert.True(ExportedServiceCodec.TryDecode(Encoding.UTF8.GetBytes((await store.TextAsync(Key))!), out _, out _));
        Assert.Equal("", (await tokyo.PageAsync("/problems")).Text);

        tokyo.Write("cart.yaml", "");
        await Deadline.Until(async () => await store.TextAsync(Key) is null, "its end");
        tokyo.Write("cart.yaml", Yaml.Service("cart", annotations: ""));
        await Deadline.Until(async () => await store.TextAsync(Key) is not null, "the export again");
        tokyo.Write("export.yaml", Export(""));
        await Deadline.Until(async () => await store.TextAsync(Key) is null, "the end of one that does not say how old it is");
        Assert.Contains("metadata.creationTimestamp is missing", (await tokyo.PageAsync("/problems")).Text, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Where_it_is_not_enabled_nothing_says_or_waits_for_exports()
    {
        await using var etcd = await EtcdServer.StartAsync();
        await using var store = new Mesh.KVStore.EtcdKVStore(etcd.Options);
        await using var tokyo = new TestCluster();
        tokyo.Write("export.yaml", Export());
        tokyo.Write("cart.yaml", Yaml.Service("cart"));
        await tokyo.StartOverAsync(etcd);
        Assert.Equal("""{"id":1,"capabilities":{"syncedCanaries":true,"maxConnectedClusters":255}}""", await store.TextAsync("cilium/cluster-config/tokyo"));
        Assert.DoesNotContain(await store.DumpAsync(), pair => pair.Key.Contains("serviceexports", StringComparison.Ordinal));
    }
}
