using System.Net;
using Mesh.ClusterMesh.Door.Cache;
using Mesh.ClusterMesh.Door.Serving;
using Mesh.ClusterMesh.Door.Upstream;

namespace Mesh.ClusterMesh.Door;

/// <summary>What `status` and the metrics print about the door. All counts are since its start.</summary>
/// <param name="Open">The port is open.</param>
/// <param name="ClusterId">As advertised to readers of the state view; 0 before the first list is complete.</param>
/// <param name="OldestRevision">Oldest revision a Range can be pinned at.</param>
/// <param name="Problems">Files that cannot be used as they are now, and what else an operator must mend. Empty when all is well.</param>
/// <param name="ConflatedEvents">Puts not sent because a newer version of the key followed (slow readers).</param>
/// <param name="CompactedWatches">Watches cut because their position was no longer in memory.</param>
public sealed record DoorStatus(
    bool Open, IPEndPoint? Address, UpstreamStatus Etcd, ulong ClusterId, long OldestRevision, long Revision, int Keys,
    int Connections, long ConnectionsRefused, long Ranges, long Watches, long EventsSent, long ConflatedEvents, long CompactedWatches,
    long StreamsCut, long Refusals, long Malformed, long ResetsPunished, long Delayed,
    DateTimeOffset CertificateNotAfter, IReadOnlyList<string> Problems)
{
    /// <summary>End of the first to end of the trusted authorities.</summary>
    public DateTimeOffset AuthorityNotAfter { get; init; }

    /// <summary>Which certificates end soon or have ended, and the mend; null when none.</summary>
    public string? CertificateExpiry { get; init; }

    /// <summary>The view that a relay writes; null when there is none.</summary>
    public MirrorStatus? Cache { get; init; }

    internal static DoorStatus Of(UpstreamStatus etcd, WatchCache? cache, int connections, DoorCounters counters,
        IReadOnlyList<string> problems, DateTimeOffset certificateNotAfter, IPEndPoint? address)
    {
        CacheView? view = cache is { IsReady: true } ? cache.View : null;
        return new DoorStatus(address is not null, address, etcd, view?.Ids.ClusterId ?? 0, view?.History.Oldest ?? 0,
            view?.History.Head.Revision ?? 0, view?.History.Head.Keys.Count ?? 0, connections, counters.ConnectionsRefused.Value,
            counters.Ranges.Value, counters.WatchesCreated.Value, counters.EventsSent.Value, counters.EventsConflated.Value,
            counters.WatchesCompacted.Value, counters.StreamsCut.Value, counters.Refusals.Value, counters.Malformed.Value,
            counters.ResetsPunished.Value, counters.Delayed.Value, certificateNotAfter, problems);
    }
}

/// <summary>The door did not open. The message says why.</summary>
public sealed class DoorShutException(string message, Exception? inner = null) : Exception(message, inner);
