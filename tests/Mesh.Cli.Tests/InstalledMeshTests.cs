using System.Net.Sockets;
using System.Text;
using System.Text.Json.Nodes;
using Mesh.KubeApi;
using Mesh.Kubernetes.Api;
using Xunit;

namespace Mesh.Cli.Tests;

/// <summary>`mesh status` of a Kubernetes cluster, in the layout of `cilium status`; agents that answer what they are told to here.</summary>
public sealed class InstalledMeshTests
{
    private const string Objects = """
        {"apiVersion":"apps/v1","kind":"DaemonSet","metadata":{"name":"cilium","namespace":"kube-system"},
         "spec":{"selector":{"matchLabels":{"k8s-app":"cilium"}},"template":{"metadata":{"labels":{"k8s-app":"cilium"}},
          "spec":{"containers":[{"name":"cilium-agent","image":"mesh/agent:1"}]}}}}
        ---
        {"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"cilium-operator","namespace":"kube-system"},
         "spec":{"replicas":1,"selector":{"matchLabels":{"io.cilium/app":"operator"}},"template":{"metadata":{"labels":{"io.cilium/app":"operator"}},
          "spec":{"containers":[{"name":"cilium-operator","image":"mesh/operator:1"}]}}}}
        ---
        {"apiVersion":"v1","kind":"Node","metadata":{"name":"n1"}}
        ---
        {"apiVersion":"v1","kind":"Node","metadata":{"name":"n2"}}
        """;

    private const string Healthy = """{"cilium":{"state":"Ok"},"cluster":{"self":"tokyo/n1"}}""";

    private sealed class Agents : IPodRuntime
    {
        public const string Stopped = "stopped";

        public Dictionary<string, string> Status { get; } = new() { ["cilium-a"] = Healthy, ["cilium-b"] = Healthy };

        public async Task<int> ExecAsync(PodExec exec, PodStreams streams, CancellationToken stop)
        {
            var status = Status[exec.Pod];
            if (status == Stopped)
                await new TaskCompletionSource().Task.WaitAsync(stop);
            var answer = exec.Command is ["cilium", "status", "-o", "json"] ? status
                : exec.Command is ["cilium", "endpoint", "list", "-o", "json"] ? """[{"id":1,"status":{"state":"ready"}}]""" : "";
            var failed = answer.Length == 0;
            await (failed ? streams.Error! : streams.Output!).WriteAsync(Encoding.UTF8.GetBytes(failed ? "the agent does not answer" : answer), stop);
            return failed ? 1 : 0;
        }

        public Task AttachAsync(PodExec attach, PodStreams streams, CancellationToken stop) => throw new NotSupportedException();

        public Task LogAsync(PodLog log, Stream output, CancellationToken stop) => throw new NotSupportedException();

        public Task<Stream> ConnectAsync(string @namespace, string pod, int port, CancellationToken stop) => throw new NotSupportedException();
    }

    private sealed record World(KubeApiServer Server, Agents Agents, string Kubeconfig) : IAsyncDisposable
    {
        public static async Task<World> StartAsync()
        {
            var agents = new Agents();
            var server = await KubeApiServer.StartAsync(new KubeApiOptions { Pods = agents });
            var world = new World(server, agents, Path.Combine(Directory.CreateTempSubdirectory("mesh-status-").FullName, "config"));
            server.WriteKubeconfig(world.Kubeconfig, "tokyo");
            server.Apply("---\n" + string.Join("\n---\n",
                CrdInstaller.Definitions.Select(definition => definition.ToJsonString()).Prepend(Objects)));
            server.Apply(string.Join("\n---\n", Pod("cilium-a", "k8s-app: cilium", "mesh/agent:1", "cilium-agent"),
                Pod("cilium-b", "k8s-app: cilium", "mesh/agent:1", "cilium-agent"),
                Pod("cilium-operator-x", "io.cilium/app: operator", "mesh/operator:1", "cilium-operator")));
            await world.TellAsync("daemonsets", "cilium", """
                {"observedGeneration":1,"desiredNumberScheduled":2,"numberReady":2,"numberAvailable":2,"updatedNumberScheduled":2}
                """);
            await world.TellAsync("deployments", "cilium-operator",
                """{"observedGeneration":1,"replicas":1,"readyReplicas":1,"availableReplicas":1,"updatedReplicas":1}""");
            foreach (var pod in (string[])["cilium-a", "cilium-b", "cilium-operator-x"])
                await world.TellAsync("pods", pod, """{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}""");
            return world;
        }

        private static string Pod(string name, string label, string image, string container) => $$$"""
            apiVersion: v1
            kind: Pod
            metadata: {name: {{{name}}}, namespace: kube-system, labels: { {{{label}}} } }
            spec:
              nodeName: n1
              hostNetwork: true
              containers: [{name: {{{container}}}, image: "{{{image}}}"}]
            """;

        public async Task TellAsync(string plural, string name, string status)
        {
            using var client = new KubeClient(KubeConfiguration.FromFile(Kubeconfig), new KubeClientOptions());
            var resource = plural switch
            {
                "daemonsets" => KubeResources.DaemonSets.Raw,
                "deployments" => KubeResources.Deployments.Raw,
                _ => KubeResources.Pods.Raw,
            };
            await client.PatchAsync(resource, "kube-system", name,
                KubePatch.Merge(new JsonObject { ["status"] = JsonNode.Parse(status) }), TestContext.Current.CancellationToken,
                new KubeWrite { Subresource = "status" });
        }

        public async Task<(int Code, string Output, string Errors)> StatusAsync(params string[] more)
        {
            var (output, errors) = (new StringWriter(), new StringWriter());
            var code = await MeshCommand.RunAsync(["status", "--kubeconfig", Kubeconfig, .. more], output, errors);
            return (code, output.ToString(), errors.ToString());
        }

        public async ValueTask DisposeAsync()
        {
            await Server.DisposeAsync();
            Directory.Delete(Path.GetDirectoryName(Kubeconfig)!, recursive: true);
        }
    }

    [Fact]
    public async Task A_mesh_that_is_well_looks_as_people_know_it()
    {
        await using var world = await World.StartAsync();
        var (code, output, errors) = await world.StatusAsync("--wait", "--wait-duration", "20s");
        Assert.Equal(("", 0), (errors, code));
        Assert.Equal("""
                /¯¯\
             /¯¯\__/¯¯\    Cilium:             OK
             \__/¯¯\__/    Operator:           OK
             /¯¯\__/¯¯\    Envoy DaemonSet:    disabled (using embedded mode)
             \__/¯¯\__/    Hubble Relay:       disabled
                \__/       ClusterMesh:        disabled

            DaemonSet              cilium             Desired: 2, Ready: 2/2, Available: 2/2
            Deployment             cilium-operator    Desired: 1, Ready: 1/1, Available: 1/1
            Containers:            cilium             Running: 2
                                   cilium-operator    Running: 1
            Cluster Pods:          0/0 managed by Cilium
            Helm chart version:    
            Image versions         cilium             mesh/agent:1: 2
                                   cilium-operator    mesh/operator:1: 1

            """, output);
    }

    [Fact]
    public async Task Where_nothing_is_installed_nothing_is_well()
    {
        await using var world = await World.StartAsync();
        var (code, output, errors) = await world.StatusAsync("-n", "other", "--wait", "--wait-duration", "100ms");
        Assert.Equal(1, code);
        Assert.Contains("Cilium:             1 errors", output, StringComparison.Ordinal);
        Assert.Contains("cilium: daemonset other/cilium not found: is the mesh installed, and in this namespace (-n)?", errors, StringComparison.Ordinal);
        // Nor after an uninstallation that has taken the definitions too.
        foreach (var definition in CrdInstaller.Definitions)
            world.Server.Delete("customresourcedefinitions.apiextensions.k8s.io", "", (string)definition["metadata"]!["name"]!);
        (code, output, errors) = await world.StatusAsync("-n", "other");
        Assert.Equal((0, ""), (code, errors));
        Assert.Contains("Errors:                cilium    cilium    daemonset other/cilium not found", output, StringComparison.Ordinal);
    }

    /// <summary>Stopped by a signal, an agent's socket takes connections and never answers.</summary>
    [Fact]
    public async Task An_agent_that_is_stopped_costs_seconds_and_is_named_and_the_others_are_shown()
    {
        await using var world = await World.StartAsync();
        world.Agents.Status["cilium-b"] = Agents.Stopped;
        using var stopped = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        var path = Path.Combine(Path.GetDirectoryName(world.Kubeconfig)!, "agent.sock");
        stopped.Bind(new UnixDomainSocketEndPoint(path));
        stopped.Listen();
        var errors = new StringWriter();
        var alone = MeshCommand.RunAsync(["status", "-H", path], TextWriter.Null, errors);
        // Half a minute was the time of one of them.
        var (code, output, complaint) = await world.StatusAsync("-o", "json").WaitAsync(TimeSpan.FromSeconds(25), TestContext.Current.CancellationToken);
        Assert.Equal((0, ""), (code, complaint));
        var json = JsonNode.Parse(output)!;
        Assert.Equal("Ok", (string?)json["cilium_status"]!["cilium-a"]!["cilium"]!["state"]);
        Assert.Equal("unable to retrieve cilium status: no answer within 8 s (pod=kube-system/cilium-b, container=cilium-agent): is it stopped, or overloaded?",
            (string?)json["errors"]!["cilium"]!["cilium-b"]!["Errors"]!.AsArray().Single());
        Assert.Equal(1, await alone.WaitAsync(TimeSpan.FromSeconds(15), TestContext.Current.CancellationToken));
        Assert.Equal($"mesh: agent did not answer on {path} within 5 s: it may be overloaded or stopped; see its log\n", errors.ToString());
    }

    [Theory]
    [InlineData("mesh: nothing is installed as release cilium in namespace other", "-n", "other", "--wait-duration", "1m30s")]
    [InlineData("mesh: --wait-duration '90': must be a duration such as 90s, 5m or 1m30s", "--wait-duration", "90")]
    [InlineData("mesh: --namespace 'A b': must be 1 to 63 of a-z, 0-9 and '-', neither first nor last '-'", "-n", "A b")]
    [InlineData("mesh: --helm-release-name 'x,y': must be 1 to 53 of a-z, 0-9 and '-', neither first nor last '-'", "--helm-release-name", "x,y")]
    [InlineData("mesh: --namespace '-a': must be 1 to 63 of a-z, 0-9 and '-', neither first nor last '-'", "--namespace=-a")]
    [InlineData("mesh: --namespace 'a-': must be 1 to 63 of a-z, 0-9 and '-', neither first nor last '-'", "-n", "a-")]
    [InlineData("mesh: --namespace '': must be 1 to 63 of a-z, 0-9 and '-', neither first nor last '-'", "-n", "")]
    [InlineData("mesh: --helm-release-name 'abcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabcd': must be 1 to 53 of a-z, 0-9 and '-', neither "
        + "first nor last '-'", "--helm-release-name", "abcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabcd")]
    public async Task What_installs_and_uninstalls_is_told_where_and_how_long(string expected, params string[] flags)
    {
        await using var world = await World.StartAsync();
        var (output, errors) = (new StringWriter(), new StringWriter());
        Assert.Equal(1, await MeshCommand.RunAsync(["uninstall", "--kubeconfig", world.Kubeconfig, .. flags], output, errors));
        Assert.Equal((expected + "\n", ""), (errors.ToString(), output.ToString()));
    }

    [Fact]
    public async Task What_is_wrong_is_named_with_its_pod_and_waited_for()
    {
        await using var world = await World.StartAsync();
        world.Agents.Status["cilium-a"] = """
            {"cilium":{"state":"Warning","msg":"2 rows are not in the kernel"},
             "mesh":{"faults":[{"class":"tunnel-down","peer":"osaka","cause":"no packet comes through","mend":"open UDP 8472"}]}}
            """;
        world.Agents.Status["cilium-b"] = "";
        await world.TellAsync("daemonsets", "cilium", """{"numberReady":1,"numberAvailable":1,"numberUnavailable":1}""");
        await world.TellAsync("pods", "cilium-b", """
            {"phase":"Running","conditions":[{"type":"Ready","status":"False"}],"containerStatuses":[{"name":"cilium-agent","ready":false,"restartCount":3,
             "state":{"waiting":{"reason":"CrashLoopBackOff"}},"lastState":{"terminated":{"exitCode":1,"message":"mesh-agent: no bpffs"}}}]}
            """);
        var (code, output, errors) = await world.StatusAsync();
        Assert.Equal(("", 0), (errors, code));
        Assert.Contains("Cilium:             3 errors, 2 warnings", output, StringComparison.Ordinal);
        Assert.Contains("Errors:                cilium             cilium      1 pods of DaemonSet cilium are not ready", output, StringComparison.Ordinal);
        Assert.Contains("cilium-b    container cilium-agent: CrashLoopBackOff, exited with code 1: mesh-agent: no bpffs", output, StringComparison.Ordinal);
        Assert.Contains("cilium-b    unable to retrieve cilium status: command failed", output, StringComparison.Ordinal);
        Assert.Contains("cilium-a    Cilium: 2 rows are not in the kernel", output, StringComparison.Ordinal);
        Assert.Contains("cilium-a    Mesh: osaka: tunnel-down: no packet comes through", output, StringComparison.Ordinal);

        (code, _, errors) = await world.StatusAsync("--wait", "--wait-duration", "100ms");
        Assert.Equal(1, code);
        Assert.Contains("timeout while waiting for status to become successful: cilium: 1 pods of DaemonSet cilium are not ready", errors,
            StringComparison.Ordinal);

        var json = JsonNode.Parse((await world.StatusAsync("-o", "json")).Output)!;
        Assert.Equal("Warning", (string?)json["cilium_status"]!["cilium-a"]!["cilium"]!["state"]);
        Assert.Equal(2, (int?)json["errors"]!["cilium"]!["cilium-b"]!["Errors"]!.AsArray().Count);
        Assert.Equal(2, (int?)json["pod_state"]!["cilium"]!["Desired"]);
    }
}
