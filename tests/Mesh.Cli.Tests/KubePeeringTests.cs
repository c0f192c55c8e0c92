using System.Text.Json.Nodes;
using Mesh.Cli.Commands.Install;
using Mesh.Cli.Kube;
using Mesh.Install;
using Mesh.Install.Applying;
using Mesh.Install.Releases;
using Mesh.Install.Tests;
using Mesh.Install.Text;
using Mesh.Kubernetes.Api;
using Xunit;

namespace Mesh.Cli.Tests;

/// <summary>`mesh clustermesh connect` and `disconnect` of clusters on Kubernetes: both sides or none.</summary>
public sealed class KubePeeringTests : IAsyncLifetime
{
    private readonly StringWriter _output = new();
    private World _tokyo = null!;
    private World _osaka = null!;

    private static CancellationToken Stop => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        _tokyo = await StartAsync("tokyo", 1);
        _osaka = await StartAsync("osaka", 2);
        // One file with both contexts.
        _osaka.Server.WriteKubeconfig(_tokyo.Kubeconfig, "osaka");
    }

    public async ValueTask DisposeAsync()
    {
        await _tokyo.DisposeAsync();
        await _osaka.DisposeAsync();
    }

    private static async Task<World> StartAsync(string name, int id)
    {
        var world = await World.StartAsync(1, node => node["status"] = new JsonObject
        {
            ["addresses"] = new JsonArray(new JsonObject { ["type"] = "InternalIP", ["address"] = $"172.30.{id}.1" }),
        });
        var values = YamlText.ParseMap($"{{cluster: {{name: {name}, id: {id}}}, clustermesh: {{useAPIServer: true}}}}", "values");
        var plan = await world.Planner.InstallAsync(values, Stop);
        await new Installer(world.Client, world.Narrator, world.Wait, InstallOptions.DefineAsync).RunAsync(plan, Stop);
        Ranges(world, $"10.{id}.0.0/24");
        return world;
    }

    private static void Ranges(World world, string range) => world.Server.Apply(
        $"---\n{{apiVersion: cilium.io/v2, kind: CiliumNode, metadata: {{name: node-1}}, spec: {{ipam: {{podCIDRs: [{range}]}} }} }}");

    private async Task ConnectAsync()
    {
        using var source = new KubeCluster(new KubeClient(KubeConfiguration.FromFile(_tokyo.Kubeconfig, "kind-tokyo")), World.Namespace);
        using var destination = new KubeCluster(new KubeClient(KubeConfiguration.FromFile(_tokyo.Kubeconfig, "osaka")), World.Namespace);
        await new KubePeering(_tokyo.Target, _tokyo.Wait, _output).ConnectAsync(source, destination, [], [], Stop);
    }

    private static async Task<string> PeersAsync(World world)
    {
        var release = (await new ReleaseStore(world.Client, World.Namespace, "cilium").DeployedAsync(Stop))!;
        return string.Join(' ', (release.Config.At("clustermesh.config.clusters") as IReadOnlyList<object?> ?? []).Select(one => ((Map)one!).At("name")));
    }

    [Fact]
    public async Task Two_become_peers_and_one_leaves_although_the_other_is_gone_for_ever()
    {
        await ConnectAsync();
        Assert.Equal(("osaka", "tokyo"), (await PeersAsync(_tokyo), await PeersAsync(_osaka)));
        await _osaka.Server.StopAsync();
        var (output, error) = (new StringWriter(), new StringWriter());
        Assert.Equal((0, ""), (await MeshCommand.RunAsync(
            ["clustermesh", "disconnect", "osaka", "--kubeconfig", _tokyo.Kubeconfig, "--context", "kind-tokyo"], output, error), error.ToString()));
        Assert.EndsWith("✅ kind-tokyo has left osaka\n", output.ToString(), StringComparison.Ordinal);
        Assert.Equal("", await PeersAsync(_tokyo));
        await _osaka.Server.ResumeAsync(Stop);
    }

    [Theory]
    [InlineData("10.1.0.128/25", "pods of tokyo/node-1 (10.1.0.0/24) and of osaka/node-1 (10.1.0.128/25) share addresses: install one of them anew")]
    [InlineData("172.30.1.0/24", "pods of osaka/node-1 (172.30.1.0/24) and node tokyo/node-1 (172.30.1.1) share addresses: install one of them anew")]
    public async Task Clusters_that_share_addresses_are_no_mesh(string range, string expected)
    {
        Ranges(_osaka, range);
        var e = await Assert.ThrowsAsync<CliException>(ConnectAsync);
        Assert.StartsWith($"tokyo and osaka cannot be one mesh; nothing was changed:\n  {expected}", e.Message, StringComparison.Ordinal);
        Assert.Equal(("", ""), (await PeersAsync(_tokyo), await PeersAsync(_osaka)));
    }

    /// <summary>The one that could be changed is put back: it would read a cluster that does not know it.</summary>
    [Fact]
    public async Task When_the_second_cannot_be_changed_the_first_is_as_before()
    {
        _osaka.Become = pod => World.Failing("containerStatuses", "cilium-agent", "CrashLoopBackOff", 3, "no bpffs");
        var e = await Assert.ThrowsAsync<InstallException>(ConnectAsync);
        Assert.Contains("no bpffs", e.Message, StringComparison.Ordinal);
        Assert.Contains("kind-tokyo is put back", _output.ToString(), StringComparison.Ordinal);
        Assert.Equal(("", ""), (await PeersAsync(_tokyo), await PeersAsync(_osaka)));
        Assert.Null(_tokyo.Find("secrets", "cilium-kvstoremesh"));
    }

    [Fact]
    public async Task Whom_to_connect_to_must_be_said()
    {
        var error = new StringWriter();
        Assert.Equal(1, await MeshCommand.RunAsync(["clustermesh", "connect", "--kubeconfig", _tokyo.Kubeconfig, "--context", "kind-tokyo"],
            TextWriter.Null, error));
        Assert.Equal("mesh: name the cluster that kind-tokyo is to be connected to: --destination-context CONTEXT\n", error.ToString());
    }
}
