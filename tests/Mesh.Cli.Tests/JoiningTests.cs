using System.Net;
using System.Net.Sockets;
using System.Text.Json;
using Mesh.AgentApi;
using Mesh.Joining;
using Mesh.Joining.Listening;
using Mesh.Pki;
using Xunit;

namespace Mesh.Cli.Tests;

/// <summary>`clustermesh token|plan|connect|disconnect` with two clusters as directories; neither has a door, which plan has to say.</summary>
public sealed class JoiningTests : IAsyncDisposable
{
    private readonly string _root = Directory.CreateTempSubdirectory("mesh-cli-joining-").FullName;
    private readonly string _tokyo;
    private readonly string _osaka;
    private JoinListener? _listener;

    public JoiningTests()
    {
        _tokyo = Describe("tokyo", 1);
        _osaka = Describe("osaka", 2);
    }

    public async ValueTask DisposeAsync()
    {
        if (_listener is not null)
            await _listener.DisposeAsync();
        Directory.Delete(_root, recursive: true);
    }

    private string Describe(string name, uint id)
    {
        var directory = $"{_root}/{name}";
        Directory.CreateDirectory($"{directory}/agent");
        var address = $"127.8.{Environment.ProcessId % 200 + 1}.{id}";
        PkiDirectory.Init($"{directory}/pki", new PkiSettings { Cluster = name, ServerNames = [address] });
        new ClusterDescription
        {
            Name = name,
            Id = id,
            PodCIDRs = [$"10.{id}.0.0/16"],
            NodeCIDRs = [$"172.30.{id}.0/24"],
            DoorAddresses = [$"https://{address}:{FreePort(address)}"],
            JoinListen = $"{address}:{FreePort(address)}",
            Pki = "pki",
            AgentConfigs = ["agent"],
            UsersFile = "users.yaml",
            JoinDirectory = "join",
            TunnelPort = 18474,
        }.Save(directory);
        return directory;
    }

    private static int FreePort(string address)
    {
        using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        socket.Bind(new IPEndPoint(IPAddress.Parse(address), 0));
        return ((IPEndPoint)socket.LocalEndPoint!).Port;
    }

    private void Listen()
    {
        var tokyo = ClusterDescription.Load(_tokyo);
        _listener = JoinListener.Start(new JoinListenerOptions { Address = IPEndPoint.Parse(tokyo.JoinListen!), JoinDirectory = tokyo.JoinDirectory });
    }

    private static async Task<(int Code, string Output, string Error)> RunAsync(params string[] arguments)
    {
        var output = new StringWriter();
        var error = new StringWriter();
        var code = await MeshCommand.RunAsync(["clustermesh", .. arguments], output, error);
        return (code, output.ToString(), error.ToString());
    }

    [Fact]
    public async Task A_token_is_made_planned_with_taken_and_the_peer_left()
    {
        Listen();
        var (code, token, error) = await RunAsync("token", "create", "--cluster-dir", _tokyo, "--for", "osaka");
        Assert.Equal((0, ""), (code, error));
        token = token.TrimEnd('\n');
        Assert.DoesNotContain('\n', token);

        (code, var plan, error) = await RunAsync("plan", "--cluster-dir", _osaka, token);
        Assert.Equal((1, ""), (code, error));
        Assert.Contains("❌ door-of-peer: from osaka to the door of tokyo", plan);
        Assert.Contains("✅ cluster-id: no two of 2 clusters share an ID", plan);
        Assert.EndsWith("2 faults, 0 warnings, 17 ok\n", plan);

        (code, var json, _) = await RunAsync("plan", "--cluster-dir", _osaka, "-o", "json", token);
        Assert.Equal(1, code);
        var findings = JsonDocument.Parse(json).RootElement.GetProperty("findings");
        Assert.Contains(findings.EnumerateArray(), f => f.GetProperty("check").GetString() == "own-door" && f.GetProperty("severity").GetString() == "Fault");

        (code, _, error) = await RunAsync("connect", "--cluster-dir", _osaka, token);
        Assert.Equal(1, code);
        Assert.Equal("mesh: osaka and tokyo were not connected, nothing was changed: mend own-door, door-of-peer "
            + "(or, knowing better, --force own-door --force door-of-peer)\n", error);
        Assert.Empty(Directory.EnumerateFiles($"{_osaka}/agent"));

        (code, var connected, error) = await RunAsync(
            "connect", "--cluster-dir", _osaka, "--force", "own-door", "--force", "door-of-peer", token);
        Assert.Equal((0, ""), (code, error));
        Assert.Contains("✅ osaka ⇄ tokyo: written on both sides", connected);
        Assert.True(File.Exists($"{_osaka}/agent/tokyo") && File.Exists($"{_tokyo}/agent/osaka"));

        (_, var list, _) = await RunAsync("token", "list", "--cluster-dir", _tokyo);
        Assert.Matches(@"used +\S+ \S+ +osaka +osaka\n", list);
        Assert.Empty(Directory.EnumerateFiles($"{_osaka}/join", "connect-*.lock"));

        (code, var left, error) = await RunAsync("disconnect", "tokyo", "--cluster-dir", _osaka);
        Assert.Equal((0, ""), (code, error));
        Assert.StartsWith("✅ osaka has left tokyo", left);
        Assert.Empty(Directory.EnumerateFiles($"{_osaka}/agent"));
        (code, left, _) = await RunAsync("disconnect", "tokyo", "--cluster-dir", _osaka);
        Assert.Equal(0, code);
        Assert.Equal("✅ osaka was not connected to tokyo: nothing to do\n", left);
    }

    /// <summary>Files on both sides are not a connection: the relay that reads the peer has to stand to it, and the timeout says so.</summary>
    [Fact]
    public async Task Connect_waits_for_the_relay_and_says_that_it_does()
    {
        Listen();
        var rows = new List<RemoteCluster>();
        await using var relay = await RelayPage.StartAsync(() => rows);
        Directory.CreateDirectory($"{_osaka}/relay");
        (ClusterDescription.Load(_osaka) with { RelayConfig = "relay", RelayApi = relay.Address }).Save(_osaka);
        var (_, token, _) = await RunAsync("token", "create", "--cluster-dir", _tokyo);
        string[] connect = ["connect", "--cluster-dir", _osaka, "--force", "own-door", "--force", "door-of-peer", "--wait-duration", "300ms", token.Trim()];
        var (code, output, error) = await RunAsync(connect);
        Assert.Equal(1, code);
        Assert.DoesNotContain("see the other side", output);
        Assert.StartsWith("mesh: the files are written, but after 0s still waiting for the relay of osaka to be connected to tokyo: "
            + "it does not know that cluster yet: see", error);
        rows.Add(new RemoteCluster { Name = "tokyo", Status = "connection refused" });
        (code, _, error) = await RunAsync(connect);
        Assert.Contains("the relay of osaka to be connected to tokyo: connection refused", error);
        rows[0] = rows[0] with { Ready = true };
        (code, output, error) = await RunAsync(connect);
        Assert.Equal((0, ""), (code, error));
        Assert.Contains("✅ 1 relays are connected and 0 agents see the other side", output);
    }

    [Fact]
    public async Task A_token_that_nobody_would_take_is_not_given_out()
    {
        var (code, output, error) = await RunAsync("token", "create", "--cluster-dir", _tokyo);
        Assert.Equal((1, ""), (code, output));
        Assert.StartsWith("mesh: nobody listens for joins of tokyo, so the token was revoked again: run its API server with --join-listen-addr", error);
        (_, var list, _) = await RunAsync("token", "list", "--cluster-dir", _tokyo, "-o", "json");
        Assert.Equal("used", JsonDocument.Parse(list).RootElement[0].GetProperty("state").GetString());
    }

    [Theory]
    [InlineData("plan --cluster-dir . mesh1.cut", "mesh: the join token is cut off: paste the whole line, or make a new one")]
    [InlineData("plan --cluster-dir .", "mesh: give one token: as an argument, as - for standard input, or with --token-file FILE")]
    [InlineData("connect --cluster-dir . --rollback", "mesh: nothing of osaka was interrupted: name the peer whose join is to be taken back")]
    [InlineData("connect --cluster-dir . --peer tokyo x", "mesh: --peer goes with --rollback: a token says itself whose it is")]
    [InlineData("disconnect osaka --cluster-dir .", "mesh: osaka is this cluster itself: name a peer")]
    [InlineData("token create --cluster-dir . --ttl soon", "mesh: --ttl soon: must be a duration such as 10m or 1h")]
    [InlineData("token create --cluster-dir . --ttl 200h",
        "mesh: a join token lives 1 second to 7 days: it is a credential, make another when it is needed")]
    [InlineData("token create --cluster-dir . --address 192.0.2.1",
        "mesh: --address '192.0.2.1': must be IP:PORT of the join listener as the taker reaches it")]
    [InlineData("token create --cluster-dir . --allow nonsense",
        "mesh: --allow 'nonsense': must be one of pod-cidr, node-cidr, tunnel-port, version")]
    [InlineData("plan --cluster-dir . --token-file /nowhere/token", "mesh: --token-file /nowhere/token: there is no such directory")]
    [InlineData("plan --cluster-dir /nowhere x", "mesh: /nowhere/cluster.json: there is no such directory")]
    [InlineData("disconnect tokyo --cluster-dir . --context lab", "mesh: --cluster-dir and --context both name a cluster: give one of them")]
    public async Task A_mistake_is_one_line(string line, string expected)
    {
        var (code, output, error) = await RunAsync([.. line.Split(' ').Select(word => word == "." ? _osaka : word)]);
        Assert.Equal(expected + "\n", error);
        Assert.Equal((1, ""), (code, output));
    }
}
