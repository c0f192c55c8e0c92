using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace Mesh.Datapath.Devices;

/// <summary>Tells that routes, neighbours, addresses or devices of the namespace it was made in have changed, not how: who wants to
/// know asks. Used by one thread.</summary>
internal sealed unsafe partial class NetlinkEvents : IDisposable
{
    private const int FamilyNetlink = 16;
    private const int RawNonBlockCloseOnExec = 3 | 0x80000 | 0x800;
    private const uint Groups = 0x1 | 0x4 | 0x10 | 0x40 | 0x100 | 0x400; // link, neigh, address and route of both families
    private const short PollIn = 1;

    /// <summary>Changes come in crowds: what follows within this time is one change.</summary>
    private const int SettleMilliseconds = 5;

    private const int SliceMilliseconds = 100;

    private readonly SafeFileHandle _socket;
    private readonly byte[] _buffer = new byte[64 * 1024];

    /// <exception cref="DatapathException">The kernel refused the socket.</exception>
    internal NetlinkEvents()
    {
        var fd = Socket(FamilyNetlink, RawNonBlockCloseOnExec, 0);
        if (fd < 0)
            throw new DatapathException($"netlink events: {LastError()}");
        _socket = new SafeFileHandle(fd, ownsHandle: true);
        var address = new Address { Family = FamilyNetlink, Groups = Groups };
        if (Bind(_socket, &address, sizeof(Address)) < 0)
            throw new DatapathException($"netlink events: bind: {LastError()}");
    }

    /// <summary>Returns when something has changed, when the time is up, or soon after the cancellation.</summary>
    internal void Wait(TimeSpan atMost, CancellationToken cancellation)
    {
        for (var left = (int)atMost.TotalMilliseconds; left > 0 && !cancellation.IsCancellationRequested; left -= SliceMilliseconds)
        {
            if (!IsReadable(Math.Min(left, SliceMilliseconds)))
                continue;
            do
                Drain();
            while (IsReadable(SettleMilliseconds) && !cancellation.IsCancellationRequested);
            return;
        }
    }

    public void Dispose() => _socket.Dispose();

    private bool IsReadable(int milliseconds)
    {
        var poll = new PollDescriptor { Fd = (int)_socket.DangerousGetHandle(), Events = PollIn };
        return Poll(&poll, 1, milliseconds) > 0;
    }

    private void Drain()
    {
        // An overrun is told by an error once: that something has changed is known all the same.
        fixed (byte* pointer = _buffer)
            while (Receive(_socket, pointer, (nuint)_buffer.Length, 0) > 0)
            {
            }
    }

    private static string LastError() => Marshal.GetPInvokeErrorMessage(Marshal.GetLastPInvokeError());

    [StructLayout(LayoutKind.Sequential)]
    private struct Address
    {
        internal ushort Family;
        internal ushort Pad;
        internal uint Port;
        internal uint Groups;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct PollDescriptor
    {
        internal int Fd;
        internal short Events;
        internal short Returned;
    }

    [LibraryImport("libc", EntryPoint = "socket", SetLastError = true)]
    private static partial int Socket(int family, int type, int protocol);

    [LibraryImport("libc", EntryPoint = "bind", SetLastError = true)]
    private static partial int Bind(SafeFileHandle socket, Address* address, int length);

    [LibraryImport("libc", EntryPoint = "poll", SetLastError = true)]
    private static partial int Poll(PollDescriptor* descriptors, nuint count, int milliseconds);

    [LibraryImport("libc", EntryPoint = "recv", SetLastError = true)]
    private static partial nint Receive(SafeFileHandle socket, byte* bytes, nuint length, int flags);
}
