using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Cryptography.X509Certificates;
using Mesh.ClusterMesh.Door;
using Mesh.KVStore;
using Mesh.TestKit;

namespace Mesh.Benchmarks.Surroundings;

/// <summary>
/// The door of a cluster before its etcd, in a process of its own so that its memory and processor time are its own too: the API
/// server as `make build` left it. It puts right what others write among its cluster's records; where a benchmark writes those
/// itself, this very program started as `door` stands in for it, with the same door in it.
/// </summary>
internal sealed class DoorProcess : IAsyncDisposable
{
    private const string Mode = "door";
    private static readonly TimeSpan OpeningPatience = TimeSpan.FromMinutes(3);
    private readonly Process _process;

    private DoorProcess(Process process, int port)
    {
        _process = process;
        Port = port;
    }

    public int Port { get; }

    public int Id => _process.Id;

    /// <summary>True when these arguments make this program a door.</summary>
    public static bool IsMeant(string[] arguments) => arguments is [Mode, ..];

    /// <summary>The API server. Returns when its door lets readers in.</summary>
    /// <param name="name">Of a directory beside the etcd's files: it remembers there which etcd it followed.</param>
    public static async Task<DoorProcess> StartAsync(
        EtcdServer etcd, string cluster, uint id, string name, int port, CancellationToken cancellation)
    {
        var directory = Directory.CreateDirectory(Path.Combine(etcd.WorkDirectory, name)).FullName;
        var (client, log) = (Path.Combine(directory, "etcd.yaml"), Path.Combine(directory, "log"));
        await File.WriteAllTextAsync(client, ClientFile.Of(etcd.Options), cancellation);
        var door = new DoorProcess(Command.Start("clustermesh-apiserver", log, "clustermesh", "--cluster-name", cluster,
            "--cluster-id", id.ToString(CultureInfo.InvariantCulture),
            "--source", $"manifests:{Directory.CreateDirectory(Path.Combine(directory, "manifests")).FullName}",
            "--kvstore-opt", $"etcd.config={client}", "--health-port", "0",
            "--door-listen-addr", string.Create(CultureInfo.InvariantCulture, $"127.0.0.1:{port}"),
            "--door-trusted-ca-file", etcd.CaFile, "--door-cert-file", Path.Combine(etcd.WorkDirectory, "server.crt"),
            "--door-key-file", Path.Combine(etcd.WorkDirectory, "server.key"), "--state-dir", directory), port);
        await UntilOpenAsync(door._process, port, log, cancellation);
        return door;
    }

    /// <summary>This program. Returns when it is open.</summary>
    /// <param name="name">As above.</param>
    public static async Task<DoorProcess> StandInAsync(
        EtcdServer etcd, string cluster, string name, int port, CancellationToken cancellation)
    {
        var directory = Directory.CreateDirectory(Path.Combine(etcd.WorkDirectory, name)).FullName;
        var log = Path.Combine(directory, "log");
        var door = new DoorProcess(Command.StartSelf(
            log, Mode, etcd.Endpoint, etcd.WorkDirectory, cluster, directory, port.ToString(CultureInfo.InvariantCulture)), port);
        await UntilOpenAsync(door._process, port, log, cancellation);
        return door;
    }

    /// <summary>Waits until somebody listens: a door does so only when it can serve.</summary>
    public static async Task UntilOpenAsync(Process process, int port, string log, CancellationToken cancellation)
    {
        for (var clock = Stopwatch.StartNew(); ; await Task.Delay(5, cancellation))
        {
            using var probe = new Socket(SocketType.Stream, ProtocolType.Tcp);
            try
            {
                await probe.ConnectAsync(IPAddress.Loopback, port, cancellation);
                return;
            }
            catch (SocketException) when (!process.HasExited && clock.Elapsed < OpeningPatience)
            {
                // Not yet.
            }
            catch (SocketException e)
            {
                var said = await File.ReadAllTextAsync(log, cancellation);
                var end = process.HasExited ? $", exit code {process.ExitCode}" : "";
                throw new InvalidOperationException($"the door does not open{end}: {e.Message}:\n{said}");
            }
        }
    }

    /// <summary>What this program does as a door: serves until its input ends.</summary>
    public static async Task<int> ServeAsync(string[] arguments)
    {
        var (etcd, directory, cluster, state) = (arguments[1], arguments[2], arguments[3], arguments[4]);
        string Path(string name) => System.IO.Path.Combine(directory, name);
        using var channel = EtcdChannel.Open(new EtcdOptions
        {
            Endpoints = [etcd],
            TrustedCaFile = Path("ca.crt"),
            CertFile = Path("root.crt"),
            KeyFile = Path("root.key"),
        });
        await using var door = new ClusterDoor(new DoorOptions
        {
            ClusterName = cluster,
            Listen = new IPEndPoint(IPAddress.Loopback, int.Parse(arguments[5], CultureInfo.InvariantCulture)),
            CertFile = Path("server.crt"),
            KeyFile = Path("server.key"),
            TrustedCaFile = Path("ca.crt"),
            StateDir = state,
        }, channel, TimeProvider.System, Console.Error.WriteLine);
        await door.OpenAsync(CancellationToken.None);
        while (Console.ReadLine() is not null)
        {
            // Until whoever started it lets go.
        }
        return 0;
    }

    /// <summary>SIGKILL: what a crash is.</summary>
    public async ValueTask DisposeAsync()
    {
        if (!_process.HasExited)
            _process.Kill();
        await _process.WaitForExitAsync();
        _process.Dispose();
    }

    /// <summary>How a reader of this name connects, to the door or to etcd itself.</summary>
    public static SslClientAuthenticationOptions Tls(EtcdServer etcd, string reader)
    {
        var options = etcd.OptionsFor(reader);
        var policy = new X509ChainPolicy { TrustMode = X509ChainTrustMode.CustomRootTrust, RevocationMode = X509RevocationMode.NoCheck };
        policy.CustomTrustStore.ImportFromPemFile(options.TrustedCaFile!);
        return new SslClientAuthenticationOptions
        {
            ClientCertificates = [X509Certificate2.CreateFromPemFile(options.CertFile!, options.KeyFile)],
            CertificateChainPolicy = policy,
        };
    }
}
