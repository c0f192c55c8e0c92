using System.Globalization;
using System.Net;
using System.Net.Sockets;
using Mesh.Joining;
using Mesh.Joining.Tokens;
using Mesh.KVStore;
using Mesh.Pki;
using Xunit;

namespace Mesh.ClusterMesh.ApiServer.Tests;

/// <summary>Two clusters as programs, each with an etcd, a door and an authority of its own: one token, and each reads the other
/// through the files that the join wrote; a disconnection, and it no longer does.</summary>
public sealed class JoinTests : IAsyncDisposable
{
    private readonly string _root = Directory.CreateTempSubdirectory("mesh-apiserver-join-").FullName;
    private readonly List<RunningProgram> _programs = [];

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public async ValueTask DisposeAsync()
    {
        foreach (var program in _programs)
            await program.DisposeAsync();
        Directory.Delete(_root, recursive: true);
    }

    private async Task<ClusterDescription> StartAsync(string name, uint id)
    {
        var directory = $"{_root}/{name}";
        var address = $"127.9.{Environment.ProcessId % 200 + 1}.{id}";
        foreach (var made in new[] { "agent", "manifests" })
            Directory.CreateDirectory($"{directory}/{made}");
        PkiDirectory.Init($"{directory}/pki", new PkiSettings { Cluster = name, ServerNames = [address] });
        await File.WriteAllTextAsync($"{directory}/users.yaml", "users: []\n", Cancellation);
        new ClusterDescription
        {
            Name = name,
            Id = id,
            PodCIDRs = [$"10.{id}.0.0/16"],
            NodeCIDRs = [$"172.30.{id}.0/24"],
            DoorAddresses = [$"https://{address}:2379"],
            JoinListen = $"{address}:2378",
            Pki = "pki",
            AgentConfigs = ["agent"],
            UsersFile = "users.yaml",
            JoinDirectory = "join",
            TunnelPort = 18475,
        }.Save(directory);
        _programs.Add(RunningProgram.Start(
        [
            "clustermesh", "--cluster-name", name, "--cluster-id", id.ToString(CultureInfo.InvariantCulture),
            "--source", $"manifests:{directory}/manifests", "--etcd-data-dir", $"{directory}/etcd", "--auth-mode", "cluster",
            "--door-listen-addr", $"{address}:2379", "--door-trusted-ca-file", $"{directory}/pki/ca.crt",
            "--door-cert-file", $"{directory}/pki/server.crt", "--door-key-file", $"{directory}/pki/server.key",
            "--cluster-users-config-path", $"{directory}/users.yaml", "--health-port", $"{address}:9880",
            "--join-listen-addr", $"{address}:2378", "--join-dir", $"{directory}/join", "--prometheus-serve-addr", $"{address}:9962",
        ]));
        using var http = new HttpClient();
        await Deadline.Until(async () =>
        {
            try
            {
                return (await http.GetAsync(new Uri($"http://{address}:9880/readyz"), Cancellation)).IsSuccessStatusCode;
            }
            catch (HttpRequestException)
            {
                return false;
            }
        }, $"{name} to be ready");
        return ClusterDescription.Load(directory);
    }

    /// <summary>As an agent of one cluster reads another: by the peer file.</summary>
    private static async Task<string?> ReadAsync(ClusterDescription one, string peer)
    {
        await using var store = new EtcdKVStore(EtcdConfigFile.Parse(await File.ReadAllTextAsync($"{one.AgentConfigs[0]}/{peer}", Cancellation)));
        return await store.TextAsync($"cilium/cluster-config/{peer}");
    }

    private static async Task<bool> IsRefusedAsync(ClusterDescription one, string peerFile, string peer)
    {
        try
        {
            await using var store = new EtcdKVStore(EtcdConfigFile.Parse(await File.ReadAllTextAsync(peerFile, Cancellation)));
            return await store.TextAsync($"cilium/cluster-config/{peer}") is null;
        }
        catch (KVStoreException)
        {
            return true;
        }
    }

    [Fact]
    public async Task A_token_opens_both_doors_and_a_disconnection_shuts_one()
    {
        var starting = new[] { StartAsync("tokyo", 1), StartAsync("osaka", 2) };
        var (tokyo, osaka) = (await starting[0], await starting[1]);
        var listen = IPEndPoint.Parse(tokyo.JoinListen!);
        using (var early = new TcpClient())
            await Assert.ThrowsAsync<SocketException>(() => early.ConnectAsync(listen, Cancellation).AsTask());

        var ledger = new TokenLedger(tokyo.JoinDirectory, TimeProvider.System);
        var token = ledger.Create(tokyo, $"{_root}/tokyo", new TokenRequest(TimeSpan.FromMinutes(5), "osaka", [], []));
        Assert.True(await ledger.WaitForListenerAsync(TimeSpan.FromSeconds(20), Cancellation));
        var outcome = await new TokenJoin(osaka, token, JoinEnvironment.Default).ConnectAsync(ConnectRequest.Plain, Cancellation);
        Assert.Empty(outcome.Plan!.Faults);

        // The doors look at their users once a second.
        await Deadline.Until(async () => !await IsRefusedAsync(osaka, $"{osaka.AgentConfigs[0]}/tokyo", "tokyo"), "tokyo's door to let osaka in");
        await Deadline.Until(async () => !await IsRefusedAsync(tokyo, $"{tokyo.AgentConfigs[0]}/osaka", "osaka"), "osaka's door to let tokyo in");
        Assert.Contains("\"id\":1", await ReadAsync(osaka, "tokyo"), StringComparison.Ordinal);
        Assert.Contains("\"id\":2", await ReadAsync(tokyo, "osaka"), StringComparison.Ordinal);

        using var http = new HttpClient();
        var page = await http.GetStringAsync(new Uri($"http://{listen.Address}:9962/metrics"), Cancellation);
        Assert.Contains("cilium_clustermesh_apiserver_joins_total 1\n", page, StringComparison.Ordinal);
        await Deadline.Until(async () =>
        {
            using var late = new TcpClient();
            try
            {
                await late.ConnectAsync(listen, Cancellation);
                return false;
            }
            catch (SocketException)
            {
                return true;
            }
        }, "the join port to be shut again");

        Assert.True(Disconnection.Run(tokyo, "osaka", JoinEnvironment.Default));
        await Deadline.Until(() => IsRefusedAsync(osaka, $"{osaka.AgentConfigs[0]}/tokyo", "tokyo"), "tokyo's door to shut osaka out");
        Assert.False(File.Exists($"{tokyo.AgentConfigs[0]}/osaka"));
    }
}
