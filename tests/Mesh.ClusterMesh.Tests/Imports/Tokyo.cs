using System.Text;
using Mesh.ClusterMesh.ApiServer;
using Mesh.Kubernetes;
using Mesh.Model;
using Mesh.TestKit;

namespace Mesh.ClusterMesh.Tests.Imports;

/// <summary>Cluster tokyo/1 as it really is: manifests, an API server that writes, and its etcd.</summary>
internal sealed class Tokyo : IAsyncDisposable
{
    private readonly string _home = Directory.CreateTempSubdirectory("mesh-tokyo-").FullName;
    private CancellationTokenSource? _stop;
    private ApiServer.ApiServer? _server;
    private Task _running = Task.CompletedTask;

    private readonly TimeSpan _heartbeat;

    private Tokyo(EtcdServer etcd, TimeSpan heartbeat) => (Etcd, _heartbeat) = (etcd, heartbeat);

    public EtcdServer Etcd { get; }

    /// <param name="backends">Of service shop/cart, half of them, and shop/till.</param>
    /// <param name="heartbeat">Between two heartbeats; a second when not given.</param>
    public static async Task<Tokyo> StartAsync(int backends = 40, TimeSpan? heartbeat = null)
    {
        var tokyo = new Tokyo(await EtcdServer.StartAsync(), heartbeat ?? TimeSpan.FromSeconds(1));
        Directory.CreateDirectory(tokyo.Manifests);
        tokyo.Serve("cart", 0, backends / 2);
        tokyo.Serve("till", backends / 2, backends);
        tokyo.Write("node.yaml", """
            {apiVersion: cilium.io/v2, kind: CiliumNode, metadata: {name: tokyo-1},
             spec: {addresses: [{type: InternalIP, ip: 172.30.1.11}], ipam: {podCIDRs: [10.1.0.0/24]}}}
            ---
            {apiVersion: cilium.io/v2, kind: CiliumIdentity, metadata: {name: "65537"},
             security-labels: {"k8s:app": cart, "k8s:io.cilium.k8s.policy.cluster": tokyo}}
            """);
        await tokyo.StartWriterAsync();
        return tokyo;
    }

    private string Manifests => Path.Combine(_home, "manifests");

    /// <summary>Gives the service backends 10.1.0.(10 + from) up to, not including, 10.1.0.(10 + to), and each a pod.</summary>
    public void Serve(string service, int from, int to) => Write($"{service}.yaml", ServiceText(service, from, to) + PodsText(service, from, to));

    /// <summary>Services alone, in one file.</summary>
    public void Serve(string file, params (string Service, int From, int To)[] services) =>
        Write($"{file}.yaml", string.Join("---\n", services.Select(one => ServiceText(one.Service, one.From, one.To))));

    /// <summary>Pods alone.</summary>
    public void Run(string name, int from, int to) => Write($"{name}.yaml", PodsText(name, from, to));

    private static string ServiceText(string service, int from, int to)
    {
        var endpoints = string.Join(", ", Enumerable.Range(from, to - from).Select(i => $"{{addresses: [10.1.0.{10 + i}]}}"));
        return """
            {apiVersion: v1, kind: Service, metadata: {name: NAME, namespace: shop, annotations: {service.cilium.io/global: "true"}},
             spec: {ports: [{name: http, port: 80}]}}
            ---
            {apiVersion: discovery.k8s.io/v1, kind: EndpointSlice,
             metadata: {name: NAME-1, namespace: shop, labels: {kubernetes.io/service-name: NAME}}, addressType: IPv4,
             ports: [{name: http, port: 8080}], endpoints: [ENDPOINTS]}

            """.Replace("NAME", service, StringComparison.Ordinal).Replace("ENDPOINTS", endpoints, StringComparison.Ordinal);
    }

    private static string PodsText(string name, int from, int to)
    {
        var text = new StringBuilder();
        for (var i = from; i < to; i++)
        {
            text.AppendLine("---").AppendLine("{apiVersion: cilium.io/v2, kind: CiliumEndpoint, metadata: {name: NAME, namespace: shop}, status: "
                .Replace("NAME", $"{name}-{i}", StringComparison.Ordinal)
                + $"{{identity: {{id: 65537}}, networking: {{node: 172.30.1.11, addressing: [{{ipv4: 10.1.0.{10 + i}}}]}}}}}}");
        }
        return text.ToString();
    }

    /// <summary>Deletes what the file has.</summary>
    public void Withdraw(string service) => File.Delete(Path.Combine(Manifests, $"{service}.yaml"));

    public async Task StartWriterAsync()
    {
        _stop = new CancellationTokenSource();
        _server = new ApiServer.ApiServer(new ApiServerOptions
        {
            Self = new ClusterSelf("tokyo", 1, IdentityNumbering.Max255),
            Source = SourceAddress.OfManifests(Manifests),
            GivenEtcd = Etcd.Options,
            HeartbeatInterval = _heartbeat,
        });
        _running = _server.RunAsync(_stop.Token);
        using var deadline = new CancellationTokenSource(TimeSpan.FromSeconds(20));
        while (!_server.IsReady && !_running.IsCompleted)
            await Task.Delay(10, deadline.Token);
        if (_running.IsCompleted)
            await _running;
    }

    /// <summary>The API server ends; what it wrote stays for as long as its leases.</summary>
    public async Task StopWriterAsync()
    {
        if (_server is null)
            return;
        await _stop!.CancelAsync();
        await _running.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        await _server.DisposeAsync();
        _stop.Dispose();
        _server = null;
    }

    public async ValueTask DisposeAsync()
    {
        await StopWriterAsync();
        await Etcd.DisposeAsync();
        Directory.Delete(_home, recursive: true);
    }

    private void Write(string file, string yaml)
    {
        var temporary = Path.Combine(Manifests, ".tmp");
        File.WriteAllText(temporary, yaml);
        File.Move(temporary, Path.Combine(Manifests, file), overwrite: true);
    }
}
