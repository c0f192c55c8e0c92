namespace Mesh.KVStore;

/// <summary>What a <see cref="SyncStore"/> owns in the store.</summary>
public sealed record SyncStoreOptions
{
    /// <summary>Everything below belongs to the SyncStore alone: after MarkSynced it deletes what it does not want. Ends with a
    /// slash.</summary>
    public required string Prefix { get; init; }

    /// <summary>Where the keys' leases come from; null writes keys that outlive their writer.</summary>
    public LeasePool? Leases { get; init; }

    /// <summary>The synced canary: written once everything that was wanted at MarkSynced is in the store; null for none.</summary>
    public string? CanaryKey { get; init; }

    /// <summary>First and longest pause after a write that failed because the store did not answer.</summary>
    public TimeSpan RetryMin { get; init; } = TimeSpan.FromMilliseconds(100);

    public TimeSpan RetryMax { get; init; } = TimeSpan.FromSeconds(5);

    /// <summary>A write that the store acknowledged, but whose event does not arrive within this, may be lost (a crash without disk
    /// sync, a store wiped at once): the prefix is listed again.</summary>
    public TimeSpan ConfirmPatience { get; init; } = TimeSpan.FromSeconds(10);

    /// <summary>Told after each write that deleted keys: how many, and how many are wanted still. Called from the worker: quick, from any
    /// thread, and must not throw.</summary>
    public Action<int, int>? Withdrew { get; init; }

    /// <summary>A key that somebody else keeps changing is repaired at most this often.</summary>
    public TimeSpan RepairInterval { get; init; } = TimeSpan.FromMilliseconds(250);
}

/// <param name="Desired">Keys wanted.</param>
/// <param name="Queue">Keys waiting to be written or deleted, those in flight included.</param>
/// <param name="Synced">Everything wanted at MarkSynced is in the store, and the canary says so.</param>
/// <param name="Written">Keys written or deleted so far.</param>
/// <param name="Repaired">Keys that somebody else deleted, overwrote or added, and that were put right.</param>
/// <param name="Refused">Keys that the store will not take (a value too large); they are tried again when they change, and rarely.</param>
/// <param name="Holding">Keys that the canary waits for.</param>
/// <param name="Errors">Failed writes and broken watches so far.</param>
/// <param name="LastError">What failed last; null when nothing has failed since the last success.</param>
public sealed record SyncStoreStatus(
    string Prefix, int Desired, int Queue, bool Synced, long Written, long Repaired, int Refused, int Holding, long Errors,
    string? LastError);
