using System.Buffers.Binary;
using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace Mesh.Netlink;

/// <summary>
/// A netlink socket, of NETLINK_ROUTE where nothing else is said, bound to the network namespace of the thread that made it for good,
/// whichever thread uses it later.
/// One request at a time; the kernel answers before the call returns. Errors carry the kernel's own words (NETLINK_EXT_ACK).
/// </summary>
public sealed unsafe partial class NetlinkSocket : IDisposable
{
    public const ushort FlagRequest = 0x1;
    public const ushort FlagAck = 0x4;
    public const ushort FlagDump = 0x300;
    public const ushort FlagReplace = 0x100;
    public const ushort FlagExclusive = 0x200;
    public const ushort FlagCreate = 0x400;

    private const int FamilyNetlink = 16;
    private const int RawCloseOnExec = 3 | 0x80000;
    private const int SolNetlink = 270;
    private const int CapAck = 10;
    private const int ExtAck = 11;
    private const int HeaderSize = 16;
    private const ushort TypeError = 2;
    private const ushort TypeDone = 3;
    private const ushort FlagCapped = 0x100;
    private const ushort FlagAckTlvs = 0x200;

    private readonly Lock _lock = new();
    private readonly SafeFileHandle _socket;
    private readonly byte[] _buffer = new byte[256 * 1024];
    private uint _sequence;

    /// <param name="protocol">NETLINK_*: 0 = routes and devices, 12 = netfilter, 16 = generic.</param>
    public NetlinkSocket(int protocol = 0)
    {
        var fd = Socket(FamilyNetlink, RawCloseOnExec, protocol);
        if (fd < 0)
            throw new NetlinkException($"netlink socket: {LastError()}");
        _socket = new SafeFileHandle(fd, ownsHandle: true);
        var one = 1;
        // Words and short echoes are a comfort: kernels that lack them still give the number.
        _ = SetSocketOption(_socket, SolNetlink, CapAck, &one, sizeof(int));
        _ = SetSocketOption(_socket, SolNetlink, ExtAck, &one, sizeof(int));
    }

    public delegate void Receive(ushort type, ReadOnlySpan<byte> payload);

    /// <summary>Sends a request with FlagAck and waits for its end. Returns 0 or the positive errno.</summary>
    public int TryRequest(NetlinkMessage message, out string words, Receive? receive = null)
    {
        lock (_lock)
        {
            words = "";
            var sequence = ++_sequence;
            var bytes = message.Finish(sequence);
            fixed (byte* pointer = bytes)
                if (Send(_socket, pointer, (nuint)bytes.Length, 0) < 0)
                    throw new NetlinkException($"netlink send: {LastError()}");
            while (true)
                if (Read(ReceiveOnce(), sequence, receive, ref words) is { } result)
                    return result;
        }
    }

    /// <summary>As <see cref="TryRequest"/>; any error but those allowed is an exception that says what was tried.</summary>
    public int Request(NetlinkMessage message, string what, Receive? receive = null, params ReadOnlySpan<int> allowed)
    {
        var error = TryRequest(message, out var words, receive);
        if (error == 0 || allowed.Contains(error))
            return error;
        var detail = words.Length == 0 ? "" : $" [{words}]";
        throw new NetlinkException($"{what}{detail}: {Marshal.GetPInvokeErrorMessage(error)} ({error})", error);
    }

    /// <summary>Sends messages that the kernel takes all or none of, in one piece. The first and the last one only open and close it; the last
    /// but one has FlagAck, and its answer ends the call.</summary>
    /// <returns>0, or the positive errno of the first message that was refused.</returns>
    public int TryBatch(IReadOnlyList<NetlinkMessage> messages, out string words)
    {
        lock (_lock)
        {
            words = "";
            var first = _sequence + 1;
            using var bytes = new MemoryStream();
            foreach (var message in messages)
                bytes.Write(message.Finish(++_sequence));
            fixed (byte* pointer = bytes.GetBuffer())
                if (Send(_socket, pointer, (nuint)bytes.Length, 0) < 0)
                    throw new NetlinkException($"netlink send: {LastError()}");
            while (true)
                if (ReadBatch(ReceiveOnce(), first, _sequence - 1, ref words) is { } result)
                    return result;
        }
    }

    public void Dispose() => _socket.Dispose();

    private static int? ReadBatch(ReadOnlySpan<byte> bytes, uint first, uint acknowledged, ref string words)
    {
        while (bytes.Length >= HeaderSize)
        {
            var length = (int)BinaryPrimitives.ReadUInt32LittleEndian(bytes);
            if (length < HeaderSize || length > bytes.Length)
                throw new NetlinkException("netlink: a reply was cut short");
            var sequence = BinaryPrimitives.ReadUInt32LittleEndian(bytes[8..]);
            if (BinaryPrimitives.ReadUInt16LittleEndian(bytes[4..]) == TypeError && sequence >= first && sequence <= acknowledged + 1)
            {
                var payload = bytes[HeaderSize..length];
                var error = -BinaryPrimitives.ReadInt32LittleEndian(payload);
                words = Words(payload, TypeError, BinaryPrimitives.ReadUInt16LittleEndian(bytes[6..]));
                if (error != 0 || sequence == acknowledged)
                    return error;
            }
            bytes = bytes[Math.Min((length + 3) & ~3, bytes.Length)..];
        }
        return null;
    }

    private ReadOnlySpan<byte> ReceiveOnce()
    {
        while (true)
        {
            nint length;
            fixed (byte* pointer = _buffer)
                length = Receive_(_socket, pointer, (nuint)_buffer.Length, 0);
            if (length >= 0)
                return _buffer.AsSpan(0, (int)length);
            const int interrupted = 4;
            if (Marshal.GetLastPInvokeError() != interrupted)
                throw new NetlinkException($"netlink receive: {LastError()}");
        }
    }

    private static int? Read(ReadOnlySpan<byte> bytes, uint sequence, Receive? receive, ref string words)
    {
        while (bytes.Length >= HeaderSize)
        {
            var length = (int)BinaryPrimitives.ReadUInt32LittleEndian(bytes);
            if (length < HeaderSize || length > bytes.Length)
                throw new NetlinkException("netlink: a reply was cut short");
            var type = BinaryPrimitives.ReadUInt16LittleEndian(bytes[4..]);
            var flags = BinaryPrimitives.ReadUInt16LittleEndian(bytes[6..]);
            var payload = bytes[HeaderSize..length];
            if (BinaryPrimitives.ReadUInt32LittleEndian(bytes[8..]) == sequence)
            {
                if (type is TypeError or TypeDone)
                {
                    words = Words(payload, type, flags);
                    return payload.Length >= 4 ? -BinaryPrimitives.ReadInt32LittleEndian(payload) : 0;
                }
                receive?.Invoke(type, payload);
            }
            bytes = bytes[Math.Min((length + 3) & ~3, bytes.Length)..];
        }
        return null;
    }

    private static string Words(ReadOnlySpan<byte> payload, ushort type, ushort flags)
    {
        if ((flags & FlagAckTlvs) == 0 || type != TypeError || payload.Length < 4 + HeaderSize)
            return "";
        var echoed = (flags & FlagCapped) != 0 ? HeaderSize : (int)BinaryPrimitives.ReadUInt32LittleEndian(payload[4..]);
        return 4 + echoed <= payload.Length ? new NetlinkAttributes(payload[(4 + echoed)..]).Text(1) ?? "" : "";
    }

    private static string LastError() => Marshal.GetPInvokeErrorMessage(Marshal.GetLastPInvokeError());

    [LibraryImport("libc", EntryPoint = "socket", SetLastError = true)]
    private static partial int Socket(int family, int type, int protocol);

    [LibraryImport("libc", EntryPoint = "setsockopt", SetLastError = true)]
    private static partial int SetSocketOption(SafeFileHandle socket, int level, int option, int* value, uint length);

    [LibraryImport("libc", EntryPoint = "send", SetLastError = true)]
    private static partial nint Send(SafeFileHandle socket, byte* bytes, nuint length, int flags);

    [LibraryImport("libc", EntryPoint = "recv", SetLastError = true)]
    private static partial nint Receive_(SafeFileHandle socket, byte* bytes, nuint length, int flags);
}
