namespace Mesh.KVStore;

/// <summary>One key of a <see cref="SyncStore"/>: what is wanted there, what is there, and what is under way.</summary>
internal sealed class SyncEntry(string key)
{
    public string Key { get; } = key;

    /// <summary>The owner has an opinion about this key: <see cref="Desired"/>, null for "absent".</summary>
    public bool Decided { get; set; }

    public ReadOnlyMemory<byte>? Desired { get; set; }

    /// <summary>The lease the key is to live on; null before its first write, and for stores without leases.</summary>
    public KVLease? Lease { get; set; }

    /// <summary>The store holds the key, as far as we know.</summary>
    public bool Present { get; set; }

    public ReadOnlyMemory<byte> Actual { get; set; }

    public long ActualLease { get; set; }

    /// <summary>The revision that <see cref="Actual"/> is from; older events about the key say nothing new.</summary>
    public long ActualRevision { get; set; }

    /// <summary>The list round that <see cref="ActualRevision"/> is from: revisions of different rounds may be of different
    /// histories and do not compare.</summary>
    public int ActualRound { get; set; }

    /// <summary>The last list round that held the key.</summary>
    public int ListedIn { get; set; }

    /// <summary>The revision of our write whose event has not arrived yet; 0 when the watch is up to date with us.</summary>
    public long Unconfirmed { get; set; }

    /// <summary>Waiting to be written, at once or (<see cref="Delayed"/>) later.</summary>
    public bool Queued { get; set; }

    public bool Delayed { get; set; }

    public bool InFlight { get; set; }

    /// <summary>The canary waits for this key.</summary>
    public bool HoldsCanary { get; set; }

    /// <summary>The store said this key is impossible: it goes alone, so that it cannot fail others.</summary>
    public int Refusals { get; set; }

    public long RepairedAt { get; set; }

    public int Bytes => Key.Length + (Desired?.Length ?? 0);

    /// <param name="synced">Undecided keys are leftovers.</param>
    /// <param name="leased">Keys are to live on a lease.</param>
    public bool NeedsWriting(bool synced, bool leased)
    {
        if (!Decided)
            return synced && Present;
        if (Desired is not { } wanted)
            return Present;
        var onOurLease = leased ? Lease is not null && ActualLease == Lease.Id : ActualLease == 0;
        return !Present || !onOurLease || !Actual.Span.SequenceEqual(wanted.Span);
    }
}
