using System.Buffers.Binary;
using Mesh.Model;

namespace Mesh.Datapath.Tests.Packets;

/// <summary>
/// One Ethernet frame, described by what matters to a test. <see cref="Build"/> computes lengths and checksums from scratch, so
/// "the program changed the packet to this" is a comparison of all bytes: <c>frame with { Destination = backend }</c>.
/// </summary>
internal sealed record Frame(IpAddr Source, IpAddr Destination)
{
    public const int EthernetHeader = 14;
    public const byte Icmp = 1;
    public const byte Tcp = 6;
    public const byte Udp = 17;
    public const byte IcmpV6 = 58;
    public const byte Sctp = 132;

    public const byte Fin = 0x01;
    public const byte Syn = 0x02;
    public const byte Rst = 0x04;
    public const byte Ack = 0x10;

    public string SourceMac { get; init; } = "02:00:00:00:0a:02";
    public string DestinationMac { get; init; } = "02:00:00:00:00:01";
    public byte Protocol { get; init; } = Tcp;
    public ushort SourcePort { get; init; } = 40000;
    public ushort DestinationPort { get; init; } = 80;
    public byte TcpFlags { get; init; } = Syn;
    public byte Ttl { get; init; } = 64;
    public int PayloadLength { get; init; } = 20;
    public bool DontFragment { get; init; } = true;

    /// <summary>False: a UDP checksum of zero.</summary>
    public bool Checksum { get; init; } = true;

    /// <summary>IPv4 options, multiple of 4 bytes.</summary>
    public int OptionBytes { get; init; }

    /// <summary>IPv6 extension headers before the transport header: 0 hop-by-hop, 43 routing, 60 destination options.</summary>
    public byte[] Extensions { get; init; } = [];

    /// <summary>Null: not a fragment. Offset in bytes, multiple of 8; an offset above 0 has no transport header.</summary>
    public (int Offset, bool More, uint Id)? Fragment { get; init; }

    /// <summary>Of ICMP messages; the default is an echo request.</summary>
    public (byte Type, byte Code)? Message { get; init; }

    /// <summary>The packet that an ICMP error is about, as whoever sends the error met it, and how many bytes of it are quoted.</summary>
    public (Frame Packet, int Bytes)? Quoted { get; init; }

    public bool IsV6 => Source.IsV6;

    public bool IsLaterFragment => Fragment is { Offset: > 0 };

    public static Frame Between(string source, string destination) => new(IpAddr.Parse(source), IpAddr.Parse(destination));

    /// <summary>An ICMP error about this frame: unreachable, unless another type is named.</summary>
    public Frame Error(string sender, string receiver, byte? type = null, byte code = 0, int bytes = 28) => Between(sender, receiver) with
    {
        Protocol = IsV6 ? IcmpV6 : Icmp,
        SourcePort = 0,
        DestinationPort = 0,
        Message = (type ?? (byte)(IsV6 ? 1 : 3), code),
        Quoted = (this, Math.Max(bytes, IsV6 ? bytes + 20 : bytes)),
    };

    /// <summary>The answer to this frame, before any translation.</summary>
    public Frame Reply() => this with
    {
        Source = Destination,
        Destination = Source,
        SourcePort = DestinationPort,
        DestinationPort = SourcePort,
        TcpFlags = Syn | Ack,
    };

    /// <summary>As it leaves a program that delivers it: new MAC addresses and a hop less.</summary>
    public Frame Delivered(string destinationMac, string sourceMac) =>
        this with { DestinationMac = destinationMac, SourceMac = sourceMac, Ttl = (byte)(Ttl - 1) };

    public byte[] Build()
    {
        var transport = Transport();
        var network = IsV6 ? NetworkV6(transport) : NetworkV4(transport);
        var bytes = new byte[EthernetHeader + network.Length];
        Mac(DestinationMac).CopyTo(bytes, 0);
        Mac(SourceMac).CopyTo(bytes, 6);
        BinaryPrimitives.WriteUInt16BigEndian(bytes.AsSpan(12), IsV6 ? (ushort)0x86dd : (ushort)0x0800);
        network.CopyTo(bytes, EthernetHeader);
        return bytes;
    }

    public static byte[] Mac(string text) => [.. text.Split(':').Select(part => Convert.ToByte(part, 16))];

    /// <summary>The Internet checksum of RFC 1071.</summary>
    public static ushort InternetChecksum(params ReadOnlySpan<byte[]> parts)
    {
        ulong sum = 0;
        foreach (var part in parts)
            for (var i = 0; i < part.Length; i += 2)
                sum += (ulong)(part[i] << 8 | (i + 1 < part.Length ? part[i + 1] : 0));
        while (sum > 0xffff)
            sum = (sum & 0xffff) + (sum >> 16);
        return (ushort)~sum;
    }

    private byte[] Transport()
    {
        if (Quoted is { } quoted)
            return IcmpError(quoted.Packet.Build()[EthernetHeader..], quoted.Bytes);
        var header = IsLaterFragment ? 0 : Protocol switch { Tcp => 20, Udp or Icmp or IcmpV6 => 8, Sctp => 12, _ => 0 };
        var bytes = new byte[header + PayloadLength];
        for (var i = header; i < bytes.Length; i++)
            bytes[i] = (byte)(i * 7);
        if (header == 0)
            return bytes;
        if (Protocol is Tcp or Udp or Sctp)
        {
            BinaryPrimitives.WriteUInt16BigEndian(bytes, SourcePort);
            BinaryPrimitives.WriteUInt16BigEndian(bytes.AsSpan(2), DestinationPort);
        }
        switch (Protocol)
        {
            case Tcp:
                bytes[12] = 5 << 4;
                bytes[13] = TcpFlags;
                SetChecksum(bytes, 16);
                break;
            case Udp:
                BinaryPrimitives.WriteUInt16BigEndian(bytes.AsSpan(4), (ushort)bytes.Length);
                if (Checksum)
                    SetChecksum(bytes, 6);
                break;
            case Icmp:
                (bytes[0], bytes[1]) = Message ?? (8, 0);
                BinaryPrimitives.WriteUInt16BigEndian(bytes.AsSpan(2), InternetChecksum(bytes));
                break;
            case IcmpV6:
                (bytes[0], bytes[1]) = Message ?? (128, 0);
                SetChecksum(bytes, 2);
                break;
            case Sctp:
                BinaryPrimitives.WriteUInt32BigEndian(bytes.AsSpan(8), 0xdecafbad);
                break;
        }
        return bytes;
    }

    private byte[] IcmpError(byte[] packet, int quotedBytes)
    {
        byte[] bytes = [.. new byte[8], .. packet[..Math.Min(quotedBytes, packet.Length)]];
        (bytes[0], bytes[1]) = Message ?? default;
        bytes[6] = 5; // a next-hop MTU of 1280 and a bit, or unused
        if (IsV6)
            SetChecksum(bytes, 2);
        else
            BinaryPrimitives.WriteUInt16BigEndian(bytes.AsSpan(2), InternetChecksum(bytes));
        return bytes;
    }

    private void SetChecksum(byte[] transport, int offset)
    {
        var value = InternetChecksum(PseudoHeader(Source, Destination, Protocol, transport.Length), transport);
        BinaryPrimitives.WriteUInt16BigEndian(transport.AsSpan(offset), value == 0 && Protocol == Udp ? (ushort)0xffff : value);
    }

    public static byte[] PseudoHeader(IpAddr source, IpAddr destination, byte protocol, int length)
    {
        var lengths = new byte[8];
        BinaryPrimitives.WriteInt32BigEndian(lengths, length);
        lengths[7] = protocol;
        return [.. source.ToBytes(), .. destination.ToBytes(), .. lengths];
    }

    private byte[] NetworkV4(byte[] transport)
    {
        var header = new byte[20 + OptionBytes];
        header[0] = (byte)(4 << 4 | header.Length / 4);
        BinaryPrimitives.WriteUInt16BigEndian(header.AsSpan(2), (ushort)(header.Length + transport.Length));
        BinaryPrimitives.WriteUInt16BigEndian(header.AsSpan(4), (ushort)(Fragment?.Id ?? 0x1234));
        var flags = (DontFragment && Fragment is null ? 0x4000 : 0) | (Fragment?.More == true ? 0x2000 : 0) | (Fragment?.Offset ?? 0) / 8;
        BinaryPrimitives.WriteUInt16BigEndian(header.AsSpan(6), (ushort)flags);
        header[8] = Ttl;
        header[9] = Protocol;
        Source.ToBytes().CopyTo(header, 12);
        Destination.ToBytes().CopyTo(header, 16);
        header.AsSpan(20).Fill(1); // no-operation options
        BinaryPrimitives.WriteUInt16BigEndian(header.AsSpan(10), InternetChecksum(header));
        return [.. header, .. transport];
    }

    private byte[] NetworkV6(byte[] transport)
    {
        var chain = Fragment is null ? Extensions : [.. Extensions, 44];
        var extensions = new List<byte>();
        for (var i = 0; i < chain.Length; i++)
        {
            var extension = new byte[8];
            extension[0] = i + 1 < chain.Length ? chain[i + 1] : Protocol;
            if (chain[i] == 44)
            {
                var (offset, more, id) = Fragment!.Value;
                BinaryPrimitives.WriteUInt16BigEndian(extension.AsSpan(2), (ushort)(offset | (more ? 1 : 0)));
                BinaryPrimitives.WriteUInt32BigEndian(extension.AsSpan(4), id);
            }
            else
            {
                extension[2] = 1; // PadN of four bytes
                extension[3] = 4;
            }
            extensions.AddRange(extension);
        }
        var header = new byte[40];
        header[0] = 6 << 4;
        BinaryPrimitives.WriteUInt16BigEndian(header.AsSpan(4), (ushort)(extensions.Count + transport.Length));
        header[6] = chain.Length > 0 ? chain[0] : Protocol;
        header[7] = Ttl;
        Source.ToBytes().CopyTo(header, 8);
        Destination.ToBytes().CopyTo(header, 24);
        return [.. header, .. extensions, .. transport];
    }
}
