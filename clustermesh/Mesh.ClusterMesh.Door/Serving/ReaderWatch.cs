using Etcdserverpb;
using Mesh.ClusterMesh.Door.Cache;
using Filter = Etcdserverpb.WatchCreateRequest.Types.FilterType;

namespace Mesh.ClusterMesh.Door.Serving;

/// <summary>One watch on a stream: what it wants and how far it has come. Only the stream's sending task changes it.</summary>
internal sealed class ReaderWatch(long id, KeyRange range, WatchCreateRequest request, long next, long replayedThrough)
{
    private readonly bool _puts = !request.Filters.Contains(Filter.Noput);
    private readonly bool _deletes = !request.Filters.Contains(Filter.Nodelete);

    public long Id { get; } = id;

    public KeyRange Range { get; } = range;

    public bool WithPrevious { get; } = request.PrevKv;

    public bool Fragments { get; } = request.Fragment;

    public bool NotifiesProgress { get; } = request.ProgressNotify;

    /// <summary>The next revision to look at: all matching events below it are in the connection.</summary>
    public long Next { get; set; } = next;

    /// <summary>Revisions up to here existed when the watch was made: a replay, which is never conflated.</summary>
    public long ReplayedThrough { get; } = replayedThrough;

    /// <summary>When something was last sent (TimeProvider timestamp).</summary>
    public long SentAt { get; set; }

    /// <summary>The revision a header may carry: nothing at or below it is still owed.</summary>
    public long SentRevision(long head) => Math.Min(head, Next - 1);

    public bool Wants(KeyVersion version) => (version.IsDelete ? _deletes : _puts) && Range.Contains(version.Key);
}
