using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Text;
using Mesh.AgentApi;
using Mesh.Bpf;
using Mesh.Datapath.Maps;
using Mesh.KVStore;
using Mesh.TestKit;
using Xunit;

namespace Mesh.Agent.Tests.Live;

/// <summary>
/// Node osaka-1 with a real agent, two pods in namespaces of their own, and a wire on which cluster kyoto's node and a stranger live:
/// those are only sockets that send what we let them send. What the pods send is translated by packet, not at the socket.
/// </summary>
public sealed class WatchedNode : IAsyncLifetime
{
    public const uint FrontIdentity = (2 << 16) + 1, BackIdentity = (2 << 16) + 2, KyotoIdentity = (7 << 16) + 5;
    public const string Front = "10.2.1.10", Back = "10.2.1.20", Kyoto = "10.7.1.9";
    public const string Near = "10.96.0.10", Far = "10.96.0.11";

    /// <summary>A service for TCP (80) and UDP (53), with two backends each in pod back: nobody listens at the second, nor for datagrams
    /// at the first, until a test does.</summary>
    public const string Half = "10.96.0.12";
    public const string KyotoNode = "172.30.7.1", Stranger = "172.30.0.99";

    private const string Objects = """
        apiVersion: cilium.io/v2
        kind: CiliumNode
        metadata: {name: osaka-1}
        spec:
          addresses: [{type: InternalIP, ip: 172.30.0.1}, {type: CiliumInternalIP, ip: 10.2.1.1}]
          ipam: {podCIDRs: ["10.2.1.0/24"]}
        ---
        apiVersion: cilium.io/v2
        kind: CiliumIdentity
        metadata: {name: "131073"}
        security-labels: {"k8s:app": front, "k8s:io.kubernetes.pod.namespace": default, "k8s:io.cilium.k8s.policy.cluster": osaka}
        ---
        apiVersion: cilium.io/v2
        kind: CiliumIdentity
        metadata: {name: "131074"}
        security-labels: {"k8s:app": back, "k8s:io.kubernetes.pod.namespace": default, "k8s:io.cilium.k8s.policy.cluster": osaka}
        ---
        apiVersion: cilium.io/v2
        kind: CiliumEndpoint
        metadata: {name: front, namespace: default}
        status: {identity: {id: 131073}, networking: {node: 172.30.0.1, addressing: [{ipv4: 10.2.1.10}]}, state: ready}
        ---
        apiVersion: cilium.io/v2
        kind: CiliumEndpoint
        metadata: {name: back, namespace: default}
        status: {identity: {id: 131074}, networking: {node: 172.30.0.1, addressing: [{ipv4: 10.2.1.20}]}, state: ready}
        ---
        apiVersion: v1
        kind: Service
        metadata: {name: near, namespace: default}
        spec: {clusterIP: 10.96.0.10, ports: [{name: http, port: 80}]}
        ---
        apiVersion: discovery.k8s.io/v1
        kind: EndpointSlice
        metadata: {name: near-1, namespace: default, labels: {kubernetes.io/service-name: near}}
        addressType: IPv4
        ports: [{name: http, port: 8080, protocol: TCP}]
        endpoints: [{addresses: [10.2.1.20], conditions: {ready: true}}]
        ---
        apiVersion: v1
        kind: Service
        metadata: {name: half, namespace: default}
        spec: {clusterIP: 10.96.0.12, ports: [{name: good, port: 80}, {name: dns, port: 53, protocol: UDP}]}
        ---
        apiVersion: discovery.k8s.io/v1
        kind: EndpointSlice
        metadata: {name: half-1, namespace: default, labels: {kubernetes.io/service-name: half}}
        addressType: IPv4
        ports: [{name: good, port: 8080, protocol: TCP}, {name: dns, port: 5300, protocol: UDP}]
        endpoints: [{addresses: [10.2.1.20], conditions: {ready: true}}]
        ---
        apiVersion: discovery.k8s.io/v1
        kind: EndpointSlice
        metadata: {name: half-2, namespace: default, labels: {kubernetes.io/service-name: half}}
        addressType: IPv4
        ports: [{name: good, port: 8081, protocol: TCP}, {name: dns, port: 5301, protocol: UDP}]
        endpoints: [{addresses: [10.2.1.20], conditions: {ready: true}}]
        ---
        apiVersion: v1
        kind: Service
        metadata: {name: far, namespace: default, annotations: {service.cilium.io/global: "true"}}
        spec: {clusterIP: 10.96.0.11, ports: [{name: dns, port: 53, protocol: UDP}]}
        """;

    private const string Policy = """
        apiVersion: cilium.io/v2
        kind: CiliumNetworkPolicy
        metadata: {name: not-to-back, namespace: default}
        spec:
          endpointSelector: {matchLabels: {app: front}}
          egressDeny: [{toEndpoints: [{matchLabels: {app: back}}]}]
        """;

    private readonly string _directory = Directory.CreateTempSubdirectory("mesh-watched-").FullName;
    private readonly BpfFileSystem _pins = new();
    private readonly NetworkNamespace _osaka = new();
    private readonly NetworkNamespace _wire = new();
    private readonly NetworkNamespace _front = new();
    private readonly NetworkNamespace _back = new();
    private EtcdServer _etcd = null!;
    private TcpProxy _control = null!;
    private Process _agent = null!;
    private Socket _server = null!;
    private Task _serving = Task.CompletedTask;

    public string BpfRoot => Path.Combine(_pins.Path, "osaka-1");

    public string SocketPath => Path.Combine(_directory, "agent.sock");

    /// <summary>Null when the datapath tells nobody anything, else until when it does.</summary>
    public ulong ToldUntil
    {
        get
        {
            using var observing = BpfMaps.OpenPinnedArray<ObservingValue>(
                Path.Combine(BpfRoot, "current", "maps", "observing"));
            return Volatile.Read(ref observing[0].UntilNs);
        }
    }

    public async ValueTask InitializeAsync()
    {
        _etcd = await EtcdServer.StartAsync();
        await using (var store = _etcd.NewStore())
        {
            await PublishedCluster.WriteAsync(store, "kyoto");
            await store.WriteAsync(
            [
                Put("services/v1/kyoto/default/far", """
                    {"cluster":"kyoto","namespace":"default","name":"far","frontends":{},"backends":{"10.7.1.9":{"dns":{"Protocol":"UDP","Port":5353}}},
                     "labels":{},"selector":{},"shared":true,"includeExternal":false,"clusterID":7}
                    """),
                Put($"identities/v1/id/{KyotoIdentity}", "k8s:app=far;k8s:io.cilium.k8s.policy.cluster=kyoto;k8s:io.kubernetes.pod.namespace=default;"),
                Put($"ip/v1/default/{Kyoto}", $$"""
                    {"IP":"{{Kyoto}}","HostIP":"{{KyotoNode}}","ID":{{KyotoIdentity}},"Metadata":"","K8sNamespace":"default","K8sPodName":"far-1"}
                    """),
            ], default);
        }
        _osaka.Shell("sh", "-ec", $"ip link set lo up; ip link add eth0 type veth peer name eth0 netns {_wire.Name}; ip addr add 172.30.0.1/16 dev eth0; "
            + $"ip link set eth0 up; ip link add lxc1 type veth peer name eth0 netns {_front.Name}; ip link add lxc2 type veth peer name eth0 netns "
            + $"{_back.Name}; ip link set lxc1 up; ip link set lxc2 up");
        _wire.Shell("sh", "-ec", $"ip addr add {KyotoNode}/16 dev eth0; ip addr add {Stranger}/16 dev eth0; ip link set eth0 up");
        _control = _osaka.Run(() => new TcpProxy(new Uri(_etcd.Endpoint).Port));
        Write("objects", "all.yaml", Objects);
        Write("peers", "kyoto", $"endpoints:\n- {_control.Endpoint}\n");
        Pod(1, "front", _front, Front);
        Pod(2, "back", _back, Back);
        StartAgent();
        _server = Listen(ProtocolType.Tcp, 8080);
        _serving = ServeAsync(_server);
        var ready = Watch.Deadline();
        while (!Connects())
            Assert.True(!_agent.HasExited && !ready.IsCancellationRequested, $"no answer from {Near}\n{Log()}");
    }

    public async ValueTask DisposeAsync()
    {
        _server?.Dispose();
        await _serving;
        if (_agent is not null)
            await KillAgentAsync();
        if (_control is not null)
            await _control.DisposeAsync();
        if (_etcd is not null)
            await _etcd.DisposeAsync();
        _pins.Dispose();
        foreach (var space in (NetworkNamespace[])[_front, _back, _wire, _osaka])
            space.Dispose();
        Directory.Delete(_directory, recursive: true);
    }

    public void StartAgent() =>
        _agent = ChildThread.Start("/bin/sh",
        [
            "-c", "log=$1; shift; exec \"$@\" >>\"$log\" 2>&1", "sh", Path.Combine(_directory, "log"),
            "nsenter", $"--net=/run/netns/{_osaka.Name}", Path.Combine(AppContext.BaseDirectory, "mesh-agent"),
            "--cluster-name", "osaka", "--cluster-id", "2", "--node-name", "osaka-1", "--source", $"manifests:{_directory}/objects",
            "--bpf-root", Directory.CreateDirectory(BpfRoot).FullName, "--socket-path", SocketPath,
            "--state-dir", Path.Combine(_directory, "state"), "--clustermesh-config", Path.Combine(_directory, "peers"),
        ]);

    public async Task KillAgentAsync()
    {
        _agent.Kill();
        await _agent.WaitForExitAsync();
        _agent.Dispose();
    }

    /// <summary>Between the agent and kyoto's etcd.</summary>
    public TcpProxy Control => _control;

    /// <summary>Something that is done in pod front.</summary>
    public void InFront(Action work) => _front.Run(work);

    /// <summary>Something that is done on the wire before the node.</summary>
    public T OnWire<T>(Func<T> work) => _wire.Run(work);

    /// <summary>Objects of Kubernetes, in a file of their own.</summary>
    public void Declare(string name, string text) => Write("objects", name, text);

    /// <summary>A socket in pod back, bound to this port; TCP listens.</summary>
    public Socket Listen(ProtocolType protocol, int port) => _back.Run(() =>
    {
        var socket = new Socket(AddressFamily.InterNetwork, protocol == ProtocolType.Tcp ? SocketType.Stream : SocketType.Dgram, protocol);
        socket.Bind(new IPEndPoint(IPAddress.Parse(Back), port));
        if (protocol == ProtocolType.Tcp)
            socket.Listen(1024);
        return socket;
    });

    /// <summary>Pod back lets nobody but front know that nobody listens at this port, until the result is disposed.</summary>
    public IDisposable SilentToOthers(int port)
    {
        _back.Shell("nft", $"add table ip silent; add chain ip silent in {{ type filter hook input priority 0; }}; "
            + $"add rule ip silent in ip saddr != {Front} tcp dport {port} drop");
        return new Undo(() => _back.Shell("nft", "delete", "table", "ip", "silent"));
    }

    /// <summary>What connections have found out about a backend.</summary>
    public LbBackendHealth HealthOf(string address, int port)
    {
        string Pin(string map) => Path.Combine(BpfRoot, "current", "maps", map);
        using var backends = BpfMaps.OpenPinnedArray<LbBackend>(Pin("lb_backends"), readOnly: true);
        using var health = BpfMaps.OpenPinnedArray<LbBackendHealth>(Pin("lb_backend_health"), readOnly: true);
        var wanted = (MeshAddress.From(Mesh.Model.IpAddr.Parse(address)), BigEndianUInt16.FromHost((ushort)port));
        for (var slot = 1u; slot < backends.Info.MaxEntries; slot++)
            if ((backends[slot].Address, backends[slot].Port).Equals(wanted))
                return health[slot];
        throw new InvalidOperationException($"no backend {address}:{port} in the map");
    }

    /// <summary>Pod front sends a datagram from a port of its own, and says whether it is refused within a tenth of a second.</summary>
    public bool RefusesDatagram(string service) => _front.Run(() =>
    {
        using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp);
        socket.Connect(IPEndPoint.Parse(service));
        socket.ReceiveTimeout = 100;
        socket.Send("hello"u8);
        try
        {
            socket.Receive(new byte[16]);
            return false;
        }
        catch (SocketException e)
        {
            return e.SocketErrorCode == SocketError.ConnectionRefused;
        }
    });

    /// <summary>Whether pod front is answered by service near, within a tenth of a second.</summary>
    public bool Connects() => Connects($"{Near}:80");

    public bool Connects(string service) => _front.Run(() =>
    {
        using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { Blocking = false };
        try
        {
            socket.Connect(IPEndPoint.Parse(service));
        }
        catch (SocketException e) when (e.SocketErrorCode is SocketError.WouldBlock or SocketError.InProgress)
        {
            // It is on its way.
        }
        return socket.Poll(100_000, SelectMode.SelectWrite) && (int)socket.GetSocketOption(SocketOptionLevel.Socket, SocketOptionName.Error)! == 0;
    });

    /// <summary>Pod front sends a datagram to service far, which only kyoto has.</summary>
    public void SendFar() => _front.Run(() => Send("0.0.0.0", $"{Far}:53", "hello"u8.ToArray()));

    /// <summary>A datagram by the tunnel to pod front, from this underlay address, as pod far-1 of kyoto would send it.</summary>
    public void SendByTunnel(string from) => _wire.Run(() => Send(from, "172.30.0.1:8472", Vxlan(KyotoIdentity, Kyoto, Front)));

    /// <summary>Puts a policy in force that forbids front to speak with back, until the result is disposed.</summary>
    public IDisposable ForbidBack()
    {
        Write("objects", "policy.yaml", Policy);
        return new Undo(() => File.Delete(Path.Combine(_directory, "objects", "policy.yaml")));
    }

    public Watch Begin(params string[] arguments) => new([.. arguments, "--bpf-root", BpfRoot, "--socket", SocketPath]);

    /// <summary>Backends that the agent says are ejected, as 10.2.1.20:8081/TCP.</summary>
    public async Task<IReadOnlyList<string>> EjectedAsync()
    {
        using var agent = new AgentClient(SocketPath, "osaka-1", TimeSpan.FromSeconds(10));
        return [.. ((await agent.GetStatusAsync()).Mesh?.Liveness?.Ejected ?? []).Select(one => one.Address)];
    }

    /// <summary>Looks again and again until it is so; fails with the agent's last words when it is not in <see cref="Watch.Deadline"/>.</summary>
    public Task UntilAsync(Func<bool> condition, string what) => UntilAsync(() => Task.FromResult(condition()), what);

    /// <inheritdoc cref="UntilAsync(Func{bool}, string)"/>
    public async Task UntilAsync(Func<Task<bool>> condition, string what)
    {
        var deadline = Watch.Deadline();
        using var tick = new PeriodicTimer(TimeSpan.FromMilliseconds(20));
        while (!await condition())
        {
            Assert.False(deadline.IsCancellationRequested, $"waited in vain until {what}\n{Log()}");
            await tick.WaitForNextTickAsync();
        }
    }

    public string Log() => string.Join('\n', File.ReadLines(Path.Combine(_directory, "log")).TakeLast(15));

    /// <summary>Takes connections and closes them, until the socket is closed.</summary>
    private static async Task ServeAsync(Socket server)
    {
        try
        {
            while (true)
                (await server.AcceptAsync()).Dispose();
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // The socket is closed.
        }
    }

    private static void Send(string from, string to, byte[] what)
    {
        using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp);
        socket.Bind(IPEndPoint.Parse($"{from}:0"));
        socket.SendTo(what, IPEndPoint.Parse(to));
    }

    /// <summary>Header of VXLAN, of Ethernet, of IPv4, of UDP, and no more.</summary>
    private static byte[] Vxlan(uint identity, string from, string to)
    {
        byte[] ip =
        [
            0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, 17, 0, 0, .. IPAddress.Parse(from).GetAddressBytes(), .. IPAddress.Parse(to).GetAddressBytes(),
        ];
        var sum = 0;
        for (var i = 0; i < ip.Length; i += 2)
            sum += (ip[i] << 8) + ip[i + 1];
        sum = ~((sum & 0xffff) + (sum >> 16));
        (ip[10], ip[11]) = ((byte)(sum >> 8), (byte)sum);
        return
        [
            8, 0, 0, 0, (byte)(identity >> 16), (byte)(identity >> 8), (byte)identity, 0,
            2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, .. ip, 0x20, 0, 0x20, 1, 0, 8, 0, 0,
        ];
    }

    private void Pod(int id, string name, NetworkNamespace space, string address)
    {
        space.Shell("sh", "-ec", $"ip link set lo up; ip link set eth0 address 02:00:00:00:01:0{id} up; ip addr add {address}/32 dev eth0; "
            + "ip route add default via 10.2.1.1 dev eth0 onlink");
        Write("state/endpoints", $"{id}.json", $$$"""
            {"id":{{{id}}},"k8s-namespace":"default","k8s-pod-name":"{{{name}}}","interface-name":"lxc{{{id}}}","mac":"02:00:00:00:01:0{{{id}}}",
             "host-mac":"02:00:00:00:02:0{{{id}}}","addressing":{"ipv4":"{{{address}}}"}}
            """);
    }

    private static WriteOperation Put(string key, string value) => new($"cilium/state/{key}", Encoding.UTF8.GetBytes(value));

    private void Write(string folder, string name, string text) =>
        File.WriteAllText(Path.Combine(Directory.CreateDirectory(Path.Combine(_directory, folder)).FullName, name), text);

    private sealed class Undo(Action action) : IDisposable
    {
        public void Dispose() => action();
    }
}
