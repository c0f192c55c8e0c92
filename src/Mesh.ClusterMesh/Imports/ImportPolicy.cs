namespace Mesh.ClusterMesh.Imports;

/// <summary>
/// What one peer may publish here, from local configuration and never from what the peer says. Null ranges and namespaces do not
/// limit; <see cref="Default"/> is what holds for a peer without a file: sizes and the breaker only, as wide as Cilium's own contract.
/// </summary>
public sealed record ImportPolicy
{
    public static readonly ImportPolicy Default = new();

    /// <summary>There is a file: reserved identities and tunnel endpoints are then tied to the peer's own nodes.</summary>
    public bool FromFile { get; init; }

    /// <summary>The only cluster ID the peer may announce.</summary>
    public uint? ClusterId { get; init; }

    /// <summary>Where its pods live.</summary>
    public PrefixSet? PodCidrs { get; init; }

    /// <summary>Where its nodes, and so the ends of its tunnels, are.</summary>
    public PrefixSet? NodeCidrs { get; init; }

    /// <summary>Names, or beginnings of names that end in '*'.</summary>
    public IReadOnlyList<string>? Namespaces { get; init; }

    public ImportQuotas Quotas { get; init; } = new();

    public BreakerPolicy Breaker { get; init; } = new();

    public bool Grants(string ns) => Namespaces is null || Namespaces.Any(granted =>
        granted.EndsWith('*') ? ns.StartsWith(granted.AsSpan(0, granted.Length - 1), StringComparison.Ordinal) : granted == ns);
}

/// <summary>How much one peer may use of this process.</summary>
public sealed record ImportQuotas
{
    /// <summary>Records of all resources together.</summary>
    public int Keys { get; init; } = 300_000;

    /// <summary>Bytes of their keys and values.</summary>
    public long Bytes { get; init; } = 256 << 20;

    /// <summary>Bytes of one value.</summary>
    public int ValueBytes { get; init; } = 1 << 20;

    /// <summary>Changes; what comes faster waits at the peer's side, and only there.</summary>
    public int EventsPerSecond { get; init; } = 5_000;
}

/// <summary>When a withdrawal must be confirmed before it is believed.</summary>
public sealed record BreakerPolicy
{
    public static readonly BreakerPolicy Off = new() { SharePercent = 100 };

    /// <summary>More of one peer's entries of a resource than this, within <see cref="Window"/>, is a mass withdrawal. 100 turns the
    /// breaker off.</summary>
    public int SharePercent { get; init; } = 50;

    /// <summary>A mass withdrawal that does not look like the owner's will is believed when a complete list, so much later, still
    /// says the same and the owner has shown itself alive meanwhile.</summary>
    public TimeSpan ConfirmAfter { get; init; } = TimeSpan.FromSeconds(60);

    /// <summary>Withdrawals within it count as one step.</summary>
    public TimeSpan Window { get; init; } = TimeSpan.FromSeconds(10);

    /// <summary>How long a mass withdrawal is looked at before it is first judged: time enough for its other traces to arrive.</summary>
    public TimeSpan Settle { get; init; } = TimeSpan.FromSeconds(1);

    public bool IsOn => SharePercent < 100;

    /// <summary>Exporters of ours beat behind whatever takes a fifth of a resource, so that a reader who holds more waits for no minute: what
    /// the owner of such a store has not beaten behind is not its doing, however it was deleted.</summary>
    /// <param name="isDoor">It is read at a door of ours.</param>
    public bool OwnerBeatsBehind(bool isDoor) => isDoor && SharePercent >= 20;
}
