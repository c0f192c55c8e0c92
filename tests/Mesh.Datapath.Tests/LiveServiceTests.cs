using System.Net;
using System.Net.Sockets;
using Mesh.ControlPlane.LoadBalancing;
using Mesh.ControlPlane.Nodes;
using Mesh.Model;
using static Mesh.Datapath.Tests.LoadBalancing.Rows;

namespace Mesh.Datapath.Tests;

/// <summary>Services of a running datapath, used by real sockets of pods that no hook helps: every packet is translated at the pod's door.</summary>
public sealed class LiveServiceTests : IDisposable
{
    private readonly LiveNode _tokyo = new(cluster: 1);
    private readonly LiveNode _osaka = new(cluster: 2);

    public LiveServiceTests()
    {
        _tokyo.Space.Shell("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", _osaka.Space.Name);
        foreach (var node in (LiveNode[])[_tokyo, _osaka])
            node.Start(_tokyo, _osaka);
    }

    public void Dispose()
    {
        _tokyo.Dispose();
        _osaka.Dispose();
    }

    [Theory]
    [InlineData("10.96.0.30", "10.1.0.1")]
    [InlineData("fd00:96::30", "fd00:1::1")]
    public void A_pod_that_is_its_own_backend_reaches_itself(string virtualIP, string pod)
    {
        Publish(virtualIP, 80, pod, 8080, 1);

        var (answer, peer) = _tokyo.Pod.Run(() => Ask(_tokyo.Pod, pod, 8080, virtualIP, 80));

        Assert.Equal("hello", answer);
        Assert.Equal(virtualIP.Contains(':') ? "100::6d65:7368" : "169.254.42.1", peer);
    }

    [Fact]
    public void A_large_datagram_and_its_large_answer_cross_in_fragments()
    {
        Publish("10.96.0.30", 53, "10.2.0.1", 5353, 2, L4Protocol.UDP);
        using var server = _osaka.Pod.Run(() => Bound(ProtocolType.Udp, "10.2.0.1", 5353));
        using var client = _tokyo.Pod.Run(() => Bound(ProtocolType.Udp, "0.0.0.0", 0));
        var payload = new byte[4000];
        Random.Shared.NextBytes(payload);
        var buffer = new byte[8000];
        EndPoint from = new IPEndPoint(IPAddress.Any, 0);

        client.SendTo(payload, IPEndPoint.Parse("10.96.0.30:53"));
        Assert.Equal(payload, buffer[..server.ReceiveFrom(buffer, ref from)]);
        server.SendTo(payload, from);

        Assert.Equal(payload, buffer[..client.ReceiveFrom(buffer, ref from)]);
        Assert.Equal(IPEndPoint.Parse("10.96.0.30:53"), from);
    }

    [Fact]
    public void The_sender_of_a_datagram_to_a_closed_port_is_told()
    {
        Publish("10.96.0.30", 53, "10.2.0.1", 5353, 2, L4Protocol.UDP);
        using var client = _tokyo.Pod.Run(() => Bound(ProtocolType.Udp, "0.0.0.0", 0));
        client.Connect(IPEndPoint.Parse("10.96.0.30:53"));
        client.Send([1]);

        // The kernel matches the error with its socket by the addresses in it: those of the virtual address.
        Assert.Equal(SocketError.ConnectionRefused, Assert.Throws<SocketException>(() => client.Receive(new byte[1])).SocketErrorCode);
    }

    [Fact]
    public void A_node_port_is_reached_on_the_own_and_on_another_node_until_its_node_goes()
    {
        Publish("0.0.0.0", 30080, "10.2.0.1", 8080, 2, type: ServiceType.NodePort);
        var name = new NodeName("cluster1", "second");
        _tokyo.Desired.Nodes.Write(table => table.Upsert(name, new Node(name, 1, new([new NodeAddress("InternalIP", IpAddr.Parse("172.30.0.77"))]),
            default, default, IsLocalNode: false)));
        _tokyo.Turn();
        using var listener = _osaka.Pod.Run(() => Listening("10.2.0.1", 8080));

        Assert.True(Connects("172.30.0.1", 30080));
        Assert.True(Connects("172.30.0.77", 30080));

        _tokyo.Desired.Nodes.Write(table => table.Delete(name));
        _tokyo.Desired.Nodes.SealInitializers();
        _tokyo.PruneNodes();
        Assert.False(Connects("172.30.0.77", 30080));
    }

    [Fact]
    public void A_terminating_backend_finishes_what_it_has_and_is_used_again_when_it_is_the_last()
    {
        var (here, there) = (Backend("10.1.0.1:8080/TCP"), Backend("10.2.0.1:8080/TCP", 2));
        Row("10.96.0.30:80/TCP", there);
        using var listener = _osaka.Pod.Run(() => Listening("10.2.0.1", 8080));
        using var open = _tokyo.Pod.Run(() => Connected("10.96.0.30", 80));
        using var accepted = listener.Accept();

        // Going away, with another backend beside it: which is the client itself, where nobody listens.
        Row("10.96.0.30:80/TCP", here, there with { State = BackendState.Draining });
        Assert.All(Enumerable.Range(0, 10), _ => Assert.False(Connects("10.96.0.30", 80)));
        open.Send([7]);
        var buffer = new byte[1];
        Assert.Equal(1, accepted.Receive(buffer));
        Assert.Equal(7, buffer[0]);

        Row("10.96.0.30:80/TCP", there with { State = BackendState.Draining });
        Assert.True(Connects("10.96.0.30", 80));
    }

    private void Publish(string virtualIP, int port, string backend, int backendPort, uint cluster,
        L4Protocol protocol = L4Protocol.TCP, ServiceType type = ServiceType.ClusterIP)
    {
        var address = new L3n4Addr(IpAddr.Parse(virtualIP), (ushort)port, protocol);
        var behind = new Backend(new L3n4Addr(IpAddr.Parse(backend), (ushort)backendPort, protocol), cluster, "", "", "", BackendState.Active, 0);
        _tokyo.Desired.Frontends.Write(table => table.Upsert(address,
            new Frontend(address, new ServiceName("default", "live"), "", type, ServiceAffinity.None, new([behind]))));
        _tokyo.Turn();
    }

    private void Row(string address, params Backend[] backends)
    {
        var row = Frontend(address, backends);
        _tokyo.Desired.Frontends.Write(table => table.Upsert(row.Address, row));
        _tokyo.Turn();
    }

    /// <summary>Says hello to a server at the pod's own address, by way of the virtual one.</summary>
    /// <returns>What the server heard, and from whom.</returns>
    private static (string Heard, string From) Ask(NetworkNamespace pod, string server, int port, string virtualIP, int virtualPort)
    {
        using var listener = Listening(server, port);
        using var client = Connected(virtualIP, virtualPort);
        using var accepted = listener.Accept();
        client.Send("hello"u8);
        var buffer = new byte[16];
        var heard = System.Text.Encoding.ASCII.GetString(buffer, 0, accepted.Receive(buffer));
        accepted.Send("fine"u8);
        Assert.Equal(4, client.Receive(buffer));
        return (heard, ((IPEndPoint)accepted.RemoteEndPoint!).Address.ToString());
    }

    private bool Connects(string address, int port) => _tokyo.Pod.Run(() =>
    {
        try
        {
            Connected(address, port).Dispose();
            return true;
        }
        catch (Exception exception) when (exception is OperationCanceledException or SocketException)
        {
            return false;
        }
    });

    private static Socket Connected(string address, int port)
    {
        var at = IPAddress.Parse(address);
        var client = new Socket(at.AddressFamily, SocketType.Stream, ProtocolType.Tcp) { ReceiveTimeout = 3000 };
        using var deadline = new CancellationTokenSource(TimeSpan.FromSeconds(3));
        client.ConnectAsync(new IPEndPoint(at, port), deadline.Token).AsTask().GetAwaiter().GetResult();
        return client;
    }

    private static Socket Listening(string address, int port)
    {
        var socket = Bound(ProtocolType.Tcp, address, port);
        socket.Listen();
        return socket;
    }

    private static Socket Bound(ProtocolType protocol, string address, int port)
    {
        var at = IPAddress.Parse(address);
        var socket = new Socket(at.AddressFamily, protocol == ProtocolType.Tcp ? SocketType.Stream : SocketType.Dgram, protocol)
        {
            ReceiveTimeout = 3000,
        };
        socket.Bind(new IPEndPoint(at, port));
        return socket;
    }
}
