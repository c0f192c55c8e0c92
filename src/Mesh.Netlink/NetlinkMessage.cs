using System.Buffers.Binary;
using System.Text;
using Mesh.Model;

namespace Mesh.Netlink;

/// <summary>Builds one rtnetlink request: header, fixed part, attributes padded to 4 bytes (linux/netlink.h).</summary>
public sealed class NetlinkMessage
{
    private const int HeaderSize = 16;

    private byte[] _bytes = new byte[512];
    private int _length = HeaderSize;

    public NetlinkMessage(ushort type, ushort flags)
    {
        BinaryPrimitives.WriteUInt16LittleEndian(_bytes.AsSpan(4), type);
        BinaryPrimitives.WriteUInt16LittleEndian(_bytes.AsSpan(6), flags);
    }

    public Span<byte> Finish(uint sequence)
    {
        BinaryPrimitives.WriteUInt32LittleEndian(_bytes, (uint)_length);
        BinaryPrimitives.WriteUInt32LittleEndian(_bytes.AsSpan(8), sequence);
        return _bytes.AsSpan(0, _length);
    }

    public NetlinkMessage U8(byte value) => Append([value]);

    public NetlinkMessage U16(ushort value)
    {
        Span<byte> bytes = stackalloc byte[2];
        BinaryPrimitives.WriteUInt16LittleEndian(bytes, value);
        return Append(bytes);
    }

    public NetlinkMessage U32(uint value)
    {
        Span<byte> bytes = stackalloc byte[4];
        BinaryPrimitives.WriteUInt32LittleEndian(bytes, value);
        return Append(bytes);
    }

    public NetlinkMessage Attribute(ushort type, ReadOnlySpan<byte> value)
    {
        U16((ushort)(4 + value.Length)).U16(type).Append(value);
        while (_length % 4 != 0)
            U8(0);
        return this;
    }

    public NetlinkMessage Attribute(ushort type, string value) => Attribute(type, Encoding.UTF8.GetBytes(value + "\0"));

    public NetlinkMessage Attribute(ushort type, IpAddr address) => Attribute(type, address.ToBytes());

    public NetlinkMessage AttributeU8(ushort type, byte value) => Attribute(type, [value]);

    public NetlinkMessage AttributeU32(ushort type, uint value)
    {
        Span<byte> bytes = stackalloc byte[4];
        BinaryPrimitives.WriteUInt32LittleEndian(bytes, value);
        return Attribute(type, bytes);
    }

    public NetlinkMessage AttributeBigEndianU16(ushort type, ushort value)
    {
        Span<byte> bytes = stackalloc byte[2];
        BinaryPrimitives.WriteUInt16BigEndian(bytes, value);
        return Attribute(type, bytes);
    }

    public NetlinkMessage AttributeBigEndianU32(ushort type, uint value)
    {
        Span<byte> bytes = stackalloc byte[4];
        BinaryPrimitives.WriteUInt32BigEndian(bytes, value);
        return Attribute(type, bytes);
    }

    public NetlinkMessage Nested(ushort type, Action<NetlinkMessage> content)
    {
        const ushort nestedFlag = 0x8000;
        var start = _length;
        U16(0).U16((ushort)(type | nestedFlag));
        content(this);
        BinaryPrimitives.WriteUInt16LittleEndian(_bytes.AsSpan(start), (ushort)(_length - start));
        return this;
    }

    private NetlinkMessage Append(ReadOnlySpan<byte> bytes)
    {
        if (_length + bytes.Length > _bytes.Length)
            Array.Resize(ref _bytes, Math.Max(_bytes.Length * 2, _length + bytes.Length));
        bytes.CopyTo(_bytes.AsSpan(_length));
        _length += bytes.Length;
        return this;
    }
}

/// <summary>Attributes of a reply, by type; a repeated one keeps its last value.</summary>
public readonly ref struct NetlinkAttributes
{
    private readonly ReadOnlySpan<byte> _bytes;

    public NetlinkAttributes(ReadOnlySpan<byte> bytes) => _bytes = bytes;

    /// <summary>Empty when absent.</summary>
    public ReadOnlySpan<byte> Get(ushort type)
    {
        var found = ReadOnlySpan<byte>.Empty;
        for (var rest = _bytes; rest.Length >= 4;)
        {
            var length = BinaryPrimitives.ReadUInt16LittleEndian(rest);
            if (length < 4 || length > rest.Length)
                break;
            if ((BinaryPrimitives.ReadUInt16LittleEndian(rest[2..]) & 0x3fff) == type)
                found = rest[4..length];
            var aligned = (length + 3) & ~3;
            if (aligned >= rest.Length)
                break;
            rest = rest[aligned..];
        }
        return found;
    }

    public uint? U32(ushort type) => Get(type) is { Length: >= 4 } value ? BinaryPrimitives.ReadUInt32LittleEndian(value) : null;

    public string? Text(ushort type) => Get(type) is { Length: > 0 } value ? Encoding.UTF8.GetString(value.TrimEnd((byte)0)) : null;

    public NetlinkAttributes Nested(ushort type) => new(Get(type));
}
