using System.Net;
using System.Net.Sockets;
using Mesh.Agent.HealthChecks;
using Mesh.ControlPlane;
using Mesh.ControlPlane.LoadBalancing;
using Mesh.Model;
using Xunit;

namespace Mesh.Agent.Tests;

/// <summary>healthCheckNodePort, asked with real HTTP.</summary>
public sealed class HealthCheckTests : IAsyncDisposable
{
    private readonly DesiredState _state = new();
    private readonly CancellationTokenSource _stop = new();
    private readonly HttpClient _client = new(new SocketsHttpHandler { PooledConnectionLifetime = TimeSpan.Zero }) { Timeout = TimeSpan.FromSeconds(10) };
    private readonly List<string> _log = [];
    private readonly HealthCheckStage _stage;
    private readonly Task _running;
    private volatile bool _programs = true;

    public HealthCheckTests()
    {
        _stage = new HealthCheckStage(_state.Frontends, () => _programs, line =>
        {
            lock (_log)
                _log.Add(line);
        });
        _running = _stage.RunAsync(_stop.Token);
    }

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        await _running;
        _client.Dispose();
        _stop.Dispose();
    }

    [Fact]
    public async Task A_node_says_how_many_backends_it_has_and_is_well_only_with_some()
    {
        var port = FreePort();
        Write(Row("web", port, Here("10.2.0.5"), Here("10.2.0.6"), Elsewhere("10.2.0.7", 2), Elsewhere("10.1.0.11", 1)));
        await Answers(port, HttpStatusCode.OK, """{"service":{"namespace":"default","name":"web"},"localEndpoints":2,"serviceProxyHealthy":true}""");

        // By either family, whatever the path.
        using var answer = await _client.GetAsync(new Uri($"http://[::1]:{port}/healthz?probe=1"));
        Assert.Equal((HttpStatusCode.OK, "application/json", "2"), (answer.StatusCode, answer.Content.Headers.ContentType!.MediaType,
            answer.Headers.GetValues("X-Load-Balancing-Endpoint-Weight").Single()));

        // A backend that goes away takes no new flows, and another cluster's are not here.
        Write(Row("web", port, Here("10.2.0.5") with { State = BackendState.Draining }, Elsewhere("10.1.0.11", 1)));
        await Answers(port, HttpStatusCode.ServiceUnavailable,
            """{"service":{"namespace":"default","name":"web"},"localEndpoints":0,"serviceProxyHealthy":true}""");

        Write(Row("web", port, Here("10.2.0.5")));
        await Answers(port, HttpStatusCode.OK, """{"service":{"namespace":"default","name":"web"},"localEndpoints":1,"serviceProxyHealthy":true}""");
        _programs = false;
        await Answers(port, HttpStatusCode.ServiceUnavailable,
            """{"service":{"namespace":"default","name":"web"},"localEndpoints":1,"serviceProxyHealthy":false}""");
    }

    [Fact]
    public async Task A_dual_stack_service_counts_each_of_its_backends_once()
    {
        var port = FreePort();
        Write(Row("web", port, Here("10.2.0.5"), Here("10.2.0.6")), Row("web", port, Here("fd02::5"), Here("fd02::6")));
        await Answers(port, HttpStatusCode.OK, """{"service":{"namespace":"default","name":"web"},"localEndpoints":2,"serviceProxyHealthy":true}""");
    }

    [Fact]
    public async Task Ports_open_and_close_as_services_come_change_and_go()
    {
        var (first, second) = (FreePort(), FreePort());
        Write(Row("web", first, Here("10.2.0.5")));
        await Answers(first, HttpStatusCode.OK);

        Write(Row("web", second, Here("10.2.0.5")));
        await Answers(second, HttpStatusCode.OK);
        await Closed(first);

        // As when the policy becomes Cluster: the service stays.
        Write(Row("web", 0, Here("10.2.0.5")));
        await Closed(second);

        Write(Row("web", first, Here("10.2.0.5")));
        await Answers(first, HttpStatusCode.OK);
        _state.Frontends.Write(transaction => transaction.Delete(Row("web", 0).Address));
        await Closed(first);
        lock (_log)
            Assert.Equal($"healthCheckNodePort {first} open for Service default/web", _log[0]);
        Assert.Empty(_stage.Problems);
    }

    [Fact]
    public async Task A_port_that_is_taken_is_told_and_opened_once_it_is_free_and_others_do_not_wait()
    {
        using var other = new TcpListener(IPAddress.IPv6Any, 0) { Server = { DualMode = true } };
        other.Start();
        var taken = (ushort)((IPEndPoint)other.LocalEndpoint).Port;
        var free = FreePort();
        Write(Row("api", taken, Here("10.2.0.4")), Row("web", free, Here("10.2.0.5")));
        await Answers(free, HttpStatusCode.OK);
        var problem = Assert.Single(await RunningAgent.Eventually(() => Task.FromResult(_stage.Problems), problems => problems.Count > 0));
        Assert.StartsWith($"Service default/api: healthCheckNodePort {taken} cannot be opened, so load balancers take this node for dead: ", problem);
        Assert.EndsWith(": free the port on this node, or give the service another", problem);

        other.Stop();
        await Answers(taken, HttpStatusCode.OK, """{"service":{"namespace":"default","name":"api"},"localEndpoints":1,"serviceProxyHealthy":true}""");
        await RunningAgent.Eventually(() => Task.FromResult(_stage.Problems.Count), count => count == 0);
        lock (_log)
            Assert.Single(_log, line => line == problem);
    }

    [Fact]
    public async Task Of_two_services_with_one_port_the_first_by_name_has_it_and_the_other_is_told()
    {
        var port = FreePort();
        Write(Row("web", port, Here("10.2.0.5")), Row("api", port));
        await Answers(port, HttpStatusCode.ServiceUnavailable,
            """{"service":{"namespace":"default","name":"api"},"localEndpoints":0,"serviceProxyHealthy":true}""");
        await RunningAgent.Eventually(() => Task.FromResult(string.Join('\n', _stage.Problems)), problems => problems
            == $"Service default/web: healthCheckNodePort {port} already belongs to Service default/api: give one of them another");

        _state.Frontends.Write(transaction => transaction.Delete(Row("api", 0).Address));
        await Answers(port, HttpStatusCode.OK, """{"service":{"namespace":"default","name":"web"},"localEndpoints":1,"serviceProxyHealthy":true}""");
        Assert.Empty(_stage.Problems);
    }

    [Fact]
    public async Task A_manifest_opens_the_port_and_the_status_tells_of_one_that_is_taken()
    {
        using var other = new TcpListener(IPAddress.IPv6Any, 0) { Server = { DualMode = true } };
        other.Start();
        var port = (ushort)((IPEndPoint)other.LocalEndpoint).Port;
        var directory = RunningAgent.NewDirectory();
        await using (var agent = await RunningAgent.StartAsync(directory, $$"""
            apiVersion: v1
            kind: Service
            metadata: {name: web, namespace: shop}
            spec: {type: LoadBalancer, clusterIP: 10.96.0.10, externalTrafficPolicy: Local, healthCheckNodePort: {{port}}, ports: [{port: 80}]}
            ---
            apiVersion: discovery.k8s.io/v1
            kind: EndpointSlice
            metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web} }
            addressType: IPv4
            ports: [{port: 8080}]
            endpoints: [{addresses: [10.2.0.5], nodeName: osaka-1}, {addresses: [10.2.0.6], nodeName: osaka-2}]
            """))
        {
            using var stop = new CancellationTokenSource();
            var running = agent.Agent.View.HealthChecks.RunAsync(stop.Token);
            var status = await RunningAgent.Eventually(() => agent.Client.GetStatusAsync(TestContext.Current.CancellationToken),
                status => status.Mesh!.SourceProblems is not null);
            Assert.Contains($"Service shop/web: healthCheckNodePort {port} cannot be opened", Assert.Single(status.Mesh!.SourceProblems!).Message);

            // Without a kernel this agent is not the one to rely on, and says so.
            other.Stop();
            await Answers(port, HttpStatusCode.ServiceUnavailable,
                """{"service":{"namespace":"shop","name":"web"},"localEndpoints":1,"serviceProxyHealthy":false}""");
            await stop.CancelAsync();
            await running;
        }
        await Closed(port);
        RunningAgent.Remove(directory);
    }

    private void Write(params Frontend[] rows) => _state.Frontends.Write(transaction =>
    {
        foreach (var row in rows)
            transaction.Upsert(row.Address, row);
    });

    private static Frontend Row(string name, int port, params Backend[] backends)
    {
        var v6 = backends.Length > 0 && backends[0].Address.Address.IsV6;
        var address = IpAddr.Parse((v6 ? "fd96::" : "10.96.0.") + name.Length + (name == "web" ? 1 : 2));
        return new Frontend(new L3n4Addr(address, 80, L4Protocol.TCP), new ServiceName("default", name), "", ServiceType.ClusterIP, ServiceAffinity.None,
            new(backends))
        { ExternalLocal = true, HealthCheckNodePort = (ushort)port };
    }

    private static Backend Here(string address) => Elsewhere(address, 2) with { IsHere = true };

    private static Backend Elsewhere(string address, uint cluster) =>
        new(new L3n4Addr(IpAddr.Parse(address), 8080, L4Protocol.TCP), cluster, "", "", "", BackendState.Active, 0);

    private async Task Answers(ushort port, HttpStatusCode code, string? body = null)
    {
        var wanted = (code, body);
        await RunningAgent.Eventually(async () =>
        {
            try
            {
                using var answer = await _client.GetAsync(new Uri($"http://127.0.0.1:{port}/"));
                return ((HttpStatusCode?)answer.StatusCode, await answer.Content.ReadAsStringAsync());
            }
            catch (HttpRequestException e)
            {
                return (null, e.Message);
            }
        }, answer => answer.Item1 == wanted.code && (body is null || answer.Item2 == body));
    }

    private static Task<string> Closed(ushort port) => RunningAgent.Eventually(async () =>
    {
        using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        try
        {
            await socket.ConnectAsync(IPAddress.Loopback, port);
            return "open";
        }
        catch (SocketException e)
        {
            return e.SocketErrorCode.ToString();
        }
    }, result => result == nameof(SocketError.ConnectionRefused));

    /// <summary>Below those that the kernel gives to whoever asks for any.</summary>
    private static ushort FreePort()
    {
        while (true)
        {
            var port = Random.Shared.Next(12000, 30000);
            try
            {
                using var probe = new TcpListener(IPAddress.IPv6Any, port) { Server = { DualMode = true } };
                probe.Start();
                return (ushort)port;
            }
            catch (SocketException)
            {
                // Taken: the next.
            }
        }
    }
}
