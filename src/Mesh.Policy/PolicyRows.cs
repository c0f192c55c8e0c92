using Mesh.Kubernetes.Policies;
using Mesh.Model;

namespace Mesh.Policy;

public enum PolicyKeyKind : byte
{
    /// <summary>A rule set's verdict about one peer, or, for identity 0, about all without a row of their own.</summary>
    Verdict,

    /// <summary>Which sets hold for an endpoint of this node.</summary>
    Endpoint,

    /// <summary>The verdicts about an address range are complete: its addresses may show its identity.</summary>
    Range,
}

/// <summary>Key of the policies table.</summary>
/// <param name="Set">Number of the rule set; 0 for the other kinds.</param>
/// <param name="Id">Identity of the peer or the range; id of the endpoint.</param>
public readonly record struct PolicyKey(PolicyKeyKind Kind, uint Set, uint Id)
{
    public static PolicyKey Verdict(uint set, uint identity) => new(PolicyKeyKind.Verdict, set, identity);

    public static PolicyKey Endpoint(ushort id) => new(PolicyKeyKind.Endpoint, 0, id);

    public static PolicyKey Range(uint identity) => new(PolicyKeyKind.Range, 0, identity);

    public override string ToString() => Kind switch
    {
        PolicyKeyKind.Verdict => $"set {Set}, identity {Id}",
        PolicyKeyKind.Endpoint => $"endpoint {Id}",
        _ => $"range identity {Id}",
    };
}

/// <summary>Row of the policies table: what the kernel is to hold. One table for all kinds, because their order matters: verdicts,
/// then whatever makes packets ask for them.</summary>
public abstract record PolicyRow;

/// <param name="Ranges">Sorted; the first begins at 0. One alone is the verdict for everything.</param>
public sealed record VerdictRow(EquatableArray<PortVerdict> Ranges) : PolicyRow
{
    /// <summary>The verdict about a protocol and port.</summary>
    public PortVerdict At(byte protocol, ushort port)
    {
        var place = (uint)protocol << 16 | port;
        var found = Ranges[0];
        foreach (var range in Ranges)
            if (range.Start <= place)
                found = range;
        return found;
    }
}

/// <param name="Start">Protocol &lt;&lt; 16 | port or ICMP type: the first that it holds for.</param>
/// <param name="Rule">Number of the rule that decides; 0 when none does.</param>
public readonly record struct PortVerdict(uint Start, bool Allowed, uint Rule)
{
    /// <summary>Where in words: "0-65535/TCP" ends where the next begins.</summary>
    public string StartText => $"{Start & 0xffff}/{PortSpec.NameOf((byte)(Start >> 16))}";
}

/// <param name="Ingress">Number of a set, <see cref="Undecided"/>, <see cref="Unenforced"/> or <see cref="Learning"/>.</param>
/// <param name="Audit">What the sets deny is counted, and passes.</param>
public sealed record EndpointPolicyRow(uint Ingress, uint Egress, bool Audit) : PolicyRow
{
    public const uint Undecided = 0;
    public const uint Unenforced = 1;

    /// <summary>Everything passes, and flows are remembered, so that those which run are not cut when the rules come.</summary>
    public const uint Learning = 2;

    /// <summary>Numbers of sets begin here.</summary>
    public const uint FirstSet = 3;
}

/// <summary>An address range that a policy names.</summary>
public sealed record RangeRow(IpPrefix Range) : PolicyRow;
