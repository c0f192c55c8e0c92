using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Text;
using Mesh.AgentApi;
using Mesh.KVStore;
using Mesh.Pki;
using Mesh.TestKit;
using Xunit;

namespace Mesh.Agent.Tests.Truth;

/// <summary>An agent with one peer, kyoto, whose etcd is real and has TLS, and what may be wrong with that peer.</summary>
internal sealed class FaultyPeer : IAsyncDisposable
{
    public const string Name = "kyoto";
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(20);

    private readonly string _directory = RunningAgent.NewDirectory();
    private readonly List<IAsyncDisposable> _running = [];
    private readonly List<Socket> _stuffing = [];

    private FaultyPeer(EtcdServer etcd)
    {
        Etcd = etcd;
        _running.Add(etcd);
    }

    public EtcdServer Etcd { get; }

    public RunningAgent Agent { get; private set; } = null!;

    public static async Task<FaultyPeer> StartAsync() => new(await EtcdServer.StartAsync(true, "--quota-backend-bytes", "33554432"));

    public async ValueTask DisposeAsync()
    {
        if (Agent is not null)
            await Agent.DisposeAsync();
        _stuffing.ForEach(socket => socket.Dispose());
        for (var i = _running.Count - 1; i >= 0; i--)
            await _running[i].DisposeAsync();
        RunningAgent.Remove(_directory);
    }

    public async Task PublishAsync(string name = Name, uint id = 7, int nodes = 1, bool canaries = true, TimeSpan clock = default)
    {
        await using var store = Etcd.NewStore();
        await PublishedCluster.WriteAsync(store, name, id, nodes, canaries, clock);
    }

    /// <summary>Starts the agent.</summary>
    /// <param name="endpoint">Null for the etcd itself.</param>
    public async Task ConnectAsync(string? endpoint = null, string user = "root", string? authority = null)
    {
        var options = Etcd.OptionsFor(user);
        Directory.CreateDirectory(Path.Combine(_directory, "peers"));
        await File.WriteAllTextAsync(Path.Combine(_directory, "peers", Name),
            $"endpoints:\n- {endpoint ?? Etcd.Endpoint}\ntrusted-ca-file: {authority ?? options.TrustedCaFile}\n"
            + $"cert-file: {options.CertFile}\nkey-file: {options.KeyFile}\n");
        Agent = await RunningAgent.StartAsync(_directory, open: peer => new EtcdKVStore(EtcdConfigFile.Parse(peer.Text)));
    }

    public Task<StatusResponse> HealthyAsync() => UntilAsync(
        status => status.Mesh?.Peers is [{ Healthy: true }] && status.ClusterMesh!.Clusters![0].Ready, "healthy");

    public async Task<StatusResponse> UntilAsync(Func<StatusResponse, bool> wanted, string what)
    {
        var clock = Stopwatch.StartNew();
        while (true)
        {
            var status = await Agent.Client.GetStatusAsync();
            if (wanted(status))
                return status;
            Assert.True(clock.Elapsed < Patience, $"not {what} within {Patience}: {(status.Mesh?.Peers is [{ } last, ..] ? last : null)}");
            await Task.Delay(50);
        }
    }

    /// <summary>The class comes soon, and then nothing says healthy.</summary>
    public async Task<PeerStatus> SoonAsync(string fault)
    {
        await UntilAsync(status => status.Mesh?.Peers is [{ } peer] && peer.Fault == fault, fault);
        var status = await Agent.Client.GetStatusAsync();
        Assert.False(status.Mesh!.Healthy);
        Assert.False(status.ClusterMesh!.Clusters![0].Ready);
        var peer = Assert.Single(status.Mesh.Peers!);
        Assert.Equal((fault, false), (peer.Fault, peer.Healthy));
        Assert.NotEmpty(peer.Cause!);
        Assert.NotEmpty(peer.Mend!);
        Assert.Contains(status.Mesh.Faults!, one => one.Peer == Name && one.Class == fault);
        return peer;
    }

    public TcpProxy Proxy()
    {
        var proxy = new TcpProxy(new Uri(Etcd.Endpoint).Port);
        _running.Add(proxy);
        return proxy;
    }

    /// <summary>A port behind a full queue of connections that nobody accepts: the kernel drops further ones without a word.</summary>
    public async Task<int> BlackHoleAsync()
    {
        var hole = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        _stuffing.Add(hole);
        hole.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        hole.Listen(0);
        for (var i = 0; i < 4; i++)
        {
            var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { Blocking = false };
            _stuffing.Add(socket);
            try
            {
                await socket.ConnectAsync(hole.LocalEndPoint!).WaitAsync(TimeSpan.FromMilliseconds(200));
            }
            catch (TimeoutException)
            {
                break;
            }
        }
        return ((IPEndPoint)hole.LocalEndPoint!).Port;
    }

    /// <summary>The file of an authority that signed nothing here.</summary>
    public async Task<string> StrangerAsync()
    {
        using var stranger = CertificateAuthority.Create("stranger", TimeSpan.FromDays(1));
        var file = Path.Combine(Etcd.WorkDirectory, "stranger.crt");
        await File.WriteAllTextAsync(file, stranger.CertificatePem);
        return file;
    }

    /// <summary>Switches the etcd's authentication on: "root" may everything, "nobody" nothing.</summary>
    public async Task AuthenticateAsync()
    {
        await Etcd.EtcdctlAsync("user", "add", "root", "--no-password");
        await Etcd.EtcdctlAsync("user", "grant-role", "root", "root");
        await Etcd.EtcdctlAsync("user", "add", "nobody", "--no-password");
        await Etcd.EtcdctlAsync("auth", "enable");
    }

    /// <summary>Changes and compacts, so that who was away meanwhile cannot catch up.</summary>
    public async Task CompactAsync()
    {
        await using var store = Etcd.NewStore();
        var revision = await store.WriteAsync([new WriteOperation($"cilium/state/nodes/v1/{Name}/other", Encoding.UTF8.GetBytes("{}"))], default);
        await store.WriteAsync([new WriteOperation($"cilium/state/nodes/v1/{Name}/other", null)], default);
        await PublishedCluster.BeatAsync(store);
        await Etcd.EtcdctlAsync("compact", $"{revision + 2}");
    }

    /// <summary>Writes until etcd refuses.</summary>
    public async Task FillAsync()
    {
        await using var store = new EtcdKVStore(Etcd.Options with { RetryAttempts = 1 });
        var filling = await Assert.ThrowsAsync<KVStoreException>(async () =>
        {
            for (var i = 0; i < 100; i++)
                await store.WriteAsync([new WriteOperation($"junk/{i}", new byte[1 << 20])], default);
        });
        Assert.Equal(StoreFault.NoSpace, filling.Fault);
    }
}
