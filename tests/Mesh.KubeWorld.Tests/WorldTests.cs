using System.Text.Json.Nodes;
using Mesh.TestKit;
using Xunit;

namespace Mesh.KubeWorld.Tests;

public sealed class WorldTests
{
    private const string HostPod = """
        apiVersion: apps/v1
        kind: DaemonSet
        metadata: {name: each, namespace: default}
        spec:
          selector: {matchLabels: {app: each}}
          template:
            metadata: {labels: {app: each}}
            spec:
              hostNetwork: true
              tolerations: [{operator: Exists}]
              initContainers:
                - name: prepare
                  image: any
                  command: [sh, -c, 'echo prepared > /shared/word']
                  volumeMounts: [{name: shared, mountPath: /shared}]
              containers:
                - name: main
                  image: any
                  command: [sh, -c, 'cat /shared/word /config/greeting; echo I am $NAME; id -u; grep CapBnd /proc/self/status; exec sleep infinity']
                  env: [{name: NAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
                  securityContext: {runAsUser: 65532, capabilities: {drop: [ALL], add: [NET_ADMIN]}}
                  readinessProbe: {exec: {command: [test, -f, /config/greeting]}}
                  volumeMounts:
                    - {name: shared, mountPath: /shared}
                    - {name: config, mountPath: /config}
              volumes:
                - {name: shared, emptyDir: {}}
                - {name: config, configMap: {name: words}}
        ---
        apiVersion: v1
        kind: ConfigMap
        metadata: {name: words, namespace: default}
        data: {greeting: "good day\n"}
        """;

    [Fact]
    public async Task A_daemon_set_runs_on_every_node_with_its_volumes_rights_and_probes()
    {
        await using var world = new KubeWorld();
        using var patience = new CancellationTokenSource(TimeSpan.FromSeconds(60));
        var cluster = await world.AddClusterAsync("tokyo", 2, patience.Token);
        cluster.Api.Apply(HostPod);
        await cluster.UntilAsync(api => (int?)api.Find("daemonsets.apps", "default", "each")?["status"]?["numberReady"] == 2, TimeSpan.FromSeconds(30));

        var pods = Kubectl(world, "get", "pods", "-o", "jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName}{\"\\n\"}{end}");
        foreach (var line in pods.Split('\n', StringSplitOptions.RemoveEmptyEntries))
        {
            var (pod, node) = (line.Split(' ')[0], line.Split(' ')[1]);
            var log = Kubectl(world, "logs", pod);
            // 1000 is CAP_NET_ADMIN alone.
            Assert.Equal($"prepared\ngood day\nI am {node}\n65532\nCapBnd:\t0000000000001000\n", log);
            Assert.Equal("eth0", Kubectl(world, "exec", pod, "--", "sh", "-c", "ls /sys/class/net | grep eth0").Trim());
        }

        // A file of a ConfigMap follows it.
        cluster.Api.Apply(HostPod[HostPod.IndexOf("apiVersion: v1", StringComparison.Ordinal)..].Replace("good day", "good night", StringComparison.Ordinal));
        var one = pods.Split(' ')[0];
        using var tick = new PeriodicTimer(TimeSpan.FromMilliseconds(100));
        while (Kubectl(world, "exec", one, "--", "cat", "/config/greeting") != "good night\n")
            await tick.WaitForNextTickAsync(patience.Token);

        // No network plugin: a pod of its own network waits, and says why.
        const string ready = "jsonpath={.items[*].status.conditions[?(@.type==\"Ready\")].status}";
        Assert.Contains("False", Kubectl(world, "get", "nodes", "-o", ready), StringComparison.Ordinal);
        Kubectl(world, "delete", "daemonset", "each", "--timeout=20s");
        await cluster.UntilAsync(api => api.List("pods").Count == 0, TimeSpan.FromSeconds(30));
        Assert.Empty(cluster.Problems);
    }

    [Fact]
    public async Task A_pod_that_fails_says_what_it_said_and_is_tried_again()
    {
        await using var world = new KubeWorld();
        using var patience = new CancellationTokenSource(TimeSpan.FromSeconds(60));
        var cluster = await world.AddClusterAsync("tokyo", 1, patience.Token);
        cluster.Api.Apply("""
            apiVersion: v1
            kind: Pod
            metadata: {name: broken, namespace: default}
            spec:
              nodeName: tokyo-1
              hostNetwork: true
              initContainers:
                - {name: mount, image: any, command: [sh, -c, 'echo cannot mount >&2; exit 3'], terminationMessagePolicy: FallbackToLogsOnError}
              containers: [{name: main, image: any, command: [sleep, infinity]}]
            """);
        await cluster.UntilAsync(
            api => api.Find("pods", "default", "broken")?["status"]?["initContainerStatuses"]?[0] is JsonObject init
                && (int?)init["restartCount"] > 0 && init["lastState"]?["terminated"]?["message"]?.ToString() == "cannot mount",
            TimeSpan.FromSeconds(30));
        Assert.Empty(cluster.Problems);
    }

    private static string Kubectl(KubeWorld world, params string[] words) => ChildThread.Run("kubectl", ["--kubeconfig", world.Kubeconfig, .. words]);
}
