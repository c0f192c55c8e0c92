using Mesh.ClusterMesh.Door.Protocol;

namespace Mesh.ClusterMesh.Door.Cache;

/// <summary>
/// One version of one key, kept as the encoded mvccpb.KeyValue that every answer copies. A deletion is a version too: it has a key
/// and a modification revision and nothing else, which is how etcd puts it on the wire. Immutable but for <see cref="SupersededAt"/>.
/// </summary>
internal sealed class KeyVersion
{
    private readonly int _keyAt;
    private readonly int _keyLength;
    private readonly int _valueAt;
    private readonly int _valueLength;
    private long _supersededAt;

    public KeyVersion(ReadOnlySpan<byte> key, ReadOnlySpan<byte> value, long createRevision, long modRevision, long version, long lease)
    {
        CreateRevision = createRevision;
        ModRevision = modRevision;
        Version = version;
        Lease = lease;
        var size = Proto.BytesSize(key.Length) + Proto.FieldSize((ulong)createRevision) + Proto.FieldSize((ulong)modRevision)
            + Proto.FieldSize((ulong)version) + (value.Length == 0 ? 0 : Proto.BytesSize(value.Length)) + Proto.FieldSize((ulong)lease);
        var message = new byte[size];
        var at = Proto.WriteBytes(message, 1, key);
        _keyAt = at - key.Length;
        _keyLength = key.Length;
        at += Proto.WriteField(message.AsSpan(at), 2, (ulong)createRevision);
        at += Proto.WriteField(message.AsSpan(at), 3, (ulong)modRevision);
        at += Proto.WriteField(message.AsSpan(at), 4, (ulong)version);
        if (value.Length > 0)
            at += Proto.WriteBytes(message.AsSpan(at), 5, value);
        _valueAt = at - value.Length;
        _valueLength = value.Length;
        Proto.WriteField(message.AsSpan(at), 6, (ulong)lease);
        Message = message;
    }

    /// <summary>The encoded mvccpb.KeyValue. Shared by every answer: nobody writes to it.</summary>
    public byte[] Message { get; }

    public long CreateRevision { get; }

    public long ModRevision { get; }

    /// <summary>Number of writes since the key was created; 0 for a deletion.</summary>
    public long Version { get; }

    public long Lease { get; }

    public ReadOnlySpan<byte> Key => Message.AsSpan(_keyAt, _keyLength);

    public ReadOnlySpan<byte> Value => Message.AsSpan(_valueAt, _valueLength);

    public ReadOnlyMemory<byte> ValueMemory => Message.AsMemory(_valueAt, _valueLength);

    public bool IsDelete => Version == 0;

    /// <summary>Revision of the next version of this key, 0 while this is the newest: what conflation asks of an event.</summary>
    public long SupersededAt
    {
        get => Volatile.Read(ref _supersededAt);
        set => Volatile.Write(ref _supersededAt, value);
    }

    /// <summary>Size of the encoding without the value (keys_only).</summary>
    public int SizeWithoutValue => Message.Length - (_valueLength == 0 ? 0 : Proto.BytesSize(_valueLength));

    /// <summary>The encoding without the value lies in two pieces around it.</summary>
    public void CopyWithoutValue(Span<byte> into)
    {
        var head = _valueLength == 0 ? _valueAt : _valueAt - (Proto.BytesSize(_valueLength) - _valueLength);
        Message.AsSpan(0, head).CopyTo(into);
        Message.AsSpan(_valueAt + _valueLength).CopyTo(into[head..]);
    }

    public static KeyVersion Deleted(ReadOnlySpan<byte> key, long modRevision) => new(key, default, 0, modRevision, 0, 0);

    /// <summary>A key to look for in a sorted set.</summary>
    public static KeyVersion Probe(ReadOnlySpan<byte> key) => new(key, default, 0, 0, 0, 0);
}

/// <summary>Keys in byte order, as etcd lists them.</summary>
internal sealed class KeyOrder : IComparer<KeyVersion>
{
    public static readonly KeyOrder Instance = new();

    public int Compare(KeyVersion? x, KeyVersion? y) => x!.Key.SequenceCompareTo(y!.Key);
}
