using System.Text.Json.Serialization;

namespace Mesh.Joining.Checks;

public enum Severity
{
    Ok,
    Warning,
    Fault,
}

/// <summary>One thing that was looked at.</summary>
/// <param name="Check">What was looked at, a short word that --force and --allow name.</param>
/// <param name="Text">What was found, with names and numbers.</param>
/// <param name="Mend">What to do about it; null when it is well.</param>
public sealed record Finding(string Check, Severity Severity, string Text, string? Mend = null)
{
    /// <summary>Two clusters of one ID or name cannot be in one mesh, whatever anybody wants; and what makes a join fail cannot be waived.</summary>
    [JsonIgnore]
    public bool CanBeForced => Check is not (Names.Name or Names.Id or Names.MaxClusters or Names.Token or Names.JoinTls or Names.OwnPki);

    /// <summary>What --force may name.</summary>
    public static IReadOnlyList<string> Forceable { get; } =
    [
        Names.PodRanges, Names.NodeRanges, Names.TunnelPort, Names.Version, Names.Clock, Names.Authority, Names.DoorOut, Names.DoorIn,
        Names.UdpOut, Names.UdpIn, Names.MtuOut, Names.MtuIn,
    ];

    /// <summary>What --allow may name: what the issuer looks at itself.</summary>
    public static IReadOnlyList<string> Allowable { get; } = [Names.PodRanges, Names.NodeRanges, Names.TunnelPort, Names.Version];

    /// <exception cref="JoinException">A name is none of these.</exception>
    internal static void RequireKnown(string flag, IEnumerable<string> names, IReadOnlyList<string> known)
    {
        if (names.FirstOrDefault(name => !known.Contains(name)) is { } wrong)
            throw new JoinException("finding-name", $"{flag} '{wrong}': must be one of {string.Join(", ", known)}");
    }

    public static Finding Ok(string check, string text) => new(check, Severity.Ok, text);

    public static Finding Warning(string check, string text, string mend) => new(check, Severity.Warning, text, mend);

    public static Finding Fault(string check, string text, string mend) => new(check, Severity.Fault, text, mend);

    /// <summary>The words for what is looked at.</summary>
    public static class Names
    {
        public const string Token = "token";
        public const string JoinTls = "join-listener";
        public const string OwnPki = "own-certificates";
        public const string Name = "cluster-name";
        public const string Id = "cluster-id";
        public const string MaxClusters = "max-connected-clusters";
        public const string PodRanges = "pod-cidr";
        public const string NodeRanges = "node-cidr";
        public const string Clock = "clock";
        public const string Version = "version";
        public const string TunnelPort = "tunnel-port";
        public const string Authority = "authority";
        public const string DoorOut = "door-of-peer";
        public const string DoorIn = "own-door";
        public const string UdpOut = "udp-to-peer";
        public const string UdpIn = "udp-from-peer";
        public const string MtuOut = "mtu-to-peer";
        public const string MtuIn = "mtu-from-peer";
    }
}

/// <summary>What `plan` found; it changed nothing.</summary>
public sealed record PlanReport(string Cluster, string Peer, IReadOnlyList<Finding> Findings)
{
    public Severity Worst => Findings.Count == 0 ? Severity.Ok : Findings.Max(finding => finding.Severity);

    [JsonIgnore]
    public IEnumerable<Finding> Faults => Findings.Where(finding => finding.Severity == Severity.Fault);

    public string ToJson() => System.Text.Json.JsonSerializer.Serialize(this, JoinJson.Default.PlanReport);

    /// <summary>The faults that the names given do not waive.</summary>
    public IReadOnlyList<Finding> Standing(IReadOnlyCollection<string> forced) =>
        [.. Faults.Where(finding => !(finding.CanBeForced && forced.Contains(finding.Check)))];
}
