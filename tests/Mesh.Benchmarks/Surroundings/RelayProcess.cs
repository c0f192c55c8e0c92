using System.Diagnostics;
using System.Globalization;
using Mesh.KVStore;
using Mesh.TestKit;

namespace Mesh.Benchmarks.Surroundings;

/// <summary>The real relay (`clustermesh-apiserver kvstoremesh`) of cluster tokyo: it mirrors the peers of a directory, and serves them to
/// whoever comes as local-tokyo. Its certificates are those of the etcd that it is given.</summary>
internal sealed class RelayProcess : IAsyncDisposable
{
    public const string Reader = "local-tokyo";
    private readonly Process _process;
    private readonly string _directory;
    private readonly EtcdServer _authority;
    private readonly int _port;

    private RelayProcess(Process process, string directory, EtcdServer authority, int port) =>
        (_process, _directory, _authority, _port) = (process, directory, authority, port);

    /// <summary>How an agent reads through it.</summary>
    public EtcdOptions Options => _authority.OptionsFor(Reader) with
    {
        Endpoints = [string.Create(CultureInfo.InvariantCulture, $"https://127.0.0.1:{_port}")],
    };

    public TimeSpan Cpu => ProcessFacts.Cpu(_process.Id);

    /// <summary>Nearly all of them into its journal.</summary>
    public long Writes => ProcessFacts.Writes(_process.Id);

    public long Memory(string field) => ProcessFacts.Memory(_process.Id, field);

    public string LogTail => string.Join('\n', File.ReadLines(Path.Combine(_directory, "log")).TakeLast(20));

    /// <param name="peers">Names, and each one's etcd client file.</param>
    /// <param name="directory">Of its own; its memory over restarts is there.</param>
    /// <returns>When its door is open, which is before it has mirrored everything.</returns>
    public static async Task<RelayProcess> StartAsync(EtcdServer authority, string directory,
        IReadOnlyCollection<KeyValuePair<string, string>> peers, int maxConnectedClusters, CancellationToken cancellation)
    {
        var config = Directory.CreateDirectory(Path.Combine(directory, "peers")).FullName;
        foreach (var (name, file) in peers)
            await File.WriteAllTextAsync(Path.Combine(config, name), file, cancellation);
        var (port, log) = (EtcdServer.FreePort(), Path.Combine(directory, "log"));
        var process = Command.Start("clustermesh-apiserver", log, "kvstoremesh", "--cluster-name", "tokyo", "--cluster-id", "1",
            "--max-connected-clusters", maxConnectedClusters.ToString(CultureInfo.InvariantCulture), "--clustermesh-config", config,
            "--door-listen-addr", string.Create(CultureInfo.InvariantCulture, $"127.0.0.1:{port}"),
            "--door-trusted-ca-file", authority.CaFile, "--door-cert-file", Path.Combine(authority.WorkDirectory, "server.crt"),
            "--door-key-file", Path.Combine(authority.WorkDirectory, "server.key"),
            "--state-dir", Directory.CreateDirectory(Path.Combine(directory, "state")).FullName,
            "--api-serve-addr", string.Create(CultureInfo.InvariantCulture, $"127.0.0.1:{EtcdServer.FreePort()}"), "--health-port", "0");
        var relay = new RelayProcess(process, directory, authority, port);
        try
        {
            await DoorProcess.UntilOpenAsync(process, port, log, cancellation);
            return relay;
        }
        catch
        {
            await relay.DisposeAsync();
            throw;
        }
    }

    public async ValueTask DisposeAsync() => await Command.StopAsync(_process);
}
