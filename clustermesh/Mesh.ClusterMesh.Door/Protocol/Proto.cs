using System.Buffers.Binary;
using System.Numerics;
using System.Text;

namespace Mesh.ClusterMesh.Door.Protocol;

/// <summary>
/// The few protobuf encodings the door writes by itself, so that a key's bytes are encoded once, when they arrive, and copied into
/// every answer from there. Field numbers are those of etcd's rpc.proto and kv.proto. A zero value is left out, as proto3 does.
/// </summary>
internal static class Proto
{
    /// <summary>Compression flag and length before each gRPC message.</summary>
    public const int FramePrefix = 5;

    public static int VarintSize(ulong value) => (BitOperations.Log2(value | 1) / 7) + 1;

    public static int FieldSize(ulong value) => value == 0 ? 0 : 1 + VarintSize(value);

    /// <summary>Size of a length-delimited field with a one-byte tag.</summary>
    public static int BytesSize(int length) => 1 + VarintSize((ulong)length) + length;

    public static int WriteVarint(Span<byte> into, ulong value)
    {
        var at = 0;
        while (value >= 0x80)
        {
            into[at++] = (byte)(value | 0x80);
            value >>= 7;
        }
        into[at++] = (byte)value;
        return at;
    }

    public static int WriteField(Span<byte> into, int field, ulong value)
    {
        if (value == 0)
            return 0;
        into[0] = (byte)(field << 3);
        return 1 + WriteVarint(into[1..], value);
    }

    /// <summary>Tag and length of a length-delimited field; its content follows.</summary>
    public static int WriteLength(Span<byte> into, int field, int length)
    {
        into[0] = (byte)((field << 3) | 2);
        return 1 + WriteVarint(into[1..], (ulong)length);
    }

    public static int WriteBytes(Span<byte> into, int field, ReadOnlySpan<byte> content)
    {
        var at = WriteLength(into, field, content.Length);
        content.CopyTo(into[at..]);
        return at + content.Length;
    }

    public static int WriteText(Span<byte> into, int field, string text)
    {
        if (text.Length == 0)
            return 0;
        var at = WriteLength(into, field, Encoding.UTF8.GetByteCount(text));
        return at + Encoding.UTF8.GetBytes(text, into[at..]);
    }

    public static int WriteFramePrefix(Span<byte> into, int messageLength)
    {
        into[0] = 0;
        BinaryPrimitives.WriteInt32BigEndian(into[1..], messageLength);
        return FramePrefix;
    }
}
