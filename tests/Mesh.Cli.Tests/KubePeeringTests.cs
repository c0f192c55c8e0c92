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

    /// <summary>Written by whoever; an agent or a relay has read the rest.</summary>
    private static void AlreadyConnected(World world, string peer, int id, bool relay)
    {
        world.Server.Apply($"---\n{{apiVersion: v1, kind: Secret, metadata: {{name: {(relay ? "cilium-kvstoremesh" : "cilium-clustermesh")}, "
            + $"namespace: kube-system}}, stringData: {{{peer}: \"endpoints:\\n- https://172.30.99.1:2379\"}} }}");
        var row = new JsonObject { ["name"] = peer, ["connected"] = true, ["config"] = new JsonObject { ["cluster-id"] = id } };
        var answer = relay ? new JsonArray(row).ToJsonString()
            : new JsonObject { ["cluster-mesh"] = new JsonObject { ["clusters"] = new JsonArray(row) } }.ToJsonString();
        world.Answer = exec => exec.Container == "kvstoremesh" == relay ? answer : null;
    }

    [Theory]
    [InlineData(true, "kyoto", 2, true, "kyoto (a peer of tokyo) and osaka have the same ID 2: IDs must differ in the whole mesh; "
        + "install one of them anew with --set cluster.id=N, such as 3")]
    [InlineData(true, "kyoto", 2, false, "kyoto (a peer of tokyo) and osaka have the same ID 2: ")]
    [InlineData(false, "kyoto", 1, true, "tokyo and kyoto (a peer of osaka) have the same ID 1: ")]
    [InlineData(true, "osaka", 7, false, "osaka (a peer of tokyo) and osaka have the same name and different IDs, 7 and 2: ")]
    public async Task An_ID_or_a_name_that_a_peer_of_either_side_has_is_refused(bool ofTokyo, string peer, int id, bool relay, string expected)
    {
        AlreadyConnected(ofTokyo ? _tokyo : _osaka, peer, id, relay);
        var (tokyo, osaka) = (_tokyo.Snapshot(), _osaka.Snapshot());
        var e = await Assert.ThrowsAsync<CliException>(ConnectAsync);
        Assert.StartsWith($"tokyo and osaka cannot be one mesh; nothing was changed:\n  {expected}", e.Message, StringComparison.Ordinal);
        Assert.Equal(tokyo, _tokyo.Snapshot());
        Assert.Equal(osaka, _osaka.Snapshot());
    }

    /// <summary>A mesh need not be full: who joins osaka is not connected to kyoto, but osaka is to both.</summary>
    [Theory]
    [InlineData(true, "10.2.0.128/25", "172.30.99.1", "pods of tokyo's peer kyoto/n1 (10.2.0.128/25) and of osaka/node-1 (10.2.0.0/24) share addresses: ")]
    [InlineData(false, "10.1.0.0/24", "172.30.99.1", "pods of tokyo/node-1 (10.1.0.0/24) and of osaka's peer kyoto/n1 (10.1.0.0/24) share addresses: ")]
    [InlineData(false, "172.30.1.0/24", "172.30.99.1", "pods of osaka's peer kyoto/n1 (172.30.1.0/24) and node tokyo/node-1 (172.30.1.1) share ")]
    [InlineData(true, "10.9.0.0/24", "172.30.2.1", "nodes tokyo's peer kyoto/n1 and osaka/node-1 both have the address 172.30.2.1: ")]
    public async Task Addresses_that_a_peer_of_either_side_has_are_refused(bool ofTokyo, string range, string node, string expected)
    {
        var world = ofTokyo ? _tokyo : _osaka;
        AlreadyConnected(world, "kyoto", 7, relay: true);
        var relay = world.Answer;
        world.Answer = exec => exec.Command is ["cilium", "node", "list", "-o", "json"] ? Nodes("kyoto/n1", node, range) : relay(exec);
        var e = await Assert.ThrowsAsync<CliException>(ConnectAsync);
        Assert.StartsWith($"tokyo and osaka cannot be one mesh; nothing was changed:\n  {expected}", e.Message, StringComparison.Ordinal);
        Assert.Equal(("", ""), (await PeersAsync(_tokyo), await PeersAsync(_osaka)));
    }

    private static string Nodes(string name, string address, string range) => $$"""
        [{"name":"{{name}}","primary-address":{"ipv6":{},"ipv4":{"ip":"{{address}}","enabled":true,"alloc-range":"{{range}}"} } }]
        """;

    [Fact]
    public async Task Two_peers_of_either_side_that_clash_are_no_mesh()
    {
        AlreadyConnected(_tokyo, "kyoto", 7, relay: true);
        AlreadyConnected(_osaka, "oslo", 7, relay: false);
        var e = await Assert.ThrowsAsync<CliException>(ConnectAsync);
        Assert.Contains("kyoto (a peer of tokyo) and oslo (a peer of osaka) have the same ID 7: ", e.Message, StringComparison.Ordinal);
    }

    /// <summary>A peer that nobody has reached yet is no reason to refuse, and is told; nor is a second connection of the same two.</summary>
    [Fact]
    public async Task A_peer_whose_ID_is_not_known_is_told()
    {
        var kyoto = YamlText.ParseMap("{clustermesh: {config: {enabled: true, clusters: [{name: kyoto, ips: [172.30.99.1], port: 2379}]}}}", "values");
        await new Installer(_tokyo.Client, _tokyo.Narrator, _tokyo.Wait, InstallOptions.DefineAsync)
            .RunAsync(await _tokyo.Planner.UpgradeAsync(kyoto, reuse: true, Stop), Stop);
        await ConnectAsync();
        Assert.Contains("⚠️  the IDs of kyoto are not known, the others differ: no agent that was asked", _output.ToString(), StringComparison.Ordinal);
        Assert.Contains("⚠️  the addresses of kyoto are not known: no agent that was asked", _output.ToString(), StringComparison.Ordinal);
        Assert.Equal(("kyoto osaka", "tokyo"), (await PeersAsync(_tokyo), await PeersAsync(_osaka)));
        _tokyo.Answer = exec => exec.Container == "kvstoremesh"
            ? """[{"name":"kyoto","config":{"cluster-id":3}},{"name":"osaka","config":{"cluster-id":2}}]"""
            : exec.Command.Contains("node") ? Nodes("kyoto/n1", "172.30.99.1", "10.9.0.0/24") : null;
        _output.GetStringBuilder().Clear();
        await ConnectAsync();
        Assert.DoesNotContain("⚠️", _output.ToString(), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("cluster-name: tokyo, cluster-id: '2'", "tokyo and tokyo have the same name and different IDs, 1 and 2: names must differ")]
    [InlineData("cluster-name: osaka, cluster-id: '1'", "tokyo and osaka have the same ID 1: IDs must differ in the whole mesh")]
    public async Task Two_of_one_name_or_ID_are_no_mesh(string config, string expected)
    {
        var found = _osaka.Find("configmaps", "cilium-config")!;
        foreach (var (name, value) in YamlText.ParseMap($"{{{config}}}", "config"))
            found["data"]![name] = (string)value!;
        _osaka.Server.Apply("---\n" + new JsonObject
        {
            ["apiVersion"] = "v1",
            ["kind"] = "ConfigMap",
            ["metadata"] = new JsonObject { ["name"] = "cilium-config", ["namespace"] = World.Namespace },
            ["data"] = found["data"]!.DeepClone(),
        }.ToJsonString());
        var e = await Assert.ThrowsAsync<CliException>(ConnectAsync);
        Assert.Contains($"cannot be one mesh; nothing was changed:\n  {expected}", e.Message, StringComparison.Ordinal);
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
