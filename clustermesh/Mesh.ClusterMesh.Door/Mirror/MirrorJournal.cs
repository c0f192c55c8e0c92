using System.Buffers;
using System.Buffers.Binary;
using System.Collections.Immutable;
using System.Numerics;
using Mesh.ClusterMesh.Door.Cache;

namespace Mesh.ClusterMesh.Door;

/// <summary>What a journal gave back.</summary>
/// <param name="Journal">Null when another one must be begun.</param>
/// <param name="Break">Why continuity is not proved; null when it is.</param>
internal sealed record LoadedMirror(History History, ulong ClusterId, MirrorJournal? Journal, string? Break)
{
    public bool Unbroken => Break is null;
}

/// <summary>
/// The cache view on disk: the key space at one revision, then every revision after it, appended before readers see it. So it gives
/// back not only the keys but the history in which readers have their positions. A record is length, CRC-32C and payload.
/// <para>Nothing is flushed to the disk itself: what was written outlives the process, and a machine that went down is known by its
/// boot ID. An unfinished last record was never served and is cut off.</para>
/// </summary>
internal sealed class MirrorJournal : IDisposable
{
    private const string FileName = "relay-cache.journal";
    private const int RecordHead = 8;
    private const int KeysPerRecord = 1000;
    private const int RecordMax = 1 << 30;
    private const long RewriteSlack = 64L << 20;
    private const int WriteMax = 1 << 20;

    private enum Kind : byte
    {
        Begin = 1,
        Keys = 2,
        Complete = 3,
        Commit = 4,
    }

    private readonly FileStream _file;
    private readonly string _place;
    private readonly ArrayBufferWriter<byte> _buffer = new(4096);
    private int _recordAt;
    private long _rewriteAt;

    private MirrorJournal(FileStream file, string place, long rewriteAt) => (_file, _place, _rewriteAt) = (file, place, rewriteAt);

    public string Path => _place;

    public long Length => _file.Length;

    /// <summary>It holds much that the history in memory no longer does.</summary>
    public bool WantsRewrite => _file.Length > _rewriteAt;

    public void Postpone() => _rewriteAt = _file.Length * 2;

    public static History Empty(MirrorOptions options) =>
        new(new RevisionEntry(1, [], ImmutableSortedSet<KeyVersion>.Empty.WithComparer(KeyOrder.Instance), listed: true),
            options.HistoryRevisions, options.HistoryBytes);

    /// <summary>Begins a journal with the keys as of the first entry, and the revisions of the others.</summary>
    /// <param name="inPlace">False leaves it beside the present one until <see cref="TakePlace"/>.</param>
    public static MirrorJournal Create(string directory, ulong clusterId, IReadOnlyList<RevisionEntry> entries, bool inPlace = true)
    {
        Directory.CreateDirectory(directory);
        var place = System.IO.Path.Combine(directory, FileName);
        var file = OpenFile(place + ".new", FileMode.Create);
        var journal = new MirrorJournal(file, place, 0);
        try
        {
            var begin = journal.Start(Kind.Begin, 32);
            BinaryPrimitives.WriteUInt64LittleEndian(begin, clusterId);
            BinaryPrimitives.WriteInt64LittleEndian(begin[8..], entries[0].Revision);
            BootId().TryWriteBytes(begin[16..]);
            journal.Finish();
            foreach (var keys in entries[0].Keys.Chunk(KeysPerRecord))
            {
                journal.Add(Kind.Keys, entries[0].Revision, keys);
                journal.Flush();
            }
            journal.Start(Kind.Complete, 0);
            journal.Finish();
            journal.Append([.. entries.Skip(1)]);
            journal._rewriteAt = (file.Length * 2) + RewriteSlack;
            if (inPlace)
                journal.TakePlace();
            return journal;
        }
        catch
        {
            journal.Dispose();
            throw;
        }
    }

    public void TakePlace() => File.Move(_file.Name, _place, overwrite: true);

    /// <summary>A record for each revision; few writes for all of them.</summary>
    public void Append(params ReadOnlySpan<RevisionEntry> entries)
    {
        foreach (var entry in entries)
        {
            Add(Kind.Commit, entry.Revision, entry.Versions());
            if (_buffer.WrittenCount > WriteMax)
                Flush();
        }
        Flush();
    }

    /// <summary>Null when there is none. One that makes no sense is set aside.</summary>
    public static LoadedMirror? Load(string directory, MirrorOptions options, Action<string> log)
    {
        var place = System.IO.Path.Combine(directory, FileName);
        if (!File.Exists(place))
            return null;
        var file = OpenFile(place, FileMode.Open);
        try
        {
            if (new Reader(file, options).Read() is not var (history, clusterId, end, fault))
                throw new InvalidDataException("it has no complete list of keys");
            if (fault is not null)
            {
                file.Dispose();
                return new LoadedMirror(Listed(history.Head, options), MirrorView.NewId(), null, fault);
            }
            file.SetLength(end);
            file.Position = end;
            return new LoadedMirror(history, clusterId, new MirrorJournal(file, place, (end * 2) + RewriteSlack), null);
        }
        catch (InvalidDataException e)
        {
            file.Dispose();
            File.Move(place, place + ".broken", overwrite: true);
            log($"cache: {place} cannot be used ({e.Message}); it is kept as {place}.broken, the cache begins empty");
            return null;
        }
    }

    public void Dispose() => _file.Dispose();

    /// <summary>A history that begins with these keys: earlier positions mean nothing under another cluster ID.</summary>
    private static History Listed(RevisionEntry head, MirrorOptions options) =>
        new(new RevisionEntry(head.Revision, [], head.Keys, listed: true), options.HistoryRevisions, options.HistoryBytes);

    private static FileStream OpenFile(string path, FileMode mode) =>
        new(path, new FileStreamOptions { Mode = mode, Access = FileAccess.ReadWrite, Share = FileShare.None, BufferSize = 0 });

    private static Guid BootId() =>
        Guid.TryParse(File.ReadAllText("/proc/sys/kernel/random/boot_id"), out var id) ? id : Guid.NewGuid();

    private void Add(Kind kind, long revision, IReadOnlyList<KeyVersion> versions)
    {
        BinaryPrimitives.WriteInt64LittleEndian(Start(kind, 8), revision);
        foreach (var version in versions)
        {
            var into = _buffer.GetSpan(4 + version.Message.Length);
            BinaryPrimitives.WriteInt32LittleEndian(into, version.Message.Length);
            version.Message.CopyTo(into[4..]);
            _buffer.Advance(4 + version.Message.Length);
        }
        Finish();
    }

    /// <summary>Begins a record; returns room for the fixed part of its payload.</summary>
    private Span<byte> Start(Kind kind, int size)
    {
        _recordAt = _buffer.WrittenCount;
        var into = _buffer.GetSpan(RecordHead + 1 + size);
        into[RecordHead] = (byte)kind;
        _buffer.Advance(RecordHead + 1 + size);
        return into.Slice(RecordHead + 1, size);
    }

    private void Finish()
    {
        var record = System.Runtime.InteropServices.MemoryMarshal.AsMemory(_buffer.WrittenMemory).Span[_recordAt..];
        BinaryPrimitives.WriteInt32LittleEndian(record, record.Length - RecordHead);
        BinaryPrimitives.WriteUInt32LittleEndian(record[4..], Checksum(record[RecordHead..]));
    }

    private void Flush()
    {
        _file.Write(_buffer.WrittenSpan);
        _buffer.ResetWrittenCount();
        if (_buffer.Capacity > 4 << 20)
            _buffer.Clear();
    }

    private static uint Checksum(ReadOnlySpan<byte> bytes)
    {
        var crc = uint.MaxValue;
        for (; bytes.Length >= 8; bytes = bytes[8..])
            crc = BitOperations.Crc32C(crc, BinaryPrimitives.ReadUInt64LittleEndian(bytes));
        foreach (var b in bytes)
            crc = BitOperations.Crc32C(crc, b);
        return ~crc;
    }

    private sealed class Reader(FileStream file, MirrorOptions options)
    {
        private readonly byte[] _buffer = new byte[1 << 20];
        private int _from;
        private int _to;
        private long _position;
        private string? _fault;

        /// <summary>Null when not even the keys are whole. Fault says why what was read may be older than what readers saw.</summary>
        public (History History, ulong ClusterId, long End, string? Fault)? Read()
        {
            if (Next() is not [(byte)Kind.Begin, .. { Length: 32 } begin])
                return null;
            var clusterId = BinaryPrimitives.ReadUInt64LittleEndian(begin);
            var floor = BinaryPrimitives.ReadInt64LittleEndian(begin.AsSpan(8));
            var sameBoot = new Guid(begin.AsSpan(16, 16)) == BootId();
            var keys = ImmutableSortedSet.CreateBuilder(KeyOrder.Instance);
            byte[]? record;
            while ((record = Next()) is [(byte)Kind.Keys, ..])
            {
                foreach (var version in Versions(record).Versions)
                    keys.Add(version);
            }
            if (record is not [(byte)Kind.Complete])
                return null;
            var history = new History(
                new RevisionEntry(floor, [], keys.ToImmutable(), listed: true), options.HistoryRevisions, options.HistoryBytes);
            var end = _position;
            while ((record = Next()) is [(byte)Kind.Commit, ..])
            {
                var (revision, versions) = Versions(record);
                history.Append(revision, versions);
                end = _position;
            }
            return (history, clusterId, end, _fault ?? (sameBoot ? null : "the machine went down since"));
        }

        /// <summary>The next payload; null at the end, before an unfinished record, and (with a fault) before a damaged one.</summary>
        private byte[]? Next()
        {
            Span<byte> head = stackalloc byte[RecordHead];
            if (file.Length - _position < RecordHead)
                return null;
            Fill(head);
            var length = BinaryPrimitives.ReadInt32LittleEndian(head);
            if (length is <= 0 or > RecordMax)
                return Damaged();
            if (length > file.Length - _position)
                return null;
            var payload = new byte[length];
            Fill(payload);
            return Checksum(payload) == BinaryPrimitives.ReadUInt32LittleEndian(head[4..]) ? payload : Damaged();
        }

        private void Fill(Span<byte> into)
        {
            _position += into.Length;
            while (into.Length > 0)
            {
                if (_from == _to)
                    (_from, _to) = (0, file.Read(_buffer));
                if (_to == 0)
                    throw new InvalidDataException("it became shorter while it was read");
                var count = Math.Min(into.Length, _to - _from);
                _buffer.AsSpan(_from, count).CopyTo(into);
                _from += count;
                into = into[count..];
            }
        }

        private byte[]? Damaged()
        {
            _fault = $"{file.Name} is damaged before byte {_position}";
            return null;
        }

        private static (long Revision, List<KeyVersion> Versions) Versions(byte[] record)
        {
            var versions = new List<KeyVersion>();
            var left = record.AsSpan(9);
            while (left.Length > 4)
            {
                var length = BinaryPrimitives.ReadInt32LittleEndian(left);
                var kv = Mvccpb.KeyValue.Parser.ParseFrom(left.Slice(4, length));
                versions.Add(new KeyVersion(kv.Key.Span, kv.Value.Span, kv.CreateRevision, kv.ModRevision, kv.Version, kv.Lease));
                left = left[(4 + length)..];
            }
            return (BinaryPrimitives.ReadInt64LittleEndian(record.AsSpan(1)), versions);
        }
    }
}
