using System.Diagnostics;
using System.Net.Sockets;
using Xunit;

namespace Mesh.Agent.Tests.Live;

/// <summary>
/// Clients whose packets are translated one by one, as a pod's without socket hooks are: a backend that refuses them is ejected on this
/// node at once, and let in again when the agent's probe finds it well.
/// </summary>
public sealed class EjectedByPacketTests(WatchedNode node) : IClassFixture<WatchedNode>
{
    private const string Connections = $"{WatchedNode.Half}:80", Datagrams = $"{WatchedNode.Half}:53";

    [Fact]
    public async Task A_backend_that_refuses_connections_is_ejected_by_the_first_and_comes_back_when_it_listens()
    {
        await node.UntilAsync(() => !node.Connects(Connections), "one is refused");
        // From now on nobody notices; but each try of an ejected backend that is over may: there are eight seconds to the last at most.
        Assert.All(Enumerable.Range(0, 40), _ => Assert.True(node.Connects(Connections)));
        await node.UntilAsync(async () => await node.EjectedAsync() is [$"{WatchedNode.Back}:8081/TCP"], "it is told");

        using (var socket = node.Listen(ProtocolType.Tcp, 8081))
        {
            var accepted = false;
            await node.UntilAsync(() => node.Connects(Connections) && (accepted |= socket.Poll(0, SelectMode.SelectRead)), "it is given a connection");
            await node.UntilAsync(async () => (await node.EjectedAsync()).Count == 0, "it is in again");
        }
    }

    /// <summary>The trial's patience is as long as the programs' first ejection: it must not end before the trial has.</summary>
    [Fact]
    public async Task A_backend_that_leaves_the_agents_trial_without_an_answer_is_not_let_in_meanwhile()
    {
        // Failures in a row make an ejection longer: this one is to be the first.
        using (node.Listen(ProtocolType.Tcp, 8081))
            await node.UntilAsync(
                () => node.Connects(Connections) && node.HealthOf(WatchedNode.Back, 8081) is { Failures: 0, EjectedUntilMs: 0 }, "all is well");
        using (node.SilentToOthers(8081))
        {
            await node.UntilAsync(() => !node.Connects(Connections), "one is refused");
            for (var clock = Stopwatch.StartNew(); clock.Elapsed < TimeSpan.FromSeconds(2.5);)
            {
                var now = (uint)(Stopwatch.GetTimestamp() / (Stopwatch.Frequency / 1000));
                Assert.True(node.HealthOf(WatchedNode.Back, 8081).IsEjected(now), $"let in {clock.ElapsedMilliseconds} ms after it was ejected");
            }
        }
        using var socket = node.Listen(ProtocolType.Tcp, 8081);
        await node.UntilAsync(async () => (await node.EjectedAsync()).Count == 0, "it is in again");
    }

    [Fact]
    public async Task A_backend_that_refuses_datagrams_is_ejected_and_comes_back_when_it_listens()
    {
        using var good = node.Listen(ProtocolType.Udp, 5300);
        await node.UntilAsync(() => node.RefusesDatagram(Datagrams), "one is refused");
        await node.UntilAsync(async () => await node.EjectedAsync() is [$"{WatchedNode.Back}:5301/UDP"], "it is told");
        Assert.All(Enumerable.Range(0, 10), _ => Assert.False(node.RefusesDatagram(Datagrams)));

        using var mended = node.Listen(ProtocolType.Udp, 5301);
        await node.UntilAsync(async () => (await node.EjectedAsync()).Count == 0, "it is in again");
        await node.UntilAsync(() => !node.RefusesDatagram(Datagrams) && HasHello(mended), "it is sent one");
    }

    /// <summary>The probe's datagram is empty.</summary>
    private static bool HasHello(Socket socket)
    {
        var buffer = new byte[64];
        while (socket.Poll(0, SelectMode.SelectRead))
            if (socket.Receive(buffer) > 0)
                return true;
        return false;
    }
}
