using System.Text.Json.Nodes;
using Mesh.KubeApi;
using Mesh.Kubernetes;
using Mesh.Kubernetes.Api;
using Mesh.Model;
using Mesh.Operator.Collecting;
using Microsoft.Extensions.Time.Testing;
using Xunit;

namespace Mesh.Operator.Tests;

public sealed class OperatorTests : IAsyncLifetime
{
    private readonly CancellationTokenSource _patience = new(TimeSpan.FromSeconds(40));
    private readonly string _kubeconfig = Path.GetTempFileName();
    private KubeApiServer _api = null!;

    public async ValueTask InitializeAsync()
    {
        File.Delete(_kubeconfig);
        _api = await KubeApiServer.StartAsync();
        _api.WriteKubeconfig(_kubeconfig, "tokyo");
    }

    public async ValueTask DisposeAsync()
    {
        await _api.DisposeAsync();
        File.Delete(_kubeconfig);
        _patience.Dispose();
    }

    [Fact]
    public async Task Every_node_gets_a_range_of_its_own_and_keeps_it_whoever_leads()
    {
        await using (var first = Start("10.1.0.0/22"))
        {
            await UntilAsync(api => api.List("customresourcedefinitions.apiextensions.k8s.io").Count >= 5);
            _api.Apply(Node("a") + Node("b"));
            await UntilAsync(_ => Ranges("a").Length == 1 && Ranges("b").Length == 1);
        }
        var before = (Ranges("a")[0], Ranges("b")[0]);
        await using var second = Start("10.1.0.0/22");
        _api.Apply(Node("c"));
        await UntilAsync(_ => Ranges("c").Length == 1);
        Assert.Equal(before, (Ranges("a")[0], Ranges("b")[0]));
        Assert.Equal(3, new[] { "a", "b", "c" }.Select(node => Ranges(node)[0]).Distinct().Count());
    }

    [Fact]
    public async Task A_pool_that_is_used_up_is_told_and_the_next_node_waits_for_one_to_leave()
    {
        await using var running = Start("10.1.0.0/24");
        await UntilAsync(api => api.List("customresourcedefinitions.apiextensions.k8s.io").Count >= 5);
        _api.Apply(Node("a"));
        await UntilAsync(_ => Ranges("a").Length == 1);
        _api.Apply(Node("b"));
        await UntilAsync(_ => running.Log.Problems.GetValueOrDefault("ciliumnode b", "")
            .Contains("no pod range is left in 10.1.0.0/24", StringComparison.Ordinal));
        Assert.Empty(Ranges("b"));
        await DeleteAsync("/apis/cilium.io/v2/ciliumnodes/a");
        await UntilAsync(_ => Ranges("b").Length == 1);
        await UntilAsync(_ => running.Log.Problems.Count == 0);
    }

    [Fact]
    public async Task An_api_server_that_restarts_stops_nothing_for_good()
    {
        await using var running = Start("10.1.0.0/22");
        await UntilAsync(api => api.List("customresourcedefinitions.apiextensions.k8s.io").Count >= 5);
        await _api.RestartAsync(_patience.Token);
        using (_api.Faults.Add(new Fault(FaultKind.TooManyRequests) { Resource = "ciliumnodes", Verb = "patch", Times = 2 }))
        {
            _api.Apply(Node("a"));
            await UntilAsync(_ => Ranges("a").Length == 1);
        }
    }

    [Fact]
    public async Task An_identity_goes_after_its_grace_unless_somebody_uses_it()
    {
        var time = new FakeTimeProvider(DateTimeOffset.UtcNow);
        using var client = new KubeClient(KubeConfiguration.FromFile(_kubeconfig));
        await CrdInstaller.InstallAsync(client, TimeProvider.System, _patience.Token);
        _api.Apply(Identity(65537) + Identity(65538) + Endpoint("pod", 65538));
        var identities = new Reflector<Mesh.Kubernetes.Objects.CiliumIdentity>(client, KubeResources.CiliumIdentities);
        var endpoints = new Reflector<Mesh.Kubernetes.Objects.CiliumEndpoint>(client, KubeResources.CiliumEndpoints);
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(_patience.Token);
        var following = Task.WhenAll(FollowAsync(identities, stop.Token), FollowAsync(endpoints, stop.Token));
        await UntilAsync(_ => identities.Snapshot().Count == 2 && endpoints.Snapshot().Count == 1);
        var unused = new UnusedIdentities(client, identities, endpoints, TimeSpan.FromMinutes(15), time, new OperatorLog(TextWriter.Null, time));

        await unused.CollectAsync(_patience.Token);
        await UntilAsync(_ => identities.Find(null, "65537")?.Metadata.Annotations?.ContainsKey(UnusedIdentities.Mark) == true);
        time.Advance(TimeSpan.FromMinutes(14));
        await unused.CollectAsync(_patience.Token);
        Assert.NotNull(_api.Find("ciliumidentities.cilium.io", "", "65537"));

        // In use again: the mark goes, and its time begins anew.
        _api.Apply(Endpoint("other", 65537));
        await UntilAsync(_ => endpoints.Snapshot().Count == 2);
        await unused.CollectAsync(_patience.Token);
        await UntilAsync(_ => identities.Find(null, "65537")?.Metadata.Annotations?.ContainsKey(UnusedIdentities.Mark) != true);
        await DeleteAsync("/apis/cilium.io/v2/namespaces/default/ciliumendpoints/other");
        await UntilAsync(_ => endpoints.Snapshot().Count == 1);
        await unused.CollectAsync(_patience.Token);
        await UntilAsync(_ => identities.Find(null, "65537")?.Metadata.Annotations?.ContainsKey(UnusedIdentities.Mark) == true);
        time.Advance(TimeSpan.FromMinutes(15));
        await unused.CollectAsync(_patience.Token);
        Assert.Null(_api.Find("ciliumidentities.cilium.io", "", "65537"));
        Assert.NotNull(_api.Find("ciliumidentities.cilium.io", "", "65538"));
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => following);
    }

    [Theory]
    [InlineData("--ipam=pool", "--ipam 'pool': must be cluster-pool or kubernetes")]
    [InlineData("--cluster-pool-ipv4-cidr=10.0.0.0/33", "'10.0.0.0/33': must be an IPv4 range")]
    [InlineData("--cluster-pool-ipv4-cidr=10.0.0.0/25", "pool 10.0.0.0/25 is smaller than the /24")]
    [InlineData("--cluster-pool-ipv4-cidr=10.0.0.0/8 10.1.0.0/16", "pools 10.0.0.0/8 and 10.1.0.0/16 overlap")]
    [InlineData("--clusterpool=1", "unknown; allowed are")]
    public void An_impossible_flag_is_named_with_what_is_allowed(string flag, string message)
    {
        var errors = new StringWriter();
        Assert.Equal(1, CommandLine.Parse([flag], TextWriter.Null, errors).ExitCode);
        Assert.Contains(message, errors.ToString(), StringComparison.Ordinal);
    }

    private Running Start(string pool)
    {
        var options = new OperatorOptions
        {
            Source = SourceAddress.TryParse($"kubernetes:{_kubeconfig}")!,
            Namespace = "kube-system",
            Identity = Guid.NewGuid().ToString("N"),
            Pools = [([IpPrefix.Parse(pool)], 24)],
            ApiAddress = new System.Net.IPEndPoint(System.Net.IPAddress.Loopback, 0),
        };
        return new Running(options);
    }

    private sealed class Running : IAsyncDisposable
    {
        private readonly CancellationTokenSource _stop = new();
        private readonly KubeClient _client;
        private readonly ClusterOperator _operator;
        private readonly Task _task;

        public Running(OperatorOptions options)
        {
            Log = new OperatorLog(TextWriter.Null, TimeProvider.System);
            _client = new KubeClient(options.Source.Configuration());
            _operator = new ClusterOperator(options, _client, TimeProvider.System, Log);
            _task = _operator.RunAsync(_stop.Token);
        }

        public OperatorLog Log { get; }

        public async ValueTask DisposeAsync()
        {
            await _stop.CancelAsync();
            await _task.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            await _operator.DisposeAsync();
            _client.Dispose();
            _stop.Dispose();
        }
    }

    private static async Task FollowAsync<T>(Reflector<T> reflector, CancellationToken stop)
        where T : class
    {
        await foreach (var batch in reflector.WatchAsync(stop))
            _ = batch;
    }

    private async Task UntilAsync(Func<KubeApiServer, bool> holds)
    {
        using var tick = new PeriodicTimer(TimeSpan.FromMilliseconds(20));
        while (!holds(_api))
            await tick.WaitForNextTickAsync(_patience.Token);
    }

    private async Task DeleteAsync(string path)
    {
        using var client = _api.CreateClient();
        (await client.DeleteAsync(path, _patience.Token)).EnsureSuccessStatusCode();
    }

    private string[] Ranges(string node) =>
        [.. (_api.Find("ciliumnodes.cilium.io", "", node)?["spec"]?["ipam"]?["podCIDRs"] as JsonArray ?? []).Select(one => $"{one}")];

    private static string Node(string name) => $$"""
        ---
        apiVersion: cilium.io/v2
        kind: CiliumNode
        metadata: {name: {{name}}}
        spec: {addresses: []}

        """;

    private static string Identity(int number) => $$"""
        ---
        apiVersion: cilium.io/v2
        kind: CiliumIdentity
        metadata: {name: "{{number}}"}
        security-labels: {"k8s:app": a{{number}}}

        """;

    private static string Endpoint(string name, int identity) => $$"""
        ---
        apiVersion: cilium.io/v2
        kind: CiliumEndpoint
        metadata: {name: {{name}}, namespace: default}
        status: {identity: {id: {{identity}} } }

        """;
}
