using System.Text.Json.Nodes;
using Mesh.Kubernetes.Api;
using Mesh.Kubernetes.Objects;
using Xunit;

namespace Mesh.Kubernetes.Tests.Api;

public sealed class KubernetesSourceTests
{
    /// <summary>Of every cluster; exports are there only where their definitions were asked for.</summary>
    private static readonly HashSet<ObjectKind> AllKinds = [.. Enum.GetValues<ObjectKind>().Except([ObjectKind.ServiceExport])];

    private static CancellationToken Stop => TestContext.Current.CancellationToken;

    private static string Identity(string number, string label = "k8s:app") => $$"""
        {"apiVersion":"cilium.io/v2","kind":"CiliumIdentity","metadata":{"name":"{{number}}"},"security-labels":{"{{label}}":"web"} }
        """;

    /// <summary>A reader of a source: present objects and whether all was said.</summary>
    private sealed class Reader : IAsyncDisposable
    {
        private readonly CancellationTokenSource _stop = new();
        private readonly Lock _lock = new();
        private readonly SortedDictionary<string, KubernetesObject> _objects = new(StringComparer.Ordinal);
        private readonly Task _reading;
        private string _synced = "";

        public Reader(KubeClient client, IReadOnlySet<ObjectKind> kinds)
        {
            Source = new KubernetesSource(client, kinds, new ReflectorOptions
            {
                BackoffMin = TimeSpan.FromMilliseconds(10),
                BackoffMax = TimeSpan.FromMilliseconds(100),
                Log = line => Log += line + "\n",
            });
            _reading = ReadAsync(kinds);
        }

        public KubernetesSource Source { get; }

        public string Log { get; private set; } = "";

        /// <summary>"" before Synced, then "all" or the incomplete kinds.</summary>
        public string Synced
        {
            get
            {
                lock (_lock)
                    return _synced;
            }
        }

        public string Objects
        {
            get
            {
                lock (_lock)
                    return string.Join(", ", _objects.Keys.Where(key => !key.Contains("kube", StringComparison.Ordinal) && key != "Namespace default"));
            }
        }

        public string Problems => string.Join('\n', Source.Problems.Select(problem => $"{problem.Where}: {problem.Message}"));

        public T? Find<T>(string key)
            where T : KubernetesObject
        {
            lock (_lock)
                return _objects.GetValueOrDefault(key) as T;
        }

        public Task Until(Func<Reader, bool> condition) => Cluster.Until(() => _reading.IsFaulted ? throw _reading.Exception : condition(this),
            () => $"objects: {Objects}\nsynced: {Synced}\nproblems: {Problems}\nlog: {Log}");

        public async ValueTask DisposeAsync()
        {
            await _stop.CancelAsync();
            await _reading.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            await Source.DisposeAsync();
            _stop.Dispose();
        }

        private async Task ReadAsync(IReadOnlySet<ObjectKind> kinds)
        {
            await foreach (var batch in Source.WatchAsync(kinds, _stop.Token))
            {
                lock (_lock)
                {
                    foreach (var change in batch)
                    {
                        if (change.Type == ObjectEventType.Synced)
                            _synced = change.Incomplete is null ? "all" : string.Join(' ', change.Incomplete.Order());
                        else if (change.Type == ObjectEventType.Upsert)
                            _objects[change.Object!.Key.ToString()] = change.Object;
                        else
                            _objects.Remove(change.Object!.Key.ToString());
                    }
                }
            }
        }
    }

    [Fact]
    public async Task All_kinds_are_told_and_then_that_this_is_all()
    {
        await using var cluster = await Cluster.StartAsync();
        cluster.ApplyCrds();
        cluster.Apply("""
            {"apiVersion":"v1","kind":"Namespace","metadata":{"name":"shop","annotations":{"clustermesh.cilium.io/global":"false"}}}
            ---
            {"apiVersion":"v1","kind":"Service","metadata":{"name":"web","namespace":"default"},"spec":{"ports":[{"port":80}]}}
            ---
            {"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{"name":"web-1","namespace":"default"},
             "addressType":"IPv4","endpoints":[{"addresses":["10.1.0.1"]}],"ports":[{"port":8080}]}
            ---
            {"apiVersion":"cilium.io/v2","kind":"CiliumNode","metadata":{"name":"n1"},"spec":{"addresses":[{"type":"InternalIP","ip":"192.0.2.1"}]}}
            ---
            {"apiVersion":"cilium.io/v2","kind":"CiliumEndpoint","metadata":{"name":"p1","namespace":"default"},
             "status":{"identity":{"id":70000},"networking":{"addressing":[{"ipv4":"10.1.0.1"}]}}}
            ---
            {"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{"name":"deny","namespace":"default"},"spec":{"podSelector":{}}}
            ---
            {"apiVersion":"cilium.io/v2","kind":"CiliumNetworkPolicy","metadata":{"name":"c","namespace":"default"},
             "spec":{"endpointSelector":{},"ingress":[{}]}}
            ---
            {"apiVersion":"cilium.io/v2","kind":"CiliumClusterwideNetworkPolicy","metadata":{"name":"cc"},"spec":{"endpointSelector":{},"ingress":[{}]}}
            ---

            """ + Identity("70000"));
        await using var reader = new Reader(cluster.NewClient(), AllKinds);
        await reader.Until(it => it.Synced == "all");
        Assert.Equal("CiliumClusterwideNetworkPolicy cc, CiliumEndpoint default/p1, CiliumIdentity 70000, CiliumNetworkPolicy default/c, CiliumNode n1, "
            + "EndpointSlice default/web-1, Namespace shop, NetworkPolicy default/deny, Service default/web", reader.Objects);
        Assert.False(ServiceAnnotations.IsGlobalNamespace(reader.Find<Namespace>("Namespace shop"), byDefault: true));
        Assert.Equal("", reader.Problems);
        await cluster.Client.DeleteAsync(KubeResources.CiliumNodes, null, "n1", Stop);
        await reader.Until(it => !it.Objects.Contains("CiliumNode", StringComparison.Ordinal));
    }

    [Fact]
    public async Task An_object_that_cannot_be_understood_keeps_its_last_version_and_is_named()
    {
        await using var cluster = await Cluster.StartAsync();
        cluster.ApplyCrds();
        cluster.Apply(Identity("70000"));
        await using var reader = new Reader(cluster.NewClient(), new HashSet<ObjectKind> { ObjectKind.CiliumIdentity, ObjectKind.CiliumNode });
        await reader.Until(it => it.Synced == "all");
        cluster.Apply(Identity("70000", "app"));
        await reader.Until(it => it.Problems.Contains("CiliumIdentity 70000: security-labels 'app' has no source: write it as k8s:app",
            StringComparison.Ordinal));
        Assert.True(reader.Find<CiliumIdentity>("CiliumIdentity 70000")!.SecurityLabels!.ContainsKey("k8s:app"));
        // One that was never understood leaves its kind incomplete, and no other.
        cluster.Apply("""
            {"apiVersion":"cilium.io/v2","kind":"CiliumNode","metadata":{"name":"n1"},"spec":{"addresses":[{"type":"InternalIP","ip":"one"}]}}
            """);
        await reader.Until(it => it.Synced == "CiliumNode");
        cluster.Apply(Identity("70000"));
        cluster.Apply("""
            {"apiVersion":"cilium.io/v2","kind":"CiliumNode","metadata":{"name":"n1"},"spec":{"addresses":[{"type":"InternalIP","ip":"192.0.2.1"}]}}
            """);
        await reader.Until(it => it.Synced == "all" && it.Problems.Length == 0);
        Assert.Contains("mended", reader.Log, StringComparison.Ordinal);
    }

    [Fact]
    public async Task What_we_may_not_read_and_what_is_not_installed_holds_up_nothing_else()
    {
        await using var cluster = await Cluster.StartAsync();
        cluster.Apply("""
            {"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"reader"},"rules":[
              {"apiGroups":[""],"resources":["services"],"verbs":["get","list","watch"]},{"apiGroups":["cilium.io"],"resources":["*"],"verbs":["*"]}]}
            ---
            {"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRoleBinding","metadata":{"name":"reader"},
             "subjects":[{"kind":"User","name":"guest"}],"roleRef":{"kind":"ClusterRole","name":"reader","apiGroup":"rbac.authorization.k8s.io"}}
            """);
        await using var reader = new Reader(cluster.ClientOf("guest"),
            new HashSet<ObjectKind> { ObjectKind.Service, ObjectKind.Namespace, ObjectKind.CiliumNode });
        await reader.Until(it => it.Synced == "Namespace CiliumNode");
        Assert.Contains("the server has no resource ciliumnodes.cilium.io of version v2: install its definition", reader.Problems, StringComparison.Ordinal);
        Assert.Contains("guest", reader.Problems, StringComparison.Ordinal);
        cluster.ApplyCrds();
        await reader.Until(it => it.Synced == "Namespace");
        cluster.Apply("""
            {"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"reader"},
             "rules":[{"apiGroups":["*"],"resources":["*"],"verbs":["*"]}]}
            """);
        await reader.Until(it => it.Synced == "all" && it.Problems.Length == 0);
    }

    [Fact]
    public async Task A_server_that_is_away_at_the_start_is_waited_for()
    {
        await using var cluster = await Cluster.StartAsync();
        await cluster.Server.StopAsync();
        await using var reader = new Reader(cluster.NewClient(), new HashSet<ObjectKind> { ObjectKind.Service });
        await reader.Until(it => it.Problems.Contains("127.0.0.1", StringComparison.Ordinal));
        Assert.Equal("", reader.Synced);
        await cluster.Server.ResumeAsync(Stop);
        await reader.Until(it => it.Synced == "all" && it.Problems.Length == 0);
        Assert.Contains("the server answers again", reader.Log, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Definitions_are_installed_upgraded_and_never_downgraded()
    {
        await using var cluster = await Cluster.StartAsync();
        async Task<string> Install() => string.Join(' ',
            (await CrdInstaller.InstallAsync(cluster.Client, TimeProvider.System, Stop)).Select(result => result.Outcome).Distinct());
        Assert.Equal("Created", await Install());
        Assert.Equal("UpToDate", await Install());
        await Label("ciliumnodes.cilium.io", "0.0.9");
        await Label("ciliumendpoints.cilium.io", "1.31.9");
        await Label("ciliumidentities.cilium.io", null);
        var results = (await CrdInstaller.InstallAsync(cluster.Client, TimeProvider.System, Stop)).ToDictionary(result => result.Name);
        Assert.Equal(CrdOutcome.Upgraded, results["ciliumnodes.cilium.io"].Outcome);
        Assert.Equal(CrdOutcome.Kept, results["ciliumendpoints.cilium.io"].Outcome);
        Assert.Contains("newer version 1.31.9 and stays", results["ciliumendpoints.cilium.io"].Note, StringComparison.Ordinal);
        Assert.Equal(CrdOutcome.Kept, results["ciliumidentities.cilium.io"].Outcome);

        Task Label(string name, string? version) => cluster.Client.PatchAsync(KubeResources.CustomResourceDefinitions.Raw, null, name,
            KubePatch.Merge(new JsonObject { ["metadata"] = new JsonObject { ["labels"] = new JsonObject { [CrdInstaller.VersionLabel] = version } } }), Stop);
    }
}
