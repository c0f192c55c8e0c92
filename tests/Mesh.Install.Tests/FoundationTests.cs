using Mesh.Install.Applying;
using Mesh.Install.Releases;
using Mesh.Install.Text;
using Mesh.Kubernetes.Api;
using Xunit;

namespace Mesh.Install.Tests;

/// <summary>A cluster's name and ID do not change under its peers and pods.</summary>
public sealed class FoundationTests
{
    private const string Identity = """
        ---
        {apiVersion: cilium.io/v2, kind: CiliumIdentity, metadata: {name: '65536'}, security-labels: {'k8s:app': web} }
        """;

    private static CancellationToken Stop => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData("cluster: {id: 9}", "cluster.id is 1 and cannot become 9 in a running cluster: it is connected to osaka. Nothing was changed. "
        + "To have it changed: leave the peers (mesh clustermesh disconnect osaka here, disconnect tokyo there)")]
    [InlineData("cluster: {name: edo}", "cluster.name is tokyo and cannot become edo in a running cluster: it is connected to osaka.")]
    [InlineData("cluster: {id: 9, name: edo}", "cluster.name is tokyo and cannot become edo and cluster.id is 1 and cannot become 9 in a running cluster")]
    [InlineData("extraConfig: {cluster-id: '9'}", "cluster.id is 1 and cannot become 9 in a running cluster")]
    [InlineData("clustermesh: {maxConnectedClusters: 511}", "clustermesh.maxConnectedClusters is 255 and cannot become 511 in a running cluster")]
    public async Task What_peers_know_a_cluster_by_stays(string values, string expected)
    {
        await using var world = await InstalledAsync();
        await ApplyAsync(world, "clustermesh: {useAPIServer: true, config: {enabled: true, clusters: [{name: osaka, ips: [192.0.2.1]}]}}");
        var before = world.Snapshot();
        foreach (var reuse in new[] { true, false })
        {
            var e = await Assert.ThrowsAsync<InstallException>(() => ApplyAsync(world, values, reuse));
            Assert.StartsWith(expected, e.Message, StringComparison.Ordinal);
        }
        Assert.Equal(before, world.Snapshot());
        // What is no change is none.
        await ApplyAsync(world, "cluster: {id: 1, name: tokyo}");
    }

    [Fact]
    public async Task What_identities_are_made_of_stays_and_is_free_without_any()
    {
        await using var world = await InstalledAsync();
        await CrdInstaller.InstallAsync(world.Client, TimeProvider.System, Stop);
        world.Server.Apply(Identity);
        var e = await Assert.ThrowsAsync<InstallException>(() => ApplyAsync(world, "cluster: {id: 9}"));
        Assert.Equal("cluster.id is 1 and cannot become 9 in a running cluster: 0 pods run, with 1 identities made of it. Nothing was changed. "
            + "To have it changed: mesh uninstall, mesh install --set cluster.id=9, and start the pods anew", e.Message);

        world.Server.Delete("ciliumidentities.cilium.io", "", "65536");
        await ApplyAsync(world, "cluster: {id: 9}");
        Assert.Equal("9", (string?)world.Find("configmaps", "cilium-config")!["data"]!["cluster-id"]);
        Assert.Equal(9L, (await new ReleaseStore(world.Client, World.Namespace, "cilium").DeployedAsync(Stop))!.Config.At("cluster.id"));
    }

    private static async Task<World> InstalledAsync()
    {
        var world = await World.StartAsync(1);
        var plan = await world.Planner.InstallAsync(YamlText.ParseMap("cluster: {name: tokyo, id: 1}", "values"), Stop);
        await RunAsync(world, plan);
        return world;
    }

    private static async Task ApplyAsync(World world, string values, bool reuse = true) =>
        await RunAsync(world, await world.Planner.UpgradeAsync(YamlText.ParseMap(values, "values"), reuse, Stop));

    private static Task RunAsync(World world, InstallPlan plan) => new Installer(world.Client, world.Narrator, world.Wait,
        (_, _) => Task.FromResult<IReadOnlyList<DefinitionResult>>([])).RunAsync(plan, Stop);
}
