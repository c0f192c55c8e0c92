using System.Collections.Concurrent;
using System.Text;
using k8s;
using k8s.Autorest;
using k8s.LeaderElection;
using k8s.LeaderElection.ResourceLock;
using k8s.Models;
using Xunit;

namespace Mesh.KubeApi.Tests;

/// <summary>The KubernetesClient package, which our own client is built on, takes the stand-in for a kube-apiserver.</summary>
public sealed class KubernetesClientTests : IDisposable
{
    private readonly DirectoryInfo _home = Directory.CreateTempSubdirectory("mesh-kube-client-");

    private static CancellationToken Stop => TestContext.Current.CancellationToken;

    public void Dispose() => _home.Delete(true);

    private Kubernetes Connect(KubeApiServer api, KubeUser? user = null, KubeCredential credential = KubeCredential.ClientCertificate)
    {
        var file = Path.Combine(_home.FullName, "config");
        api.WriteKubeconfig(file, "here", user, credential);
        return new Kubernetes(KubernetesClientConfiguration.BuildConfigFromConfigFile(file));
    }

    private static V1ConfigMap Map(string name) => new() { Metadata = new() { Name = name }, Data = new Dictionary<string, string> { ["a"] = "1" } };

    [Theory]
    [InlineData(KubeCredential.ClientCertificate)]
    [InlineData(KubeCredential.Token)]
    public async Task It_lists_in_pages(KubeCredential credential)
    {
        await using var api = await KubeApiServer.StartAsync(new() { MakeServiceAccounts = false }, Stop);
        using var client = Connect(api, credential: credential);
        for (var i = 0; i < 5; i++)
            await client.CoreV1.CreateNamespacedConfigMapAsync(Map($"c{i}"), "default", cancellationToken: Stop);
        var names = new List<string>();
        string? next = null;
        do
        {
            var page = await client.CoreV1.ListNamespacedConfigMapAsync("default", limit: 2, continueParameter: next, cancellationToken: Stop);
            Assert.True(page.Items.Count <= 2);
            names.AddRange(page.Items.Select(one => one.Metadata.Name));
            next = page.Metadata.ContinueProperty;
        }
        while (!string.IsNullOrEmpty(next));
        Assert.Equal(["c0", "c1", "c2", "c3", "c4"], names);
        api.Compact();
        var expired = await Assert.ThrowsAsync<HttpOperationException>(() => client.CoreV1.ListNamespacedConfigMapAsync("default", limit: 2,
            continueParameter: "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJhIn0", cancellationToken: Stop));
        Assert.Equal(410, (int)expired.Response.StatusCode);
    }

    [Fact]
    public async Task It_watches_and_hears_of_410()
    {
        await using var api = await KubeApiServer.StartAsync(new() { BookmarkInterval = TimeSpan.FromMilliseconds(50) }, Stop);
        using var client = Connect(api);
        var list = await client.CoreV1.ListNamespacedConfigMapAsync("default", cancellationToken: Stop);
        var events = new List<string>();
        Exception? told = null;
        var watching = Task.Run(async () =>
        {
            await foreach (var (type, item) in client.CoreV1.WatchListNamespacedConfigMapAsync("default", resourceVersion: list.Metadata.ResourceVersion,
                allowWatchBookmarks: true, onError: failure => told = failure, cancellationToken: Stop))
            {
                lock (events)
                    events.Add($"{type} {item.Metadata.Name}");
            }
        }, Stop);
        await client.CoreV1.CreateNamespacedConfigMapAsync(Map("x"), "default", cancellationToken: Stop);
        await client.CoreV1.PatchNamespacedConfigMapAsync(new V1Patch("""{"data":{"a":"2"}}""", V1Patch.PatchType.MergePatch), "x", "default",
            cancellationToken: Stop);
        await client.CoreV1.DeleteNamespacedConfigMapAsync("x", "default", cancellationToken: Stop);
        bool Complete()
        {
            lock (events)
                return events.Contains("Deleted x") && events[^1] == "Bookmark ";
        }
        await Wait.UntilAsync(Complete);
        Assert.Equal(["Added x", "Modified x", "Deleted x"], events.Where(one => !one.StartsWith("Bookmark", StringComparison.Ordinal)));
        api.ExpireWatches();
        await watching;
        Assert.Equal(410, Assert.IsType<KubernetesException>(told).Status.Code);
    }

    [Fact]
    public async Task It_patches_four_ways()
    {
        await using var api = await KubeApiServer.StartAsync(stop: Stop);
        using var client = Connect(api);
        api.Apply(Manifests.Deployment);
        Task<V1Deployment> PatchAsync(string body, V1Patch.PatchType type, string? manager = null, bool? force = null) =>
            client.AppsV1.PatchNamespacedDeploymentAsync(new V1Patch(body, type), "fleet", "default",
                fieldManager: manager, force: force, cancellationToken: Stop);
        Assert.Equal(3, (await PatchAsync("""{"spec":{"replicas":3}}""", V1Patch.PatchType.MergePatch)).Spec.Replicas);
        Assert.Equal(4, (await PatchAsync("""[{"op":"replace","path":"/spec/replicas","value":4}]""", V1Patch.PatchType.JsonPatch)).Spec.Replicas);
        var merged = await PatchAsync("""{"spec":{"template":{"spec":{"containers":[{"name":"ship","image":"a-wing"}]}}}}""",
            V1Patch.PatchType.StrategicMergePatch);
        Assert.Equal(("a-wing", 80), (merged.Spec.Template.Spec.Containers[0].Image, merged.Spec.Template.Spec.Containers[0].Ports[0].ContainerPort));
        var applied = """{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"fleet"},"spec":{"replicas":5}}""";
        var conflict = await Assert.ThrowsAsync<HttpOperationException>(() => PatchAsync(applied, V1Patch.PatchType.ApplyPatch, "ours"));
        Assert.Equal(409, (int)conflict.Response.StatusCode);
        Assert.Equal(5, (await PatchAsync(applied, V1Patch.PatchType.ApplyPatch, "ours", true)).Spec.Replicas);
        Assert.Equal(5, (await PatchAsync(applied, V1Patch.PatchType.ApplyPatch, "ours")).Spec.Replicas);
    }

    [Fact]
    public async Task It_runs_commands_in_pods()
    {
        await using var api = await KubeApiServer.StartAsync(new() { Pods = new ProcessRuntime() }, Stop);
        using var client = Connect(api);
        api.Apply(Manifests.Pod);
        var text = "";
        var code = await client.NamespacedPodExecAsync("luke", "default", "main", ["sh", "-c", "echo hello; exit 3"], false, async (input, output, error) =>
        {
            using var reader = new StreamReader(output, Encoding.UTF8);
            text = await reader.ReadToEndAsync(Stop);
        }, Stop);
        Assert.Equal(("hello\n", 3), (text, code));
        await using var log = await client.CoreV1.ReadNamespacedPodLogAsync("luke", "default", "main", cancellationToken: Stop);
        using var lines = new StreamReader(log);
        Assert.Equal(ProcessRuntime.LogText, await lines.ReadToEndAsync(Stop));
    }

    [Fact]
    public async Task Of_two_candidates_for_a_Lease_one_leads()
    {
        await using var api = await KubeApiServer.StartAsync(stop: Stop);
        using var client = Connect(api);
        var leaders = new ConcurrentQueue<string>();
        using var over = CancellationTokenSource.CreateLinkedTokenSource(Stop);
        LeaderElector Candidate(string name)
        {
            var elector = new LeaderElector(new LeaderElectionConfig(new LeaseLock(client, "kube-system", "chair", name))
            {
                LeaseDuration = TimeSpan.FromSeconds(3),
                RenewDeadline = TimeSpan.FromSeconds(2),
                RetryPeriod = TimeSpan.FromMilliseconds(50),
            });
            elector.OnStartedLeading += () => leaders.Enqueue(name);
            return elector;
        }
        using var first = Candidate("first");
        using var second = Candidate("second");
        var running = new[] { first.RunAndTryToHoldLeadershipForeverAsync(over.Token), second.RunAndTryToHoldLeadershipForeverAsync(over.Token) };
        await api.WhenAsync(one => one.Find("leases.coordination.k8s.io", "kube-system", "chair")?["spec"]?["holderIdentity"] is not null, Stop);
        var revision = api.Revision;
        // Renewals go on while the other one keeps asking.
        await api.WhenAsync(one => one.Revision > revision + 5, Stop);
        Assert.Single(leaders);
        await over.CancelAsync();
        await Task.WhenAll(running.Select(one => one.ContinueWith(_ => { }, TaskScheduler.Default)));
    }
}
