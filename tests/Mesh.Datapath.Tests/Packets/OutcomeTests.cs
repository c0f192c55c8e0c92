using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using Mesh.Bpf;
using Mesh.Datapath.Maps;
using Mesh.Model;

namespace Mesh.Datapath.Tests.Packets;

/// <summary>What becomes of translated connections, with real sockets: single backends ejected, and sockets of lost ones closed.</summary>
[Collection("sockets")]
public sealed class OutcomeTests : IDisposable
{
    private const string Virtual = "10.96.0.80";
    private const string Virtual6 = "fd00:96::80";

    private readonly SocketWorld _world;
    private readonly BpfObject _outcome;
    private readonly BpfProgram _program;
    private readonly BpfLink _link;
    private readonly List<Socket> _open = [];

    public OutcomeTests(SocketWorld world)
    {
        _world = world;
        _world.Tables.Clear();
        _outcome = _world.LoadBeside("outcome.bpf.o");
        _program = _outcome.Program("connect_outcome");
        _link = _world.AttachToCgroup(_program);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_refused_connection_ejects_that_backend_alone_and_at_once(bool v6)
    {
        var (good, bad) = SetGoodAndBad(v6);
        Assert.Equal(1, ConnectUntilRefused(v6));
        KeepOut(bad);

        Assert.All(Enumerable.Range(0, 50), _ => Assert.True(Connects(v6)));
        Assert.NotEqual(0u, HealthOf(bad).EjectedUntilMs);
        Assert.Equal(0u, HealthOf(good).EjectedUntilMs);
        Assert.Equal((1ul, 1ul, 0ul), (Failover.Refused, Failover.Ejections, Failover.Panics));
        Assert.Equal(_world.Tables.SlotsOf(bad).Single(), Failover.Recent[0]);
    }

    /// <summary>The control of the test above: without the program every other connection goes on being refused.</summary>
    [Fact]
    public void Without_the_program_nothing_is_ejected()
    {
        SetGoodAndBad(v6: false);
        _link.Detach();
        Assert.InRange(Enumerable.Range(0, 60).Count(_ => !Connects(v6: false)), 10, 50);
    }

    [Fact]
    public void An_unanswered_connection_ejects_that_backend_within_the_timeout_that_is_asked_for()
    {
        var (_, bad) = SetGoodAndBad(v6: false);
        _world.Tables.Failover[0].SynTimeoutMs = 200;
        _world.Shell($"nft 'add table inet outcome; add chain inet outcome in {{ type filter hook input priority 0; }}; "
            + $"add rule inet outcome in ip daddr {bad} tcp dport 8080 drop'");
        try
        {
            // The first connections let the program learn how long the kernel's ticks are.
            Until(() => !Connects(v6: false, milliseconds: 1500), "a connection is not answered");
            Until(() => HealthOf(bad).EjectedUntilMs != 0, "the backend is ejected");
            KeepOut(bad);
            Assert.All(Enumerable.Range(0, 50), _ => Assert.True(Connects(v6: false)));
            Assert.True(Failover.Unanswered > 0);

            // One of five: a busy machine delays now and then, but without the timeout none would be before the kernel's own second.
            var quick = Enumerable.Range(0, 5).Select(_ =>
            {
                _world.Tables.Health[_world.Tables.SlotsOf(bad).Single()] = default;
                var before = Failover.Ejections;
                var clock = Stopwatch.StartNew();
                var waiting = _world.Run(() => Enumerable.Range(0, 8).Select(_ => Begin(v6: false)).ToList());
                Until(() => Failover.Ejections > before, "it is ejected again");
                waiting.ForEach(socket => socket.Dispose());
                return clock.ElapsedMilliseconds;
            }).FirstOrDefault(time => time <= 900);
            Assert.InRange(quick, 150, 900);
        }
        finally
        {
            _world.Shell("nft delete table inet outcome");
        }
    }

    [Fact]
    public void An_ejected_backend_is_tried_again_when_its_time_is_over_and_each_failure_doubles_it()
    {
        var (_, bad) = SetGoodAndBad(v6: false);
        var slot = _world.Tables.SlotsOf(bad).Single();
        ConnectUntilRefused(v6: false);
        var first = _world.Tables.Health[slot].EjectedUntilMs - Now;
        Assert.InRange(first, 1u, 1000u);
        _world.Tables.Health[slot].EjectedUntilMs = Now;
        ConnectUntilRefused(v6: false);
        Assert.InRange(_world.Tables.Health[slot].EjectedUntilMs - Now, 1001u, 2000u);
        Assert.Equal(2, _world.Tables.Health[slot].Failures);

        // It works again: the first connection that it answers forgets its failures.
        _world.Tables.Health[slot].EjectedUntilMs = Now;
        _open.Add(_world.Run(() => SocketWorld.Serve(ProtocolType.Tcp, $"{bad}:8080")));
        Until(() => Connects(v6: false) && _world.Tables.Health[slot].Failures == 0, "its failures are forgotten");
    }

    [Fact]
    public void When_every_backend_refuses_connections_are_still_tried()
    {
        _world.Tables.Set(Virtual, 80, Frame.Tcp, new Segment(1, 0, Backend.At("10.1.0.2", 8080), Backend.At("10.1.0.3", 8080)));
        Assert.All(Enumerable.Range(0, 20), _ => Assert.False(Connects(v6: false)));
        Assert.Equal(2ul, Failover.Ejections);
        Assert.True(Failover.Panics > 0);
        _open.Add(_world.Run(() => SocketWorld.Serve(ProtocolType.Tcp, "10.1.0.3:8080")));
        Until(() => Connects(v6: false), "one of them answers");
    }

    [Fact]
    public void Backends_of_a_lost_cluster_are_not_ejected_one_by_one()
    {
        _world.Tables.Set(Virtual, 80, Frame.Tcp, new Segment(2, 0, Backend.At("10.1.0.2", 8080)));
        _world.Tables.SetAlive(2, alive: false);
        Assert.False(Connects(v6: false));
        Assert.Equal(0ul, Failover.Ejections);
    }

    [Fact]
    public void Sockets_of_a_lost_cluster_are_closed_and_no_others()
    {
        using var closing = _world.LoadBeside("close.bpf.o");
        using var tcp = closing.Program("close_tcp");
        using var udp = closing.Program("close_udp");
        using var ipcache = closing.Map<IPCache4Key, IPCacheValue>("ipcache4");
        ipcache.Set(IPCache4Key.From(IpAddr.Parse("10.1.0.1")), new IPCacheValue { Node = 1 });
        ipcache.Set(IPCache4Key.From(IpAddr.Parse("10.1.0.2")), new IPCacheValue { Node = 2 });
        _world.Tables.Nodes[1] = new NodeValue { Family = Family.IPv4, ClusterId = 1 };
        _world.Tables.Nodes[2] = new NodeValue { Family = Family.IPv4, ClusterId = 2 };
        foreach (var protocol in new[] { Frame.Tcp, Frame.Udp })
            _world.Tables.Set(Virtual, 80, protocol, new Segment(1, 0, Backend.At("10.1.0.1", 8080)), new Segment(2, 0, Backend.At("10.1.0.2", 8080)));
        foreach (var protocol in new[] { ProtocolType.Tcp, ProtocolType.Udp })
            foreach (var address in new[] { "10.1.0.1:8080", "10.1.0.2:8080" })
                _open.Add(_world.Run(() => SocketWorld.Serve(protocol, address)));
        var sockets = _world.Run(() => Enumerable.Range(0, 40).Select(i =>
        {
            var socket = SocketWorld.Open(i % 2 == 0 ? ProtocolType.Tcp : ProtocolType.Udp, v6: false);
            socket.Connect(IPEndPoint.Parse($"{Virtual}:80"));
            return socket;
        }).ToList());
        _open.AddRange(sockets);
        using var tcpIterator = new BpfIterator(tcp);
        using var udpIterator = new BpfIterator(udp);

        // The control: while nothing is lost nothing is closed.
        Close();
        Assert.Equal(0, sockets.Count(IsClosed));
        Assert.Equal(0ul, Failover.SocketsClosed);

        _world.Tables.SetAlive(2, alive: false);
        Close();
        Assert.InRange(sockets.Count(IsClosed), 5, 35);
        Assert.Equal((ulong)sockets.Count(IsClosed), Failover.SocketsClosed);
        Assert.All(sockets.Where(socket => !IsClosed(socket)), socket => Assert.Equal(4, socket.Send("ping"u8)));

        // The last one standing keeps its sockets.
        var left = sockets.Count(IsClosed);
        _world.Tables.SetAlive(1, alive: false);
        Close();
        Assert.Equal(left, sockets.Count(IsClosed));

        void Close() => _world.Run(() =>
        {
            tcpIterator.Run();
            udpIterator.Run();
            return 0;
        });
    }

    private static uint Now => (uint)(ServiceTables.MonotonicNs / 1_000_000);

    private ref FailoverValue Failover => ref _world.Tables.Failover[0];

    /// <summary>Aborted sockets say so at once, and for ever after.</summary>
    private static bool IsClosed(Socket socket) =>
        socket.Poll(0, SelectMode.SelectError) || (int)socket.GetSocketOption(SocketOptionLevel.Socket, SocketOptionName.Error)! != 0
        || (socket.SocketType == SocketType.Dgram && !IsConnected(socket)) || (socket.SocketType == SocketType.Stream && socket.Poll(0, SelectMode.SelectRead));

    private static bool IsConnected(Socket socket)
    {
        try
        {
            socket.Send("x"u8);
            return true;
        }
        catch (SocketException)
        {
            return false;
        }
    }

    /// <summary>As the agent does, so that a slow machine does not see it tried again meanwhile.</summary>
    private void KeepOut(string backend)
    {
        Assert.NotEqual(0u, HealthOf(backend).EjectedUntilMs);
        _world.Tables.Health[_world.Tables.SlotsOf(backend).Single()].EjectedUntilMs = Now + 60_000;
    }

    private LbBackendHealth HealthOf(string backend) => _world.Tables.Health[_world.Tables.SlotsOf(backend).Single()];

    private (string Good, string Bad) SetGoodAndBad(bool v6)
    {
        var (good, bad) = v6 ? ("fd00:1::1", "fd00:1::2") : ("10.1.0.1", "10.1.0.2");
        _world.Tables.Set(v6 ? Virtual6 : Virtual, 80, Frame.Tcp, new Segment(1, 0, Backend.At(good, 8080), Backend.At(bad, 8080)));
        _open.Add(_world.Run(() => SocketWorld.Serve(ProtocolType.Tcp, v6 ? $"[{good}]:8080" : $"{good}:8080")));
        return (good, bad);
    }

    /// <summary>How many connections were refused.</summary>
    private int ConnectUntilRefused(bool v6)
    {
        for (var i = 0; i < 200; i++)
            if (!Connects(v6))
                return 1;
        return 0;
    }

    private bool Connects(bool v6, int milliseconds = 2000) => _world.Run(() =>
    {
        using var socket = SocketWorld.Open(ProtocolType.Tcp, v6);
        try
        {
            using var deadline = new CancellationTokenSource(milliseconds);
            socket.ConnectAsync(IPEndPoint.Parse(v6 ? $"[{Virtual6}]:80" : $"{Virtual}:80"), deadline.Token).AsTask().GetAwaiter().GetResult();
            return true;
        }
        catch (Exception exception) when (exception is SocketException or OperationCanceledException)
        {
            return false;
        }
    });

    private static Socket Begin(bool v6)
    {
        var socket = SocketWorld.Open(ProtocolType.Tcp, v6);
        socket.Blocking = false;
        try
        {
            socket.Connect(IPEndPoint.Parse(v6 ? $"[{Virtual6}]:80" : $"{Virtual}:80"));
        }
        catch (SocketException exception) when (exception.SocketErrorCode is SocketError.WouldBlock or SocketError.InProgress)
        {
            // It is on its way.
        }
        return socket;
    }

    private static void Until(Func<bool> condition, string what) =>
        Assert.True(SpinWait.SpinUntil(condition, TimeSpan.FromSeconds(20)), $"waited in vain until {what}");

    public void Dispose()
    {
        _open.ForEach(socket => socket.Dispose());
        _link.Detach();
        _link.Dispose();
        _program.Dispose();
        _outcome.Dispose();
    }
}
