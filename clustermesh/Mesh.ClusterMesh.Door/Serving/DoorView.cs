using Etcdserverpb;
using Mesh.ClusterMesh.Door.Access;
using Mesh.ClusterMesh.Door.Cache;

namespace Mesh.ClusterMesh.Door.Serving;

/// <summary>One key space behind the port, with revisions and a cluster ID of its own.</summary>
/// <param name="confirmation">What makes its reads linearizable; null when this process writes it, for then memory is the truth.</param>
internal sealed class DoorView(WatchCache cache, ReadConfirmation? confirmation, Func<StatusResponse> status)
{
    public WatchCache Cache { get; } = cache;

    public ReadConfirmation? Confirmation { get; } = confirmation;

    /// <summary>What Maintenance.Status answers.</summary>
    public StatusResponse Status() => status();
}

/// <summary>
/// The key spaces of a door: the state of its own cluster and, where a relay runs, the cache of the others. A reader sees one of
/// them, by its role, and nothing of the other: revisions of the two must never meet in one client.
/// </summary>
internal sealed class DoorViews(DoorView? state, DoorView? cache)
{
    public DoorView? State { get; } = state;

    public DoorView? Cache { get; } = cache;

    /// <summary>Null when there is nothing for such a reader here.</summary>
    public DoorView? Of(string role) => role switch
    {
        Roles.Remote => State,
        Roles.Local => Cache ?? State,
        _ => State ?? Cache,
    };
}

/// <summary>What one user may read, and where. Immutable; replaced when the users file changes.</summary>
internal sealed record ReaderAccess(Grants Grants, DoorView? View)
{
    public static ReaderAccess None { get; } = new(Grants.None, null);

    public bool IsSame(ReaderAccess other) => ReferenceEquals(Grants, other.Grants) && ReferenceEquals(View, other.View);
}
