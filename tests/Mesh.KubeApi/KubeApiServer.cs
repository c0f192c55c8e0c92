using System.Net;
using System.Net.Security;
using System.Runtime.CompilerServices;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using System.Text.Json.Nodes;
using Mesh.KubeApi.Api;
using Mesh.KubeApi.Auth;
using Mesh.KubeApi.Objects;
using Mesh.KubeApi.Store;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.AspNetCore.Server.Kestrel.Https;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;

namespace Mesh.KubeApi;

/// <summary>
/// A stand-in of kube-apiserver: the real protocol over HTTPS, one store in memory. Clients cannot tell it from a small real one as far
/// as they use it here; kubectl and KubernetesClient hold it to that in its tests. What no client sees is not built: admission webhooks,
/// aggregated servers, storage on disk.
/// <para>Objects, tokens and the authority live as long as this object; <see cref="RestartAsync"/> ends connections only.</para>
/// </summary>
public sealed class KubeApiServer : IAsyncDisposable
{
    private readonly KubeApiOptions _options;
    private readonly Authority _authority = new();
    private readonly ApiHandler _handler;
    private readonly CancellationTokenSource _disposed = new();
    private Task _controllers = Task.CompletedTask;
    private X509Certificate2? _certificate;
    private WebApplication? _web;
    private CancellationTokenSource _serving = new();
    private int _port;

    private KubeApiServer(KubeApiOptions options)
    {
        _options = options;
        Tokens = new TokenBook(_authority.Key, options.Time);
        Pods = options.Pods;
        _handler = new ApiHandler(options, this, _authority, Tokens);
        _port = options.Port;
    }

    /// <summary>Starts a server with the objects that every new cluster has: namespaces, roles, the Service of the API itself.</summary>
    public static async Task<KubeApiServer> StartAsync(KubeApiOptions? options = null, CancellationToken stop = default)
    {
        var server = new KubeApiServer(options ?? new());
        try
        {
            await server.ListenAsync(stop);
            server._controllers = server._handler.RunControllersAsync(server._disposed.Token);
            server._handler.Bootstrap(server._options.Address, server._port);
            return server;
        }
        catch
        {
            await server.DisposeAsync();
            throw;
        }
    }

    internal TokenBook Tokens { get; }

    internal ApiHandler Handler => _handler;

    /// <summary>Who serves exec, logs, attach and port-forward; may be set after the start.</summary>
    public IPodRuntime? Pods { get; set; }

    /// <summary>The faults in force.</summary>
    public FaultPlan Faults { get; } = new();

    public int Port => _port;

    /// <summary>https://127.0.0.1:PORT (or http).</summary>
    public Uri Url => new UriBuilder(_options.Tls ? "https" : "http",
        _options.Address.Equals(IPAddress.Any) ? "127.0.0.1" : _options.Address.ToString(), _port).Uri;

    /// <summary>PEM of the authority that clients trust.</summary>
    public string CertificateAuthorityPem => _authority.Pem;

    /// <summary>The revision of the last change.</summary>
    public long Revision => _handler.Store.Revision;

    /// <summary>Requests answered or being answered since the start, watches included.</summary>
    public long RequestCount => _handler.RequestCount;

    /// <summary>Requests counted by "verb resource" (as "list pods", "patch nodes/status").</summary>
    public IReadOnlyDictionary<string, long> RequestCounts => _handler.RequestCounts;

    /// <summary>Watches that are open now; of one resource by its plural name ("services", "ciliumnodes.cilium.io").</summary>
    public int WatchCount(string? resource = null) => _handler.Store.WatchCount(resource is null ? null : TypeOf(resource));

    /// <summary>A bearer token that stands for the user as long as this object lives.</summary>
    public string TokenFor(KubeUser user) => Tokens.Static(user);

    /// <summary>Client certificate and key (PEM) that stand for the user.</summary>
    public (string Certificate, string Key) CertificateFor(KubeUser user) => _authority.Client(user);

    /// <summary>
    /// Writes a context, its cluster and its user (default: the administrator) into a kubeconfig and makes it the current one. A file
    /// that is there keeps its other contexts. <paramref name="server"/>: another URL by which clients reach this server.
    /// </summary>
    public void WriteKubeconfig(string path, string contextName, KubeUser? user = null, KubeCredential credential = KubeCredential.ClientCertificate,
        string? @namespace = null, Uri? server = null)
    {
        user ??= KubeUser.Admin;
        var config = File.Exists(path) && Json.FromYaml(File.ReadAllText(path)).FirstOrDefault() is JsonObject there ? there : [];
        config["apiVersion"] = "v1";
        config["kind"] = "Config";
        var cluster = new JsonObject { ["server"] = (server ?? Url).ToString().TrimEnd('/') };
        if (_options.Tls)
            cluster["certificate-authority-data"] = Base64(CertificateAuthorityPem);
        var proof = new JsonObject();
        if (_options.Tls && credential == KubeCredential.ClientCertificate)
        {
            var (certificate, key) = CertificateFor(user);
            proof["client-certificate-data"] = Base64(certificate);
            proof["client-key-data"] = Base64(key);
        }
        else
        {
            proof["token"] = TokenFor(user);
        }
        var context = new JsonObject { ["cluster"] = contextName, ["user"] = contextName };
        if (@namespace is not null)
            context["namespace"] = @namespace;
        Put(config, "clusters", "cluster", contextName, cluster);
        Put(config, "users", "user", contextName, proof);
        Put(config, "contexts", "context", contextName, context);
        config["current-context"] = contextName;
        File.WriteAllText(path, config.ToJsonString(new() { WriteIndented = true }) + "\n");
        if (!OperatingSystem.IsWindows())
            File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite);
    }

    private static string Base64(string text) => Convert.ToBase64String(Encoding.UTF8.GetBytes(text));

    private static void Put(JsonObject config, string list, string kind, string name, JsonObject value)
    {
        if (config[list] is not JsonArray array)
            config[list] = array = [];
        if (array.Objects().FirstOrDefault(one => one.Str("name") == name) is { } old)
            array.Remove(old);
        array.Add((JsonNode)new JsonObject { ["name"] = name, [kind] = value });
    }

    /// <summary>A client with the user's token (default: the administrator's), this server's authority and address.</summary>
    public HttpClient CreateClient(KubeUser? user = null)
    {
        var handler = new SocketsHttpHandler
        {
            SslOptions = new SslClientAuthenticationOptions
            {
                CertificateChainPolicy = new X509ChainPolicy
                {
                    TrustMode = X509ChainTrustMode.CustomRootTrust,
                    CustomTrustStore = { _authority.Certificate },
                    RevocationMode = X509RevocationMode.NoCheck,
                },
            },
        };
        var client = new HttpClient(handler) { BaseAddress = Url, Timeout = Timeout.InfiniteTimeSpan };
        client.DefaultRequestHeaders.Authorization = new("Bearer", TokenFor(user ?? KubeUser.Admin));
        return client;
    }

    private ResourceType TypeOf(string resource) => _handler.Types.Named(resource)
        ?? throw new ArgumentException($"no resource \"{resource}\" is served; names are plurals, as \"pods\" or \"ciliumnodes.cilium.io\"", nameof(resource));

    /// <summary>An object as it is stored, a copy; null when it is not there. Cluster-wide resources take namespace "".</summary>
    public JsonObject? Find(string resource, string @namespace, string name) =>
        _handler.Store.Get(TypeOf(resource), @namespace, name) is { } stored ? Read(stored) : null;

    /// <summary>All objects of a resource, copies; of one namespace, or of all ("").</summary>
    public IReadOnlyList<JsonObject> List(string resource, string @namespace = "") =>
        [.. _handler.Store.Snapshot(TypeOf(resource)).Table.Values.Where(stored => @namespace == "" || stored.Namespace == @namespace)
            .Select(Read)];

    /// <summary>Through text, so that numbers read as any type of number.</summary>
    private static JsonObject Read(StoredObject stored)
    {
        var bytes = new MemoryStream();
        stored.WriteTo(bytes, stored.Type.Versions[0].Name, bare: false);
        return (JsonObject)JsonNode.Parse(bytes.GetBuffer().AsSpan(0, (int)bytes.Length))!;
    }

    /// <summary>
    /// Waits until the condition holds; it is asked again after every change of any object. After <paramref name="within"/> (30 s when
    /// null) TimeoutException with the condition's text.
    /// </summary>
    public async Task WhenAsync(Func<KubeApiServer, bool> condition, CancellationToken stop, TimeSpan? within = null,
        [CallerArgumentExpression(nameof(condition))] string what = "")
    {
        using var changes = _handler.Store.WatchAll();
        using var deadline = CancellationTokenSource.CreateLinkedTokenSource(stop);
        deadline.CancelAfter(within ?? TimeSpan.FromSeconds(30));
        try
        {
            while (!condition(this))
            {
                await changes.Changes.WaitToReadAsync(deadline.Token);
                while (changes.Changes.TryRead(out _))
                    continue;
            }
        }
        catch (OperationCanceledException) when (!stop.IsCancellationRequested)
        {
            throw new TimeoutException($"the cluster did not come to this in time: {what}");
        }
    }

    /// <summary>
    /// Creates the objects of a YAML or JSON text as the administrator would, or replaces those that are there; past HTTP, faults and
    /// RBAC, but with all defaults and checks. Several documents and Lists are fine.
    /// </summary>
    public void Apply(string manifests, string defaultNamespace = "default") => _handler.Writes.ApplyAll(manifests, defaultNamespace);

    /// <summary>The same for one object; it is copied.</summary>
    public void Apply(JsonObject manifest, string defaultNamespace = "default") => _handler.Writes.ApplyOne(manifest, defaultNamespace);

    /// <summary>Deletes an object as a DELETE with these options (propagationPolicy, gracePeriodSeconds) would; absent is fine.</summary>
    public void Delete(string resource, string @namespace, string name, JsonObject? options = null)
    {
        if (_handler.Store.Get(TypeOf(resource), @namespace, name) is not null)
            _handler.Writes.Delete(TypeOf(resource), @namespace, name, options ?? [], false);
    }

    /// <summary>Forgets the history: watches from before and later pages of lists are answered 410. Open watches go on.</summary>
    public void Compact() => _handler.Store.Compact();

    /// <summary>Ends open watches as a server that closes connections: the stream just ends. Of one resource, or all.</summary>
    public void CutWatches(string? resource = null) => _handler.Store.CutWatches(resource is null ? null : TypeOf(resource));

    /// <summary>Ends open watches with an ERROR event 410 Expired in the stream, after a compaction.</summary>
    public void ExpireWatches(string? resource = null)
    {
        var compacted = _handler.Store.Compact();
        _handler.Store.CutWatches(resource is null ? null : TypeOf(resource), KubeApiException.Expired($"too old resource version: 1 ({compacted})"));
    }

    /// <summary>Closes the port and all connections; objects stay.</summary>
    public async Task StopAsync()
    {
        await _serving.CancelAsync();
        if (_web is { } web)
        {
            _web = null;
            using var now = new CancellationTokenSource(TimeSpan.FromMilliseconds(200));
            await web.StopAsync(now.Token);
            await web.DisposeAsync();
        }
    }

    /// <summary>Listens again on the same port with the same objects.</summary>
    public Task ResumeAsync(CancellationToken stop = default) => ListenAsync(stop);

    /// <summary>Stops and listens again on the same port with the same objects.</summary>
    public async Task RestartAsync(CancellationToken stop = default)
    {
        await StopAsync();
        await ListenAsync(stop);
    }

    private async Task ListenAsync(CancellationToken stop)
    {
        _serving = new CancellationTokenSource();
        var builder = WebApplication.CreateEmptyBuilder(new() { Args = [] });
        builder.Services.AddRoutingCore();
        builder.Logging.ClearProviders();
        builder.WebHost.UseKestrelCore().ConfigureKestrel(kestrel =>
        {
            kestrel.AllowSynchronousIO = false;
            kestrel.Limits.MaxRequestBodySize = 16 * 1024 * 1024;
            kestrel.Limits.MinResponseDataRate = null;
            kestrel.Limits.MinRequestBodyDataRate = null;
            kestrel.Limits.KeepAliveTimeout = TimeSpan.FromMinutes(10);
            kestrel.Limits.Http2.MaxStreamsPerConnection = 250;
            kestrel.Limits.Http2.InitialConnectionWindowSize = 1 << 20;
            kestrel.Listen(_options.Address, _port, Configure);
            foreach (var end in _options.AlsoListen)
                kestrel.Listen(end, Configure);
            foreach (var handle in _options.ListenHandles)
                kestrel.ListenHandle(handle, Configure);
        });
        if (_options.Tls)
            builder.WebHost.UseKestrelHttpsConfiguration();
        var web = builder.Build();
        web.UseWebSockets();
        web.Run(http => _handler.HandleAsync(http, _serving.Token));
        await web.StartAsync(stop);
        _web = web;
        _port = new Uri(web.Urls.First()).Port;
    }

    private void Configure(ListenOptions listen)
    {
        if (!_options.Tls)
        {
            listen.Protocols = HttpProtocols.Http1;
            return;
        }
        _certificate ??= _authority.Server([_options.Address.Equals(IPAddress.Any) ? "127.0.0.1" : _options.Address.ToString(), "127.0.0.1", "::1",
            "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
            Bootstrapping.FirstAddress(_options.ServiceCidr), .. _options.AlsoListen.Select(end => end.Address.ToString()), .. _options.CertificateNames]);
        listen.Protocols = HttpProtocols.Http1AndHttp2;
        listen.UseHttps(new HttpsConnectionAdapterOptions
        {
            ServerCertificate = _certificate,
            ClientCertificateMode = ClientCertificateMode.AllowCertificate,
            // Who it is, and whether it is ours, is the authenticator's question: a foreign certificate is answered 401, not an alert.
            ClientCertificateValidation = (_, _, _) => true,
        });
    }

    public async ValueTask DisposeAsync()
    {
        Faults.Clear();
        await StopAsync();
        await _disposed.CancelAsync();
        await _controllers;
        _certificate?.Dispose();
        _authority.Dispose();
    }
}
