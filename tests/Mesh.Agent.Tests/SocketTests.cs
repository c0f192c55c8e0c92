using System.Net.Sockets;
using Mesh.Agent.Api;
using Mesh.AgentApi;
using Xunit;

namespace Mesh.Agent.Tests;

public sealed class SocketTests : IDisposable
{
    private readonly string _directory = RunningAgent.NewDirectory();

    public void Dispose() => RunningAgent.Remove(_directory);

    [Fact]
    public async Task The_socket_of_a_dead_agent_is_replaced()
    {
        var path = Path.Combine(_directory, "agent.sock");
        using (var dead = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified))
            dead.Bind(new UnixDomainSocketEndPoint(path));
        await File.WriteAllTextAsync(path + ".kept", "", TestContext.Current.CancellationToken);
        await using var agent = await RunningAgent.StartAsync(_directory);
        Assert.NotNull(await agent.Client.GetStatusAsync());
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead | UnixFileMode.GroupWrite, File.GetUnixFileMode(path));
    }

    [Fact]
    public async Task The_socket_of_a_living_agent_is_not()
    {
        await using var agent = await RunningAgent.StartAsync(_directory);
        var refused = await Assert.ThrowsAsync<IOException>(() => AgentApiServer.StartAsync(agent.Agent.View));
        Assert.Contains("another agent answers there", refused.Message);
        Assert.NotNull(await agent.Client.GetStatusAsync());
    }

    [Theory]
    [InlineData("0", "--dport 0: the number of a port must be 1 to 65535")]
    [InlineData("0/UDP", "--dport 0/UDP: the number of a port must be 1 to 65535")]
    [InlineData("65536/TCP", "--dport '65536/TCP' is no port (1 to 65535")]
    [InlineData("80/TPC", "--dport '80/TPC' is no port (1 to 65535")]
    public async Task A_trace_to_a_port_that_cannot_be_is_refused_by_flag_and_range(string port, string expected)
    {
        await using var agent = await RunningAgent.StartAsync(_directory);
        var refused = await Assert.ThrowsAsync<AgentException>(() => agent.Client.TracePolicyAsync("10.2.1.10", "10.2.1.20", port));
        Assert.Contains(expected, refused.Message);
        Assert.Equal(System.Net.HttpStatusCode.BadRequest, refused.StatusCode);
    }

    /// <summary>The controls: the first and the last port, and a type of ICMP, of which 0 is one.</summary>
    [Theory]
    [InlineData("1/TCP")]
    [InlineData("65535")]
    [InlineData("0/ICMP")]
    public async Task A_trace_to_the_first_and_the_last_port_is_answered(string port)
    {
        await using var agent = await RunningAgent.StartAsync(_directory);
        Assert.Equal("UNKNOWN", (await agent.Client.TracePolicyAsync("10.2.1.10", "10.2.1.20", port)).Verdict);
    }

    [Fact]
    public async Task Without_an_agent_the_client_says_what_to_look_at()
    {
        var path = Path.Combine(_directory, "none.sock");
        using var client = new AgentClient(path, "osaka/osaka-1");
        var failure = await Assert.ThrowsAsync<AgentException>(() => client.GetStatusAsync());
        Assert.Equal($"agent of node osaka/osaka-1 does not answer on {path}: there is no such socket: is it running?", failure.Message);
    }

    [Fact]
    public async Task A_leftover_socket_is_called_one()
    {
        var path = Path.Combine(_directory, "left.sock");
        using (var dead = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified))
        {
            dead.Bind(new UnixDomainSocketEndPoint(path));
            // Closing removes the file by .NET's hand; a killed process leaves it.
            File.Move(path, path + ".moved");
        }
        File.Move(path + ".moved", path);
        using var client = new AgentClient(path);
        var failure = await Assert.ThrowsAsync<AgentException>(() => client.GetStatusAsync());
        Assert.Contains("leftover", failure.Message);
    }

    [Fact]
    public async Task An_agent_that_does_not_answer_in_time_is_named()
    {
        var path = Path.Combine(_directory, "deaf.sock");
        using var deaf = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        deaf.Bind(new UnixDomainSocketEndPoint(path));
        deaf.Listen();
        using var client = new AgentClient(path, "osaka/osaka-1", TimeSpan.FromMilliseconds(200));
        var failure = await Assert.ThrowsAsync<AgentException>(() => client.GetStatusAsync());
        Assert.Contains("did not answer", failure.Message);
    }

    [Fact]
    public async Task Before_its_own_node_object_exists_the_status_says_so()
    {
        await using var agent = await RunningAgent.StartAsync(_directory);
        var status = await agent.Client.GetStatusAsync();
        Assert.Equal("Warning", status.Cilium!.State);
        Assert.Contains("waiting for CiliumNode osaka-1", status.Cilium.Msg);
    }

    [Fact]
    public async Task A_broken_manifest_is_visible_with_its_reason_and_disturbs_nothing()
    {
        await using var agent = await RunningAgent.StartAsync(_directory,
            "{apiVersion: v1, kind: Service, metadata: {name: s, namespace: default}, spec: {clusterIP: 10.96.0.9, ports: [{port: 80}]}}");
        await File.WriteAllTextAsync(Path.Combine(_directory, "manifests", "bad.yaml"), "{kind: Service, spec: [", TestContext.Current.CancellationToken);
        var status = await RunningAgent.Eventually(() => agent.Client.GetStatusAsync(), answer => answer.Mesh!.SourceProblems is not null);
        Assert.Contains("bad.yaml", Assert.Single(status.Mesh!.SourceProblems!).Where);
        Assert.Single(await agent.Client.GetServicesAsync());
    }

    [Fact]
    public async Task Paths_that_are_not_there_are_refused_in_words()
    {
        await using var agent = await RunningAgent.StartAsync(_directory);
        var refused = await Assert.ThrowsAsync<AgentException>(() => agent.Client.GetBytesAsync("nothing"));
        Assert.Contains("/v1/nothing was not found", refused.Message);
    }
}
