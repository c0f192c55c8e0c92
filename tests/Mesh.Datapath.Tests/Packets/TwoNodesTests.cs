using System.Net;
using System.Net.Sockets;

namespace Mesh.Datapath.Tests.Packets;

/// <summary>Packets between two nodes, over a real tunnel.</summary>
public sealed class TwoNodesTests
{
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Pods_and_hosts_reach_each_other_and_services(bool underlayV6)
    {
        using var nodes = new TwoNodes(underlayV6);
        foreach (var (from, to) in new[]
        {
            (nodes.First.Pod, "10.1.0.1"), (nodes.First.Pod, "10.2.0.2"), (nodes.First.Pod, "10.2.0.1"),
            (nodes.First.Thread, "10.1.0.2"), (nodes.First.Thread, "10.2.0.2"), (nodes.First.Thread, "10.2.0.1"),
            (nodes.First.Pod, "fd00:1::1"), (nodes.First.Pod, "fd00:2::2"), (nodes.First.Pod, "fd00:2::1"),
            (nodes.First.Thread, "fd00:1::2"), (nodes.First.Thread, "fd00:2::2"), (nodes.First.Thread, "fd00:2::1"),
        })
            from.Shell($"ping -c 1 -W 2 {to} || (echo no answer from {to} >&2; exit 1)");

        // Larger than the tunnel: the sender is told, and then cuts its packets.
        nodes.First.Pod.Shell("ip link set eth0 mtu 1500");
        Assert.Throws<InvalidOperationException>(() => nodes.First.Pod.Shell("ping -c 1 -W 1 -M do -s 1450 10.2.0.2"));
        Assert.Contains("mtu 1430", nodes.First.Pod.Shell("ip route get 10.2.0.2"), StringComparison.Ordinal);
        nodes.First.Pod.Shell("ping -c 2 -W 1 -s 1450 fd00:2::2");

        // Not the addresses of the socket tests, which translate for this whole process while they run.
        Transfer(nodes, "10.96.7.10", "10.2.0.2");
        Transfer(nodes, "fd00:96::710", "fd00:2::2");
    }

    /// <summary>A megabyte to the virtual address and back again from the backend, in TCP segments of any size.</summary>
    private static void Transfer(TwoNodes nodes, string virtualAddress, string backend)
    {
        nodes.First.Tables.Set(virtualAddress, 80, Frame.Tcp, new Segment(2, 0, Backend.At(backend, 8080)));
        var sent = new byte[1 << 20];
        new Random(1).NextBytes(sent);
        var at = IPEndPoint.Parse(backend.Contains(':', StringComparison.Ordinal) ? $"[{backend}]:8080" : $"{backend}:8080");
        using var server = nodes.Second.Pod.Run(() => SocketWorld.Serve(ProtocolType.Tcp, at.ToString()));
        using var client = nodes.First.Pod.Run(() => SocketWorld.Open(ProtocolType.Tcp, at.AddressFamily == AddressFamily.InterNetworkV6));
        client.Connect(new IPEndPoint(IPAddress.Parse(virtualAddress), 80));
        using var accepted = server.Accept();
        accepted.ReceiveTimeout = 5000;
        var echo = Task.Run(() =>
        {
            var buffer = new byte[65536];
            for (int length; (length = accepted.Receive(buffer)) > 0;)
                accepted.Send(buffer.AsSpan(0, length));
        }, TestContext.Current.CancellationToken);
        var received = new byte[sent.Length];
        var sending = Task.Run(() => client.Send(sent), TestContext.Current.CancellationToken);
        for (var filled = 0; filled < received.Length;)
            filled += client.Receive(received.AsSpan(filled));
        client.Shutdown(SocketShutdown.Send);
        Task.WaitAll([echo, sending], TestContext.Current.CancellationToken);
        Assert.True(sent.AsSpan().SequenceEqual(received));
    }
}
