using Mesh.Kubernetes.Objects;

namespace Mesh.Kubernetes;

/// <summary>
/// Where a cluster's objects come from: a directory of manifests, or a Kubernetes API server. Both speak the same feed:
/// every present object as Upsert, then one Synced, then Upsert and Delete as they happen. A source that loses sight of the
/// truth (a file half written, an API server away) says nothing: the reader keeps what it has.
/// </summary>
public interface IObjectSource : IAsyncDisposable
{
    /// <summary>Follows the given kinds for ever; ends by cancellation alone. Batches are never empty.</summary>
    IAsyncEnumerable<IReadOnlyList<ObjectEvent>> WatchAsync(IReadOnlySet<ObjectKind> kinds, CancellationToken cancellation);

    /// <summary>What could not be taken over, and why, newest last; each names file or object. For status and logs.</summary>
    IReadOnlyList<SourceProblem> Problems { get; }
}

public enum ObjectEventType
{
    Upsert,
    Delete,

    /// <summary>Everything that exists has been said; Object is null. Said once per watch, and again whenever
    /// <see cref="ObjectEvent.Incomplete"/> is another.</summary>
    Synced,
}

public readonly record struct ObjectEvent(ObjectEventType Type, KubernetesObject? Object)
{
    /// <summary>With Synced: kinds of which something is there that was never readable since the start. Of these not everything has been
    /// said, and nothing may be concluded from what is missing. Null for none.</summary>
    public IReadOnlySet<ObjectKind>? Incomplete { get; init; }

    /// <summary>With Synced: all there is of these kinds has been said.</summary>
    public bool IsComplete(params IEnumerable<ObjectKind> kinds) => Incomplete is null || !Incomplete.Overlaps(kinds);
}

/// <param name="Where">File (with document number) or object.</param>
/// <param name="Message">What is wrong and how to mend it, one line.</param>
public sealed record SourceProblem(string Where, string Message, DateTimeOffset Since);
