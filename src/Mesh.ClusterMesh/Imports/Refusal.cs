namespace Mesh.ClusterMesh.Imports;

/// <summary>Why a record was not taken over.</summary>
public enum RefusalReason
{
    Malformed,

    /// <summary>Its key, name or ID is another cluster's.</summary>
    ForeignKey,

    /// <summary>The identity is not in the peer's range.</summary>
    IdentityRange,

    /// <summary>An identity below 256 on an address that is none of the peer's nodes.</summary>
    ReservedIdentity,

    /// <summary>The address is not the peer's.</summary>
    Address,

    /// <summary>The tunnel would not end at one of the peer's nodes.</summary>
    TunnelEndpoint,
    Backend,
    Namespace,
    Oversize,
    Quota,
}

/// <param name="Text">One line, safe to print.</param>
/// <param name="AwaitsNode">To be judged anew when the peer's nodes change: entries and nodes come in any order.</param>
internal readonly record struct Refusal(RefusalReason Reason, string Text, bool AwaitsNode = false);

public static class RefusalReasons
{
    /// <summary>The word for JSON and metrics.</summary>
    public static string Word(this RefusalReason reason) => reason switch
    {
        RefusalReason.Malformed => "malformed",
        RefusalReason.ForeignKey => "foreign-key",
        RefusalReason.IdentityRange => "identity-range",
        RefusalReason.ReservedIdentity => "reserved-identity",
        RefusalReason.Address => "address",
        RefusalReason.TunnelEndpoint => "tunnel-endpoint",
        RefusalReason.Backend => "backend",
        RefusalReason.Namespace => "namespace",
        RefusalReason.Oversize => "oversize",
        RefusalReason.Quota => "quota",
        _ => throw new ArgumentOutOfRangeException(nameof(reason), reason, "no such reason"),
    };
}
