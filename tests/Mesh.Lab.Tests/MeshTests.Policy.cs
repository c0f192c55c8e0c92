using Mesh.AgentApi;
using Mesh.Lab.Plan;
using Mesh.Lab.Pods;
using Xunit;

namespace Mesh.Lab.Tests;

public sealed partial class MeshTests
{
    /// <summary>Pods of osaka may speak with rebel-base of tokyo, and with nobody else.</summary>
    private const string OnlyTokyo = """
        apiVersion: cilium.io/v2
        kind: CiliumNetworkPolicy
        metadata: {name: only-tokyo, namespace: default}
        spec:
          endpointSelector: {}
          egress:
          - toEndpoints:
            - matchLabels: {name: rebel-base, io.cilium.k8s.policy.cluster: tokyo}
        """;

    [Fact]
    public async Task A_policy_of_one_cluster_names_the_pods_of_another()
    {
        var nagoya = lab.Plan.Clusters[2];
        var file = Path.Combine(lab.Osaka.Manifests, "only-tokyo.yaml");
        Assert.Equal("", await FailureAsync(lab.Tokyo));
        Assert.Equal("", await FailureAsync(nagoya));
        await File.WriteAllTextAsync(file, OnlyTokyo, LiveLab.Cancel);
        try
        {
            await LiveLab.UntilAsync(async () => (await TraceAsync(nagoya)) is { Verdict: "DENIED" } trace
                && trace.Ends.All(end => end.Kernel is { Agrees: true, Allowed: false }), "the kernel denies nagoya");
            var allowed = await TraceAsync(lab.Tokyo);
            Assert.Equal("ALLOWED", allowed.Verdict);
            Assert.Contains("only-tokyo", Assert.Single(allowed.Ends).Reason, StringComparison.Ordinal);
            // The rules hold when the flows that run have been learnt.
            await LiveLab.UntilAsync(async () => (await FailureAsync(nagoya)).Length > 0, "nagoya is out of reach");
            Assert.Equal("", await FailureAsync(lab.Tokyo));
        }
        finally
        {
            File.Delete(file);
        }
        await LiveLab.UntilAsync(async () => (await TraceAsync(nagoya)).Verdict == "ALLOWED", "the policy is gone");
        await LiveLab.UntilAsync(async () => (await FailureAsync(nagoya)).Length == 0, "nagoya answers again");

        async Task<PolicyTraceReport> TraceAsync(ClusterPlan to)
        {
            var node = lab.Osaka.Nodes[0];
            using var agent = new AgentClient(node.Socket, node.Name);
            return await agent.TracePolicyAsync($"default/{node.Pods[0].Name}", to.Nodes[0].Pods[0].IPv4, $"{LabPlanner.EchoTcpPort}/TCP", LiveLab.Cancel);
        }

        // Straight to a pod, over both families.
        async Task<string> FailureAsync(ClusterPlan to)
        {
            var pod = to.Nodes[0].Pods[0];
            await using var load = LoadRun.Start(lab.Plan, LiveLab.Client, ["--target", $"{pod.IPv4}:{LabPlanner.EchoTcpPort}",
                "--target", $"[{pod.IPv6}]:{LabPlanner.EchoTcpPort}", "--count", "20", "--rate", "100"]);
            return FirstFailure(await load.EndAsync(LiveLab.Cancel));
        }
    }
}
