using System.Text.Json.Nodes;
using Mesh.Install.Applying;
using Mesh.Install.Charts;
using Mesh.Install.Text;
using Mesh.Kubernetes.Api;
using Xunit;

namespace Mesh.Install.Tests;

/// <summary>Secret cilium-ca: whoever made it, it outlives the mesh being off, and an uninstallation takes only the one that the release made.</summary>
public sealed class AuthorityTests
{
    private const string On = "clustermesh: {useAPIServer: true}";
    private const string Off = "clustermesh: {useAPIServer: false}";

    private static CancellationToken Stop => TestContext.Current.CancellationToken;

    /// <summary>As `clustermesh enable` and `disable` do it.</summary>
    [Fact]
    public async Task One_that_the_release_made_stays_while_the_mesh_is_off_and_goes_with_the_release()
    {
        await using var world = await World.StartAsync(1);
        await RunAsync(world, await world.Planner.InstallAsync(Values("cluster: {name: tokyo, id: 1}"), Stop));
        Assert.Null(world.Find("secrets", "cilium-ca"));
        await UpgradeAsync(world, On);
        var authority = Data(world).ToJsonString();
        await UpgradeAsync(world, Off);
        Assert.Null(world.Find("secrets", "clustermesh-apiserver-server-cert"));
        Assert.Equal(authority, Data(world).ToJsonString());
        await UpgradeAsync(world, "policyAuditMode: true");
        await UpgradeAsync(world, On);
        Assert.Equal(authority, Data(world).ToJsonString());
        Assert.Equal(Data(world)["ca.crt"]!.ToString(), world.Find("secrets", "clustermesh-apiserver-remote-cert")!["data"]!["ca.crt"]!.ToString());
        await UpgradeAsync(world, Off);
        await UninstallAsync(world);
        Assert.Null(world.Find("secrets", "cilium-ca"));
    }

    /// <param name="copied">With the marks of a release, as `kubectl get secret cilium-ca -o yaml | kubectl create` brings it from another cluster.</param>
    /// <param name="before">Made before the installation, else after it.</param>
    [Theory]
    [InlineData(false, true)]
    [InlineData(true, true)]
    [InlineData(true, false)]
    public async Task One_that_a_person_made_is_used_and_stays_for_good(bool copied, bool before)
    {
        await using var world = await World.StartAsync(1);
        if (before)
            await MakeAsync(world, copied);
        await RunAsync(world, await world.Planner.InstallAsync(Values("cluster: {name: tokyo, id: 1}"), Stop));
        if (!before)
            await MakeAsync(world, copied);
        var made = world.Find("secrets", "cilium-ca")!.ToJsonString();
        var plan = await world.Planner.UpgradeAsync(Values(On), reuse: true, Stop);
        Assert.Equal(["Secret kube-system/cilium-ca"], plan.Left.Select(one => one.ToString()));
        Assert.DoesNotContain("name: cilium-ca", plan.Manifest, StringComparison.Ordinal);
        await RunAsync(world, plan);
        Assert.Equal(Data(world)["ca.crt"]!.ToString(), world.Find("secrets", "clustermesh-apiserver-remote-cert")!["data"]!["ca.crt"]!.ToString());
        await UpgradeAsync(world, "policyAuditMode: true");
        await UpgradeAsync(world, Off);
        Assert.Equal(made, world.Find("secrets", "cilium-ca")!.ToJsonString());
        await UpgradeAsync(world, On);
        await UninstallAsync(world);
        Assert.Equal(made, world.Find("secrets", "cilium-ca")!.ToJsonString());
        Assert.Contains(world.Told, line => line.Contains("left Secret kube-system/cilium-ca: this release did not make it", StringComparison.Ordinal));
    }

    private static Map Values(string yaml) => YamlText.ParseMap(yaml, "values");

    private static JsonObject Data(World world) => (JsonObject)world.Find("secrets", "cilium-ca")!["data"]!.DeepClone();

    private static async Task MakeAsync(World world, bool copied)
    {
        var pair = ChartEnvironment.Nowhere.MakeAuthority("shared", 10);
        var metadata = new JsonObject { ["name"] = "cilium-ca", ["namespace"] = World.Namespace };
        if (copied)
        {
            metadata["labels"] = new JsonObject { ["app.kubernetes.io/managed-by"] = "Helm" };
            metadata["annotations"] = new JsonObject
            {
                ["meta.helm.sh/release-name"] = "cilium",
                ["meta.helm.sh/release-namespace"] = World.Namespace,
            };
        }
        await world.Client.CreateAsync(KubeResources.Secrets.Raw, World.Namespace, new JsonObject
        {
            ["apiVersion"] = "v1",
            ["kind"] = "Secret",
            ["metadata"] = metadata,
            ["data"] = new JsonObject { ["ca.crt"] = Base64((string)pair["Cert"]!), ["ca.key"] = Base64((string)pair["Key"]!) },
        }, Stop);
    }

    private static async Task UpgradeAsync(World world, string values) =>
        await RunAsync(world, await world.Planner.UpgradeAsync(Values(values), reuse: true, Stop));

    private static Task RunAsync(World world, InstallPlan plan) => new Installer(world.Client, world.Narrator, world.Wait,
        (_, _) => Task.FromResult<IReadOnlyList<DefinitionResult>>([])).RunAsync(plan, Stop);

    private static Task UninstallAsync(World world) =>
        new Uninstaller(world.Client, world.Target, world.Narrator, world.Wait).RunAsync(new UninstallOptions { DeletesDefinitions = true }, [], Stop);

    private static string Base64(string text) => Convert.ToBase64String(System.Text.Encoding.UTF8.GetBytes(text));
}
