using System.Buffers.Binary;
using System.Net;
using System.Net.Sockets;

namespace Mesh.Datapath.Tests.Packets;

/// <summary>
/// The same datagrams of a pod, wrapped by our programs and by the VXLAN device, as they come out on the wire: byte for byte the same,
/// but for the IPv4 identification, which a packet that is never cut does not need, and the source port, which only has to be of the
/// same range and one for each flow.
/// </summary>
public sealed class TunnelHeaderTests
{
    private const int Flows = 4;
    private const int Repeats = 3;

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Built_headers_are_those_of_the_device(bool underlayV6)
    {
        var built = Capture(underlayV6, built: true);
        var device = Capture(underlayV6, built: false);

        Assert.Equal(device.Keys.Order(), built.Keys.Order());
        Assert.All(built, flow =>
        {
            var theirs = device[flow.Key];
            Assert.Equal(Repeats, flow.Value.Count);
            Assert.Equal(Repeats, theirs.Count);
            foreach (var frames in new[] { flow.Value, theirs })
            {
                Assert.Single(frames.Select(SourcePort).Distinct());
                Assert.InRange(SourcePort(frames[0]), MeshNode.SourcePortMin, MeshNode.SourcePortMax - 1);
            }
            // The nodes are made anew for each capture, so their devices have other addresses.
            Assert.Equal(Comparable(theirs[0]), Comparable(flow.Value[0]));
        });
        Assert.True(built.Values.Select(frames => SourcePort(frames[0])).Distinct().Count() > 1, "all flows in one port");
    }

    /// <summary>By inner family, congestion bits and source port: the frames on the wire.</summary>
    private static Dictionary<string, List<byte[]>> Capture(bool underlayV6, bool built)
    {
        using var nodes = new TwoNodes(underlayV6, built);
        var uplink = nodes.Second.Index("uplink");
        using var wire = nodes.Second.Thread.Run(() => NativeSocket.OnDevice(uplink));
        // Whose neighbours are known: what waits for them may be lost.
        nodes.First.Pod.Shell("ping -c 1 -W 2 10.2.0.2; ping -c 1 -W 2 fd00:2::2");
        var wanted = 0;
        foreach (var to in new[] { "10.2.0.2", "fd00:2::2" })
            for (var flow = 0; flow < Flows; flow++)
                wanted += Send(nodes.First.Pod, IPAddress.Parse(to), 41000 + flow, congestion: flow % 3);

        var outer = underlayV6 ? 70 : 50;
        var captured = new Dictionary<string, List<byte[]>>(StringComparer.Ordinal);
        var buffer = new byte[4096];
        var deadline = Environment.TickCount64 + 10_000;
        while (wanted > 0)
        {
            Assert.True(Environment.TickCount64 < deadline, $"{wanted} frames have not come; there are {string.Join(", ", captured.Keys)}");
            if (!wire.Poll(100_000, SelectMode.SelectRead))
                continue;
            var frame = buffer[..wire.Receive(buffer)];
            if (frame.Length < outer + 42 || !IsTunnel(frame) || Flow(frame[outer..]) is not { } flow)
                continue;
            if (!captured.TryGetValue(flow, out var frames))
                captured[flow] = frames = [];
            frames.Add(frame);
            wanted--;
        }
        return captured;
    }

    private static int Send(NamespaceThread pod, IPAddress to, int port, int congestion) => pod.Run(() =>
    {
        var v6 = to.AddressFamily == AddressFamily.InterNetworkV6;
        using var socket = new Socket(to.AddressFamily, SocketType.Dgram, ProtocolType.Udp);
        const int trafficClass6 = 67;
        socket.SetRawSocketOption(v6 ? 41 : 0, v6 ? trafficClass6 : 1, BitConverter.GetBytes(congestion));
        socket.Bind(new IPEndPoint(v6 ? IPAddress.IPv6Any : IPAddress.Any, port));
        for (var i = 0; i < Repeats; i++)
            socket.SendTo(new byte[100], new IPEndPoint(to, 9));
        return Repeats;
    });

    private static bool IsTunnel(byte[] frame) => frame[12] == 0x08
        ? frame[23] == Frame.Udp && BinaryPrimitives.ReadUInt16BigEndian(frame.AsSpan(36)) == 8472
        : frame[12] == 0x86 && frame[20] == Frame.Udp && BinaryPrimitives.ReadUInt16BigEndian(frame.AsSpan(56)) == 8472;

    /// <summary>Null when the inner frame is not one of those sent.</summary>
    private static string? Flow(byte[] inner)
    {
        var transport = inner[12] == 0x08 ? 34 : 54;
        if (inner.Length < transport + 8 || BinaryPrimitives.ReadUInt16BigEndian(inner.AsSpan(transport + 2)) != 9)
            return null;
        return $"{inner[12]:x2} {inner[14] & 0xf:x}{inner[15]:x2} {BinaryPrimitives.ReadUInt16BigEndian(inner.AsSpan(transport))}";
    }

    private static ushort SourcePort(byte[] frame) => BinaryPrimitives.ReadUInt16BigEndian(frame.AsSpan(frame[12] == 0x08 ? 34 : 54));

    /// <summary>In hexadecimal, with zeros for what may differ.</summary>
    private static string Comparable(byte[] frame)
    {
        var bytes = frame.ToArray();
        var v4 = bytes[12] == 0x08;
        var inner = v4 ? 50 : 70;
        foreach (var (start, length) in new[] { (0, 12), (v4 ? 34 : 54, 2), (inner, 12) })
            bytes.AsSpan(start, length).Clear();
        if (v4) // identification, and the sum over it
            foreach (var start in new[] { 18, 24 })
                bytes.AsSpan(start, 2).Clear();
        if (bytes[inner + 12] == 0x08) // the pod's own
            foreach (var start in new[] { inner + 18, inner + 24 })
                bytes.AsSpan(start, 2).Clear();
        else // and its flow label
            bytes.AsSpan(inner + 15, 3).Clear();
        return Convert.ToHexString(bytes);
    }
}
