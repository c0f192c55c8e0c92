namespace Mesh.KVStore;

/// <summary>One watch as it is at the moment.</summary>
/// <param name="Prefix">What it reads.</param>
/// <param name="Listing">A list is under way: what the reader has may be old.</param>
/// <param name="Streaming">A stream stands.</param>
/// <param name="MessageAge">Time since the last event, progress notice, page or finished audit; null before the first.</param>
/// <param name="AuditAge">Time since an audit found nothing missing; null before the first.</param>
/// <param name="Relists">Lists begun again.</param>
/// <param name="RelistReason">Why, the last time.</param>
/// <param name="RelistAge">When, the last time.</param>
/// <param name="Compacted">The last time it was because the store had compacted what we needed.</param>
public sealed record WatchStatus(
    string Prefix, bool Listing, bool Streaming, TimeSpan? MessageAge, TimeSpan? AuditAge,
    int Relists, string? RelistReason, TimeSpan? RelistAge, bool Compacted)
{
    /// <summary>Its list waits for those of others; see <see cref="ListTurns"/>.</summary>
    public bool InLine { get; init; }
}
