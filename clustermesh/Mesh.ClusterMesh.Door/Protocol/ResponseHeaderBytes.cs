using Mesh.ClusterMesh.Door.Cache;

namespace Mesh.ClusterMesh.Door.Protocol;

/// <summary>etcdserverpb.ResponseHeader, field 1 of every answer.</summary>
internal static class ResponseHeaderBytes
{
    public static int FieldSize(HeaderIds ids, long revision) => Proto.BytesSize(ContentSize(ids, revision));

    public static int WriteField(Span<byte> into, HeaderIds ids, long revision)
    {
        var at = Proto.WriteLength(into, 1, ContentSize(ids, revision));
        at += Proto.WriteField(into[at..], 1, ids.ClusterId);
        at += Proto.WriteField(into[at..], 2, ids.MemberId);
        at += Proto.WriteField(into[at..], 3, (ulong)revision);
        return at + Proto.WriteField(into[at..], 4, ids.RaftTerm);
    }

    public static Etcdserverpb.ResponseHeader Message(HeaderIds ids, long revision) =>
        new() { ClusterId = ids.ClusterId, MemberId = ids.MemberId, Revision = revision, RaftTerm = ids.RaftTerm };

    private static int ContentSize(HeaderIds ids, long revision) =>
        Proto.FieldSize(ids.ClusterId) + Proto.FieldSize(ids.MemberId) + Proto.FieldSize((ulong)revision) + Proto.FieldSize(ids.RaftTerm);
}
