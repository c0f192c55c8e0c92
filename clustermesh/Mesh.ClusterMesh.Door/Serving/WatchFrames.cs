using System.Buffers;
using System.IO.Pipelines;
using System.Text;
using Mesh.ClusterMesh.Door.Cache;
using Mesh.ClusterMesh.Door.Protocol;

namespace Mesh.ClusterMesh.Door.Serving;

/// <summary>Writes etcdserverpb.WatchResponse messages. The events' bytes are those of the cache, copied and not encoded again.</summary>
internal static class WatchFrames
{
    private const int Deletion = 1;

    /// <summary>A response that carries no events.</summary>
    public static void WriteControl(PipeWriter output, HeaderIds ids, long revision, long watchId,
        bool created = false, bool canceled = false, long compactRevision = 0, string cancelReason = "")
    {
        var reason = Encoding.UTF8.GetByteCount(cancelReason);
        var size = HeadSize(ids, revision, watchId) + (created ? 2 : 0) + (canceled ? 2 : 0)
            + Proto.FieldSize((ulong)compactRevision) + (reason == 0 ? 0 : Proto.BytesSize(reason));
        var into = output.GetSpan(Proto.FramePrefix + size);
        var at = Proto.WriteFramePrefix(into, size);
        at += WriteHead(into[at..], ids, revision, watchId);
        at += Proto.WriteField(into[at..], 3, created ? 1u : 0u);
        at += Proto.WriteField(into[at..], 4, canceled ? 1u : 0u);
        at += Proto.WriteField(into[at..], 5, (ulong)compactRevision);
        at += Proto.WriteText(into[at..], 6, cancelReason);
        output.Advance(at);
    }

    /// <param name="fragment">More of this revision follows in another response.</param>
    public static void WriteEvents(PipeWriter output, HeaderIds ids, long revision, long watchId,
        ReadOnlySpan<KeyEvent> events, bool withPrevious, bool fragment)
    {
        var size = HeadSize(ids, revision, watchId) + (fragment ? 2 : 0);
        foreach (var change in events)
            size += EventSize(change, withPrevious);
        var into = output.GetSpan(96);
        var at = Proto.WriteFramePrefix(into, size);
        at += WriteHead(into[at..], ids, revision, watchId);
        at += Proto.WriteField(into[at..], 7, fragment ? 1u : 0u);
        output.Advance(at);
        foreach (var change in events)
            WriteEvent(output, change, withPrevious);
    }

    /// <summary>Size of the event as a field of the response.</summary>
    public static int EventSize(KeyEvent change, bool withPrevious) => Proto.BytesSize(ContentSize(change, withPrevious));

    private static int ContentSize(KeyEvent change, bool withPrevious) =>
        (change.Version.IsDelete ? 2 : 0) + Proto.BytesSize(change.Version.Message.Length)
        + (withPrevious && change.Previous is { } previous ? Proto.BytesSize(previous.Message.Length) : 0);

    private static void WriteEvent(PipeWriter output, KeyEvent change, bool withPrevious)
    {
        var into = output.GetSpan(24);
        var at = Proto.WriteLength(into, 11, ContentSize(change, withPrevious));
        at += Proto.WriteField(into[at..], 1, change.Version.IsDelete ? (ulong)Deletion : 0);
        at += Proto.WriteLength(into[at..], 2, change.Version.Message.Length);
        output.Advance(at);
        output.Write(change.Version.Message);
        if (!withPrevious || change.Previous is not { } previous)
            return;
        output.Advance(Proto.WriteLength(output.GetSpan(8), 3, previous.Message.Length));
        output.Write(previous.Message);
    }

    private static int HeadSize(HeaderIds ids, long revision, long watchId) =>
        ResponseHeaderBytes.FieldSize(ids, revision) + (watchId == 0 ? 0 : 1 + Proto.VarintSize((ulong)watchId));

    private static int WriteHead(Span<byte> into, HeaderIds ids, long revision, long watchId)
    {
        var at = ResponseHeaderBytes.WriteField(into, ids, revision);
        return at + Proto.WriteField(into[at..], 2, (ulong)watchId);
    }
}
