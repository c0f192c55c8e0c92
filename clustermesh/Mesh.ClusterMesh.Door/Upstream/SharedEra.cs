using System.Security.Cryptography;
using System.Text;
using Etcdserverpb;
using Google.Protobuf;
using Mesh.ClusterMesh.Door.Cache;

namespace Mesh.ClusterMesh.Door.Upstream;

/// <summary>
/// The name of etcd's present history, kept in etcd itself, so that all doors before it advertise one cluster ID and change it together.
/// A wiped etcd has none; a restored one has an old one, and whichever door has seen more than it holds (running, or by its file)
/// writes another in its place. The others take that over as they take any event.
/// </summary>
internal sealed class SharedEra(KV.KVClient kv, Lineage lineage)
{
    /// <summary>Outside of every range that a peer may read.</summary>
    public const string Key = "mesh/door/era";

    private static readonly byte[] KeyBytes = Encoding.UTF8.GetBytes(Key);

    /// <summary>Revision of the key that we have asked to be replaced: the event of that is under way.</summary>
    private long _asked = -1;

    /// <summary>Null when it has none.</summary>
    public static string? Of(RevisionEntry head) => Find(head) is { } found ? Encoding.UTF8.GetString(found.Value) : null;

    /// <summary>Another connection: what was under way on the last one may have come to nothing.</summary>
    public void Begin() => _asked = -1;

    /// <summary>
    /// True when this revision has a name to be served under. Otherwise etcd has been asked for one, by us or by another door, and
    /// what it decided comes as an event.
    /// </summary>
    /// <param name="unbroken">The history goes on where we, or our record of it, left it.</param>
    /// <exception cref="Grpc.Core.RpcException">etcd did not answer.</exception>
    public async Task<bool> SettleAsync(RevisionEntry head, bool unbroken, CancellationToken cancellation)
    {
        var mark = Find(head);
        if (mark is not null && !lineage.IsOutdated(Encoding.UTF8.GetString(mark.Value), unbroken))
            return true;
        var revision = mark?.ModRevision ?? 0;
        if (_asked == revision)
            return false;
        var era = (unbroken ? lineage.Era : null) ?? Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(8));
        var key = ByteString.CopyFrom(KeyBytes);
        await kv.TxnAsync(new TxnRequest
        {
            Compare =
            {
                new Compare
                {
                    Key = key, Target = Compare.Types.CompareTarget.Mod, Result = Compare.Types.CompareResult.Equal, ModRevision = revision,
                },
            },
            Success = { new RequestOp { RequestPut = new PutRequest { Key = key, Value = ByteString.CopyFromUtf8(era) } } },
        }, cancellationToken: cancellation);
        _asked = revision;
        return false;
    }

    private static KeyVersion? Find(RevisionEntry head) => head.Keys.TryGetValue(KeyVersion.Probe(KeyBytes), out var found) ? found : null;
}
