using System.Collections.Concurrent;
using System.Diagnostics;
using System.Globalization;
using System.Net;
using Mesh.ClusterMesh.Door;
using Mesh.Kubernetes;
using Mesh.KVStore;
using Mesh.Model;
using Mesh.Pki;
using Mesh.TestKit;

namespace Mesh.ClusterMesh.ApiServer.Tests;

/// <summary>Cluster tokyo/1: a manifests directory and an API server in this process, over a given etcd or one of its own, behind
/// a door.</summary>
internal sealed class TestCluster : IAsyncDisposable
{
    private readonly ConcurrentQueue<string> _log = new();
    private readonly CertificateAuthority _authority;
    private readonly TestCluster? _first;
    private CancellationTokenSource _stop = new();
    private Task _running = Task.CompletedTask;

    /// <param name="first">Another replica of the same cluster: it shares the manifests and the certificates.</param>
    public TestCluster(TestCluster? first = null)
    {
        _first = first;
        _authority = first?._authority ?? CertificateAuthority.Create("test CA", TimeSpan.FromDays(60));
        Directory.CreateDirectory(Manifests);
        File.WriteAllText(CaFile, _authority.CertificatePem);
    }

    public static ClusterSelf Self { get; } = new("tokyo", 1, IdentityNumbering.Max255);

    public string Home { get; } = Directory.CreateTempSubdirectory("mesh-apiserver-").FullName;

    public string Manifests => _first?.Manifests ?? Path.Combine(Home, "manifests");

    public string EtcdData => Path.Combine(Home, "etcd");

    public string CaFile => Path.Combine(Home, "ca.crt");

    public int Port { get; } = EtcdServer.FreePort();

    public string Url => $"https://127.0.0.1:{Port}";

    public int HealthPort { get; } = EtcdServer.FreePort();

    public ApiServer Server { get; private set; } = null!;

    public string Logged => string.Join('\n', _log);

    public void Write(string file, string yaml)
    {
        var temporary = Path.Combine(Manifests, ".tmp");
        File.WriteAllText(temporary, yaml);
        File.Move(temporary, Path.Combine(Manifests, file), overwrite: true);
    }

    /// <summary>PEM files of a certificate with this common name, valid for 127.0.0.1.</summary>
    /// <param name="file">Tells certificates of one name apart.</param>
    public (string Cert, string Key) Certificate(string commonName, string? file = null, TimeSpan? life = null)
    {
        file ??= commonName;
        var (cert, key) = (Path.Combine(Home, file + ".crt"), Path.Combine(Home, file + ".key"));
        if (!File.Exists(cert))
        {
            var issued = _authority.Issue(commonName, [], [IPAddress.Loopback], life ?? TimeSpan.FromDays(30));
            File.WriteAllText(key, issued.KeyPem);
            File.WriteAllText(cert, issued.CertificatePem);
        }
        return (cert, key);
    }

    /// <summary>Over an etcd of several members, behind a door.</summary>
    public Task StartOverAsync(EtcdCluster etcd) => StartOverAsync(etcd.Options, withDoor: true, sharesEra: true);

    public Task StartOverAsync(EtcdServer etcd, bool withDoor = false, bool sharesEra = true) =>
        StartOverAsync(etcd.Options, withDoor, sharesEra);

    public Task StartOverAsync(EtcdOptions etcd, bool withDoor, bool sharesEra = true) => StartAsync(Options() with
    {
        GivenEtcd = etcd,
        StateDirectory = Path.Combine(Home, "state"),
        Door = withDoor ? DoorOptions() with { StateDir = Path.Combine(Home, "state"), ConfirmReads = true, SharesEra = sharesEra } : null,
    });

    public Task StartWithOwnEtcdAsync() => StartAsync(Options() with { EmbeddedEtcdDirectory = EtcdData, Door = DoorOptions() });

    public DoorOptions DoorOptions()
    {
        var server = Certificate("server");
        return new DoorOptions
        {
            ClusterName = Self.Name,
            Listen = new IPEndPoint(IPAddress.Loopback, Port),
            TrustedCaFile = CaFile,
            CertFile = server.Cert,
            KeyFile = server.Key,
            StateDir = Path.Combine(Home, "door"),
        };
    }

    public ApiServerOptions Options() => new()
    {
        Self = Self,
        Source = SourceAddress.OfManifests(Manifests),
        Health = new IPEndPoint(IPAddress.Loopback, HealthPort),
        HeartbeatInterval = TimeSpan.FromMilliseconds(500),
    };

    /// <summary>The program's own words for the same cluster with an etcd of its own.</summary>
    public string[] Arguments(params string[] more) => ArgumentsOver(["--etcd-data-dir", EtcdData], more);

    /// <summary>The program's own words for the same cluster over a given etcd.</summary>
    public string[] ArgumentsOver(EtcdOptions etcd) =>
        ArgumentsOver(["--kvstore-opt", $"etcd.address={string.Join(',', etcd.Endpoints)}", "--state-dir", Path.Combine(Home, "state")], []);

    private string[] ArgumentsOver(string[] etcd, string[] more)
    {
        var server = Certificate("server");
        return
        [
            "clustermesh", "--cluster-name", "tokyo", "--cluster-id", "1", "--source", $"manifests:{Manifests}", .. etcd,
            "--door-listen-addr", $"127.0.0.1:{Port}", "--door-trusted-ca-file", CaFile, "--door-cert-file", server.Cert,
            "--door-key-file", server.Key, "--health-port", HealthPort.ToString(CultureInfo.InvariantCulture), .. more,
        ];
    }

    /// <summary>Starts the API server and returns when it is ready.</summary>
    public async Task StartAsync(ApiServerOptions options)
    {
        _stop = new CancellationTokenSource();
        Server = new ApiServer(options, TimeProvider.System, _log.Enqueue);
        _running = Server.RunAsync(_stop.Token);
        await Deadline.Until(() => _running.IsCompleted || Server.IsReady, "the API server to be ready", () => Logged);
        if (_running.IsCompleted)
            await _running;
    }

    /// <summary>An orderly stop.</summary>
    public async Task StopAsync()
    {
        await _stop.CancelAsync();
        await _running.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        if (Server is not null)
            await Server.DisposeAsync();
        _stop.Dispose();
    }

    /// <summary>A reader at the door with a certificate of this common name.</summary>
    /// <param name="replicas">Another door of the cluster, which the reader may use as well.</param>
    public EtcdKVStore ReaderOf(string commonName, string? file = null, TestCluster? replicas = null) =>
        new(ReaderOptions(commonName, file) with { Endpoints = replicas is null ? [Url] : [Url, replicas.Url] });

    public EtcdOptions ReaderOptions(string commonName, string? file = null)
    {
        var (cert, key) = Certificate(commonName, file);
        return new EtcdOptions { Endpoints = [Url], TrustedCaFile = CaFile, CertFile = cert, KeyFile = key };
    }

    /// <summary>The cluster's own etcd behind the door, with every right.</summary>
    public EtcdKVStore OwnEtcd() => new(EtcdConfigFile.Parse(File.ReadAllText(Path.Combine(EtcdData, "pki", "client.yaml"))));

    /// <summary>Runs Debian's etcdctl at the door with a certificate of this common name.</summary>
    public async Task<(int Code, string Output, string Error)> EtcdctlAsync(string commonName, params string[] arguments)
    {
        var (cert, key) = Certificate(commonName);
        var info = new ProcessStartInfo("etcdctl", ["--endpoints", Url, "--cacert", CaFile, "--cert", cert, "--key", key, .. arguments])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        info.Environment["ETCDCTL_API"] = "3";
        using var program = Process.Start(info)!;
        var error = program.StandardError.ReadToEndAsync();
        var output = await program.StandardOutput.ReadToEndAsync();
        await program.WaitForExitAsync();
        return (program.ExitCode, output, await error);
    }

    public async Task<(HttpStatusCode Status, string Text)> PageAsync(string path)
    {
        using var http = new HttpClient();
        using var answer = await http.GetAsync(new Uri($"http://127.0.0.1:{HealthPort}{path}"));
        return (answer.StatusCode, await answer.Content.ReadAsStringAsync());
    }

    /// <summary>Null when nobody answers.</summary>
    public async Task<string?> TryPageAsync(string path)
    {
        try
        {
            return (await PageAsync(path)).Text;
        }
        catch (HttpRequestException)
        {
            return null;
        }
    }

    public async Task<bool> TryReadyAsync() => await TryPageAsync("/readyz") == "Ready";

    public async ValueTask DisposeAsync()
    {
        await StopAsync();
        if (_first is null)
            _authority.Dispose();
        Directory.Delete(Home, recursive: true);
    }
}

internal static class StoreReading
{
    /// <summary>All keys of the mesh as key → text.</summary>
    public static async Task<SortedDictionary<string, string>> DumpAsync(this IKVStore store, string prefix = "cilium/")
    {
        var (items, _) = await store.ListAsync(prefix, CancellationToken.None);
        return new(items.ToDictionary(item => item.Key, item => System.Text.Encoding.UTF8.GetString(item.Value.Span)), StringComparer.Ordinal);
    }

    public static async Task<string?> TextAsync(this IKVStore store, string key) =>
        await store.GetAsync(key, CancellationToken.None) is { } found ? System.Text.Encoding.UTF8.GetString(found.Value.Span) : null;
}

internal static class Yaml
{
    public static string Service(string name, string annotations = "service.cilium.io/global: \"true\"", string spec = "ports: [{name: http, port: 80}]") =>
        $$"""
        apiVersion: v1
        kind: Service
        metadata: {name: {{name}}, namespace: shop, annotations: { {{annotations}} } }
        spec: { {{spec}} }
        ---

        """;

    public static string Slice(string service, string address, string name = "1", string conditions = "{}") =>
        $$"""
        apiVersion: discovery.k8s.io/v1
        kind: EndpointSlice
        metadata: {name: {{service}}-{{name}}, namespace: shop, labels: { kubernetes.io/service-name: {{service}} } }
        addressType: IPv4
        ports: [{name: http, port: 8080}]
        endpoints: [{addresses: [{{address}}], conditions: {{conditions}} }]
        ---

        """;
}
