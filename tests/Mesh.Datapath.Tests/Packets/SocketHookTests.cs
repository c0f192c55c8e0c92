using System.Net;
using System.Net.Sockets;
using Mesh.Datapath.Maps;

namespace Mesh.Datapath.Tests.Packets;

/// <summary>Applications and virtual addresses: real sockets under the hooks.</summary>
[Collection("sockets")]
public sealed class SocketHookTests
{
    private const string Virtual4 = "10.96.0.10:80";
    private const string Virtual6 = "[fd00:96::10]:80";

    private readonly SocketWorld _world;

    public SocketHookTests(SocketWorld world)
    {
        _world = world;
        _world.Tables.Clear();
    }

    /// <summary>The address that the application names, the family of its socket, the backend.</summary>
    public static TheoryData<string, bool, string> Clients => new()
    {
        { Virtual4, false, "10.1.0.1:8080" },
        { Virtual6, true, "[fd00:1::1]:8080" },
        { "[::ffff:10.96.0.10]:80", true, "10.1.0.1:8080" },
    };

    [Theory]
    [MemberData(nameof(Clients))]
    public void A_connection_reaches_the_backend_and_shows_the_virtual_address(string named, bool v6, string backend)
    {
        Publish(Frame.Tcp, backend);
        _world.Run(() =>
        {
            using var server = SocketWorld.Serve(ProtocolType.Tcp, backend);
            using var client = SocketWorld.Open(ProtocolType.Tcp, v6, dual: true);

            client.Connect(IPEndPoint.Parse(named));

            using var accepted = server.Accept();
            Assert.Equal(IPEndPoint.Parse(backend), accepted.LocalEndPoint);
            Assert.Equal(IPEndPoint.Parse(named), PeerName(client));
            return 0;
        });
    }

    /// <summary>So that an ICMP error, which names only the backend, can be held against it: see EjectionTests.</summary>
    [Theory]
    [MemberData(nameof(Clients))]
    public void The_backend_of_datagrams_is_remembered_and_that_of_connections_is_not(string named, bool v6, string backend)
    {
        var end = IPEndPoint.Parse(backend);
        var key = LbDatagramBackend.From(Model.IpAddr.Parse(end.Address.ToString()), (ushort)end.Port);
        using var remembered = _world.DatagramBackends();
        remembered.Remove(key);
        foreach (var protocol in new[] { ProtocolType.Tcp, ProtocolType.Udp })
        {
            Publish(protocol == ProtocolType.Tcp ? Frame.Tcp : Frame.Udp, backend);
            _world.Run(() =>
            {
                using var server = SocketWorld.Serve(protocol, backend);
                using var client = SocketWorld.Open(protocol, v6, dual: true);
                client.Connect(IPEndPoint.Parse(named));
                return 0;
            });
            Assert.Equal(protocol == ProtocolType.Udp, remembered.TryGet(key, out var slot));
            if (protocol == ProtocolType.Udp)
                Assert.Contains(slot, _world.Tables.SlotsOf(end.Address.ToString()));
        }
    }

    [Theory]
    [MemberData(nameof(Clients))]
    public void Datagrams_go_to_the_backend_and_answers_come_from_the_virtual_address(string named, bool v6, string backend)
    {
        Publish(Frame.Udp, backend);
        _world.Run(() =>
        {
            using var server = SocketWorld.Serve(ProtocolType.Udp, backend);
            using var client = SocketWorld.Open(ProtocolType.Udp, v6, dual: true);
            var buffer = new byte[16];
            EndPoint from = Any(client.AddressFamily);
            EndPoint sender = Any(IPEndPoint.Parse(backend).AddressFamily);

            client.SendTo([1], IPEndPoint.Parse(named));
            server.ReceiveFrom(buffer, ref sender);
            server.SendTo([2], sender);
            client.ReceiveFrom(buffer, ref from);
            Assert.Equal(IPEndPoint.Parse(named), from);

            client.Connect(IPEndPoint.Parse(named));
            Assert.Equal(IPEndPoint.Parse(named), PeerName(client));
            client.Send([3]);
            server.ReceiveFrom(buffer, ref sender);
            server.SendTo([4], sender);
            client.ReceiveFrom(buffer, ref from);
            Assert.Equal((byte)4, buffer[0]);
            Assert.Equal(IPEndPoint.Parse(named), from);
            return 0;
        });
    }

    [Theory]
    [InlineData(Virtual4, false, ProtocolType.Tcp)]
    [InlineData(Virtual6, true, ProtocolType.Tcp)]
    [InlineData("[::ffff:10.96.0.10]:80", true, ProtocolType.Tcp)]
    [InlineData(Virtual4, false, ProtocolType.Udp)]
    [InlineData(Virtual6, true, ProtocolType.Udp)]
    public void Without_a_live_backend_the_application_is_told_at_once(string named, bool v6, ProtocolType protocol)
    {
        foreach (var frontend in new[] { ("10.96.0.10", "10.1.0.1"), ("fd00:96::10", "fd00:1::1") })
            _world.Tables.Set(frontend.Item1, 80, (byte)protocol,
                new Segment(2, 0, Backend.At(frontend.Item2, 8080) with { State = ServiceTables.Dead }));
        var before = _world.Refused;
        _world.Run(() =>
        {
            using var client = SocketWorld.Open(protocol, v6, dual: true);
            var at = IPEndPoint.Parse(named);
            var refused = Assert.Throws<SocketException>(() => { client.Connect(at); });
            Assert.Equal(SocketError.HostUnreachable, refused.SocketErrorCode);
            using var sender = SocketWorld.Open(ProtocolType.Udp, v6, dual: true);
            if (protocol == ProtocolType.Udp)
                Assert.Equal(SocketError.HostUnreachable,
                    Assert.Throws<SocketException>(() => { sender.SendTo([1], at); }).SocketErrorCode);
            return 0;
        });
        Assert.Equal(before + (protocol == ProtocolType.Udp ? 2ul : 1ul), _world.Refused);
    }

    [Fact]
    public void Connections_spread_over_the_backends()
    {
        Publish(Frame.Tcp, "10.1.0.1:8080", "10.1.0.2:8080");
        _world.Run(() =>
        {
            using var one = SocketWorld.Serve(ProtocolType.Tcp, "10.1.0.1:8080");
            using var two = SocketWorld.Serve(ProtocolType.Tcp, "10.1.0.2:8080");
            for (var i = 0; i < 60; i++)
            {
                using var client = SocketWorld.Open(ProtocolType.Tcp, v6: false);
                client.Connect(IPEndPoint.Parse(Virtual4));
            }
            Assert.InRange(Waiting(one), 10, 50);
            Assert.InRange(Waiting(two), 0, 50);
            return 0;
        });
    }

    [Fact]
    public void Datagrams_of_one_socket_stay_with_one_backend_until_it_dies()
    {
        Publish(Frame.Udp, "10.1.0.1:8080", "10.1.0.2:8080", "10.1.0.3:8080");
        _world.Run(() =>
        {
            using var one = SocketWorld.Serve(ProtocolType.Udp, "10.1.0.1:8080");
            using var two = SocketWorld.Serve(ProtocolType.Udp, "10.1.0.2:8080");
            using var three = SocketWorld.Serve(ProtocolType.Udp, "10.1.0.3:8080");
            using var client = SocketWorld.Open(ProtocolType.Udp, v6: false);
            Socket[] servers = [one, two, three];
            for (var i = 0; i < 20; i++)
                client.SendTo([1], IPEndPoint.Parse(Virtual4));
            var chosen = Assert.Single(servers, server => server.Available > 0);
            Assert.Equal(20, Drain(chosen));

            // Another table would choose another backend for a new socket.
            Publish(Frame.Udp, [.. Enumerable.Range(101, 40).Select(i => $"10.1.0.{i}:8080")]);
            for (var i = 0; i < 20; i++)
                client.SendTo([1], IPEndPoint.Parse(Virtual4));
            Assert.Equal(20, Drain(chosen));

            Publish(Frame.Udp, "10.1.0.1:8080", "10.1.0.2:8080", "10.1.0.3:8080");
            _world.Tables.SetState($"10.1.0.{Array.IndexOf(servers, chosen) + 1}", ServiceTables.Dead);
            for (var i = 0; i < 20; i++)
                client.SendTo([1], IPEndPoint.Parse(Virtual4));

            var next = Assert.Single(servers, server => server.Available > 0);
            Assert.NotSame(chosen, next);
            Assert.Equal(20, Drain(next));
            return 0;
        });
    }

    [Fact]
    public void Addresses_that_no_service_has_are_left_alone()
    {
        Publish(Frame.Tcp, "10.1.0.1:8080");
        _world.Run(() =>
        {
            using var server = SocketWorld.Serve(ProtocolType.Tcp, "10.1.0.1:80");
            using var client = SocketWorld.Open(ProtocolType.Tcp, v6: false);
            client.Connect(IPEndPoint.Parse("10.1.0.1:80"));
            Assert.Equal(IPEndPoint.Parse("10.1.0.1:80"), PeerName(client));
            return 0;
        });
    }

    [Fact]
    public void Without_the_hooks_nothing_reaches_a_virtual_address()
    {
        Publish(Frame.Tcp, "10.1.0.1:8080");
        _world.Detach();
        try
        {
            _world.Run(() =>
            {
                using var server = SocketWorld.Serve(ProtocolType.Tcp, "10.1.0.1:8080");
                using var client = SocketWorld.Open(ProtocolType.Tcp, v6: false);
                Assert.Equal(SocketError.NetworkUnreachable,
                    Assert.Throws<SocketException>(() => { client.Connect(IPEndPoint.Parse(Virtual4)); }).SocketErrorCode);
                return 0;
            });
        }
        finally
        {
            _world.Attach();
        }
    }

    private void Publish(byte protocol, params string[] backends)
    {
        var parsed = backends.Select(IPEndPoint.Parse).ToList();
        _world.Tables.Set(parsed[0].AddressFamily == AddressFamily.InterNetworkV6 ? "fd00:96::10" : "10.96.0.10", 80, protocol,
            new Segment(2, 0, [.. parsed.Select(at => Backend.At(at.Address.ToString(), at.Port))]));
    }

    /// <summary>What getpeername() says now: the socket's own property remembers what it was told.</summary>
    private static IPEndPoint PeerName(Socket socket)
    {
        var raw = new byte[28];
        var address = new SocketAddress(socket.AddressFamily, raw.Length);
        var length = raw.Length;
        Assert.Equal(0, NativeSocket.GetPeerName((int)socket.Handle, raw, ref length));
        for (var i = 2; i < length; i++)
            address[i] = raw[i];
        return (IPEndPoint)Any(socket.AddressFamily).Create(address);
    }

    private static IPEndPoint Any(AddressFamily family) =>
        new(family == AddressFamily.InterNetworkV6 ? IPAddress.IPv6Any : IPAddress.Any, 0);

    private static int Waiting(Socket listener)
    {
        var count = 0;
        for (; listener.Poll(0, SelectMode.SelectRead); count++)
            listener.Accept().Dispose();
        return count;
    }

    private static int Drain(Socket socket)
    {
        var count = 0;
        for (var buffer = new byte[16]; socket.Available > 0; count++)
            socket.Receive(buffer);
        return count;
    }
}
