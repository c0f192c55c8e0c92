using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;

namespace Mesh.Datapath.Tests.Packets;

/// <summary>What .NET's sockets do not offer: an uncached getpeername, and frames on a device.</summary>
internal static partial class NativeSocket
{
    private const ProtocolType AllFrames = (ProtocolType)0x0300; // ETH_P_ALL in network order

    [LibraryImport("libc", EntryPoint = "getpeername", SetLastError = true)]
    public static partial int GetPeerName(int socket, byte[] address, ref int length);

    /// <summary>A packet socket bound to a device of the calling thread's namespace.</summary>
    public static Socket OnDevice(uint interfaceIndex)
    {
        var socket = new Socket(AddressFamily.Packet, SocketType.Raw, AllFrames) { ReceiveTimeout = 2000 };
        socket.Bind(new LinkEndPoint(interfaceIndex));
        return socket;
    }

    /// <summary>struct sockaddr_ll for all frames of one device.</summary>
    private sealed class LinkEndPoint(uint interfaceIndex) : EndPoint
    {
        public override AddressFamily AddressFamily => AddressFamily.Packet;

        public override SocketAddress Serialize()
        {
            var address = new SocketAddress(AddressFamily.Packet, 20);
            address[3] = 0x03;
            for (var i = 0; i < 4; i++)
                address[4 + i] = (byte)(interfaceIndex >> 8 * i);
            return address;
        }
    }
}
