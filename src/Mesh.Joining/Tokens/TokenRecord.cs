using System.Security.Cryptography;
using System.Text;

namespace Mesh.Joining.Tokens;

public enum TokenState
{
    /// <summary>Nobody has joined with it.</summary>
    Unused,

    /// <summary>One taker has begun; only that taker, known by its key, may go on.</summary>
    Bound,

    /// <summary>Our side is written; the taker has not yet said that its side is.</summary>
    Accepted,

    /// <summary>Done with, by success or by the taker's rollback.</summary>
    Used,
}

/// <summary>A token as its issuer remembers it: never the secret.</summary>
public sealed record TokenRecord
{
    public required string Id { get; init; }

    /// <summary>SHA-256 of the secret's text, in hexadecimal.</summary>
    public required string SecretHash { get; init; }

    public required DateTimeOffset Created { get; init; }

    public required DateTimeOffset Expires { get; init; }

    /// <summary>The only cluster that may take it; null for any.</summary>
    public string? Taker { get; init; }

    /// <summary>Findings of the plan that the issuer puts up with.</summary>
    public IReadOnlyList<string> Allowed { get; init; } = [];

    /// <summary>For this peer our agents read its door themselves, although there is a relay.</summary>
    public bool Direct { get; init; }

    public TokenState State { get; init; }

    /// <summary>SHA-256 of the public key of whoever began to join, in hexadecimal; null while unused.</summary>
    public string? BoundKey { get; init; }

    /// <summary>What that taker said about itself.</summary>
    public ClusterFacts? TakerFacts { get; init; }

    /// <summary>The private key of our future client certificate at that taker, PEM; null once it is written where it belongs.</summary>
    public string? OwnKey { get; init; }

    internal static string HashOf(string secret) => Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(secret)));

    internal bool Matches(string secret) => CryptographicOperations.FixedTimeEquals(
        Encoding.ASCII.GetBytes(SecretHash), Encoding.ASCII.GetBytes(HashOf(secret)));

    /// <summary>Somebody can still do something with it.</summary>
    internal bool IsUsable(DateTimeOffset now) => State != TokenState.Used && now < Expires;
}
