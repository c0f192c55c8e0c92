namespace Mesh.ClusterMesh.Remote;

/// <summary>A withdrawal that is not believed yet: since when, why, and what would settle it. Belongs to one resource of one peer.</summary>
/// <param name="firstRevision">Store revision of the earliest withdrawal held: whatever proves the owner alive and whole must be
/// older and untouched, or newer and written anew.</param>
/// <param name="settleBy">When it is judged first.</param>
internal sealed class Hold(string reason, long firstRevision, DateTimeOffset since, DateTimeOffset settleBy)
{
    private const int RevisionsKept = 4_096;

    public string Reason { get; set; } = reason;

    public long FirstRevision { get; private set; } = firstRevision;

    public DateTimeOffset Since { get; set; } = since;

    /// <summary>When it is looked at next.</summary>
    public DateTimeOffset Due { get; set; } = settleBy;

    /// <summary>Still in the first moments, in which the other traces of its cause arrive. Later only the owner, or time and a
    /// second list, can settle it.</summary>
    public bool Settling { get; set; } = true;

    /// <summary>Found in a store that is not the one read before, or that went back: revisions cannot be compared.</summary>
    public bool OtherHistory { get; set; }

    /// <summary>The owner has written something since the hold began.</summary>
    public bool SeenAlive { get; set; }

    /// <summary>It looks like the owner's will, and waits for the owner to show itself.</summary>
    public bool AwaitsSign { get; set; }

    /// <summary>When its first sign of life came; null before.</summary>
    public DateTimeOffset? AliveAt { get; set; }

    /// <summary>Held keys that came back: the owner did not mean their deletion.</summary>
    public int Returned { get; set; }

    /// <summary>No writer deletes so: why, or null.</summary>
    public string? ForeignHand { get; set; }

    /// <summary>A lease that lost all its keys of this resource at once: revoked, unless other keys still live on it. 0 for none.</summary>
    public long Lease { get; set; }

    public HashSet<long> Revisions { get; } = [];

    /// <summary>There are more revisions than are kept.</summary>
    public bool Unknown { get; private set; }

    public bool BeingInspected { get; set; }

    public void Join(long revision)
    {
        FirstRevision = Math.Min(FirstRevision, revision);
        if (Revisions.Count < RevisionsKept)
            Revisions.Add(revision);
        else
            Unknown |= !Revisions.Contains(revision);
    }
}

/// <summary>A sum over the last so much time.</summary>
internal sealed class SlidingSum(TimeProvider time)
{
    private readonly Queue<(long At, int Weight)> _parts = [];
    private long _sum;

    public void Add(int weight)
    {
        _parts.Enqueue((time.GetTimestamp(), weight));
        _sum += weight;
    }

    public long Over(TimeSpan window)
    {
        while (_parts.TryPeek(out var oldest) && time.GetElapsedTime(oldest.At) > window)
            _sum -= _parts.Dequeue().Weight;
        return _sum;
    }

    public void Clear()
    {
        _parts.Clear();
        _sum = 0;
    }
}
