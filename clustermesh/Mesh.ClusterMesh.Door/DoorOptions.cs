using System.Net;

namespace Mesh.ClusterMesh.Door;

/// <summary>Which users of other clusters exist at this door, as the Helm value of the same name.</summary>
public enum AuthenticationMode
{
    /// <summary>The shared `remote` only.</summary>
    Legacy,

    /// <summary>The shared `remote` and those of the users file: every cluster passes through this on its way to Cluster.</summary>
    Migration,

    /// <summary>As Migration. Peers still in migration present `remote`, so it is refused only by
    /// <see cref="DoorOptions.RefuseSharedRemote"/>.</summary>
    Cluster,
}

/// <summary>What one client may cost. Nothing here limits the sum of well-behaved readers but the connection count.</summary>
public sealed record DoorLimits
{
    /// <summary>Revisions kept for past watches and pinned reads, rounded up to a power of two. At least 16.</summary>
    public int HistoryRevisions { get; init; } = 16_384;

    /// <summary>Bytes kept for the same, charged with about 1 KiB per change besides its key and value.</summary>
    public long HistoryBytes { get; init; } = 256L << 20;

    /// <summary>A reader that was up to date and fell this many revisions behind gets only the newest value of each key.</summary>
    public int ConflateBehind { get; init; } = 1024;

    /// <summary>Soft size of one watch response; a single revision is never split for it.</summary>
    public int ResponseBytes { get; init; } = 64 << 10;

    /// <summary>A watch that asked for fragments gets none larger than this (etcd's request limit).</summary>
    public int FragmentBytes { get; init; } = 2 << 20;

    /// <summary>Largest request message. Ranges and watches are small; etcd itself takes 2 MiB.</summary>
    public int RequestBytes { get; init; } = 64 << 10;

    public int Connections { get; init; } = 20_000;

    /// <summary>Connections from one address. Agents of a cluster may share one behind NAT.</summary>
    public int ConnectionsPerAddress { get; init; } = 5_000;

    public int StreamsPerConnection { get; init; } = 100;

    public int WatchesPerStream { get; init; } = 1_000;

    public int LeasesPerConnection { get; init; } = 16;

    /// <summary>Requests per second of one connection, twice that at once; more are delayed, not refused.</summary>
    public int RequestsPerSecond { get; init; } = 2_000;

    /// <summary>Requests that one connection may reset per second, ten times that at once; more cost the connection.</summary>
    public int ResetsPerSecond { get; init; } = 20;

    /// <summary>A reader that takes nothing of a Range answer for this long loses the answer.</summary>
    public TimeSpan StalledRange { get; init; } = TimeSpan.FromSeconds(30);

    /// <summary>How often a watch with progress_notify hears of the revision when nothing happens.</summary>
    public TimeSpan ProgressInterval { get; init; } = TimeSpan.FromMinutes(10);
}

public sealed record DoorOptions
{
    /// <summary>This cluster: part of the users' names and of what `remote` may read.</summary>
    public required string ClusterName { get; init; }

    public required IPEndPoint Listen { get; init; }

    /// <summary>PEM files; each is read again when it changes. The CA file may hold several certificates (staged rotation).</summary>
    public required string CertFile { get; init; }

    public required string KeyFile { get; init; }

    public required string TrustedCaFile { get; init; }

    public AuthenticationMode Mode { get; init; } = AuthenticationMode.Migration;

    /// <summary>Users file of kvstore contract §4.2; null is none.</summary>
    public string? UsersFile { get; init; }

    /// <summary>One SHA-256 fingerprint of a refused client certificate per line (hex, colons allowed, # comments); null is none.</summary>
    public string? RevokedFile { get; init; }

    /// <summary>Once every peer presents its own name, the shared `remote` can be shut.</summary>
    public bool RefuseSharedRemote { get; init; }

    /// <summary>
    /// False: a read is answered from memory and is never older than anything this door has already sent. True: a read that is not
    /// marked serializable first asks etcd for its revision and waits until the door has it (one question serves all that wait);
    /// while etcd does not answer such reads fail with Unavailable.
    /// </summary>
    public bool ConfirmReads { get; init; }

    /// <summary>True: etcd itself keeps the name of its history (one key outside of what peers read), so that all doors before it
    /// advertise the same cluster ID and change it together. Takes a channel that may write.</summary>
    public bool SharesEra { get; init; }

    /// <summary>Directory where the door writes which etcd it followed; null makes every start a new cluster ID.</summary>
    public string? StateDir { get; init; }

    public DoorLimits Limits { get; init; } = new();

    /// <summary>Null when the options can work, otherwise which one cannot and what is allowed.</summary>
    public string? Validate() =>
        Model.ClusterName.Validate(ClusterName) is { } badName ? badName
        : Limits.HistoryRevisions is < 16 or > (1 << 24) ? $"history of {Limits.HistoryRevisions} revisions: allowed are 16 to {1 << 24}"
        : Limits.HistoryBytes < 1 << 20 ? $"history of {Limits.HistoryBytes} bytes: at least {1 << 20} are needed"
        : Limits.RequestsPerSecond < 1 || Limits.StreamsPerConnection < 1 || Limits.WatchesPerStream < 1 || Limits.Connections < 1
            || Limits.ConnectionsPerAddress < 1 || Limits.ResetsPerSecond < 1 || Limits.ResponseBytes < 1024
            ? "a limit is too small to serve anybody: each must be at least 1, a response at least 1024 bytes"
        : Mode == AuthenticationMode.Cluster && UsersFile is null
            ? "authentication mode cluster needs a users file, or no peer could read"
        : null;
}
