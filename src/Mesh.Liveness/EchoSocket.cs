using System.Buffers.Binary;
using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using Mesh.Liveness.Native;

namespace Mesh.Liveness;

/// <summary>
/// ICMP echo requests and their answers, of both families, without waiting and without allocating. Every kernel answers these, a
/// node of another make too. Belongs to the network namespace of the thread that makes it; used by one thread.
/// </summary>
internal sealed unsafe class EchoSocket : IDisposable
{
    private const int HeaderBytes = 8;
    private const int PayloadBytes = 16;
    private const byte Request4 = 8;
    private const byte Answer4 = 0;
    private const byte Request6 = 128;
    private const byte Answer6 = 129;

    private readonly Socket _v4;
    private readonly Socket? _v6;
    private readonly ulong _secret = BitConverter.ToUInt64(RandomNumberGenerator.GetBytes(8));
    private readonly ushort _identifier = (ushort)Environment.ProcessId;
    private readonly Dictionary<IPAddress, SocketAddress> _addresses = [];

    public EchoSocket()
    {
        _v4 = new Socket(AddressFamily.InterNetwork, SocketType.Raw, ProtocolType.Icmp);
        // SOL_RAW, ICMP_FILTER: a set bit is a type that we do not want to see.
        _v4.SetRawSocketOption(255, 1, BitConverter.GetBytes(~(1u << Answer4)));
        if (!Socket.OSSupportsIPv6)
            return;
        _v6 = new Socket(AddressFamily.InterNetworkV6, SocketType.Raw, ProtocolType.IcmpV6);
        var filter = Enumerable.Repeat((byte)0xff, 32).ToArray();
        filter[Answer6 / 8] &= unchecked((byte)~(1 << (Answer6 % 8)));
        // IPPROTO_ICMPV6, ICMPV6_FILTER.
        _v6.SetRawSocketOption(58, 1, filter);
    }

    /// <summary>What cannot be sent is a question without an answer.</summary>
    public void Send(IPAddress address, uint key, uint sequence)
    {
        var v6 = address.AddressFamily == AddressFamily.InterNetworkV6;
        if ((v6 ? _v6 : _v4) is not { } socket)
            return;
        if (!_addresses.TryGetValue(address, out var destination))
            _addresses[address] = destination = new IPEndPoint(address, 0).Serialize();
        Span<byte> packet = stackalloc byte[HeaderBytes + PayloadBytes];
        packet.Clear();
        packet[0] = v6 ? Request6 : Request4;
        BinaryPrimitives.WriteUInt16BigEndian(packet[4..], _identifier);
        BinaryPrimitives.WriteUInt16BigEndian(packet[6..], (ushort)sequence);
        BinaryPrimitives.WriteUInt64LittleEndian(packet[8..], _secret);
        BinaryPrimitives.WriteUInt32LittleEndian(packet[16..], key);
        BinaryPrimitives.WriteUInt32LittleEndian(packet[20..], sequence);
        // Of ICMPv6 the kernel computes it.
        if (!v6)
            BinaryPrimitives.WriteUInt16BigEndian(packet[2..], Checksum(packet));
        fixed (byte* bytes = packet, to = destination.Buffer.Span)
            _ = Libc.SendTo((int)socket.Handle, bytes, (nuint)packet.Length, Libc.DontWait, to, (uint)destination.Size);
    }

    /// <summary>Takes what has arrived.</summary>
    public void Drain(Action<uint, uint> answered)
    {
        Drain(_v4, v6: false, answered);
        if (_v6 is not null)
            Drain(_v6, v6: true, answered);
    }

    /// <summary>Until something has arrived, or the time is over.</summary>
    public void Wait(TimeSpan patience)
    {
        var descriptors = stackalloc Libc.PollDescriptor[2];
        descriptors[0] = new Libc.PollDescriptor { Descriptor = (int)_v4.Handle, Events = Libc.PollIn };
        descriptors[1] = new Libc.PollDescriptor { Descriptor = _v6 is null ? -1 : (int)_v6.Handle, Events = Libc.PollIn };
        if (patience < TimeSpan.Zero)
            patience = TimeSpan.Zero;
        var timeout = new Libc.TimeSpecification
        {
            Seconds = (long)patience.TotalSeconds,
            Nanoseconds = patience.Ticks % TimeSpan.TicksPerSecond * 100,
        };
        _ = Libc.Poll(descriptors, 2, &timeout, 0);
    }

    /// <summary>Whether the device has a carrier; one that cannot be asked has none.</summary>
    public bool HasCarrier(string device)
    {
        Span<byte> request = stackalloc byte[40];
        request.Clear();
        if (System.Text.Encoding.ASCII.GetByteCount(device) > 15)
            return false;
        System.Text.Encoding.ASCII.GetBytes(device, request);
        fixed (byte* bytes = request)
            if (Libc.Control((int)_v4.Handle, Libc.GetInterfaceFlags, bytes) != 0)
                return false;
        return (BitConverter.ToInt16(request[16..]) & Libc.InterfaceRunning) != 0;
    }

    /// <summary>Forgets addresses that are no longer asked.</summary>
    public void Forget() => _addresses.Clear();

    public void Dispose()
    {
        _v4.Dispose();
        _v6?.Dispose();
    }

    private void Drain(Socket socket, bool v6, Action<uint, uint> answered)
    {
        Span<byte> buffer = stackalloc byte[512];
        while (true)
        {
            nint length;
            fixed (byte* bytes = buffer)
                length = Libc.Receive((int)socket.Handle, bytes, (nuint)buffer.Length, Libc.DontWait);
            if (length < 0)
                return;
            // An IPv4 raw socket shows the IP header too.
            var start = v6 ? 0 : (buffer[0] & 0xf) * 4;
            if (length < start + HeaderBytes + PayloadBytes)
                continue;
            var packet = buffer[start..(int)length];
            if (packet[0] != (v6 ? Answer6 : Answer4) || BinaryPrimitives.ReadUInt64LittleEndian(packet[8..]) != _secret)
                continue;
            answered(BinaryPrimitives.ReadUInt32LittleEndian(packet[16..]), BinaryPrimitives.ReadUInt32LittleEndian(packet[20..]));
        }
    }

    private static ushort Checksum(ReadOnlySpan<byte> packet)
    {
        uint sum = 0;
        for (var i = 0; i + 1 < packet.Length; i += 2)
            sum += BinaryPrimitives.ReadUInt16BigEndian(packet[i..]);
        while (sum > 0xffff)
            sum = (sum & 0xffff) + (sum >> 16);
        return (ushort)~sum;
    }
}
