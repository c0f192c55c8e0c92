using System.Collections.Concurrent;
using System.Diagnostics;
using System.Net;
using Mesh.ClusterMesh.Config;
using Mesh.ClusterMesh.Door;
using Mesh.ClusterMesh.Remote;
using Mesh.ClusterMesh.Tests.Remote;
using Mesh.ClusterMesh.Wire;
using Mesh.KVStore;
using Mesh.Model;
using Mesh.Pki;
using Mesh.TestKit;
using Xunit;

namespace Mesh.ClusterMesh.Relay.Tests;

/// <summary>Cluster tokyo's relay behind a real door, with files of its own, and tokyo's agents that read there.</summary>
internal sealed class RelayUnderTest : IAsyncDisposable
{
    public const string Cluster = "tokyo";
    private static readonly TimeSpan Life = TimeSpan.FromDays(1);

    private readonly string _directory = Directory.CreateTempSubdirectory("mesh-relay-").FullName;
    private readonly CertificateAuthority _authority = CertificateAuthority.Create("tokyo", Life);
    private readonly int _port = EtcdServer.FreePort();
    private readonly RelayOptions _options;
    private CancellationTokenSource _stop = new();
    private Task _running = Task.CompletedTask;
    private ClusterDoor? _door;

    public RelayUnderTest(RelayOptions? options = null)
    {
        _options = options ?? Quick;
        foreach (var directory in (string[])[Peers, Agents])
            Directory.CreateDirectory(directory);
        File.WriteAllText(FileOf("ca.crt"), _authority.CertificatePem);
        Write("server", _authority.Issue("clustermesh-apiserver.cilium.io", ["localhost"], [IPAddress.Loopback], Life));
        Write("local", _authority.Issue($"local-{Cluster}", [], [], Life));
    }

    public static RelayOptions Quick { get; } = new()
    {
        ReconnectBackoff = TimeSpan.FromMilliseconds(10),
        ReconnectBackoffMax = TimeSpan.FromMilliseconds(100),
        ConfigRefresh = TimeSpan.FromMilliseconds(100),
        RemovalGrace = TimeSpan.FromMilliseconds(500),
        OpenRetry = TimeSpan.FromMilliseconds(100),
    };

    public static RemoteClusterOptions AgentOptions { get; } = new()
    {
        LocalCluster = Cluster,
        LocalClusterId = 1,
        Numbering = IdentityNumbering.Max255,
        ReconnectBackoff = TimeSpan.FromMilliseconds(10),
        ReconnectBackoffMax = TimeSpan.FromMilliseconds(50),
        ConfigRefresh = TimeSpan.FromMilliseconds(50),
    };

    /// <summary>The relay's peer files.</summary>
    public string Peers => Path.Combine(_directory, "peers");

    /// <summary>The agents' peer files: each names our own door.</summary>
    public string Agents => Path.Combine(_directory, "agents");

    public MirrorView Mirror { get; private set; } = null!;

    public ClusterRelay Relay { get; private set; } = null!;

    public ConcurrentQueue<string> Log { get; } = new();

    public string Endpoint => $"https://127.0.0.1:{_port}";

    public string FileOf(string name) => Path.Combine(_directory, name);

    public static async Task<RelayUnderTest> StartedAsync(RelayOptions? options = null)
    {
        var under = new RelayUnderTest(options);
        await under.StartAsync();
        return under;
    }

    public async Task StartAsync()
    {
        _stop = new CancellationTokenSource();
        Mirror = MirrorView.Open(new MirrorOptions { StateDir = FileOf("state") }, TimeProvider.System, Log.Enqueue);
        _door = new ClusterDoor(DoorOptions(), null, Mirror, TimeProvider.System, Log.Enqueue);
        await _door.OpenAsync(_stop.Token);
        Relay = new ClusterRelay(_options, new ConfigDirectory(Peers, Cluster, TimeProvider.System), Open, Mirror,
            TimeProvider.System, Random.Shared, Log.Enqueue);
        _running = Relay.RunAsync(_stop.Token);
    }

    /// <summary>The journal is written as things happen: an orderly end leaves what a kill leaves.</summary>
    public async Task StopAsync()
    {
        await _stop.CancelAsync();
        await _running;
        if (_door is not null)
            await _door.DisposeAsync();
        await Mirror.DisposeAsync();
    }

    public DoorOptions DoorOptions() => new()
    {
        ClusterName = Cluster,
        Listen = new IPEndPoint(IPAddress.Loopback, _port),
        CertFile = FileOf("server.crt"),
        KeyFile = FileOf("server.key"),
        TrustedCaFile = FileOf("ca.crt"),
    };

    public static IKVStore Open(PeerConfig peer) => new EtcdKVStore(EtcdConfigFile.Parse(peer.Text));

    /// <summary>Lets the relay mirror it and the agents read it here.</summary>
    public void Add(string peer, EtcdOptions source)
    {
        WritePeer(Path.Combine(Peers, peer), source);
        WritePeer(Path.Combine(Agents, peer), Local);
    }

    /// <summary>What the relay lets the peer do.</summary>
    public void Limit(string peer, string imports)
    {
        var path = Path.Combine(Peers, peer + ".imports.json");
        File.WriteAllText(path + ".new", imports);
        File.Move(path + ".new", path, overwrite: true);
    }

    public void Remove(string peer) => File.Delete(Path.Combine(Peers, peer));

    /// <summary>How an agent of tokyo connects.</summary>
    public EtcdOptions Local => new()
    {
        Endpoints = [Endpoint],
        TrustedCaFile = FileOf("ca.crt"),
        CertFile = FileOf("local.crt"),
        KeyFile = FileOf("local.key"),
    };

    public static void WritePeer(string path, EtcdOptions options)
    {
        var text = $"endpoints:\n- {options.Endpoints[0]}\n";
        if (options.CertFile is not null)
            text += $"trusted-ca-file: {options.TrustedCaFile}\ncert-file: {options.CertFile}\nkey-file: {options.KeyFile}\n";
        File.WriteAllText(path + ".tmp", text.Replace("endpoints", "later", StringComparison.Ordinal));
        File.WriteAllText(path + ".tmp", text);
        File.Move(path + ".tmp", path, overwrite: true);
    }

    public Agent Agent() => new(Agents);

    public RelayedClusterStatus Status(string peer) => Relay.Statuses.SingleOrDefault(status => status.Name == peer)
        ?? new RelayedClusterStatus { Name = peer, Status = "not seen yet" };

    public Task UntilReadyAsync(string peer) =>
        UntilAsync(() => Relay.Statuses.Any(status => status.Name == peer && status.Ready), $"{peer} is mirrored");

    public async Task UntilAsync(Func<bool> condition, string what, double seconds = 20)
    {
        var clock = Stopwatch.StartNew();
        while (!condition())
        {
            if (clock.Elapsed.TotalSeconds > seconds || _running.IsFaulted)
            {
                Assert.Fail($"not within {seconds} s: {what}; the relay: {_running.Exception}; statuses: "
                    + $"{string.Join("; ", Relay?.Statuses ?? [])}\n{string.Join('\n', Log)}");
            }
            await Task.Delay(5);
        }
    }

    /// <summary>Keys and values of the cache, a line each.</summary>
    public string Dump(string prefix = "") => string.Join('\n', Mirror.KeysBelow(prefix)
        .Select(key => $"{key} {System.Text.Encoding.UTF8.GetString(Mirror.Get(key)!.Value.Span)}"));

    public void Write(string name, IssuedCertificate issued)
    {
        File.WriteAllText(FileOf(name + ".crt"), issued.CertificatePem);
        File.WriteAllText(FileOf(name + ".key"), issued.KeyPem);
    }

    public async ValueTask DisposeAsync()
    {
        await StopAsync();
        await DeleteAsync();
    }

    /// <summary>Of one that was never started.</summary>
    public ValueTask DeleteAsync()
    {
        _authority.Dispose();
        _stop.Dispose();
        Directory.Delete(_directory, recursive: true);
        return ValueTask.CompletedTask;
    }
}

/// <summary>An agent's side: all peers of a directory into one sink.</summary>
internal sealed class Agent : IAsyncDisposable
{
    private readonly EtcdSharing _sharing = new(Keys.Wider);
    private readonly CancellationTokenSource _stop = new();
    private readonly Task _running;

    public Agent(string directory)
    {
        Clusters = new RemoteClusters(RelayUnderTest.AgentOptions,
            new ConfigDirectory(directory, RelayUnderTest.Cluster, TimeProvider.System), peer => _sharing.Open(EtcdConfigFile.Parse(peer.Text)), Sink,
            TimeProvider.System, Random.Shared);
        _running = Clusters.RunAsync(_stop.Token);
    }

    public RemoteClusters Clusters { get; }

    public RecordingSink Sink { get; } = new();

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        await _running;
        _stop.Dispose();
    }
}
