using System.Net;
using System.Text.Json.Nodes;
using Mesh.AgentApi;
using Xunit;

namespace Mesh.Agent.Tests;

/// <summary>Pods registered over the socket, kept on disk, taken up again.</summary>
public sealed class EndpointTests : IDisposable
{
    private const string Objects = """
        {apiVersion: cilium.io/v2, kind: CiliumEndpoint, metadata: {name: a, namespace: default},
         status: {identity: {id: 131073}, networking: {node: 172.30.0.21, addressing: [{ipv4: 10.2.0.5}]}}}
        """;

    private readonly string _directory = RunningAgent.NewDirectory();

    public void Dispose() => RunningAgent.Remove(_directory);

    private static EndpointChangeRequest Pod(string name, string ipv4, string @interface = "lxc1") => new()
    {
        K8sNamespace = "default",
        K8sPodName = name,
        InterfaceName = @interface,
        Mac = "0a:00:00:00:00:01",
        HostMac = "0a:00:00:00:00:02",
        Addressing = new AddressPair { Ipv4 = ipv4 },
    };

    [Fact]
    public async Task A_registered_pod_gets_an_id_and_its_objects_identity()
    {
        await using var agent = await RunningAgent.StartAsync(_directory, Objects);
        var first = await agent.Client.PutEndpointAsync(Pod("a", "10.2.0.5"));
        var second = await agent.Client.PutEndpointAsync(Pod("b", "10.2.0.6", "lxc2"));
        Assert.Equal((1, 131073), (first.Id, first.Status!.Identity!.Id));
        Assert.Equal(11, first.Status.Networking!.InterfaceIndex);
        Assert.Equal((2, "waiting-for-identity"), (second.Id, second.Status!.State));
        Assert.Equal([1, 2], (await agent.Client.GetEndpointsAsync()).Select(endpoint => endpoint.Id));
    }

    [Fact]
    public async Task Registering_a_pod_again_replaces_what_was_known_and_keeps_the_id()
    {
        await using var agent = await RunningAgent.StartAsync(_directory, Objects);
        await agent.Client.PutEndpointAsync(Pod("a", "10.2.0.5"));
        var again = await agent.Client.PutEndpointAsync(Pod("a", "10.2.0.9", "lxc3"));
        Assert.Equal((1, 13, "10.2.0.9"), (again.Id, again.Status!.Networking!.InterfaceIndex, again.Status.Networking.Addressing![0].Ipv4));
        Assert.Single(await agent.Client.GetEndpointsAsync());
    }

    [Fact]
    public async Task Registrations_survive_a_restart_with_the_interface_looked_up_anew()
    {
        await using (var agent = await RunningAgent.StartAsync(_directory, Objects))
        {
            await agent.Client.PutEndpointAsync(Pod("gone", "10.2.0.4", "lxc2"));
            await agent.Client.PutEndpointAsync(Pod("a", "10.2.0.5"));
            Assert.True(await agent.Client.DeleteEndpointAsync("default", "gone"));
        }
        await using var restarted = await RunningAgent.StartAsync(_directory, Objects, interfaces: name => name == "lxc1" ? 99 : 0);
        var endpoint = Assert.Single(await restarted.Client.GetEndpointsAsync());
        Assert.Equal((2, 99, 131073), (endpoint.Id, endpoint.Status!.Networking!.InterfaceIndex, endpoint.Status.Identity!.Id));
        Assert.Equal("0a:00:00:00:00:01", endpoint.Status.Networking.Mac);
        Assert.True(restarted.Agent.View.State.Endpoints.Initialized.IsCompleted);
    }

    [Fact]
    public async Task A_pod_whose_interface_is_gone_is_reported_and_not_forgotten()
    {
        await using (var agent = await RunningAgent.StartAsync(_directory, Objects))
            await agent.Client.PutEndpointAsync(Pod("a", "10.2.0.5"));
        await using (var without = await RunningAgent.StartAsync(_directory, Objects, interfaces: _ => 0))
        {
            Assert.Empty(await without.Client.GetEndpointsAsync());
            var problem = Assert.Single((await without.Client.GetStatusAsync()).Mesh!.SourceProblems!);
            Assert.Equal("endpoint 1 (default/a)", problem.Where);
            Assert.Contains("no such interface", problem.Message);
        }
        await using var again = await RunningAgent.StartAsync(_directory, Objects);
        Assert.Single(await again.Client.GetEndpointsAsync());
    }

    [Fact]
    public async Task A_broken_file_disturbs_no_other_registration()
    {
        await using (var agent = await RunningAgent.StartAsync(_directory, Objects))
            await agent.Client.PutEndpointAsync(Pod("a", "10.2.0.5"));
        await File.WriteAllTextAsync(Path.Combine(_directory, "state", "endpoints", "7.json"), "{\"id\":7,", TestContext.Current.CancellationToken);
        await using var restarted = await RunningAgent.StartAsync(_directory, Objects);
        Assert.Single(await restarted.Client.GetEndpointsAsync());
        Assert.Contains("7.json", Assert.Single((await restarted.Client.GetStatusAsync()).Mesh!.SourceProblems!).Where);
    }

    [Theory]
    [InlineData("{}", "k8s-namespace")]
    [InlineData("""{"k8s-namespace":"default","k8s-pod-name":"x/y"}""", "k8s-pod-name")]
    [InlineData("""{"k8s-namespace":"default","k8s-pod-name":"x","mac":"zz"}""", "mac 'zz'")]
    [InlineData("""{"k8s-namespace":"default","k8s-pod-name":"x","mac":"0a:00:00:00:00:01","host-mac":"01:00:00:00:00:02"}""", "host-mac")]
    [InlineData("""{"k8s-namespace":"default","k8s-pod-name":"x","mac":"0a:00:00:00:00:01","host-mac":"0a:00:00:00:00:02"}""", "addressing is empty")]
    [InlineData(
        """{"k8s-namespace":"default","k8s-pod-name":"x","mac":"0a:00:00:00:00:01","host-mac":"0a:00:00:00:00:02" """
            + ""","addressing":{"ipv4":"10.2.0.5"},"interface-name":"none"}""",
        "interface-name 'none'")]
    [InlineData("""{"k8s-namespace":7}""", "the body is not an endpoint")]
    public async Task An_impossible_registration_is_refused_with_the_field_and_the_mend(string body, string reason)
    {
        await using var agent = await RunningAgent.StartAsync(_directory);
        using var http = Raw(agent.SocketPath);
        using var content = new StringContent(body);
        using var answer = await http.PutAsync("http://localhost/v1/endpoint/0", content, TestContext.Current.CancellationToken);
        Assert.Equal(HttpStatusCode.BadRequest, answer.StatusCode);
        Assert.Equal("application/json", answer.Content.Headers.ContentType!.MediaType);
        Assert.Contains(reason, JsonNode.Parse(await answer.Content.ReadAsStringAsync(TestContext.Current.CancellationToken))!.ToString());
        Assert.Empty(await agent.Client.GetEndpointsAsync());
    }

    [Fact]
    public async Task An_address_belongs_to_one_pod()
    {
        await using var agent = await RunningAgent.StartAsync(_directory);
        await agent.Client.PutEndpointAsync(Pod("a", "10.2.0.5"));
        var refused = await Assert.ThrowsAsync<AgentException>(() => agent.Client.PutEndpointAsync(Pod("b", "10.2.0.5", "lxc2")));
        Assert.Contains("address 10.2.0.5 belongs to endpoint 1 (default/a)", refused.Message);
        Assert.False(await agent.Client.DeleteEndpointAsync("default", "b"));
        Assert.True(await agent.Client.DeleteEndpointAsync("default", "a"));
        await agent.Client.PutEndpointAsync(Pod("b", "10.2.0.5", "lxc2"));
    }

    [Fact]
    public async Task Real_clients_escape_the_pods_name()
    {
        await using var agent = await RunningAgent.StartAsync(_directory);
        await agent.Client.PutEndpointAsync(Pod("a", "10.2.0.5"));
        using var http = Raw(agent.SocketPath);
        using var answer = await http.DeleteAsync("http://localhost/v1/endpoint/pod-name:default%2Fa", TestContext.Current.CancellationToken);
        Assert.Equal(HttpStatusCode.OK, answer.StatusCode);
    }

    [Fact]
    public async Task Every_field_of_an_endpoint_is_one_that_a_real_agent_sends()
    {
        await using var agent = await RunningAgent.StartAsync(_directory, Objects);
        await agent.Client.PutEndpointAsync(Pod("a", "10.2.0.5"));
        var file = Path.Combine(AppContext.BaseDirectory, "golden", "cilium-1.13.2", "api-endpoint.json");
        var golden = Paths(JsonNode.Parse(File.ReadAllText(file))!, "").ToHashSet();
        // The recording's only endpoint is the host, which is no pod and has no address; interface-index it left out.
        golden.UnionWith(["[].status.external-identifiers.k8s-namespace", "[].status.external-identifiers.k8s-pod-name",
            "[].status.networking.addressing[].ipv4", "[].status.networking.interface-index"]);
        var ours = Paths(JsonNode.Parse(await agent.Client.GetBytesAsync("endpoint"))!, "");
        Assert.Empty(ours.Except(golden));
    }

    private static IEnumerable<string> Paths(JsonNode? node, string path) => node switch
    {
        JsonObject members => members.SelectMany(pair => Paths(pair.Value, $"{path}.{pair.Key}").Append($"{path}.{pair.Key}")),
        JsonArray items => items.SelectMany(item => Paths(item, path + "[]")),
        _ => [],
    };

    private static HttpClient Raw(string socketPath) => new(new SocketsHttpHandler
    {
        ConnectCallback = async (_, cancellation) =>
        {
            var socket = new System.Net.Sockets.Socket(System.Net.Sockets.AddressFamily.Unix, System.Net.Sockets.SocketType.Stream, 0);
            await socket.ConnectAsync(new System.Net.Sockets.UnixDomainSocketEndPoint(socketPath), cancellation);
            return new System.Net.Sockets.NetworkStream(socket, ownsSocket: true);
        },
    });
}
