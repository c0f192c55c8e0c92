using System.Collections.Concurrent;
using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using Mesh.KVStore;
using Mesh.Pki;

namespace Mesh.TestKit;

/// <summary>
/// A real etcd of a test's own: a child process on random loopback ports with a directory of its own, gone with the test process
/// whatever kills that. Can be killed, paused, restarted and wiped; the ports stay the same over that.
/// </summary>
public sealed partial class EtcdServer : IAsyncDisposable
{
    private const int SigKill = 9;
    private const int SigTerm = 15;
    private const int SigCont = 18;
    private const int SigStop = 19;
    private static readonly TimeSpan StartPatience = TimeSpan.FromSeconds(20);
    private static readonly ConcurrentDictionary<int, bool> Given = new();

    private readonly string _directory = Directory.CreateTempSubdirectory("mesh-etcd-").FullName;
    private readonly CertificateAuthority? _authority;
    private readonly IReadOnlyList<string> _arguments;
    private readonly int _clientPort;
    private readonly int _peerPort;
    private readonly int _metricsPort;
    private readonly ConcurrentQueue<string> _output = new();
    private Process? _process;
    private int _births;

    private EtcdServer(bool tls, IReadOnlyList<string> arguments)
    {
        _arguments = arguments;
        (_clientPort, _peerPort, _metricsPort) = (FreePort(), FreePort(), FreePort());
        if (!tls)
            return;
        _authority = CertificateAuthority.Create("mesh test CA", TimeSpan.FromDays(1));
        File.WriteAllText(CaFile, _authority.CertificatePem);
        Write("server", _authority.Issue("server", ["localhost"], [IPAddress.Loopback], TimeSpan.FromDays(1)));
        Write("root", _authority.Issue("root", [], [], TimeSpan.FromDays(1)));
    }

    public string Endpoint => $"{(_authority is null ? "http" : "https")}://127.0.0.1:{_clientPort}";

    /// <summary>PEM file of the CA that both sides trust (TLS servers only).</summary>
    public string CaFile => Path.Combine(_directory, "ca.crt");

    /// <summary>How a client of full rights connects.</summary>
    public EtcdOptions Options => OptionsFor("root");

    public int ProcessId => _process!.Id;

    /// <summary>A directory for a test's own files, removed with the server.</summary>
    public string WorkDirectory => _directory;

    /// <param name="tls">HTTPS with client certificates; the common name is the etcd user.</param>
    /// <param name="arguments">More etcd arguments.</param>
    public static async Task<EtcdServer> StartAsync(bool tls = false, params string[] arguments)
    {
        for (var attempt = 1; ; attempt++)
        {
            var server = new EtcdServer(tls, arguments);
            try
            {
                await server.RestartAsync();
                return server;
            }
            catch (InvalidOperationException e) when (attempt < 3 && e.Message.Contains("address already in use", StringComparison.Ordinal))
            {
                // Somebody was quicker at one of its ports: it gets others.
                await server.DisposeAsync();
            }
        }
    }

    /// <summary>Options with a client certificate of this common name, issued at the first call.</summary>
    public EtcdOptions OptionsFor(string commonName)
    {
        if (_authority is null)
            return new EtcdOptions { Endpoints = [Endpoint] };
        if (!File.Exists(Path.Combine(_directory, commonName + ".crt")))
            Write(commonName, _authority.Issue(commonName, [], [], TimeSpan.FromDays(1)));
        return new EtcdOptions
        {
            Endpoints = [Endpoint],
            TrustedCaFile = CaFile,
            CertFile = Path.Combine(_directory, commonName + ".crt"),
            KeyFile = Path.Combine(_directory, commonName + ".key"),
        };
    }

    /// <summary>Exchanges the server's certificate, which etcd reads at each handshake.</summary>
    public void ReissueServer(TimeSpan lifetime) => Write("server", _authority!.Issue("server", ["localhost"], [IPAddress.Loopback], lifetime));

    public EtcdKVStore NewStore() => new(Options);

    /// <summary>Starts the server if it is not running, and returns when it answers.</summary>
    public async Task RestartAsync()
    {
        if (_process is { HasExited: false })
            await StopAsync();
        _process = ChildThread.Start(StartInfo());
        _ = DrainAsync(_process.StandardError);
        using var http = new HttpClient { Timeout = TimeSpan.FromSeconds(1) };
        var clock = Stopwatch.StartNew();
        while (true)
        {
            if (_process.HasExited || clock.Elapsed > StartPatience)
            {
                throw new InvalidOperationException(
                    $"etcd {(_process.HasExited ? $"exited with {_process.ExitCode}" : "is not ready")}:\n{string.Join('\n', _output)}");
            }
            try
            {
                var health = await http.GetStringAsync(new Uri($"http://127.0.0.1:{_metricsPort}/health"));
                if (health.Contains("true", StringComparison.Ordinal))
                    return;
            }
            catch (Exception e) when (e is HttpRequestException or TaskCanceledException)
            {
                // Not listening yet.
            }
            await Task.Delay(10);
        }
    }

    /// <summary>SIGKILL: what a crash is.</summary>
    public async Task KillAsync()
    {
        Signal(SigKill);
        await _process!.WaitForExitAsync();
    }

    /// <summary>SIGTERM: an orderly end, which closes every stream gracefully.</summary>
    public async Task StopAsync()
    {
        Signal(SigTerm);
        await _process!.WaitForExitAsync();
    }

    /// <summary>SIGSTOP: connections stand, nothing answers.</summary>
    public void Pause() => Signal(SigStop);

    public void Continue() => Signal(SigCont);

    /// <summary>Kills it, removes its data and starts it again, empty.</summary>
    /// <param name="sameClusterId">etcd derives its cluster ID from its flags: with the same ones it comes back under the same ID.</param>
    public async Task WipeAsync(bool sameClusterId = false)
    {
        if (_process is { HasExited: false })
            await KillAsync();
        Directory.Delete(DataDirectory, recursive: true);
        if (!sameClusterId)
            _births++;
        await RestartAsync();
    }

    /// <summary>Kills it and starts it again with the data of a snapshot that `etcdctl snapshot save` wrote: revisions go back.</summary>
    /// <param name="sameClusterId">As in <see cref="WipeAsync"/>.</param>
    public async Task RestoreAsync(string snapshot, bool sameClusterId = false)
    {
        if (_process is { HasExited: false })
            await KillAsync();
        Directory.Delete(DataDirectory, recursive: true);
        if (!sameClusterId)
            _births++;
        var peer = $"http://127.0.0.1:{_peerPort}";
        await EtcdctlAsync("snapshot", "restore", snapshot, "--data-dir", DataDirectory, "--name", "test", "--initial-cluster", "test=" + peer,
            "--initial-cluster-token", "test-" + _births, "--initial-advertise-peer-urls", peer);
        await RestartAsync();
    }

    /// <summary>Runs etcdctl as root against this server and returns what it printed.</summary>
    public async Task<string> EtcdctlAsync(params string[] arguments)
    {
        var info = EtcdctlInfo(arguments);
        using var process = ChildThread.Start(info);
        var error = process.StandardError.ReadToEndAsync();
        var output = await process.StandardOutput.ReadToEndAsync();
        await process.WaitForExitAsync();
        return process.ExitCode == 0 ? output
            : throw new InvalidOperationException($"etcdctl {string.Join(' ', arguments)}: {await error}");
    }

    public ProcessStartInfo EtcdctlInfo(params string[] arguments)
    {
        var info = new ProcessStartInfo("etcdctl") { RedirectStandardOutput = true, RedirectStandardError = true };
        info.Environment["ETCDCTL_API"] = "3";
        info.ArgumentList.Add("--endpoints=" + Endpoint);
        if (_authority is not null)
        {
            info.ArgumentList.Add("--cacert=" + CaFile);
            info.ArgumentList.Add("--cert=" + Options.CertFile);
            info.ArgumentList.Add("--key=" + Options.KeyFile);
        }
        foreach (var argument in arguments)
            info.ArgumentList.Add(argument);
        return info;
    }

    public async ValueTask DisposeAsync()
    {
        if (_process is { HasExited: false })
            await KillAsync();
        _process?.Dispose();
        _authority?.Dispose();
        Directory.Delete(_directory, recursive: true);
    }

    /// <summary>A loopback port nobody listens on at present, from below those that the kernel gives to connections: such a one may
    /// be taken by any connection before our child listens.</summary>
    public static int FreePort()
    {
        const int first = 15_000, end = 32_000, attempts = 100;
        for (var attempt = 1; ; attempt++)
        {
            var port = Random.Shared.Next(first, end);
            // Not one that somebody in this process was given and may be about to take.
            if (!Given.TryAdd(port, true) && attempt < attempts)
                continue;
            using var probe = new TcpListener(IPAddress.Loopback, port);
            try
            {
                probe.Start();
                return port;
            }
            catch (SocketException) when (attempt < attempts)
            {
                // Taken.
            }
        }
    }

    private string DataDirectory => Path.Combine(_directory, "data");

    private ProcessStartInfo StartInfo()
    {
        var peer = $"http://127.0.0.1:{_peerPort}";
        var info = new ProcessStartInfo("etcd") { RedirectStandardError = true, WorkingDirectory = _directory };
        List<string> arguments =
        [
            "--name", "test", "--data-dir", DataDirectory, "--unsafe-no-fsync",
            "--heartbeat-interval", "10", "--election-timeout", "100", "--logger", "zap", "--log-level", "warn",
            "--listen-client-urls", Endpoint, "--advertise-client-urls", Endpoint,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "test=" + peer,
            "--initial-cluster-token", "test-" + _births, "--listen-metrics-urls", $"http://127.0.0.1:{_metricsPort}",
        ];
        if (_authority is not null)
        {
            arguments.AddRange(
            [
                "--cert-file", Path.Combine(_directory, "server.crt"), "--key-file", Path.Combine(_directory, "server.key"),
                "--trusted-ca-file", CaFile, "--client-cert-auth",
            ]);
        }
        foreach (var argument in arguments.Concat(_arguments))
            info.ArgumentList.Add(argument);
        return info;
    }

    private void Write(string name, IssuedCertificate issued)
    {
        File.WriteAllText(Path.Combine(_directory, name + ".crt"), issued.CertificatePem);
        File.WriteAllText(Path.Combine(_directory, name + ".key"), issued.KeyPem);
    }

    private async Task DrainAsync(StreamReader lines)
    {
        while (await lines.ReadLineAsync() is { } line)
        {
            _output.Enqueue(line);
            if (_output.Count > 100)
                _output.TryDequeue(out _);
        }
    }

    private void Signal(int signal)
    {
        if (Kill(_process!.Id, signal) != 0)
            throw new InvalidOperationException($"kill({_process.Id}, {signal}): errno {Marshal.GetLastPInvokeError()}");
    }

    [LibraryImport("libc", EntryPoint = "kill", SetLastError = true)]
    private static partial int Kill(int pid, int signal);
}
