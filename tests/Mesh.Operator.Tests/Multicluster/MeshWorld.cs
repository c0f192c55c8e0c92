using System.Text;
using System.Text.Json.Nodes;
using Mesh.ClusterMesh.ApiServer;
using Mesh.ClusterMesh.Remote;
using Mesh.ClusterMesh.Wire;
using Mesh.Install.Charts;
using Mesh.Install.Text;
using Mesh.KubeApi;
using Mesh.Kubernetes;
using Mesh.Kubernetes.Api;
using Mesh.KVStore;
using Mesh.Model;
using Mesh.Multicluster;
using Mesh.TestKit;

namespace Mesh.Operator.Tests.Multicluster;

/// <summary>
/// A cluster, tokyo unless said otherwise: the stand-in of its API server, its operator with the rights that the chart gives it, its directory of peers,
/// and a real etcd behind a wire that can be cut: that of its peers, or its own where it has an API server for the mesh.
/// </summary>
internal sealed class MeshWorld(string name, uint id) : IAsyncDisposable
{
    private const string Everything = "{clustermesh: {useAPIServer: true, mcsapi: {enabled: true}, enableEndpointSliceSynchronization: true}}";

    private static readonly string[] Accounts = ["cilium-operator", "clustermesh-apiserver"];

    private readonly CancellationTokenSource _patience = new(TimeSpan.FromSeconds(90));
    private readonly string _home = Directory.CreateTempSubdirectory("mesh-operator-").FullName;
    private EtcdServer _etcd = null!;
    private EtcdKVStore _store = null!;
    private readonly CancellationTokenSource _stop = new();
    private Task _publishing = Task.CompletedTask;
    private OneOperator? _operator;

    public KubeApiServer Api { get; private set; } = null!;

    public TcpProxy Wire { get; private set; } = null!;

    public OperatorLog Log => _operator!.Log;

    public string Said => _operator!.Output.ToString();

    public IKVStore Store => _store;

    public string Name => name;

    public string Metrics => _operator!.Metrics;

    private string Kubeconfig(string account) => Path.Combine(_home, account);

    private string Peers => Path.Combine(_home, "clustermesh");

    public static async Task<MeshWorld> StartAsync(string name = "tokyo", uint id = 1)
    {
        var world = new MeshWorld(name, id);
        Directory.CreateDirectory(world.Peers);
        world.Api = await KubeApiServer.StartAsync();
        world.Grant(Everything);
        foreach (var account in Accounts)
            world.Api.WriteKubeconfig(world.Kubeconfig(account), name, new KubeUser($"system:serviceaccount:kube-system:{account}", "system:authenticated"));
        world._etcd = await EtcdServer.StartAsync();
        world._store = new EtcdKVStore(world._etcd.Options);
        world.Wire = new TcpProxy(new Uri(world._etcd.Endpoint).Port);
        world.Apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop} }");
        return world;
    }

    /// <summary>The rights that the chart gives with these values, and no others.</summary>
    public void Grant(string values)
    {
        foreach (var right in ChartRenderer.Render(Chart.OfThisProgram, YamlText.ParseMap(values, "values"), new("cilium", "kube-system"),
            ChartEnvironment.Nowhere).Objects.Select(rendered => rendered.Object).Where(right => right.Body["roleRef"] is not null
                || $"{right.Body["kind"]}" is "Role" or "ClusterRole").Where(right => Accounts.Contains($"{right.Body["metadata"]!["name"]}")))
            Api.Apply(right.Copy().Body, "kube-system");
    }

    public void StartOperator(bool sync = true, bool imports = true) => _operator = new OneOperator(new OperatorOptions
    {
        Source = SourceAddress.TryParse($"kubernetes:{Kubeconfig("cilium-operator")}")!,
        Namespace = "kube-system",
        Identity = Guid.NewGuid().ToString("N"),
        RangesOfKubernetes = true,
        ApiAddress = new System.Net.IPEndPoint(System.Net.IPAddress.Loopback, 0),
        ClusterName = name,
        ClusterId = id,
        ClusterMeshConfig = Peers,
        SyncsEndpoints = sync,
        Imports = imports,
    });

    /// <summary>Publishes this cluster in the etcd.</summary>
    public void StartApiServer() => _publishing = Task.Run(async () =>
    {
        await using var server = new ApiServer(new ApiServerOptions
        {
            Self = new ClusterSelf(name, id, IdentityNumbering.Max255),
            Source = SourceAddress.TryParse($"kubernetes:{Kubeconfig("clustermesh-apiserver")}")!,
            GivenEtcd = _etcd.Options,
            StateDirectory = Path.Combine(_home, "state"),
            ServiceExports = true,
        }, TimeProvider.System);
        await server.RunAsync(_stop.Token);
    });

    public async Task StopOperatorAsync()
    {
        if (_operator is not null)
            await _operator.DisposeAsync();
        _operator = null;
    }

    /// <summary>YAML, also such that looks like JSON.</summary>
    public void Apply(string manifests) => Api.Apply("---\n" + manifests);

    public void Connect(string peer) => File.WriteAllText(Path.Combine(Peers, peer), $"endpoints:\n- {Wire.Endpoint}\n");

    public void Connect(MeshWorld peer) => File.WriteAllText(Path.Combine(Peers, peer.Name), $"endpoints:\n- {peer.Wire.Endpoint}\n");

    /// <summary>As a mount that is not there: it says nothing of who is a peer.</summary>
    public void HidePeers() => Directory.Move(Peers, Peers + ".away");

    public void ShowPeers() => Directory.Move(Peers + ".away", Peers);

    public void Disconnect(string peer) => File.Delete(Path.Combine(Peers, peer));

    /// <summary>The peer publishes itself, and what it has so far is complete.</summary>
    /// <param name="cached">As a relay has it.</param>
    public async Task PublishAsync(string peer, uint peerId, bool exports = true, bool cached = false)
    {
        var config = ClusterConfig.SafeProfile(peerId, 255, exports);
        await PutAsync(Keys.Heartbeat, WireTime.Now(TimeProvider.System));
        await PutAsync(Keys.ClusterConfig(peer), ClusterConfigCodec.Encode(config with { Capabilities = config.Capabilities! with { Cached = cached } }));
        foreach (var resource in RemoteResources.All)
            await PutAsync((cached ? Layout.Cache(peer) : Layout.State(peer)).Canary(resource), WireTime.Now(TimeProvider.System));
    }

    public Task ExportAsync(ExportedService export, bool cached = false)
    {
        var key = Keys.ServiceExport(export.Cluster, new ServiceName(export.Namespace, export.Name));
        return PutAsync(cached ? Layout.State(export.Cluster).Rewrite(key, Layout.Cache(export.Cluster))! : key, ExportedServiceCodec.Encode(export));
    }

    public Task ServiceAsync(string peer, uint peerId, string service, params (string Address, string Hostname)[] backends) => PutAsync(
        Keys.Service(peer, new ServiceName("shop", service)), ClusterServiceCodec.Encode(new ClusterService
        {
            Cluster = peer,
            ClusterId = peerId,
            Namespace = "shop",
            Name = service,
            Shared = true,
            Backends = backends.ToDictionary(one => one.Address,
                _ => (IReadOnlyDictionary<string, WirePort>)new Dictionary<string, WirePort> { ["http"] = new() { Protocol = "TCP", Port = 8080 } }),
            Hostnames = backends.Where(one => one.Hostname.Length > 0).ToDictionary(one => one.Address, one => one.Hostname),
        }));

    public Task PutAsync(string key, ReadOnlyMemory<byte> value) => _store.WriteAsync([new WriteOperation(key, value)], _patience.Token);

    public Task PutAsync(string key, string value) => PutAsync(key, Encoding.UTF8.GetBytes(value));

    public Task DeleteAsync(string key) => _store.WriteAsync([new WriteOperation(key, null)], _patience.Token);

    public bool HasProblem(string where, string message) => Log.Problems.GetValueOrDefault(where, "").Contains(message, StringComparison.Ordinal);

    /// <summary>Waits for a condition of the cluster's objects.</summary>
    public async Task UntilAsync(Func<bool> condition, [System.Runtime.CompilerServices.CallerArgumentExpression(nameof(condition))] string what = "")
    {
        using var tick = new PeriodicTimer(TimeSpan.FromMilliseconds(20));
        try
        {
            while (!condition())
                await tick.WaitForNextTickAsync(_patience.Token);
        }
        catch (OperationCanceledException)
        {
            throw new TimeoutException($"not in time: {what}\nproblems: {string.Join("; ", Log.Problems)}\n{Said}");
        }
    }

    /// <summary>Waits until the operator has looked at everything once more: it writes for this service only after that.</summary>
    public async Task RoundAsync()
    {
        var service = $"round-{Guid.NewGuid():N}"[..20];
        Apply($"{{apiVersion: multicluster.x-k8s.io/v1alpha1, kind: ServiceExport, metadata: {{name: {service}, namespace: shop}} }}");
        await UntilAsync(() => Condition(service, "Valid")?.Reason == "NoService");
        Api.Delete("serviceexports.multicluster.x-k8s.io", "shop", service);
    }

    public JsonObject? Import(string service = "cart") => Served("serviceimports") ? Api.Find("serviceimports.multicluster.x-k8s.io", "shop", service) : null;

    public JsonObject? Derived(string service = "cart") => Api.Find("services", "shop", MulticlusterNames.Derived(new ServiceName("shop", service)));

    /// <summary>Of import cart; "" for none.</summary>
    public string Address => $"{(Import()?["spec"]?["ips"] as JsonArray ?? []).FirstOrDefault()}";

    /// <summary>"tokyo osaka", as the import says.</summary>
    public string Clusters(string service = "cart") =>
        string.Join(' ', (Import(service)?["status"]?["clusters"] as JsonArray ?? []).Select(one => $"{one!["cluster"]}"));

    public (string Status, string Reason, string Message)? Condition(string service, string type) =>
        (Api.Find("serviceexports.multicluster.x-k8s.io", "shop", service)?["status"]?["conditions"] as JsonArray ?? [])
            .Where(one => $"{one!["type"]}" == type).Select(one => ((string, string, string)?)($"{one!["status"]}", $"{one["reason"]}", $"{one["message"]}"))
            .FirstOrDefault();

    /// <summary>"osaka/10.2.0.9" for each endpoint of the service that this controller manages, in order.</summary>
    public string Endpoints(string service, string managedBy = "endpointslice-mesh-controller.cilium.io") => string.Join(' ', Slices(service, managedBy)
        .SelectMany(slice => slice["endpoints"]!.AsArray().Select(one =>
            $"{slice["metadata"]!["labels"]!["multicluster.kubernetes.io/source-cluster"]}/{one!["addresses"]![0]}"))
        .Order(StringComparer.Ordinal));

    public IReadOnlyList<JsonObject> Slices(string service, string managedBy = "endpointslice-mesh-controller.cilium.io") =>
        [.. Api.List("endpointslices.discovery.k8s.io", "shop").Where(slice => $"{slice["metadata"]!["labels"]?["kubernetes.io/service-name"]}" == service
            && $"{slice["metadata"]!["labels"]?["endpointslice.kubernetes.io/managed-by"]}" == managedBy)];

    public bool Served(string kind) => Api.List("customresourcedefinitions.apiextensions.k8s.io").Any(one =>
        $"{one["spec"]!["names"]!["plural"]}" == kind
        && (one["status"]?["conditions"] as JsonArray ?? []).Any(condition => $"{condition!["type"]}" == "Established"));

    public async Task ExportHereAsync(string service = "cart", string spec = "ports: [{name: http, port: 80}]", string exported = "{}")
    {
        await UntilAsync(() => Served("serviceexports") && Served("serviceimports"));
        Apply($$"""
            {apiVersion: v1, kind: Service, metadata: {name: {{service}}, namespace: shop}, spec: { {{spec}} } }
            ---
            {apiVersion: multicluster.x-k8s.io/v1alpha1, kind: ServiceExport, metadata: {name: {{service}}, namespace: shop}, spec: {{exported}} }
            """);
    }

    public async ValueTask DisposeAsync()
    {
        await StopOperatorAsync();
        await _stop.CancelAsync();
        await _publishing.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        await Wire.DisposeAsync();
        await _store.DisposeAsync();
        await _etcd.DisposeAsync();
        await Api.DisposeAsync();
        Directory.Delete(_home, recursive: true);
        _patience.Dispose();
        _stop.Dispose();
    }

    private sealed class OneOperator : IAsyncDisposable
    {
        private readonly CancellationTokenSource _stop = new();
        private readonly KubeClient _client;
        private readonly ClusterOperator _operator;
        private readonly Task _task;

        public OneOperator(OperatorOptions options)
        {
            Log = new OperatorLog(Output, TimeProvider.System);
            _client = new KubeClient(options.Source.Configuration());
            _operator = new ClusterOperator(options, _client, TimeProvider.System, Log);
            _task = Task.Run(() => _operator.RunAsync(_stop.Token));
        }

        public StringWriter Output { get; } = new();

        public OperatorLog Log { get; }

        public string Metrics => _operator.Metrics();

        public async ValueTask DisposeAsync()
        {
            await _stop.CancelAsync();
            await _task.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            await _operator.DisposeAsync();
            _client.Dispose();
            _stop.Dispose();
        }
    }
}
