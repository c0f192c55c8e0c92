using System.Buffers.Binary;
using Mesh.Model;

namespace Mesh.Datapath.Tests.Packets;

/// <summary>The outer headers of a VXLAN frame, built from scratch like <see cref="Frame"/>.</summary>
internal sealed record Vxlan(IpAddr Source, IpAddr Destination)
{
    public const uint World = 2;

    public string SourceMac { get; init; } = NorthWorld.UplinkMac;
    public string DestinationMac { get; init; } = NorthWorld.NodeMac;
    public ushort SourcePort { get; init; } = 40000;
    public ushort Port { get; init; } = 8472;
    public uint Identity { get; init; } = World;
    public byte Ttl { get; init; } = 64;
    public byte Congestion { get; init; }
    public uint Flags { get; init; } = 0x08000000;
    public ushort Checksum { get; init; }
    public ushort Identification { get; init; }

    public static Vxlan Between(string source, string destination) => new(IpAddr.Parse(source), IpAddr.Parse(destination));

    public int HeaderLength => Source.IsV6 ? 70 : 50;

    /// <summary>The frame that carries this inner frame.</summary>
    public byte[] Around(byte[] inner)
    {
        var payload = new byte[16 + inner.Length];
        BinaryPrimitives.WriteUInt16BigEndian(payload, SourcePort);
        BinaryPrimitives.WriteUInt16BigEndian(payload.AsSpan(2), Port);
        BinaryPrimitives.WriteUInt16BigEndian(payload.AsSpan(4), (ushort)payload.Length);
        BinaryPrimitives.WriteUInt16BigEndian(payload.AsSpan(6), Checksum);
        BinaryPrimitives.WriteUInt32BigEndian(payload.AsSpan(8), Flags);
        BinaryPrimitives.WriteUInt32BigEndian(payload.AsSpan(12), Identity << 8);
        inner.CopyTo(payload, 16);
        return [.. Frame.Mac(DestinationMac), .. Frame.Mac(SourceMac), .. Source.IsV6 ? Over6(payload.Length) : Over4(payload.Length), .. payload];
    }

    public byte[] Around(Frame inner) => Around(inner.Build());

    private byte[] Over4(int payload)
    {
        var header = new byte[22];
        header[0] = 0x08;
        header[2] = 0x45;
        header[3] = Congestion;
        BinaryPrimitives.WriteUInt16BigEndian(header.AsSpan(4), (ushort)(20 + payload));
        BinaryPrimitives.WriteUInt16BigEndian(header.AsSpan(6), Identification);
        header[8] = 0x40;
        header[10] = Ttl;
        header[11] = Frame.Udp;
        Source.ToBytes().CopyTo(header, 14);
        Destination.ToBytes().CopyTo(header, 18);
        BinaryPrimitives.WriteUInt16BigEndian(header.AsSpan(12), Frame.InternetChecksum(header[2..]));
        return header;
    }

    private byte[] Over6(int payload)
    {
        var header = new byte[42];
        header[0] = 0x86;
        header[1] = 0xdd;
        header[2] = 0x60;
        header[3] = (byte)(Congestion << 4);
        BinaryPrimitives.WriteUInt16BigEndian(header.AsSpan(6), (ushort)payload);
        header[8] = Frame.Udp;
        header[9] = Ttl;
        Source.ToBytes().CopyTo(header, 10);
        Destination.ToBytes().CopyTo(header, 26);
        return header;
    }

    /// <summary>The frame with the virtual address in it, as lib/xdp.h and lib/uplink.h put it there.</summary>
    public static byte[] Carrying(Frame frame, IpAddr address, ushort port)
    {
        var bytes = frame.Build();
        byte[] option;
        if (!frame.IsV6)
        {
            option = [0x9a, 8, (byte)(port >> 8), (byte)port, .. address.ToBytes()];
            bytes[14] += 2;
            BinaryPrimitives.WriteUInt16BigEndian(bytes.AsSpan(16), (ushort)(BinaryPrimitives.ReadUInt16BigEndian(bytes.AsSpan(16)) + 8));
            bytes.AsSpan(24, 2).Clear();
            bytes = [.. bytes[..34], .. option, .. bytes[34..]];
            BinaryPrimitives.WriteUInt16BigEndian(bytes.AsSpan(24), Frame.InternetChecksum(bytes[14..42]));
            return bytes;
        }
        option = [bytes[20], 2, 0x1b, 20, .. address.ToBytes(), (byte)(port >> 8), (byte)port, 0, 0];
        bytes[20] = 60;
        BinaryPrimitives.WriteUInt16BigEndian(bytes.AsSpan(18), (ushort)(BinaryPrimitives.ReadUInt16BigEndian(bytes.AsSpan(18)) + 24));
        return [.. bytes[..54], .. option, .. bytes[54..]];
    }
}
