using System.Collections.Concurrent;
using System.Diagnostics;
using System.Net;
using System.Net.Security;
using System.Security.Cryptography.X509Certificates;
using Grpc.Net.Client;
using Mesh.ClusterMesh.Door.Access;
using Mesh.KVStore;
using Mesh.Pki;
using Mesh.TestKit;

namespace Mesh.ClusterMesh.Door.Tests;

/// <summary>A door before a real etcd, with an authority and files of its own, and clients of any name.</summary>
internal sealed class DoorUnderTest : IAsyncDisposable
{
    public const string Cluster = "falcon";

    private static readonly TimeSpan Life = TimeSpan.FromDays(1);

    private readonly string _directory = Directory.CreateTempSubdirectory("mesh-door-").FullName;
    private readonly List<GrpcChannel> _channels = [];
    private readonly EtcdServer? _etcd;
    private readonly MirrorView? _mirror;
    private GrpcChannel? _etcdChannel;

    private DoorUnderTest(EtcdServer? etcd, MirrorView? mirror)
    {
        (_etcd, _mirror) = (etcd, mirror);
        Authority = CertificateAuthority.Create("mesh", Life);
        File.WriteAllText(CaFile, Authority.CertificatePem);
        Write("server", Authority.Issue("clustermesh-apiserver.cilium.io", ["localhost"], [IPAddress.Loopback], Life));
        File.WriteAllText(UsersFile, "users:\n- name: remote-osprey\n  role: remote\n");
    }

    public EtcdServer Etcd => _etcd ?? throw new InvalidOperationException("this door has no etcd");

    public CertificateAuthority Authority { get; }

    public ClusterDoor Door { get; private set; } = null!;

    public ConcurrentQueue<string> Log { get; } = new();

    public string CaFile => Path.Combine(_directory, "ca.crt");

    public string UsersFile => Path.Combine(_directory, "users.yaml");

    public string FileOf(string name) => Path.Combine(_directory, name);

    public string Endpoint => $"https://{Door.Address}";

    public static async Task<DoorUnderTest> OpenAsync(EtcdServer etcd, Func<DoorOptions, DoorOptions>? change = null, string? etcdEndpoint = null)
    {
        var under = new DoorUnderTest(etcd, null);
        await under.ReopenAsync(change, etcdEndpoint: etcdEndpoint);
        return under;
    }

    /// <summary>A door that serves a cache, which stays the caller's: beside the state of an etcd, or alone.</summary>
    public static async Task<DoorUnderTest> OpenAsync(MirrorView mirror, EtcdServer? etcd = null)
    {
        var under = new DoorUnderTest(etcd, mirror);
        await under.ReopenAsync();
        return under;
    }

    /// <summary>Another door with the same files, as after a restart of the process.</summary>
    public async Task ReopenAsync(Func<DoorOptions, DoorOptions>? change = null, Roles? roles = null, string? etcdEndpoint = null)
    {
        await CloseAsync();
        var options = new DoorOptions
        {
            ClusterName = Cluster,
            Listen = new IPEndPoint(IPAddress.Loopback, 0),
            CertFile = FileOf("server.crt"),
            KeyFile = FileOf("server.key"),
            TrustedCaFile = CaFile,
            UsersFile = UsersFile,
            StateDir = _directory,
            ConfirmReads = true,
        };
        options = change?.Invoke(options) ?? options;
        _etcdChannel = _etcd is null ? null : GrpcChannel.ForAddress(etcdEndpoint ?? Etcd.Endpoint, new GrpcChannelOptions
        {
            MaxReceiveMessageSize = null,
            MaxSendMessageSize = null,
            HttpHandler = new SocketsHttpHandler
            {
                KeepAlivePingDelay = TimeSpan.FromSeconds(6),
                KeepAlivePingTimeout = TimeSpan.FromSeconds(3),
                SslOptions = TlsTo(Etcd.Options),
            },
            MaxReconnectBackoff = TimeSpan.FromMilliseconds(200),
            InitialReconnectBackoff = TimeSpan.FromMilliseconds(20),
            DisposeHttpClient = true,
        });
        Door = new ClusterDoor(
            options, _etcdChannel?.CreateCallInvoker(), _mirror, TimeProvider.System, Log.Enqueue, roles ?? Roles.Cilium(Cluster));
        using var patience = new CancellationTokenSource(TimeSpan.FromSeconds(30));
        await Door.OpenAsync(patience.Token);
    }

    public async Task CloseAsync()
    {
        foreach (var channel in _channels)
            channel.Dispose();
        _channels.Clear();
        if (Door is not null)
            await Door.DisposeAsync();
        _etcdChannel?.Dispose();
    }

    /// <summary>How a client with this common name connects to the door.</summary>
    public EtcdOptions As(string user, CertificateAuthority? issuer = null)
    {
        var name = issuer is null ? user : user + "-foreign";
        if (!File.Exists(FileOf(name + ".crt")))
            Write(name, (issuer ?? Authority).Issue(user, [], [], Life));
        return new EtcdOptions
        {
            Endpoints = [Endpoint],
            TrustedCaFile = CaFile,
            CertFile = FileOf(name + ".crt"),
            KeyFile = FileOf(name + ".key"),
        };
    }

    public GrpcChannel Channel(string user, CertificateAuthority? issuer = null)
    {
        var channel = GrpcChannel.ForAddress(Endpoint, new GrpcChannelOptions
        {
            MaxReceiveMessageSize = null,
            HttpHandler = new SocketsHttpHandler { SslOptions = TlsTo(As(user, issuer)) },
            DisposeHttpClient = true,
        });
        _channels.Add(channel);
        return channel;
    }

    public static SslClientAuthenticationOptions TlsTo(EtcdOptions options)
    {
        var tls = new SslClientAuthenticationOptions();
        if (options.TrustedCaFile is { } authority)
        {
            tls.CertificateChainPolicy = new X509ChainPolicy
            {
                TrustMode = X509ChainTrustMode.CustomRootTrust,
                RevocationMode = X509RevocationMode.NoCheck,
            };
            tls.CertificateChainPolicy.CustomTrustStore.ImportFromPemFile(authority);
        }
        if (options.CertFile is { } certificate)
            tls.ClientCertificates = [X509Certificate2.CreateFromPemFile(certificate, options.KeyFile!)];
        return tls;
    }

    /// <summary>Runs Debian's etcdctl against the door.</summary>
    public async Task<(int Exit, string Output, string Error)> EtcdctlAsync(string user, params string[] arguments)
    {
        using var process = Process.Start(EtcdctlInfo(user, arguments))!;
        var error = process.StandardError.ReadToEndAsync();
        var output = await process.StandardOutput.ReadToEndAsync();
        await process.WaitForExitAsync();
        return (process.ExitCode, output, await error);
    }

    public ProcessStartInfo EtcdctlInfo(string user, params string[] arguments)
    {
        var options = As(user);
        var info = new ProcessStartInfo("etcdctl") { RedirectStandardOutput = true, RedirectStandardError = true };
        info.Environment["ETCDCTL_API"] = "3";
        foreach (var argument in (string[])[$"--endpoints={Endpoint}", $"--cacert={CaFile}", $"--cert={options.CertFile}",
            $"--key={options.KeyFile}", .. arguments])
            info.ArgumentList.Add(argument);
        return info;
    }

    public void Write(string name, IssuedCertificate issued)
    {
        File.WriteAllText(FileOf(name + ".crt"), issued.CertificatePem);
        File.WriteAllText(FileOf(name + ".key"), issued.KeyPem);
    }

    public async ValueTask DisposeAsync()
    {
        await CloseAsync();
        Authority.Dispose();
        Directory.Delete(_directory, recursive: true);
    }
}
