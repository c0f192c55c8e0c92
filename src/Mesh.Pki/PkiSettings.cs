using System.Text.Json.Serialization;

namespace Mesh.Pki;

/// <summary>What a pki directory was made with, and how far its rotation is: its file pki.json.</summary>
public sealed record PkiSettings
{
    public required string Cluster { get; init; }

    /// <summary>DNS names and addresses of the server, besides those that every API server has.</summary>
    public IReadOnlyList<string> ServerNames { get; init; } = [];

    public TimeSpan AuthorityLifetime { get; init; } = TimeSpan.FromDays(3 * 365);

    public TimeSpan LeafLifetime { get; init; } = TimeSpan.FromDays(365);

    public RotationStage Stage { get; init; }

    public DateTimeOffset StageSince { get; init; }

    internal void Validate()
    {
        if (Cluster.Length is 0 or > 32 || !Cluster.All(c => char.IsAsciiLetterLower(c) || char.IsAsciiDigit(c) || c == '-')
            || Cluster[0] == '-' || Cluster[^1] == '-')
            throw new PkiException($"'{Cluster}' is no cluster name: 1 to 32 of a-z, 0-9 and - are allowed, with no - at either end");
        if (AuthorityLifetime <= TimeSpan.Zero || LeafLifetime <= TimeSpan.Zero)
            throw new PkiException($"lifetimes of {AuthorityLifetime} (authority) and {LeafLifetime} (certificates): both must be above zero");
        _ = CertificateNames.Parse(ServerNames);
    }
}

/// <summary>How far an authority's replacement is.</summary>
public enum RotationStage
{
    /// <summary>One authority signs, and nothing else is under way.</summary>
    Settled,

    /// <summary>The next authority is in the trusted bundle and signs nothing yet.</summary>
    Announced,

    /// <summary>The next authority signs; the previous one is still trusted.</summary>
    Reissued,
}

/// <summary>An authority made elsewhere, to be taken over: PEM texts.</summary>
/// <param name="CertificatePem">The authority that signs; behind it, if it is below a root, the authorities between.</param>
/// <param name="BundlePem">What is to be trusted: the root.</param>
public sealed record PkiAuthorityFiles(string CertificatePem, string KeyPem, string BundlePem);

/// <summary>The last certificate that a peer got from us.</summary>
/// <param name="IssuerKeyId">Key of the authority that signed it.</param>
public sealed record PeerCertificate(string CommonName, string Serial, string IssuerKeyId, DateTimeOffset NotAfter, DateTimeOffset IssuedAt);

[JsonSourceGenerationOptions(WriteIndented = true, UseStringEnumConverter = true, PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase)]
[JsonSerializable(typeof(PkiSettings))]
[JsonSerializable(typeof(IReadOnlyList<PeerCertificate>))]
internal sealed partial class PkiJson : JsonSerializerContext;
