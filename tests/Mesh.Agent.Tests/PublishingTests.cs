using System.Text.Json.Nodes;
using Mesh.Agent.Publishing;
using Mesh.AgentApi;
using Mesh.ControlPlane;
using Mesh.ControlPlane.Restored;
using Mesh.KubeApi;
using Mesh.Kubernetes;
using Mesh.Kubernetes.Api;
using Mesh.Model;
using Xunit;

namespace Mesh.Agent.Tests;

/// <summary>What agents tell a real API server's stand-in: their node, their pods, one number for one set of labels.</summary>
public sealed class PublishingTests : IAsyncLifetime
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(20);

    private readonly string _home = Directory.CreateTempSubdirectory("mesh-publish-").FullName;
    private readonly List<Publisher> _agents = [];
    private KubeApiServer _server = null!;

    private string Kubeconfig => Path.Combine(_home, "config");

    private static CancellationToken Stop => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        _server = await KubeApiServer.StartAsync(new KubeApiOptions { MakeServiceAccounts = false }, Stop);
        _server.WriteKubeconfig(Kubeconfig, "osaka");
        _server.Apply("---\n" + string.Join("\n---\n", CrdInstaller.Definitions.Select(definition => definition.ToJsonString())));
        foreach (var number in new[] { 1, 2 })
            _server.Apply($$"""
                {"apiVersion":"v1","kind":"Node","metadata":{"name":"osaka-{{number}}","labels":{"zone":"z{{number}}"} },
                 "spec":{"podCIDRs":["10.2.{{number}}.0/24","fd02:{{number}}::/64"]},
                 "status":{"addresses":[{"type":"InternalIP","address":"192.0.2.{{number}}"},{"type":"Hostname","address":"osaka-{{number}}"}]} }
                """);
    }

    public async ValueTask DisposeAsync()
    {
        foreach (var agent in _agents)
            await agent.DisposeAsync();
        await _server.DisposeAsync();
        Directory.Delete(_home, recursive: true);
    }

    /// <summary>The part of an agent that speaks to the API server, with its tables and its pods.</summary>
    private sealed class Publisher : IAsyncDisposable
    {
        private readonly CancellationTokenSource _stop = new();
        private readonly KubernetesSource _source;
        private readonly Task[] _running;

        public Publisher(string kubeconfig, string state, string node, bool rangesFromNode)
        {
            var options = new AgentOptions
            {
                Cluster = new ClusterIdentity("osaka", 2),
                Numbering = IdentityNumbering.Max255,
                NodeName = node,
                Source = SourceAddress.TryParse($"kubernetes:{kubeconfig}")!,
                BpfRoot = "/nowhere",
                SocketPath = Path.Combine(state, "agent.sock"),
                StateDirectory = state,
                PodRangesFromNode = rangesFromNode,
            };
            _source = (KubernetesSource)options.Source.Open(ControlPlane.Sources.LocalSource.Kinds, "test", TimeProvider.System, _ => { });
            Agent = new NodeAgent(options, _source, RestoredState.Empty, _ => throw new InvalidOperationException("no peers"), _ => 11,
                TimeProvider.System, _ => { });
            _running = [Agent.Local.RunAsync(_stop.Token), Publishing.RunAsync(_stop.Token)];
        }

        public NodeAgent Agent { get; }

        public ClusterPublisher Publishing => Agent.View.Publishing!;

        public string Problems => string.Join('\n', Publishing.Problems.Select(problem => $"{problem.Where}: {problem.Message}"));

        public async Task ReadyAsync()
        {
            await Publishing.NodeComplete.WaitAsync(Patience, Stop);
            await Agent.Local.Synced.WaitAsync(Patience, Stop);
            Agent.View.Endpoints.Restore();
        }

        public void Register(string pod, int host, string ns = "default") => Agent.View.Endpoints.Register(new EndpointChangeRequest
        {
            K8sNamespace = ns,
            K8sPodName = pod,
            InterfaceName = "lxc" + pod,
            Mac = "0a:00:00:00:00:01",
            HostMac = "0a:00:00:00:00:02",
            Addressing = new AddressPair { Ipv4 = $"10.2.1.{host}" },
        });

        public async ValueTask DisposeAsync()
        {
            await _stop.CancelAsync();
            foreach (var task in _running)
                await task.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            await _source.DisposeAsync();
            _stop.Dispose();
        }
    }

    private Publisher Start(string node, string? state = null, bool rangesFromNode = true)
    {
        var agent = new Publisher(Kubeconfig, Directory.CreateDirectory(Path.Combine(_home, state ?? node)).FullName, node, rangesFromNode);
        _agents.Add(agent);
        return agent;
    }

    private void Pod(string name, string app, string node) => _server.Apply($$"""
        {"apiVersion":"v1","kind":"Pod","metadata":{"name":"{{name}}","namespace":"default","labels":{"app":"{{app}}","pod-template-hash":"{{name}}"} },
         "spec":{"nodeName":"{{node}}","serviceAccountName":"default","containers":[{"name":"c","image":"i"}]} }
        """);

    private JsonObject? Endpoint(string name) => _server.Find("ciliumendpoints.cilium.io", "default", name);

    private static uint IdentityOf(JsonObject? endpoint) => (uint)(endpoint?["status"]?["identity"]?["id"]?.GetValue<long>() ?? 0);

    private async Task When(Func<bool> condition, Func<string> shown)
    {
        await RunningAgent.Eventually(() => Task.FromResult(condition()), met => met,
            () => $"{shown()}\n{string.Join('\n', _agents.Select(agent => agent.Problems))}", Patience);
    }

    private long Writes() => _server.RequestCounts.Where(pair => pair.Key.Split(' ')[0] is "create" or "update" or "patch" or "delete").Sum(pair => pair.Value);

    [Fact]
    public async Task A_node_is_published_with_the_ranges_that_the_operator_gives()
    {
        var agent = Start("osaka-1", rangesFromNode: false);
        // The wait is told before the object is first written: an operator can only answer when both are there.
        await When(() => agent.Publishing.Waiting?.Contains("spec.ipam.podCIDRs", StringComparison.Ordinal) == true
            && _server.Find("ciliumnodes.cilium.io", "", "osaka-1") is not null, () => "no wait for the operator");
        using var client = new KubeClient(KubeConfiguration.FromFile(Kubeconfig));
        await client.PatchAsync(KubeResources.CiliumNodes.Raw, null, "osaka-1", KubePatch.Merge(JsonNode.Parse(
            """{"spec":{"ipam":{"podCIDRs":["10.2.1.0/24"]}}}""")!), Stop);
        var row = await agent.Publishing.NodeComplete.WaitAsync(Patience, Stop);
        Assert.Equal(["192.0.2.1", "10.2.1.1"], row.Addresses.Select(address => address.Address.ToString()));
        var stored = _server.Find("ciliumnodes.cilium.io", "", "osaka-1")!;
        Assert.Equal("z1", stored["metadata"]!["labels"]!["zone"]!.GetValue<string>());
        Assert.Equal("Node", stored["metadata"]!["ownerReferences"]![0]!["kind"]!.GetValue<string>());
    }

    [Fact]
    public async Task Pods_get_one_number_for_one_set_of_labels_and_our_own_writes_wake_nobody()
    {
        var agent = Start("osaka-1");
        await agent.ReadyAsync();
        Pod("web-1", "web", "osaka-1");
        Pod("web-2", "web", "osaka-1");
        Pod("db-1", "db", "osaka-1");
        agent.Register("web-1", 11);
        agent.Register("web-2", 12);
        agent.Register("db-1", 13);
        await When(() => new[] { "web-1", "web-2", "db-1" }.All(name => IdentityOf(Endpoint(name)) != 0), () => "an endpoint has no identity");
        Assert.Equal(IdentityOf(Endpoint("web-1")), IdentityOf(Endpoint("web-2")));
        Assert.NotEqual(IdentityOf(Endpoint("web-1")), IdentityOf(Endpoint("db-1")));
        Assert.True(IdentityNumbering.Max255.InRange(2, IdentityOf(Endpoint("web-1"))));
        Assert.Equal(2, _server.List("ciliumidentities.cilium.io").Count);
        var labels = _server.Find("ciliumidentities.cilium.io", "", IdentityOf(Endpoint("web-1")).ToString())!["security-labels"]!.AsObject();
        Assert.Equal("web", labels["k8s:app"]!.GetValue<string>());
        Assert.Equal("osaka", labels["k8s:io.cilium.k8s.policy.cluster"]!.GetValue<string>());
        Assert.DoesNotContain("k8s:pod-template-hash", labels.Select(label => label.Key));
        // The endpoint has its identity by the way back through the server; what was written comes back as events and is written no more.
        await When(() => agent.Agent.View.State.Endpoints.Snapshot().All(pair => pair.Value.Row.Identity != 0), () => "a row has no identity");
        var writes = Writes();
        Pod("web-3", "web", "osaka-1");
        agent.Register("web-3", 14);
        await When(() => IdentityOf(Endpoint("web-3")) != 0, () => "web-3 has no identity");
        Assert.Equal(writes + 1, Writes());
        agent.Agent.View.Endpoints.Remove("pod-name:default/web-1");
        await When(() => Endpoint("web-1") is null, () => "web-1 is still there");
    }

    [Fact]
    public async Task Two_agents_that_ask_at_once_for_the_same_labels_take_one_number()
    {
        var (one, two) = (Start("osaka-1"), Start("osaka-2"));
        await one.ReadyAsync();
        await two.ReadyAsync();
        for (var i = 0; i < 20; i++)
        {
            Pod($"a{i}", $"app{i}", "osaka-1");
            Pod($"b{i}", $"app{i}", "osaka-2");
        }
        for (var i = 0; i < 20; i++)
        {
            one.Register($"a{i}", 20 + i);
            two.Register($"b{i}", 60 + i);
        }
        await When(() => Enumerable.Range(0, 20).All(i => IdentityOf(Endpoint($"a{i}")) != 0 && IdentityOf(Endpoint($"b{i}")) != 0), () => "not all published");
        Assert.All(Enumerable.Range(0, 20), i => Assert.Equal(IdentityOf(Endpoint($"a{i}")), IdentityOf(Endpoint($"b{i}"))));
        Assert.Equal(20, _server.List("ciliumidentities.cilium.io").Count);
    }

    [Fact]
    public async Task An_answer_that_was_lost_makes_no_second_identity()
    {
        var agent = Start("osaka-1");
        await agent.ReadyAsync();
        using var lost = _server.Faults.Add(new Fault(FaultKind.LostAnswer) { Verb = "create", Resource = "ciliumidentities.cilium.io", Times = 1 });
        Pod("web-1", "web", "osaka-1");
        agent.Register("web-1", 11);
        await When(() => IdentityOf(Endpoint("web-1")) != 0, () => "web-1 has no identity");
        Assert.Single(_server.List("ciliumidentities.cilium.io"));
    }

    [Fact]
    public async Task While_the_server_is_away_what_changed_waits()
    {
        var agent = Start("osaka-1");
        await agent.ReadyAsync();
        Pod("web-1", "web", "osaka-1");
        Pod("web-2", "web", "osaka-1");
        agent.Register("web-1", 11);
        await When(() => IdentityOf(Endpoint("web-1")) != 0, () => "web-1 has no identity");
        await _server.StopAsync();
        agent.Agent.View.Endpoints.Remove("pod-name:default/web-1");
        agent.Register("web-2", 12);
        await When(() => agent.Problems.Contains("is not written, and tried again", StringComparison.Ordinal), () => "no problem is told");
        await _server.ResumeAsync(Stop);
        await When(() => Endpoint("web-1") is null && IdentityOf(Endpoint("web-2")) != 0 && agent.Problems.Length == 0, () => "not caught up");
    }

    [Fact]
    public async Task Two_nodes_with_one_name_are_told_and_do_not_take_turns()
    {
        var first = Start("osaka-1", "first");
        await first.ReadyAsync();
        var second = Start("osaka-1", "second");
        await When(() => first.Problems.Contains("two nodes have the name osaka-1", StringComparison.Ordinal), () => "the first says nothing");
        await second.ReadyAsync();
        var agent = _server.Find("ciliumnodes.cilium.io", "", "osaka-1")!["metadata"]!["annotations"]![NodeObject.AgentAnnotation]!.GetValue<string>();
        Assert.Equal(await File.ReadAllTextAsync(Path.Combine(_home, "second", "agent-id"), Stop), agent + "\n");
        Assert.Equal("", second.Problems);
    }
}
