using Google.Protobuf;

namespace Mesh.KVStore;

/// <summary>The half-open byte range [Key, End) of all keys that begin with a prefix.</summary>
internal readonly record struct PrefixRange(ByteString Key, ByteString End)
{
    /// <summary>etcd's way to say "no upper bound", and, as a key, "from the first".</summary>
    private static readonly ByteString Zero = ByteString.CopyFrom(0);

    public static PrefixRange Of(string prefix)
    {
        if (prefix.Length == 0)
            return new(Zero, Zero);
        var key = ByteString.CopyFromUtf8(prefix);
        var end = key.ToByteArray();
        // The successor of a prefix adds one to its last byte that can be added to. UTF-8 has no 0xff, so there always is one.
        end[^1]++;
        return new(key, ByteString.CopyFrom(end));
    }

    /// <summary>The first key after the given one: where the next page begins.</summary>
    public static ByteString After(ByteString key)
    {
        var next = new byte[key.Length + 1];
        key.Span.CopyTo(next);
        return UnsafeByteOperations.UnsafeWrap(next);
    }
}
