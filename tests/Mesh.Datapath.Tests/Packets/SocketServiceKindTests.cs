using System.Net;
using System.Net.Sockets;
using Mesh.Datapath.Maps;

namespace Mesh.Datapath.Tests.Packets;

/// <summary>NodePorts, scopes, session affinity and hairpin at the socket: what the packet tests show for packets.</summary>
[Collection("sockets")]
public sealed class SocketServiceKindTests
{
    private readonly SocketWorld _world;

    public SocketServiceKindTests(SocketWorld world)
    {
        _world = world;
        _world.Tables.Clear();
    }

    public static TheoryData<int> Families => [4, 6];

    [Theory]
    [MemberData(nameof(Families))]
    public void The_node_port_of_another_node_is_translated_where_the_client_is(int family)
    {
        var node = family == 4 ? "172.30.9.9" : "fd00:30::9";
        _world.Tables.Set(family == 4 ? "0.0.0.0" : "::", 30080, Frame.Tcp, new Segment(1, 0, At(family, 1)));
        _world.Run(() =>
        {
            using var server = SocketWorld.Serve(ProtocolType.Tcp, EndPoint(family, 1));
            Assert.False(Connects(node, 30080));

            _world.Tables.SetNodeAddress(node, LbNodePlace.Elsewhere);
            Assert.True(Connects(node, 30080));
            Assert.False(Connects(node, 30081));
            return 0;
        });
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void Sockets_are_clients_of_the_cluster(int family)
    {
        _world.Tables.Set(Virtual(family), 80, Frame.Tcp, new Properties { Internal = [new Segment(1, 0, At(family, 2))] }, new Segment(1, 0, At(family, 1)));
        _world.Run(() =>
        {
            using var server = SocketWorld.Serve(ProtocolType.Tcp, EndPoint(family, 2));
            Assert.True(Connects(Virtual(family), 80));
            return 0;
        });
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void Sockets_of_one_namespace_keep_to_one_backend_through_changes_of_the_others_and_leave_it_when_it_dies(int family)
    {
        var affinity = new Properties { AffinitySeconds = 600 };
        _world.Tables.Set(Virtual(family), 80, Frame.Tcp, affinity, new Segment(1, 0, At(family, 1), At(family, 2), At(family, 3)));
        _world.Run(() =>
        {
            Socket[] servers = [.. Enumerable.Range(1, 3).Select(i => SocketWorld.Serve(ProtocolType.Tcp, EndPoint(family, i)))];
            try
            {
                var chosen = Reached(servers, family);
                Assert.All(Enumerable.Range(0, 30), _ => Assert.Equal(chosen, Reached(servers, family)));

                // Another comes, every slot changes, the old ones are emptied.
                var slots = _world.Tables.Backends.Span[1..4];
                _world.Tables.Set(Virtual(family), 80, Frame.Tcp, affinity, new Segment(1, 0, [.. new[] { chosen + 1, 9 }.Order().Select(i => At(family, i))]));
                slots.Clear();
                Assert.All(Enumerable.Range(0, 30), _ => Assert.Equal(chosen, Reached(servers, family)));

                _world.Tables.Set(Virtual(family), 80, Frame.Tcp, affinity, new Segment(1, 0, At(family, 1), At(family, 2), At(family, 3)));
                _world.Tables.SetState(Host(family, chosen + 1), ServiceTables.Dead);
                var next = Reached(servers, family);
                Assert.NotEqual(chosen, next);
                Assert.All(Enumerable.Range(0, 30), _ => Assert.Equal(next, Reached(servers, family)));
            }
            finally
            {
                foreach (var server in servers)
                    server.Dispose();
            }
            return 0;
        });
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void A_client_that_is_its_own_backend_reaches_itself(int family)
    {
        _world.Tables.Set(Virtual(family), 80, Frame.Tcp, new Segment(1, 0, At(family, 1)));
        _world.Run(() =>
        {
            using var server = SocketWorld.Serve(ProtocolType.Tcp, EndPoint(family, 1));
            using var client = SocketWorld.Open(ProtocolType.Tcp, v6: family == 6);
            client.Bind(new IPEndPoint(IPAddress.Parse(Host(family, 1)), 0));
            client.Connect(Virtual(family), 80);
            using var accepted = server.Accept();
            Assert.Equal(client.LocalEndPoint, accepted.RemoteEndPoint);
            return 0;
        });
    }

    /// <summary>The place of the server that a new connection arrives at.</summary>
    private static int Reached(Socket[] servers, int family)
    {
        using var client = SocketWorld.Open(ProtocolType.Tcp, v6: family == 6);
        client.Connect(Virtual(family), 80);
        var place = Array.FindIndex(servers, server => server.Poll(0, SelectMode.SelectRead));
        servers[place].Accept().Dispose();
        return place;
    }

    private static bool Connects(string address, int port)
    {
        using var client = SocketWorld.Open(ProtocolType.Tcp, v6: address.Contains(':'));
        try
        {
            client.Connect(address, port);
            return true;
        }
        catch (SocketException)
        {
            return false;
        }
    }

    private static string Virtual(int family) => family == 4 ? "10.96.0.10" : "fd00:96::10";

    private static string Host(int family, int number) => family == 4 ? $"10.1.0.{number}" : $"fd00:1::{number}";

    private static string EndPoint(int family, int number) => family == 4 ? $"10.1.0.{number}:8080" : $"[fd00:1::{number}]:8080";

    private static Backend At(int family, int number) => Backend.At(Host(family, number), 8080);
}
