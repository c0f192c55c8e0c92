using System.Net;
using System.Net.Sockets;
using Mesh.Datapath.Masquerade;
using Mesh.Model;
using static Mesh.Datapath.Tests.LoadBalancing.Rows;

namespace Mesh.Datapath.Tests;

/// <summary>Pods that leave the mesh. The world, which takes long to make, is one for all stories; each says first what is to be masqueraded.</summary>
public sealed class MasqueradeTests(MasqueradeWorld world) : IClassFixture<MasqueradeWorld>
{
    private const string Tokyo4 = MasqueradeWorld.Tokyo4;
    private const string Outside4 = MasqueradeWorld.Outside4;
    private const string Knowing = MasqueradeWorld.Knowing4;
    private const string Pod4 = "10.1.0.1";

    private static readonly MasqueradeOptions Both = new() { IPv4 = true, IPv6 = true };
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(10);

    private readonly NetworkNamespace _outside = world.Outside;
    private readonly LiveNode _tokyo = world.Tokyo;

    [Theory]
    [InlineData(Outside4, Tokyo4)]
    [InlineData(MasqueradeWorld.Outside6, MasqueradeWorld.Tokyo6)]
    public void What_is_outside_sees_the_nodes_address_and_its_answers_arrive(string outside, string node)
    {
        Apply(Both);
        Assert.True(Answers(outside));
        Assert.Equal(node, Seen(SocketType.Stream, outside));
        Assert.Equal(node, Seen(SocketType.Dgram, outside));
        // In pieces: larger than the pod's link.
        Assert.Equal(node, Seen(SocketType.Dgram, outside, 4000));

        // Without, nobody outside knows where to answer.
        Assert.True(Apply(new MasqueradeOptions()));
        Assert.False(Answers(outside));
        Assert.NotEqual(node, Seen(SocketType.Dgram, outside));
    }

    /// <summary>A port of the node's services would be taken for a question to these.</summary>
    [Fact]
    public void Ports_are_those_that_the_stack_hands_out()
    {
        Apply(Both);
        using var listener = Listen(_outside, SocketType.Dgram, Outside4);
        using var question = Ask(SocketType.Dgram, Outside4, from: 30080);
        Assert.InRange(Receive(listener, 1).Port, 32768, 60999);
    }

    /// <summary>"No such port" is about a packet that the pod does not know in this form.</summary>
    [Fact]
    public void An_icmp_error_about_a_masqueraded_packet_reaches_the_pod()
    {
        Apply(Both);
        using var question = Ask(SocketType.Dgram, Outside4);
        Assert.Equal(SocketError.ConnectionRefused, Assert.Throws<SocketException>(() => question.Receive(new byte[10])).SocketErrorCode);
    }

    [Fact]
    public void Within_the_mesh_a_pod_keeps_its_address()
    {
        Apply(Both);
        using var listener = Listen(world.Osaka.Pod, SocketType.Dgram, "10.2.0.1");
        using var question = Ask(SocketType.Dgram, "10.2.0.1");
        Assert.Equal(Pod4, Receive(listener, 1).Address.ToString());
        // What the node says from its own pod-side address stays as it is too.
        using var host = New(_tokyo.Space, SocketType.Dgram, AddressFamily.InterNetwork);
        host.Bind(IPEndPoint.Parse("10.1.0.254:1234"));
        host.SendTo("?"u8, IPEndPoint.Parse("10.2.0.1:8080"));
        Assert.Equal("10.1.0.254:1234", Receive(listener, 1).ToString());
    }

    /// <summary>A cloud's metadata is asked at such an address. It knows nodes alone.</summary>
    [Theory]
    [InlineData(SocketType.Stream)]
    [InlineData(SocketType.Dgram)]
    public void What_is_link_local_to_the_node_sees_the_node(SocketType kind)
    {
        Apply(Both);
        Assert.Equal(Tokyo4, Seen(kind, MasqueradeWorld.Metadata));
    }

    [Fact]
    public void What_knows_the_way_to_pods_sees_their_addresses()
    {
        Apply(Both);
        Assert.Equal(Tokyo4, Seen(SocketType.Stream, Knowing));
        Assert.True(Apply(Both with { NativeRoutingIPv4 = IpPrefix.Parse("172.30.0.192/27") }));
        Assert.Equal(Pod4, Seen(SocketType.Stream, Knowing));
        Assert.Equal(Tokyo4, Seen(SocketType.Stream, Outside4));
    }

    /// <summary>The virtual address becomes another one at the pod's door, then the pod's own at the node's.</summary>
    [Fact]
    public void A_backend_outside_the_mesh_sees_the_node_and_the_pod_sees_the_service()
    {
        Apply(Both);
        var row = Frontend("10.96.0.40:80/TCP", Backend($"{Outside4}:8080/TCP", 1));
        _tokyo.Desired.Frontends.Write(table => table.Upsert(row.Address, row));
        _tokyo.Turn();
        using var listener = Listen(_outside, SocketType.Stream, Outside4);
        using var question = Connect(_tokyo.Pod, SocketType.Stream, "10.96.0.40", port: 80);
        using var accepted = listener.Accept();
        accepted.Send("answer"u8);
        Assert.Equal(6, question.Receive(new byte[10]));
        Assert.Equal(Tokyo4, ((IPEndPoint)accepted.RemoteEndPoint!).Address.ToString());
    }

    /// <summary>Somebody outside asks a pod by its own address: the answers come from there, long conversations included.</summary>
    [Theory]
    [InlineData(SocketType.Stream)]
    [InlineData(SocketType.Dgram)]
    public void Answers_of_a_pod_are_not_masqueraded(SocketType kind)
    {
        Apply(Both);
        using var listener = Listen(_tokyo.Pod, kind, Pod4);
        using var client = Connect(world.Knowing, kind, Pod4);
        client.Send("1"u8);
        using var accepted = kind == SocketType.Stream ? listener.Accept() : null;
        for (var exchange = 0; exchange < 3; exchange++)
        {
            EndPoint from = new IPEndPoint(IPAddress.Any, 0);
            var length = accepted?.Receive(new byte[1]) ?? listener.ReceiveFrom(new byte[1], ref from);
            Assert.Equal(1, length);
            _ = accepted?.Send("2"u8) ?? listener.SendTo("2"u8, from);
            Assert.Equal(1, client.Receive(new byte[1]));
            client.Send("1"u8);
        }
    }

    [Fact]
    public void It_outlives_the_agent_is_left_alone_by_the_next_and_comes_back_when_somebody_throws_it_away()
    {
        Apply(Both);
        _tokyo.Restart();
        Assert.True(Answers(Outside4));
        Assert.False(Apply(Both));
        Assert.Contains("ip saddr 10.1.0.0/24 goto pods4", _tokyo.Space.Shell("nft", "list", "table", "inet", "mesh"));

        _tokyo.Space.Shell("nft", "flush", "chain", "inet", "mesh", "pods4");
        Assert.True(Apply(Both));
        _tokyo.Space.Shell("nft", "flush", "ruleset");
        Assert.False(Answers(Outside4));
        Assert.True(Apply(Both));
        Assert.True(Answers(Outside4));
    }

    [Fact]
    public void Nobody_elses_rules_are_touched_and_it_goes_with_the_datapath()
    {
        using var alone = new NetworkNamespace();
        Assert.Null(alone.Run(NodeDatapath.TryMasquerade));
        Assert.Empty(alone.Shell("nft", "list", "ruleset"));
        alone.Shell("nft", "add table inet other; add chain inet other in { type filter hook input priority 0; }");
        Assert.True(Apply(Both with { IPv6 = false }, alone));
        Assert.DoesNotContain("pods6", alone.Shell("nft", "list", "ruleset"));
        Assert.Equal(["nftables table inet mesh"], alone.Run(() => NodeDatapath.Remove("/sys/fs/bpf/of-nobody")));
        var left = alone.Shell("nft", "list", "ruleset");
        Assert.Contains("table inet other", left);
        Assert.DoesNotContain("masquerade", left);
        Assert.Empty(alone.Run(() => NodeDatapath.Remove("/sys/fs/bpf/of-nobody")));
    }

    [Theory]
    [InlineData(32768, 60999, 30000, 32767, 32768, 60999)]
    [InlineData(1024, 65535, 30000, 32767, 32768, 65535)]
    [InlineData(20000, 33000, 30000, 32767, 20000, 29999)]
    [InlineData(30100, 30200, 30000, 32767, 30100, 30200)]
    public void Ports_of_services_are_left_out(int low, int high, int first, int last, int from, int to) =>
        Assert.Equal(((ushort)from, (ushort)to), MasqueradeTable.Ports((low, high), ((ushort)first, (ushort)last)));

    private bool Apply(MasqueradeOptions options, NetworkNamespace? space = null) => (space ?? _tokyo.Space).Run(() =>
    {
        using var table = new MasqueradeTable(options, (30000, 32767));
        return table.Apply([IpPrefix.Parse("10.1.0.0/24"), IpPrefix.Parse("fd00:1::/64")]);
    });

    private bool Answers(string address)
    {
        try
        {
            _tokyo.Pod.Shell("ping", "-c", "1", "-W", "1", address);
            return true;
        }
        catch (InvalidOperationException)
        {
            return false;
        }
    }

    /// <summary>Whom a host outside takes the pod for. Of a connection, once an answer has arrived.</summary>
    private string Seen(SocketType kind, string outside, int bytes = 1)
    {
        using var listener = Listen(outside == Knowing ? world.Knowing : _outside, kind, outside);
        using var question = Ask(kind, outside, bytes);
        if (kind == SocketType.Dgram)
            return Receive(listener, bytes).Address.ToString();
        using var accepted = listener.Accept();
        accepted.Send("answer"u8);
        Assert.True(question.Receive(new byte[10]) > 0);
        return ((IPEndPoint)accepted.RemoteEndPoint!).Address.ToString();
    }

    private static IPEndPoint Receive(Socket listener, int bytes)
    {
        EndPoint from = new IPEndPoint(listener.AddressFamily == AddressFamily.InterNetwork ? IPAddress.Any : IPAddress.IPv6Any, 0);
        Assert.Equal(bytes, listener.ReceiveFrom(new byte[bytes + 1], ref from));
        return (IPEndPoint)from;
    }

    private Socket Ask(SocketType kind, string to, int bytes = 1, int from = 0)
    {
        var socket = Connect(_tokyo.Pod, kind, to, from);
        socket.Send(new byte[bytes]);
        return socket;
    }

    private static Socket Listen(NetworkNamespace space, SocketType kind, string address)
    {
        var socket = New(space, kind, IPAddress.Parse(address).AddressFamily);
        socket.Bind(new IPEndPoint(IPAddress.Parse(address), 8080));
        if (kind == SocketType.Stream)
            socket.Listen();
        return socket;
    }

    private static Socket Connect(NetworkNamespace space, SocketType kind, string to, int from = 0, int port = 8080)
    {
        var family = IPAddress.Parse(to).AddressFamily;
        var socket = New(space, kind, family);
        socket.Bind(new IPEndPoint(family == AddressFamily.InterNetwork ? IPAddress.Any : IPAddress.IPv6Any, from));
        socket.Connect(IPAddress.Parse(to), port);
        return socket;
    }

    private static Socket New(NetworkNamespace space, SocketType kind, AddressFamily family) => space.Run(() =>
        new Socket(family, kind, kind == SocketType.Stream ? ProtocolType.Tcp : ProtocolType.Udp)
        {
            ReceiveTimeout = (int)Patience.TotalMilliseconds,
            SendTimeout = (int)Patience.TotalMilliseconds,
        });
}

/// <summary>Two nodes of two clusters and two hosts outside on a switch. One of these knows no way to pods, it hears them only through their
/// node; the other one does.</summary>
public sealed class MasqueradeWorld : IDisposable
{
    internal const string Tokyo4 = "172.30.0.1";
    internal const string Tokyo6 = "fd00:30::1";
    internal const string Outside4 = "172.30.0.100";
    internal const string Outside6 = "fd00:30::100";
    internal const string Metadata = "169.254.169.254";
    internal const string Knowing4 = "172.30.0.200";

    private readonly NetworkNamespace _switch = new();

    public MasqueradeWorld()
    {
        _switch.Shell("sh", "-ec", "ip link add name sw0 type bridge; ip link set sw0 up");
        foreach (var (port, space) in new[] { ("tokyo", Tokyo.Space), ("osaka", Osaka.Space), ("outside", Outside), ("knowing", Knowing) })
            _switch.Shell("sh", "-ec", $"ip link add {port} type veth peer name eth0 netns {space.Name}; ip link set {port} master sw0 up");
        Outside.Shell("sh", "-ec", $"ip link set lo up; ip addr add {Outside4}/24 dev eth0; ip addr add {Outside6}/64 dev eth0 nodad; ip link set eth0 up; "
            + $"ip addr add {Metadata}/32 dev eth0");
        Knowing.Shell("sh", "-ec", $"ip addr add {Knowing4}/24 dev eth0; ip link set eth0 up; ip route add 10.1.0.0/24 via {Tokyo4}");
        foreach (var node in new[] { Tokyo, Osaka })
        {
            node.Masquerade = new MasqueradeOptions { IPv4 = true, IPv6 = true };
            node.Start(Tokyo, Osaka);
        }
        Tokyo.Space.Shell("ip", "route", "add", $"{Metadata}/32", "dev", "eth0");
        Tokyo.Space.Shell("ip", "addr", "add", $"{Tokyo6}/64", "dev", "eth0", "nodad");
    }

    internal NetworkNamespace Outside { get; } = new();

    internal NetworkNamespace Knowing { get; } = new();

    internal LiveNode Tokyo { get; } = new(cluster: 1);

    internal LiveNode Osaka { get; } = new(cluster: 2);

    public void Dispose()
    {
        Tokyo.Dispose();
        Osaka.Dispose();
        Outside.Dispose();
        Knowing.Dispose();
        _switch.Dispose();
    }
}
