using System.Collections.Concurrent;
using System.Net;
using System.Net.Sockets;
using System.Runtime.CompilerServices;
using System.Text;
using Mesh.AgentApi;
using Mesh.Bpf;
using Xunit;

namespace Mesh.Agent.Tests.Live;

/// <summary>What a node's agent is for the world before the node, and what becomes of it when another agent follows.</summary>
public sealed class SucceedingAgentTests(WatchedNode node) : IClassFixture<WatchedNode>
{
    private const string Steady = "10.96.0.13:80";

    /// <summary>A load balancer asks the node itself, by the wire, what healthCheckNodePort says.</summary>
    [Fact]
    public async Task A_load_balancer_is_told_whether_the_node_has_backends_and_an_agent()
    {
        const int port = 31999;
        var steered = $"type: LoadBalancer, externalTrafficPolicy: Local, healthCheckNodePort: {port}, ";
        node.Declare("steered.yaml", Service("steered", "10.96.0.14", 8080, steered, "osaka-1"));
        await node.UntilAsync(() => Ask(port).StartsWith("HTTP/1.1 200 OK", StringComparison.Ordinal), "it has a backend");
        Assert.Contains("""{"service":{"namespace":"default","name":"steered"},"localEndpoints":1,"serviceProxyHealthy":true}""", Ask(port));

        node.Declare("steered.yaml", Service("steered", "10.96.0.14", 8080, steered, "osaka-2"));
        await node.UntilAsync(() => Ask(port).StartsWith("HTTP/1.1 503 ", StringComparison.Ordinal), "it has none");

        node.Declare("steered.yaml", Service("steered", "10.96.0.14", 8080, "", "osaka-1"));
        await node.UntilAsync(() => Ask(port) == nameof(SocketError.ConnectionRefused), "the port is closed");
    }

    /// <summary>
    /// Builds with other maps, N, N+1 and N: what the layout that serves is said to be is changed, and with it its name, so that the same
    /// program follows as another build would. Kyoto is out of reach at first, so that the old maps have to go on.
    /// </summary>
    [Fact]
    public async Task Agents_with_other_maps_follow_each_other_and_the_status_says_which_maps_serve()
    {
        node.Declare("steady.yaml", Service("steady", "10.96.0.13", 8082, "", "osaka-1"));
        using var listener = node.Listen(ProtocolType.Tcp, 8082);
        var serving = Task.Run(() => EchoAsync(listener), TestContext.Current.CancellationToken);
        await node.UntilAsync(() => node.Connects(Steady), "steady is there");
        await node.UntilAsync(async () => (await StatusAsync())?.ClusterMesh?.Clusters is [{ Ready: true }], "kyoto is ready");
        using var traffic = new Clients(node, IPEndPoint.Parse(Steady), 8);

        foreach (var (name, isCut) in new[] { ("v2-00000001", true), ("v2-00000002", false) })
        {
            await node.KillAgentAsync();
            var ours = Rename(name);
            if (isCut)
                node.Control.Cut();
            node.StartAgent();
            if (isCut)
            {
                // The feature of the status: named there, and no good news.
                StatusResponse status = null!;
                await node.UntilAsync(async () => (status = (await StatusAsync())!)?.Mesh?.Switching is not null, "another layout serves");
                Assert.StartsWith($"programs of layout {name} serve until the maps of {ours} hold ", status.Mesh!.Switching);
                Assert.Equal(StatusState.Warning, status.Cilium!.State);
                Assert.EndsWith(status.Mesh.Switching!, status.Cilium.Msg);
                Assert.Equal(name, Serving());
                await traffic.PassAsync(100);
                node.Control.Heal();
            }
            await node.UntilAsync(async () => (await StatusAsync()) is { Mesh.Switching: null, Cilium.State: StatusState.Ok }, "the new maps serve");
            Assert.Equal(ours, Serving());
            await traffic.PassAsync(100);
        }
        Assert.Empty(traffic.Faults);
        listener.Dispose();
        traffic.Dispose();
        await serving;
    }

    private static string Service(string name, string address, int port, string more, string on) => $$"""
        apiVersion: v1
        kind: Service
        metadata: {name: {{name}}, namespace: default}
        spec: { {{more}}clusterIP: {{address}}, ports: [{name: http, port: 80}]}
        ---
        apiVersion: discovery.k8s.io/v1
        kind: EndpointSlice
        metadata: {name: {{name}}-1, namespace: default, labels: {kubernetes.io/service-name: {{name}} } }
        addressType: IPv4
        ports: [{name: http, port: {{port}}, protocol: TCP}]
        endpoints: [{addresses: [{{WatchedNode.Back}}], nodeName: {{on}}, conditions: {ready: true} }]
        """;

    /// <summary>The layout that serves is another one from now on, with other types of addresses and services. What ours is called.</summary>
    private string Rename(string to)
    {
        var ours = Serving();
        var directory = Path.Combine(node.BpfRoot, to);
        Directory.Move(Path.Combine(node.BpfRoot, ours), directory);
        var current = Path.Combine(node.BpfRoot, "current");
        File.Delete(current);
        File.CreateSymbolicLink(current, to);
        using var shapes = BpfMaps.OpenPinned<Name, Shape>(Path.Combine(directory, "layouts"));
        foreach (var (key, shape) in shapes.Dump())
            if (key.ToString() is "ipcache4" or "lb_services")
                shapes.Set(key, shape with { Types = ~shape.Types });
        return ours;
    }

    private string Serving() => Path.GetFileName(new FileInfo(Path.Combine(node.BpfRoot, "current")).LinkTarget!);

    private async Task<StatusResponse?> StatusAsync()
    {
        using var agent = new AgentClient(node.SocketPath, "osaka-1", TimeSpan.FromSeconds(10));
        try
        {
            return await agent.GetStatusAsync(TestContext.Current.CancellationToken);
        }
        catch (AgentException)
        {
            return null; // it is being started
        }
    }

    /// <summary>A load balancer's question, and all of the answer.</summary>
    private string Ask(int port) => node.OnWire(() =>
    {
        using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { ReceiveTimeout = 10_000 };
        try
        {
            socket.Connect(IPEndPoint.Parse($"172.30.0.1:{port}"));
            socket.Send(Encoding.ASCII.GetBytes("GET /healthz HTTP/1.1\r\nHost: node\r\n\r\n"));
            var answer = new StringBuilder();
            var buffer = new byte[4096];
            while (socket.Receive(buffer) is var length and > 0)
                answer.Append(Encoding.ASCII.GetString(buffer, 0, length));
            return answer.ToString();
        }
        catch (SocketException e)
        {
            return e.SocketErrorCode.ToString();
        }
    });

    private static async Task EchoAsync(Socket listener)
    {
        try
        {
            while (true)
                _ = TalkAsync(await listener.AcceptAsync());
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // The listener is closed.
        }
    }

    private static async Task TalkAsync(Socket socket)
    {
        using var _ = socket;
        var buffer = new byte[16];
        try
        {
            while (await socket.ReceiveAsync(buffer) is var count and > 0)
                await socket.SendAsync(buffer.AsMemory(0, count));
        }
        catch (SocketException)
        {
            // The client says what is wrong.
        }
    }

    /// <summary>Clients in pod front: one that connects anew all the time, and long connections that it uses in between.</summary>
    private sealed class Clients : IDisposable
    {
        private readonly IPEndPoint _service;
        private readonly List<Socket> _long = [];
        private readonly CancellationTokenSource _stop = new();
        private readonly Thread _thread;
        private int _passed;

        public Clients(WatchedNode node, IPEndPoint service, int longOnes)
        {
            _service = service;
            _thread = new Thread(() => node.InFront(() => Work(longOnes))) { IsBackground = true };
            _thread.Start();
        }

        public ConcurrentQueue<string> Faults { get; } = [];

        /// <summary>Waits until so many more have connected.</summary>
        public async Task PassAsync(int connections)
        {
            var from = Volatile.Read(ref _passed);
            var deadline = Watch.Deadline();
            using var tick = new PeriodicTimer(TimeSpan.FromMilliseconds(20));
            while (Volatile.Read(ref _passed) < from + connections)
            {
                Assert.False(deadline.IsCancellationRequested, $"clients are stuck: {string.Join(", ", Faults.Take(5))}");
                await tick.WaitForNextTickAsync();
            }
        }

        public void Dispose()
        {
            _stop.Cancel();
            _thread.Join();
            foreach (var socket in _long)
                socket.Dispose();
        }

        private void Work(int longOnes)
        {
            for (var i = 0; i < longOnes; i++)
                _long.Add(Connect());
            while (!_stop.IsCancellationRequested)
            {
                try
                {
                    using var socket = Connect();
                    Exchange(socket);
                }
                catch (SocketException e)
                {
                    Faults.Enqueue($"new connection: {e.SocketErrorCode}");
                }
                try
                {
                    Exchange(_long[_passed % longOnes]);
                }
                catch (SocketException e)
                {
                    Faults.Enqueue($"long connection: {e.SocketErrorCode}");
                }
                Interlocked.Increment(ref _passed);
                _stop.Token.WaitHandle.WaitOne(2);
            }
        }

        private Socket Connect()
        {
            var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp)
            { ReceiveTimeout = 5000, SendTimeout = 5000, NoDelay = true, LingerState = new LingerOption(true, 0) };
            socket.Connect(_service);
            return socket;
        }

        private static void Exchange(Socket socket)
        {
            var buffer = new byte[] { 42 };
            socket.Send(buffer);
            if (socket.Receive(buffer) != 1)
                throw new SocketException((int)SocketError.ConnectionReset);
        }
    }

    /// <summary>As the agent keeps it: name of a map.</summary>
    [InlineArray(32)]
    private struct Name
    {
        private byte _first;

        public override readonly string ToString() => Encoding.ASCII.GetString(this).TrimEnd('\0');
    }

    /// <summary>And what programs rely on in it.</summary>
    private record struct Shape(uint Type, uint KeySize, uint ValueSize, uint MaxEntries, uint Flags, uint Types);
}
