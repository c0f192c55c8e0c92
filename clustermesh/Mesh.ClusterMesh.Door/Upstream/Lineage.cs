using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization;
using Mesh.ClusterMesh.Door.Cache;

namespace Mesh.ClusterMesh.Door.Upstream;

/// <summary>What the door wrote down about the etcd it last followed.</summary>
/// <param name="Revision">Newest revision that readers may have seen.</param>
/// <param name="Digest">SHA-256 of that revision's events, upper-case hex; empty when they were not known.</param>
/// <param name="Era">Name of the history as etcd itself had it; null without a <see cref="SharedEra"/>.</param>
/// <param name="Former">Names it had before, newest last: an etcd that comes up under one of them was restored.</param>
internal sealed record LineageRecord(
    ulong EtcdClusterId, uint Epoch, long Revision, string Digest, string? Era = null, IReadOnlyList<string>? Former = null);

[JsonSerializable(typeof(LineageRecord))]
[JsonSourceGenerationOptions(WriteIndented = true)]
internal sealed partial class LineageJson : JsonSerializerContext;

/// <summary>
/// Decides whether the etcd behind the door is the one readers know, and names it accordingly. An etcd that was wiped or restored
/// starts its revisions anew, often under the same cluster ID (the ID is a hash of its configuration), and a reader that resumed a
/// watch there would wait for ever or miss changes. So each such break begins a new epoch, and the advertised cluster ID is made of
/// etcd's ID and the epoch: readers pin it, see it change and list again. Epoch 0 advertises etcd's own ID. Where several doors stand
/// before one etcd the name of the era takes the place of the epoch, for that one they share.
/// With a file the epoch outlives the door; without one each start is an epoch of its own. The file is written at each new epoch,
/// once a second while revisions grow, and at the end, so a crash leaves at most one second in which a restore could go unseen.
/// </summary>
internal sealed class Lineage
{
    private const int FormerMax = 32;

    private readonly string? _file;
    private readonly Lock _gate = new();
    private LineageRecord? _record;
    private string? _error;

    /// <param name="file">Where the record lives; null keeps none.</param>
    /// <exception cref="InvalidDataException">The file is there but is not a record: the operator decides, we do not guess.</exception>
    public Lineage(string? file)
    {
        _file = file;
        if (file is null || !File.Exists(file))
            return;
        try
        {
            _record = JsonSerializer.Deserialize(File.ReadAllText(file), LineageJson.Default.LineageRecord);
        }
        catch (JsonException e)
        {
            throw new InvalidDataException($"{file} is no lineage record ({e.Message}): remove it, readers will then list again", e);
        }
    }

    /// <summary>What is known from before, to be compared with what etcd says now.</summary>
    public LineageRecord? Known => _record;

    public IEnumerable<string> Errors => _error is { } error ? [error] : [];

    /// <summary>Name of the era that we last served; null when there was none.</summary>
    public string? Era => _record?.Era;

    /// <summary>True when an etcd of that era is not the history that readers know by its name.</summary>
    public bool IsOutdated(string era, bool unbroken) => _record switch
    {
        null => false,
        { Era: { } known } when known != era => _record.Former?.Contains(era) == true,
        _ => !unbroken,
    };

    /// <summary>Serves an etcd under the name that it has.</summary>
    public ulong Adopt(ulong etcdClusterId, string era, RevisionEntry head)
    {
        lock (_gate)
        {
            var former = _record?.Former ?? [];
            if (_record?.Era is { } known && known != era)
                former = [.. former.Append(known).TakeLast(FormerMax)];
            Write(new LineageRecord(etcdClusterId, _record?.Epoch ?? 0, head.Revision, Digest(head), era, former));
            return Advertised(_record!);
        }
    }

    /// <summary>Carries the epoch on when etcd is the same one, begins another when not. Returns the ID to advertise.</summary>
    public ulong Adopt(ulong etcdClusterId, bool unbroken, RevisionEntry head)
    {
        var epoch = _record switch
        {
            null when _file is null => BitConverter.ToUInt32(RandomNumberGenerator.GetBytes(4)) | 1,
            null => 0u,
            { } known when unbroken && known.EtcdClusterId == etcdClusterId => known.Epoch,
            { } known => known.Epoch + 1,
        };
        lock (_gate)
            Write(new LineageRecord(etcdClusterId, epoch, head.Revision, Digest(head)));
        return Advertised(etcdClusterId, epoch);
    }

    /// <summary>Notes how far readers of the advertised ID may have come.</summary>
    public void Advance(RevisionEntry head, ulong advertised)
    {
        lock (_gate)
        {
            if (_record is { } record && record.Revision < head.Revision && Advertised(record) == advertised)
                Write(record with { Revision = head.Revision, Digest = Digest(head) });
        }
    }

    public static ulong Advertised(ulong etcdClusterId, uint epoch) =>
        epoch == 0 ? etcdClusterId : Hash(etcdClusterId, BitConverter.GetBytes(epoch));

    private static ulong Advertised(LineageRecord record) => record.Era is { } era
        ? Hash(record.EtcdClusterId, Encoding.UTF8.GetBytes(era))
        : Advertised(record.EtcdClusterId, record.Epoch);

    private static ulong Hash(ulong etcdClusterId, byte[] name)
    {
        byte[] input = [.. BitConverter.GetBytes(etcdClusterId), .. name];
        Span<byte> hash = stackalloc byte[32];
        SHA256.HashData(input, hash);
        var id = BitConverter.ToUInt64(hash);
        return id is 0 ? 1 : id;
    }

    public static string Digest(RevisionEntry entry)
    {
        if (entry.Listed)
            return "";
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        foreach (var change in entry.Events)
            hash.AppendData(change.Version.Message);
        return Convert.ToHexString(hash.GetHashAndReset());
    }

    private void Write(LineageRecord record)
    {
        _record = record;
        if (_file is null)
            return;
        var fresh = _file + ".new";
        try
        {
            using (var stream = new FileStream(fresh, FileMode.Create, FileAccess.Write))
            {
                JsonSerializer.Serialize(stream, record, LineageJson.Default.LineageRecord);
                stream.Flush(flushToDisk: true);
            }
            File.Move(fresh, _file, overwrite: true);
            _error = null;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            _error = $"cannot write {_file}: {e.Message}: after a restart a restored etcd may go unseen";
        }
    }
}
