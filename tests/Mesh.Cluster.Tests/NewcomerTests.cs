using Mesh.KubeWorld;
using Xunit;

namespace Mesh.Cluster.Tests;

/// <summary>
/// What the README's section on Kubernetes leads a newcomer through, in its order and with its commands. What holds of one cluster alone is looked
/// at before and after what holds of both: nothing passes because a network knew the way by itself.
/// </summary>
public sealed class NewcomerTests
{
    private static readonly string[] Names = ["tokyo", "osaka"];

    /// <summary>Of `mesh connectivity test`: by pods and services of both clusters, and what a policy of each kind denies and allows.</summary>
    private static readonly string[] Connectivity = ["no-policies", "echo-ingress", "cluster-entity-multi-cluster"];

    internal const string Workload = """
        apiVersion: apps/v1
        kind: Deployment
        metadata: {name: rebel-base, namespace: default}
        spec:
          replicas: 2
          selector: {matchLabels: {app: rebel-base}}
          template:
            metadata: {labels: {app: rebel-base}}
            spec:
              containers:
                - name: echo
                  image: any
                  command: [mesh, lab, echo, --name, CLUSTER/rebel-base]
                  ports: [{containerPort: 8080}]
        ---
        apiVersion: v1
        kind: Service
        metadata: {name: rebel-base, namespace: default, annotations: {service.cilium.io/global: "true"}}
        spec:
          selector: {app: rebel-base}
          ports: [{name: http, port: 80, targetPort: 8080}]
        ---
        apiVersion: v1
        kind: Pod
        metadata: {name: client, namespace: default, labels: {app: client}}
        spec:
          terminationGracePeriodSeconds: 0
          containers: [{name: client, image: any, command: [sleep, infinity]}]
        """;

    [Fact]
    public async Task From_install_to_a_global_service_and_back_to_nothing()
    {
        await using var world = new KubeWorld.KubeWorld();
        var person = new Person(world);
        var clusters = new Dictionary<string, KubeCluster>();
        var began = TimeProvider.System.GetTimestamp();
        foreach (var name in Names)
            clusters.Add(name, await world.AddClusterAsync(name, 2, TestContext.Current.CancellationToken));
        var before = Names.ToDictionary(name => name, name => Traces.Of(clusters[name], person));

        Tell("two clusters");
        await BothAsync(async (name, number) =>
        {
            var said = Done(clusters[name], person.Mesh("install", "--context", name, "--set", $"cluster.name={name}", "--set", $"cluster.id={number}",
                "--set", $"ipam.operator.clusterPoolIPv4PodCIDRList={{10.{number}.0.0/16}}",
                "--set", $"k8sServiceHost=172.30.{number}.100", "--set", "k8sServicePort=6443", "--wait-duration", "180s"));
            foreach (var node in clusters[name].Nodes)
                Assert.Contains($"✅ {node} (kernel", said, StringComparison.Ordinal);
            Tell($"{name} installed");
            Assert.Contains("Operator:           OK", Done(clusters[name], person.Mesh("status", "--context", name, "--wait", "--wait-duration", "90s")),
                StringComparison.Ordinal);
            Tell($"status of {name} is OK");
            // What the cilium CLI begins its own test with, and a look at the kernel's maps that needs no flag.
            Assert.StartsWith("1.17.0-mesh.", InAgent(clusters[name], person, name, "version", "-o", "jsonpath={$.Daemon.Version}"), StringComparison.Ordinal);
            Assert.Contains($"10.{number}.0.", InAgent(clusters[name], person, name, "bpf", "ipcache", "list"), StringComparison.Ordinal);
            clusters[name].Api.Apply(Workload.Replace("CLUSTER", name, StringComparison.Ordinal));
            await clusters[name].UntilAsync(api => api.List("pods", "default").Count(pod => pod["status"]?["phase"]?.ToString() == "Running") == 3,
                TimeSpan.FromSeconds(60));
            await AnswersAsync(clusters[name], person, name, [name]);
            Tell($"{name} answers");
            Done(clusters[name], person.Mesh("clustermesh", "enable", "--context", name, "--service-type", "NodePort", "--wait-duration", "120s"));
            // The control: a cluster alone answers alone.
            await AnswersAsync(clusters[name], person, name, [name]);
        });

        Tell("enabled");
        Done(clusters["tokyo"], person.Mesh("clustermesh", "connect", "--context", "tokyo", "--destination-context", "osaka"));
        Tell("connected");
        await BothAsync(async (name, _) =>
        {
            var said = Done(clusters[name], person.Mesh("clustermesh", "status", "--context", name, "--wait", "--wait-duration", "90s"));
            Assert.Contains($"  - {Names.Single(other => other != name)}: 2/2 configured, 2/2 connected", said, StringComparison.Ordinal);
            await AnswersAsync(clusters[name], person, name, Names);
        });

        Tell("the service is global");
        var tested = Done(clusters["tokyo"], person.Mesh(["connectivity", "test", "--context", "tokyo", "--multi-cluster", "osaka",
            "--collect", $"{world.Directory}/collected", .. Connectivity.SelectMany(test => new[] { "--test", test })]));
        Assert.Contains($"All {Connectivity.Length} tests", tested, StringComparison.Ordinal);

        Tell("tested");
        Done(clusters["tokyo"], person.Mesh("clustermesh", "disconnect", "--context", "tokyo", "--destination-context", "osaka"));
        await BothAsync(async (name, _) =>
        {
            await AnswersAsync(clusters[name], person, name, [name]);
            // What runs on a node keeps its network when the mesh goes; nothing runs when nothing is to be left.
            person.KubectlText(name, Workload.Replace("CLUSTER", name, StringComparison.Ordinal), "delete", "--wait=true", "-f", "-");
            await clusters[name].UntilAsync(api => api.List("pods", "default").Count == 0, TimeSpan.FromSeconds(30));
            Tell($"{name} is alone and empty");
            Done(clusters[name], person.Mesh("uninstall", "--context", name, "--delete-crds"));
            var left = Traces.Of(clusters[name], person);
            Assert.True(left.SequenceEqual(before[name]),
                $"{name}: more than before: {string.Join('\n', left.Except(before[name]))}\nless: {string.Join('\n', before[name].Except(left))}");
            Assert.Empty(clusters[name].Problems);
        });
        Tell("uninstalled");

        void Tell(string stage) => TestContext.Current.TestOutputHelper?.WriteLine($"{TimeProvider.System.GetElapsedTime(began).TotalSeconds:0} s: {stage}");
    }

    /// <summary>Both clusters at once.</summary>
    /// <param name="story">Gets the cluster's name and ID.</param>
    private static Task BothAsync(Func<string, int, Task> story) => Task.WhenAll(Names.Select((name, i) => Task.Run(() => story(name, i + 1))));

    /// <summary>`cilium …` in the pod of an agent.</summary>
    private static string InAgent(KubeCluster cluster, Person person, string context, params string[] words)
    {
        var agent = cluster.Api.List("pods", "kube-system").First(pod => $"{pod["metadata"]!["labels"]?["k8s-app"]}" == "cilium")["metadata"]!["name"]!;
        return person.Kubectl(context, ["-n", "kube-system", "exec", $"{agent}", "-c", "cilium-agent", "--", "cilium", .. words]);
    }

    /// <summary>The command succeeded.</summary>
    private static string Done(KubeCluster cluster, (int ExitCode, string Said) command)
    {
        Assert.True(command.ExitCode == 0, $"exit code {command.ExitCode}:\n{command.Said}\n{cluster.State()}");
        return command.Said;
    }

    /// <summary>Waits until exactly these clusters answer the client's requests.</summary>
    private static async Task AnswersAsync(KubeCluster cluster, Person person, string context, IReadOnlyCollection<string> wanted)
    {
        // One that is not answered ends the round: 24 in a row, or they are asked again.
        const string asks = "for i in $(seq 24); do curl -s -m 2 http://rebel-base.default.svc.cluster.local/ || exit 0; echo; done; echo all";
        using var tick = new PeriodicTimer(TimeSpan.FromMilliseconds(200));
        using var patience = new CancellationTokenSource(TimeSpan.FromSeconds(60));
        var said = "";
        try
        {
            while (true)
            {
                said = person.Kubectl(context, "exec", "client", "--", "sh", "-c", asks);
                var answered = Names.Where(name => said.Contains($"{name}/rebel-base", StringComparison.Ordinal)).ToList();
                if (said.EndsWith("all\n", StringComparison.Ordinal)
                    && answered.Order(StringComparer.Ordinal).SequenceEqual(wanted.Order(StringComparer.Ordinal)))
                    return;
                await tick.WaitForNextTickAsync(patience.Token);
            }
        }
        catch (OperationCanceledException)
        {
            Assert.Fail($"{context}: wanted answers of {string.Join(" and ", wanted)} alone, got\n{said}\n{cluster.State()}");
        }
    }
}
