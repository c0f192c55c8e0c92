using System.Net;
using System.Net.Sockets;
using Mesh.ControlPlane.LoadBalancing;
using Mesh.Datapath.Masquerade;
using Mesh.Datapath.Tests.Kernel;
using Mesh.Datapath.Uplinks;
using static Mesh.Datapath.Tests.LoadBalancing.Rows;

namespace Mesh.Datapath.Tests;

/// <summary>A client outside, two nodes of two clusters, a switch between them: connections to a LoadBalancer address really come
/// through, whichever hook takes them in and whichever way they go. Pods are masqueraded, their answers to clients are not.</summary>
public sealed class OutsideTests : IDisposable
{
    private const string Virtual = "203.0.113.10";
    private const string Client = "172.30.0.100";
    private const string Gateway = "10.1.0.254";

    private static readonly MasqueradeOptions Masquerading = new() { IPv4 = true, IPv6 = true };

    private readonly NetworkNamespace _switch = new();
    private readonly NetworkNamespace _client = new();
    private readonly LiveNode _tokyo = new(cluster: 1);
    private readonly LiveNode _osaka = new(cluster: 2);

    public OutsideTests()
    {
        _switch.Shell("ip", "link", "add", "name", "sw0", "type", "bridge");
        _switch.Shell("ip", "link", "set", "sw0", "up");
        foreach (var (port, space) in new[] { ("tokyo", _tokyo.Space), ("osaka", _osaka.Space), ("client", _client) })
        {
            _switch.Shell("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space.Name);
            _switch.Shell("ip", "link", "set", port, "master", "sw0", "up");
        }
        _client.Shell("sh", "-c", $"ip link set lo up; ip addr add {Client}/24 dev eth0; ip link set eth0 up; ip route add {Virtual} via 172.30.0.1");
    }

    public void Dispose()
    {
        _tokyo.Dispose();
        _osaka.Dispose();
        _client.Dispose();
        _switch.Dispose();
    }

    [Theory]
    [InlineData(Acceleration.Disabled, ForwardingMode.Snat, true, true, Gateway)]
    [InlineData(Acceleration.Disabled, ForwardingMode.Snat, false, true, Gateway)]
    [InlineData(Acceleration.Disabled, ForwardingMode.Dsr, true, true, Client)]
    [InlineData(Acceleration.Disabled, ForwardingMode.Snat, true, false, Client)]
    [InlineData(Acceleration.Native, ForwardingMode.Snat, true, false, Client)]
    [InlineData(Acceleration.BestEffort, ForwardingMode.Snat, true, true, Gateway)]
    [InlineData(Acceleration.BestEffort, ForwardingMode.Snat, false, true, Gateway)]
    [InlineData(Acceleration.Native, ForwardingMode.Dsr, true, true, Client)]
    public void A_client_outside_talks_to_a_backend(Acceleration acceleration, ForwardingMode mode, bool built, bool remote, string seen)
    {
        foreach (var port in new[] { "tokyo", "osaka" })
            _switch.Run(() => Ethtool.TakeFrames(port));
        Serve(acceleration, mode, built);
        var status = Assert.Single(_tokyo.Status().Uplinks);
        Assert.Equal(("eth0", acceleration == Acceleration.Disabled ? "tcx" : "tcx+xdp", null), (status.Device, status.Hooks, status.Problem));

        var row = Offer(remote);
        using var listener = Listen(remote);
        for (var connection = 0; connection < 3; connection++)
            Assert.Equal(seen, Echo(listener));

        // Nobody serves any more: the row's end is the end of connections.
        _tokyo.Desired.Frontends.Write(table => table.Upsert(row.Address, row with { Backends = new([]) }));
        _tokyo.Turn();
        using var late = _client.Run(() => new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp));
        Assert.False(Connects(late, 500));
        Assert.Contains(_tokyo.Counters(), counter => counter.Reason == Mesh.Datapath.Maps.DropReason.NoServiceBackend);
    }

    /// <summary>The switch's ports are as they are made: frames that XDP sends to them would be lost.</summary>
    [Theory]
    [InlineData(Acceleration.Native)]
    [InlineData(Acceleration.BestEffort)]
    public void Without_a_taker_of_frames_clients_are_served_at_tc_and_the_status_says_why(Acceleration acceleration)
    {
        Serve(acceleration, ForwardingMode.Snat, built: true);
        var status = Assert.Single(_tokyo.Status().Uplinks);
        Assert.Equal(("eth0", "tcx"), (status.Device, status.Hooks));
        Assert.Contains("GRO", status.Problem, StringComparison.Ordinal);

        Offer(remote: true);
        using var listener = Listen(remote: true);
        Assert.Equal(Gateway, Echo(listener));
    }

    private void Serve(Acceleration acceleration, ForwardingMode mode, bool built)
    {
        foreach (var node in new[] { _tokyo, _osaka })
        {
            node.Uplink = new UplinkOptions { Acceleration = acceleration, Forwarding = mode, BuiltHeaders = built };
            node.Masquerade = Masquerading;
            node.Start(_tokyo, _osaka);
            node.Space.Run(() =>
            {
                using var table = new MasqueradeTable(Masquerading, (30000, 32767));
                var own = node.Desired.Nodes.Snapshot().Select(pair => pair.Value.Row).Single(row => row.IsLocalNode);
                return table.Apply(own.PodCidrs.Items);
            });
        }
    }

    private static string BackendAt(bool remote) => remote ? "10.2.0.1" : "10.1.0.1";

    private Frontend Offer(bool remote)
    {
        var row = Frontend($"{Virtual}:80/TCP", Backend($"{BackendAt(remote)}:8080/TCP", remote ? 2u : 1u)) with { Type = ServiceType.LoadBalancer };
        _tokyo.Desired.Frontends.Write(table => table.Upsert(row.Address, row));
        _tokyo.Turn();
        foreach (var node in new[] { _tokyo, _osaka })
            node.FindPaths();
        return row;
    }

    private Socket Listen(bool remote) => (remote ? _osaka : _tokyo).Pod.Run(() =>
    {
        var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { ReceiveTimeout = 10_000 };
        socket.Bind(new IPEndPoint(IPAddress.Parse(BackendAt(remote)), 8080));
        socket.Listen();
        return socket;
    });

    private static bool Connects(Socket socket, int milliseconds)
    {
        var cancellation = TestContext.Current.CancellationToken;
        return socket.ConnectAsync(new IPEndPoint(IPAddress.Parse(Virtual), 80), cancellation).AsTask().Wait(milliseconds, cancellation);
    }

    /// <summary>Some hundred kilobytes there and back.</summary>
    /// <returns>Who the server takes for the client.</returns>
    private string Echo(Socket listener)
    {
        var cancellation = TestContext.Current.CancellationToken;
        var sent = new byte[300_000];
        new Random(1).NextBytes(sent);
        using var client = _client.Run(() => new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp)
        {
            ReceiveTimeout = 10_000,
            SendTimeout = 10_000,
        });
        var accepting = listener.AcceptAsync(cancellation).AsTask();
        Assert.True(Connects(client, 5000), "no connection");
        using var accepted = accepting.GetAwaiter().GetResult();
        accepted.ReceiveTimeout = 10_000;
        var echo = Task.Run(() =>
        {
            var buffer = new byte[65536];
            for (int length; (length = accepted.Receive(buffer)) > 0;)
                accepted.Send(buffer.AsSpan(0, length));
        }, cancellation);
        var sending = Task.Run(() => client.Send(sent), cancellation);
        var received = new byte[sent.Length];
        for (var filled = 0; filled < received.Length;)
            filled += client.Receive(received.AsSpan(filled));
        client.Shutdown(SocketShutdown.Send);
        Task.WaitAll([echo, sending], cancellation);
        Assert.True(sent.AsSpan().SequenceEqual(received));
        return ((IPEndPoint)accepted.RemoteEndPoint!).Address.ToString();
    }
}
