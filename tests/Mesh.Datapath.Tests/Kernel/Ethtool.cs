using System.Net.Sockets;
using System.Runtime.InteropServices;
using System.Text;

namespace Mesh.Datapath.Tests.Kernel;

/// <summary>A switch of a device that iproute2 does not have. Call in the device's namespace.</summary>
internal static unsafe partial class Ethtool
{
    private const uint SetGro = 0x2c;
    private const nuint Request = 0x8946; // SIOCETHTOOL

    /// <summary>Gives a veth the queue that frames transmitted by XDP at its other end arrive in.</summary>
    public static void TakeFrames(string device) => Set(device, SetGro, 1);

    private static void Set(string device, uint command, uint value)
    {
        using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp);
        var setting = new Value { Command = command, Data = value };
        var request = new InterfaceRequest { Data = &setting };
        var name = Encoding.ASCII.GetBytes(device);
        for (var i = 0; i < name.Length; i++)
            request.Name[i] = name[i];
        if (Ioctl((int)socket.Handle, Request, &request) != 0)
            throw new InvalidOperationException($"{device}: setting {command:x}: {Marshal.GetLastPInvokeErrorMessage()}");
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct Value
    {
        public uint Command;
        public uint Data;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct InterfaceRequest
    {
        public fixed byte Name[16];
        public Value* Data;
        public ulong Rest;
        public ulong End;
    }

    [LibraryImport("libc", EntryPoint = "ioctl", SetLastError = true)]
    private static partial int Ioctl(int fd, nuint request, void* argument);
}
