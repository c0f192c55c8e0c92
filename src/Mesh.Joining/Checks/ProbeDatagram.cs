using System.Buffers.Binary;
using System.Net;
using System.Net.Sockets;
using Mesh.Joining.Listening;

namespace Mesh.Joining.Checks;

/// <summary>
/// A datagram that shows that a path carries packets of its size. It begins like a VXLAN header without its "identifier is valid" flag,
/// so a tunnel that it reaches by mistake drops it. It is never answered: what arrived is told over the join's own connection, so that
/// each direction is judged alone.
/// </summary>
internal static class ProbeDatagram
{
    private const int HeaderBytes = 26;
    private const int LargestPacket = 9216;
    private const int Copies = 2;
    private static readonly int[] Smaller = [8950, 4050, 1500, 1450, 1420, 1400, 1350, 1280, 576];

    /// <summary>Size of a packet with a UDP payload of nothing: what IP and UDP add.</summary>
    public static int Overhead(AddressFamily family) => family == AddressFamily.InterNetworkV6 ? 48 : 28;

    /// <summary>Sizes to send through an interface: the largest it takes, and below it those that usual paths end at.</summary>
    public static int[] Sizes(int mtu) => [.. Smaller.Where(size => size < mtu).Prepend(Math.Min(mtu, LargestPacket)).Distinct()];

    /// <summary>The size that a datagram of this probe tells, 0 when it is not one. A truncated one is not one.</summary>
    public static int Read(ReadOnlySpan<byte> payload, AddressFamily family, out ulong nonce)
    {
        nonce = 0;
        if (payload.Length < HeaderBytes || !payload[8..16].SequenceEqual("meshjoin"u8))
            return 0;
        nonce = BinaryPrimitives.ReadUInt64BigEndian(payload[16..]);
        var size = BinaryPrimitives.ReadUInt16BigEndian(payload[24..]);
        return payload.Length + Overhead(family) == size ? size : 0;
    }

    /// <summary>Sends a probe, unfragmented whatever the path says. Whether it arrives is for the other side to tell.</summary>
    /// <param name="from">Address to send from; the one that the other side knows us by.</param>
    /// <returns>MTU of the interface that leads there, and the sizes sent.</returns>
    /// <exception cref="SocketException">There is no way there.</exception>
    public static (int Mtu, int[] Sent) Send(OpenSocket open, IPAddress from, IPEndPoint to, ulong nonce)
    {
        var v6 = to.AddressFamily == AddressFamily.InterNetworkV6;
        using var socket = open(to.AddressFamily, SocketType.Dgram, ProtocolType.Udp);
        // IP_MTU_DISCOVER / IPV6_MTU_DISCOVER = PROBE: set "don't fragment", ignore what was learned about the path.
        socket.SetRawSocketOption(v6 ? 41 : 0, v6 ? 23 : 10, BitConverter.GetBytes(3));
        socket.Bind(new IPEndPoint(from, 0));
        socket.Connect(to);
        var option = new byte[4];
        // IP_MTU / IPV6_MTU.
        socket.GetRawSocketOption(v6 ? 41 : 0, v6 ? 24 : 14, option);
        var mtu = BitConverter.ToInt32(option);
        var sizes = Sizes(mtu);
        for (var copy = 0; copy < Copies; copy++)
        {
            foreach (var size in sizes)
            {
                var payload = new byte[size - Overhead(to.AddressFamily)];
                "meshjoin"u8.CopyTo(payload.AsSpan(8));
                BinaryPrimitives.WriteUInt64BigEndian(payload.AsSpan(16), nonce);
                BinaryPrimitives.WriteUInt16BigEndian(payload.AsSpan(24), (ushort)size);
                try
                {
                    socket.Send(payload);
                }
                catch (SocketException)
                {
                    // An answer to an earlier one ("nobody listens", "too large"): the other side tells what arrived.
                }
            }
        }
        return (mtu, sizes);
    }
}
